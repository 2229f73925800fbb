"""Which questions to ask next, and what the choices made now are likely to lose.

A *choice* is the provider that a user gets for all requests (``user``), for each request
(``user request``), or that all users get for a request (``request``). The model believes the QoE
of a choice's providers to be normal with mean m: let a be the provider that looks best and b
another, d = m_a - m_b and s the standard deviation of that difference. Choosing a instead of b
loses on average::

    s * pdf(d / s) - d * cdf(-d / s),   which a smaller variance s² lowers by pdf(d / s) / (2 s)

(the expected value of information of Frazier et al. 2008, "A Knowledge-Gradient Policy", SIAM J.
Control Optim. 47(5), to first order). ``decision`` asks the questions that lower the sum of it over
all choices and rivals b most: answers are worth something where a choice is in doubt and where they
move it, also through other users' choices, since users share coefficients (transductive linear
bandits: Fiez et al. 2019, NeurIPS). ``variance`` asks where predictions are least sure, ``random``
anywhere.

A judge sees a picture once for all personas of a batch, so questions of a batch come in bundles of
many personas of one picture. Within a picture each question takes account of those before it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from rlli_jax.qoe.model import QoEModel
from rlli_jax.qoe.model_blocks import (
    UserBlock,
    basis,
    coefficient_block,
    of_pictures,
    times,
    user_block,
    user_covariance,
)

Strategy = Literal["random", "variance", "decision"]
Choice = Literal["user", "user request", "request"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DEPTH = 4  # bundles of one picture in a batch, at most
CONTENDERS = 256  # users of a picture that are looked at for a bundle, at least
CELLS = 200_000  # of users drawn at random, that are looked at for a batch
DRAWS = 256  # of what users truly think, for the expected regret
UNITS = 4_000  # choices for which it is computed, at most
TINY = 1e-14  # variance below which nothing is in doubt


class Belief(NamedTuple):
    """What is believed of n choices: normal, over the providers."""

    mean: np.ndarray  # [n, L]
    covariance: np.ndarray  # [n, L, L]


class Expected(NamedTuple):
    """What choices by the present belief lose, QoE, mean over the choices."""

    regret: float
    standard_error: float  # of its computation by random draws


def belief(model: QoEModel, choice: Choice) -> Belief:
    """What the model believes of the choices: [K], [K x R] or [R] of them."""
    _, _, providers = model.shape
    if choice == "user request":
        users = model.users()
        return Belief(
            users.mean.reshape(-1, providers), users.covariance.reshape(-1, providers, providers)
        )
    if choice == "request":
        average = model.phi.mean(0, keepdims=True)
        return Belief(model.explained(average)[0], model.coefficient_covariance(average)[0])
    mean = (model.explained(model.phi) + model.own).mean(1)
    own = user_block(model.weight, model.variances).covariance  # what is common does not matter
    return Belief(mean, model.coefficient_covariance(model.phi, average=True)[:, 0] + own)


def expected_regret(believed: Belief, *, seed: int = 0) -> Expected:
    """What choosing each provider with the highest mean loses against knowing the best.

    Over normal draws of what is true; of more than ``UNITS`` choices over a random sample.
    """
    generator = np.random.default_rng(seed)
    count, providers = believed.mean.shape
    some = generator.permutation(count)[:UNITS]
    mean = believed.mean[some]
    values, vectors = np.linalg.eigh(believed.covariance[some])
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None]
    chosen = mean.argmax(-1)[:, None]
    losses = np.zeros(DRAWS)
    for draw in range(0, DRAWS, 2):
        deviation = (root @ generator.standard_normal((len(some), providers, 1)))[..., 0]
        for place, sign in enumerate((1, -1)):  # antithetic
            truth = mean + sign * deviation
            best = truth.max(-1)
            losses[draw + place] = (best - np.take_along_axis(truth, chosen, 1)[:, 0]).mean()
    pairs = losses.reshape(-1, 2).mean(1)
    return Expected(float(losses.mean()), float(pairs.std(ddof=1) / np.sqrt(len(pairs))))


def first_questions(unasked: np.ndarray, number: int, strategy: Strategy, seed: int) -> np.ndarray:
    """Which to ask before anything is known: places in the flattened cells, [<= number].

    ``random`` draws them; the other strategies ask equally many of each picture, of users drawn at
    random. (Users who differ as much as possible make a worse start: their answers, at the ends
    of the scale, say little of how far effects spread.)

    Args:
        unasked: bool [K, R, L], the cells that can be asked.
        number: of questions wanted.
        strategy: see the module.
        seed: of random draws.
    """
    if strategy == "random":
        return _random(unasked, number, seed)
    pictures = unasked.reshape(len(unasked), -1)
    order = np.where(pictures, np.random.default_rng(seed).random(pictures.shape), 2)
    rank = order.argsort(0).argsort(0)  # the first of each picture come first
    places = np.argsort(np.where(pictures, rank, len(pictures)), axis=None, kind="stable")
    return _by_picture(places[: min(number, int(unasked.sum()))], pictures.shape[1])


def next_questions(
    model: QoEModel,
    unasked: np.ndarray,
    number: int,
    strategy: Strategy,
    choice: Choice = "user",
    seed: int = 0,
) -> np.ndarray:
    """Which to ask next: places in the flattened cells [<= number], those of a picture together.

    Args:
        model: of the answers that there are.
        unasked: bool [K, R, L], the cells that can be asked.
        number: of questions wanted; fewer come if fewer can be asked.
        strategy: see the module.
        choice: what ``decision`` is to decide.
        seed: of random draws.
    """
    if strategy == "random":
        return _random(unasked, number, seed)
    some = _looked_at(unasked, seed)
    if len(some) < len(unasked):
        places = next_questions(model.of(some), unasked[some], number, strategy, choice, seed)
        user, picture = np.divmod(places, unasked[0].size)
        return some[user] * unasked[0].size + picture
    users, _, _ = model.shape
    pictures = unasked.reshape(users, -1).T
    own = user_block(model.weight, model.variances)
    own_variance = np.einsum("krll->krl", user_covariance(own)).reshape(users, -1).T
    noise = model.user_noise[None] + own_variance
    coefficients = _Posterior.of(model)
    variance, moved, at_stake = coefficients.pictures(coefficients.covariance), None, own_variance
    if strategy == "decision":
        doubt = _doubt(belief(model, choice))
        providers = doubt.shape[-1]
        if choice == "request":
            phi, doubt = model.phi.mean(0, keepdims=True), doubt[None]
            at_stake = np.zeros_like(own_variance)
        else:
            phi, doubt = model.phi, doubt.reshape(users, -1, providers, providers)
            at_stake = _own_gain(own, doubt.sum(1)).reshape(users, -1).T
        moved = coefficients.pictures(coefficients.moved(phi, doubt, choice))
    bundle = -(-number // len(pictures))
    sequence = _greedy(model.phi, pictures, variance, moved, at_stake, noise, DEPTH * bundle)
    return _taken(sequence, number, bundle)


class _Posterior(NamedTuple):
    """Posterior of the coefficients, rotated basis: of request r, given t and as it is."""

    given: np.ndarray  # [R, M, M] of d, given t
    keep: np.ndarray  # [R, M, M], how beta follows t
    provider: np.ndarray  # [M, M], of t
    covariance: np.ndarray  # [R, M, M]
    providers: int

    @classmethod
    def of(cls, model: QoEModel) -> _Posterior:
        block, provider = coefficient_block(model.gram, model.variances), model.provider_covariance
        covariance = block.covariance + block.keep @ provider @ block.keep.swapaxes(1, 2)
        return cls(block.covariance, block.keep, provider, covariance, model.shape[2])

    def pictures(self, matrices: np.ndarray) -> np.ndarray:
        """The blocks of the pictures, of matrices [R, M, M]: [R x L, F, F]."""
        blocks = of_pictures(matrices, self.providers)
        return blocks.reshape(-1, *blocks.shape[2:])

    def moved(self, phi: np.ndarray, doubt: np.ndarray, choice: Choice) -> np.ndarray:
        """V Q V [R, M, M], Q the sum of doubt x phi phi' over the choices, V all covariances.

        phi [U, F] and doubt [U, 1 or R, L, L] are those of the choices.
        """
        turn = basis(self.providers)
        turned = turn @ doubt @ turn.T
        count, requests, providers, _ = turned.shape
        pairs = (phi[:, :, None] * phi[:, None]).reshape(count, -1)
        sums = turned.reshape(count, -1).T @ pairs
        features = phi.shape[1]
        stake = sums.reshape(requests, providers, providers, features, features)
        stake = stake.swapaxes(2, 3).reshape(requests, providers * features, -1)
        if choice == "user":  # of the mean over the requests
            with_mean = self.given / len(self.keep) + self.keep @ (
                self.provider @ self.keep.mean(0).T
            )
            return np.asarray(with_mean @ stake @ with_mean.swapaxes(1, 2))
        through = self.keep.swapaxes(1, 2) @ stake @ self.keep  # what t moves, by request
        others = self.keep @ self.provider
        return np.asarray(
            self.covariance @ stake @ self.covariance
            + others @ (through.sum(0) - through) @ others.swapaxes(1, 2)
        )


def _doubt(believed: Belief) -> np.ndarray:
    """How much each variance raises the expected loss of each choice: [n, L, L].

    A weight for each rival, times the outer product of (best - rival).
    """
    count, providers = believed.mean.shape
    rows, best = np.arange(count), believed.mean.argmax(-1)
    identity = np.eye(providers)
    contrast = identity[best][:, None] - identity  # [n, rival, L]
    gap = believed.mean[rows, best][:, None] - believed.mean
    variance = np.einsum("nbl,nlm,nbm->nb", contrast, believed.covariance, contrast, optimize=True)
    spread = np.sqrt(np.maximum(variance, TINY))
    weight = np.where(
        variance > TINY, np.exp(-0.5 * (gap / spread) ** 2) / (np.sqrt(8 * np.pi) * spread), 0
    )
    return np.einsum("nb,nbl,nbm->nlm", weight, contrast, contrast, optimize=True)


def _own_gain(block: UserBlock, doubt: np.ndarray) -> np.ndarray:
    """What an answer does for a user's choices [K, L, L] through the user's own u: [K, R, L]."""
    taken = block.shared[..., None] * block.weight
    moved = np.einsum("klm,krm->krl", block.covariance, taken)
    # [K, R, cell's provider, L]: how u goes with an answer
    along = block.covariance[:, None] - moved[:, :, None]
    return np.asarray(np.einsum("krla,kab,krlb->krl", along, doubt, along, optimize=True))


class _Sequence(NamedTuple):
    """For each picture, users in the order of asking, and what each question gains."""

    users: np.ndarray  # [P, depth]
    gains: np.ndarray  # [P, depth], -inf where nobody is left


def _greedy(
    phi: np.ndarray,
    pool: np.ndarray,
    variance: np.ndarray,
    moved: np.ndarray | None,
    at_stake: np.ndarray,
    noise: np.ndarray,
    depth: int,
) -> _Sequence:
    """Users for each picture, one after another, each the one who gains most then.

    Args:
        phi: [K, F].
        pool: [P, K], who can be asked.
        variance: [P, F, F], posterior covariance of the picture's coefficients.
        moved: [P, F, F], V Q V of the picture; None: the predictive variance is the gain.
        at_stake: [P, K], what the user's own effects gain.
        noise: [P, K], all variance of an answer beside that of the coefficients.
        depth: questions a picture.
    """
    depth = min(depth, pool.shape[1])

    def forms(matrices: np.ndarray) -> np.ndarray:
        first, second = np.triu_indices(phi.shape[1])
        symmetric = (matrices + matrices.swapaxes(1, 2))[:, first, second] / 2
        pairs = phi[:, first] * phi[:, second] * np.where(first == second, 1, 2)
        return np.asarray(symmetric @ pairs.T)  # [P, K]

    spread = forms(variance)
    value = (spread if moved is None else forms(moved)) + at_stake

    def gains() -> np.ndarray:
        gain = value if moved is None else value / (spread + noise)
        return np.where(pool, gain, -np.inf)

    most = min(max(CONTENDERS, DEPTH * depth), pool.shape[1])
    if most < pool.shape[1]:
        who = np.argpartition(-gains(), most - 1, axis=1)[:, :most]
        pool, spread, value, noise = (
            np.take_along_axis(x, who, 1) for x in (pool, spread, value, noise)
        )
    else:
        who = np.tile(np.arange(pool.shape[1]), (len(pool), 1))
    variance, moved = variance.copy(), None if moved is None else moved.copy()
    candidates = phi[who]  # [P, C, F]
    pool, rows = pool.copy(), np.arange(len(pool))
    users, found = np.zeros((len(pool), depth), np.intp), np.zeros((len(pool), depth))
    for place in range(depth):
        gain = gains()
        best = gain.argmax(1)
        users[:, place], found[:, place] = who[rows, best], gain[rows, best]
        pool[rows, best] = False
        x, scale = candidates[rows, best], (spread + noise)[rows, best][:, None]
        along = times(variance, x)
        ahead = times(candidates, along)
        if moved is None:
            value = value - ahead**2 / scale
        else:
            aside = times(moved, x)
            squared = np.einsum("pf,pf->p", x, aside)[:, None]
            value = value - 2 * ahead * times(candidates, aside) / scale
            value = value + squared * (ahead / scale) ** 2
            cross = aside[:, :, None] * along[:, None] / scale[..., None]
            outer = along[:, :, None] * along[:, None]
            moved = moved - cross - cross.swapaxes(1, 2)
            moved = moved + squared[..., None] * outer / scale[..., None] ** 2
        spread = spread - ahead**2 / scale
        variance = variance - along[:, :, None] * along[:, None] / scale[..., None]
    return _Sequence(users, found)


def _taken(sequence: _Sequence, number: int, bundle: int) -> np.ndarray:
    """Places [<= number] of the bundles that gain most, those of a picture after one another."""
    pictures, depth = sequence.users.shape
    gains = np.minimum.accumulate(sequence.gains, 1)
    starts = np.arange(0, depth, bundle)
    known = np.where(np.isfinite(gains), gains, 0)
    sums = np.add.reduceat(known, starts, axis=1)
    order = np.argsort(-np.minimum.accumulate(sums, 1), axis=None, kind="stable")
    places: list[int] = []
    for picture, part in zip(*np.unravel_index(order, sums.shape), strict=True):
        span = slice(part * bundle, (part + 1) * bundle)
        there = np.isfinite(sequence.gains[picture, span])
        places += (sequence.users[picture, span][there] * pictures + picture).tolist()
        if len(places) >= number:
            break
    chosen = np.array(places[:number], np.intp)
    return _by_picture(chosen, pictures)


def _looked_at(unasked: np.ndarray, seed: int) -> np.ndarray:
    """Users who can be asked something: all, or so many that ``CELLS`` are looked at."""
    users = np.flatnonzero(unasked.any((1, 2)))
    most = max(CELLS // unasked[0].size, 1)
    if len(unasked) <= most or not len(users):
        return np.arange(len(unasked))
    return np.sort(np.random.default_rng(seed).permutation(users)[:most])


def _random(unasked: np.ndarray, number: int, seed: int) -> np.ndarray:
    places = np.random.default_rng(seed).permutation(np.flatnonzero(unasked))[:number]
    return _by_picture(places, unasked[0].size)


def _by_picture(places: np.ndarray, pictures: int) -> np.ndarray:
    return np.asarray(places[np.argsort(places % pictures, kind="stable")])
