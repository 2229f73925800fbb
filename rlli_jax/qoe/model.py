"""A model of QoE: any subset of a table's answers predicts every cell, with its uncertainty.

An answer of user k about the picture of provider l for request r is::

    y[k, r, l] = phi[k] . beta[r, l] + u[k, l] + v[k, r] + noise

- phi: 1, the five traits (z-scored by the pooled norms), their squares and products (as orthogonal
  polynomials of a normal), or 1 alone where traits are unknown;
- beta[r, l] = t[l] + d[r, l]: coefficients of the provider and what is peculiar to the request;
- u, v: what a user thinks of a provider, and of a request, beyond what the persona explains.

Every effect is normal with mean 0. For t, d and u the mean over the providers (``common``) and the
differences between them (``contrast``) have a variance each, for the groups of features (1, linear,
quadratic) apart: what matters to a choice is told from what does not. All variances and the
noise are estimated from the answers by the fixed point of the marginal likelihood of MacKay (1992),
"Bayesian Interpolation", Neural Computation 4(3): v = sum of squared posterior means / effective
number of parameters. Few answers do not tell how far an effect spreads, and the likeliest variance
is often 0, which is false certainty. So standard deviations are half-Cauchy a priori (Gelman 2006,
"Prior distributions for variance parameters in hierarchical models", Bayesian Analysis 1(3)); its
scale is what each effect has if all share the variance of the answers equally, and the mode is
taken over the logarithm. A group of features that many answers say nothing of still ends near 0,
as traits do where users are judges without personality, and is left out.

The noise of a user is drawn toward that of all as far as the users' differ by more than chance
(Smyth 2004, "Linear models and empirical Bayes methods", SAGMB 3(1)). A deviation that is peculiar
to one cell cannot be told from noise, and counts as noise.

Coefficients and users' own effects are each solved exactly, given the other, in turn (a mean-field
posterior, Bishop 2006, *Pattern Recognition and Machine Learning*, ch. 10): means are those of the
joint model, variances leave out how the two blocks hang together. All cells of a picture share the
design, so coefficients see the answers only through a Gram matrix a picture; requests are
conditionally independent given t. Both keep millions of cells within seconds. NumPy only: shapes
differ from study to study, and compiling for each would take longer than the linear algebra.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, ndtri, polygamma

from rlli_jax.errors import InputError
from rlli_jax.qoe.model_blocks import (
    SIZES,
    Variances,
    apply,
    coefficient_block,
    forms,
    grams,
    group_of,
    of_pictures,
    persona_features,
    prior,
    solve_coefficients,
    solve_users,
    totals,
    user_block,
    user_covariance,
    user_prior,
)

STEPS = 60  # of the fixed point, at most
SWEEPS = 30  # over coefficients and users with the variances fixed, at most
SETTLED = 1e-3  # relative change of variances, or of predictions over the noise, at which to stop
VANISHED = 1e-7  # of the variance of the answers: below it, an effect is 0
NEGLIGIBLE = 0.02  # of the noise variance: features that explain less are left out
VARIANCE_CELLS = 200_000  # cells at most from which variances are estimated
VARIANCE_WORK = 1e8  # cubed coefficients of a request, times requests: likewise
LEVEL = 1.0  # prior variance of the mean of all answers: vague beside [0, 1]
EQUAL = 1e-6  # variance below which answers count as equal: they do not tell their own scale
PSEUDO_SQUARE = 0.01  # then one that was 0.1 off is added, so that they do not mean certainty
CHUNK = 2_000_000  # numbers of a covariance held at once
FEWEST = 8  # answers


class Prediction(NamedTuple):
    """What is believed of n users: normal for each user and request, over its providers."""

    mean: np.ndarray  # [n, R, L], of what the user thinks, free of noise; not clipped
    covariance: np.ndarray  # [n, R, L, L]
    noise: np.ndarray  # [n], variance of an answer about what the user thinks

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of what the users think: [n, R, L]."""
        return np.sqrt(np.maximum(np.einsum("krll->krl", self.covariance), 0))

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Ends [n, R, L] between which an answer lies with this probability, within [0, 1]."""
        variance = np.einsum("krll->krl", self.covariance) + self.noise[:, None, None]
        reach = ndtri((1 + level) / 2) * np.sqrt(np.maximum(variance, 0))
        return np.clip(self.mean - reach, 0, 1), np.clip(self.mean + reach, 0, 1)


@dataclass(frozen=True, eq=False)
class QoEModel:
    """See the module's docstring. Made by :func:`fit_model`."""

    variances: Variances
    phi: np.ndarray  # [K, F] of the users it was fitted to; F = 1 where no trait matters
    answers: np.ndarray  # [K, R, L], NaN where there is none
    weight: np.ndarray  # [K, R, L], 1 / noise variance where there is an answer, else 0
    level: float  # mean of the answers, which was taken off before everything else
    gram: np.ndarray  # [R, L, F, F], sums of weighted phi phi'
    coefficients: np.ndarray  # [R, L, F], posterior mean
    provider_covariance: np.ndarray  # [M, M] of t, M = L x F, in the basis of ``_basis``
    own: np.ndarray  # [K, R, L], posterior mean of u + v
    user_noise: np.ndarray  # [K]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Users, requests, providers."""
        users, requests, providers = self.answers.shape
        return users, requests, providers

    def users(self) -> Prediction:
        """What is believed of the users it was fitted to."""
        mean = self.explained(self.phi) + self.own
        covariance = self.coefficient_covariance(self.phi)
        covariance += user_covariance(user_block(self.weight, self.variances))
        return Prediction(mean, covariance, self.user_noise)

    def people(self, phi: np.ndarray) -> Prediction:
        """What is believed of people who gave no answer, by their features [n, F]."""
        _, _, providers = self.shape
        mean = self.explained(phi)
        covariance = self.coefficient_covariance(phi)
        covariance += user_prior(self.variances, providers) + self.variances.user_request
        return Prediction(mean, covariance, np.full(len(phi), self.variances.noise))

    def own_variance(self) -> float:
        """Of what a person nobody asked thinks of a picture, beyond what the persona explains."""
        _, _, providers = self.shape
        shared = user_prior(self.variances, providers)[0, 0]  # the same for every provider
        return float(shared + self.variances.user_request)

    def picture_covariance(self) -> np.ndarray:
        """Of the coefficients of each picture: [R, L, F, F]."""
        _, _, providers = self.shape
        block = coefficient_block(self.gram, self.variances)
        moved = block.keep @ self.provider_covariance @ block.keep.swapaxes(1, 2)
        return of_pictures(block.covariance + moved, providers)

    def features(self, traits: np.ndarray | None, size: int) -> np.ndarray:
        """The features of other people, [n, F]."""
        return persona_features(traits, size)[:, : self.phi.shape[1]]

    def of(self, users: np.ndarray) -> QoEModel:
        """The same model of these of its users alone."""
        own = {
            n: getattr(self, n)[users] for n in ("phi", "answers", "weight", "own", "user_noise")
        }
        return replace(self, **own)

    def explained(self, phi: np.ndarray) -> np.ndarray:
        """What personas explain of people's QoE, by their features [n, F]: [n, R, L]."""
        return self.level + apply(phi, self.coefficients)

    def coefficient_covariance(self, phi: np.ndarray, *, average: bool = False) -> np.ndarray:
        """Of phi . beta over the providers of a request: [n, R, L, L].

        ``average``: of its mean over the requests, [n, 1, L, L].
        """
        _, requests, providers = self.shape
        size = providers * phi.shape[1]
        step = max(1, CHUNK // size**2)
        result = np.empty((len(phi), 1 if average else requests, providers, providers))
        given, keep = np.zeros((size, size)), np.zeros((size, size))
        for start in range(0, requests, step):
            chunk = slice(start, start + step)
            block = coefficient_block(self.gram[chunk], self.variances)
            if average:
                given += block.covariance.sum(0) / requests**2
                keep += block.keep.sum(0) / requests
            else:
                moved = block.keep @ self.provider_covariance @ block.keep.swapaxes(1, 2)
                result[:, chunk] = forms(phi, block.covariance + moved, providers)
        if average:
            result[:] = forms(
                phi, (given + keep @ self.provider_covariance @ keep.T)[None], providers
            )
        return result


def fit_model(answers: np.ndarray, traits: np.ndarray | None, *, seed: int = 0) -> QoEModel:
    """Fit the model to the answers that there are.

    Args:
        answers: QoE [K, R, L] in [0, 1], the mean of a cell's samples; NaN where there is none.
        traits: Big Five [K, 5] on the 1-5 scale; None where they are unknown.
        seed: of the draw of users and requests from which variances are estimated where there
            are very many.

    Raises:
        InputError: fewer than ``FEWEST`` answers.
    """
    answers = np.asarray(answers, np.float64)
    known = ~np.isnan(answers)
    count = int(known.sum())
    if count < FEWEST:
        raise InputError(
            f"model of QoE: {count} answers are too few to predict others from; give at least "
            f"{FEWEST}."
        )
    level = float(answers[known].mean())
    y = np.where(known, answers - level, 0)
    phi = persona_features(traits, len(answers))
    variances, freedom, phi = _chosen_features(y, known, phi, seed)
    sweep, noise = _Sweep(y, known, phi), np.full(len(y), variances.noise)
    for step in range(SWEEPS):
        if step < 3:
            sweep.weigh(variances, noise)
        before = sweep.residual
        sweep()
        if step < 2 and np.isfinite(freedom):
            _, numbers, _, own = sweep.parameters()
            free = _at_least_one(count - numbers.sum() - own.sum()) / count
            noise = _drawn_noise(sweep.residual, known, variances.noise, freedom, free)
        if step > 2 and np.abs(sweep.residual - before).max() < SETTLED * variances.noise**0.5:
            break
    return QoEModel(
        variances=variances,
        phi=phi,
        answers=answers,
        weight=sweep.weight,
        level=level,
        gram=sweep.gram,
        coefficients=sweep.coefficients,
        provider_covariance=sweep.found.covariance,
        own=sweep.own,
        user_noise=noise,
    )


def _chosen_features(
    y: np.ndarray, known: np.ndarray, phi: np.ndarray, seed: int
) -> tuple[Variances, float, np.ndarray]:
    """Variances, the freedom of users' noise, and the features that say something of answers.

    There must be more users than features, or coefficients are not told from users' own leanings.
    Large groups are tried last, since they allow fewer answers to be looked at.
    """
    asked = int(known.any((1, 2)).sum())

    def estimate(features: int) -> tuple[Variances, float, np.ndarray]:
        some = _subset(known, features, seed)
        users = some[0].ravel()
        return *_estimate(y[some], known[some], phi[users, :features]), phi[:, :features]

    kept = 1 if min(asked - 1, phi.shape[1]) < SIZES[1] else SIZES[1]
    found = estimate(kept)
    for group, size in enumerate(SIZES):
        if kept < size <= min(asked - 1, phi.shape[1]):
            larger = estimate(size)
            if _tells(larger[0], group):
                return larger
    if kept > 1 and not _tells(found[0], 1):
        found = estimate(1)
    return found


def _tells(variances: Variances, group: int) -> bool:
    """Whether a group of features explains more than next to nothing."""
    size = SIZES[group] - SIZES[group - 1]
    return bool(variances.effects[:, group].max() * size > NEGLIGIBLE * variances.noise)


def _subset(known: np.ndarray, features: int, seed: int) -> tuple[np.ndarray, ...]:
    """Users and requests to estimate variances from, as an open mesh: all if they are not many."""
    _, requests, providers = known.shape
    generator = np.random.default_rng(seed)
    work = (providers * features) ** 3
    some = min(requests, max(int(VARIANCE_WORK / work), 2))
    asked = np.flatnonzero(known.any((0, 2)))
    chosen = np.sort(generator.permutation(asked)[:some])
    those = np.flatnonzero(known[:, chosen].any((1, 2)))
    most = max(VARIANCE_CELLS // (len(chosen) * providers), 2)
    return np.ix_(np.sort(generator.permutation(those)[:most]), chosen)


class _Sweep:
    """Coefficients and users' own effects, solved in turn."""

    def __init__(self, y: np.ndarray, known: np.ndarray, phi: np.ndarray) -> None:
        self.y, self.known, self.phi = y, known, phi
        self.own = np.zeros_like(y)
        self.residual = y

    def weigh(self, variances: Variances, noise: np.ndarray) -> None:
        """Take these variances, and these of users' noise [K]."""
        self.variances = variances
        self.weight = self.known / noise[:, None, None]
        self.gram = grams(self.phi, self.weight)
        self.pictures = coefficient_block(self.gram, variances)
        self.users = user_block(self.weight, variances)

    def __call__(self) -> None:
        """Both once."""
        providers = self.y.shape[-1]
        sums = totals(self.phi, self.weight * (self.y - self.own))
        self.found = solve_coefficients(self.pictures, sums, self.variances)
        self.coefficients = self.found.by_picture(providers)
        rest = np.where(self.known, self.y - apply(self.phi, self.coefficients), 0)
        self.u, self.v = solve_users(self.users, rest)
        self.own = self.u[:, None] + self.v[..., None]
        self.residual = np.where(self.known, rest - self.own, 0)

    def parameters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sums of squares and effective numbers of parameters: [4, 3] and [3] of each."""
        providers, features = self.y.shape[-1], self.phi.shape[1]
        root = np.sqrt(prior(self.variances, providers, features)[1])
        lever = self.pictures.free @ (root[:, None] * self.pictures.information)
        of_t = np.einsum("rab,rab->ra", lever @ self.found.covariance, lever)
        of_d = 1 - np.einsum("raa->ra", self.pictures.free) - of_t
        squares, numbers = np.zeros((4, 3)), np.zeros((4, 3))
        group = group_of(features)
        for row, (square, number) in enumerate(
            (
                (self.found.t**2, 1 - np.diag(self.found.free)),
                ((self.found.d**2).sum(0), of_d.sum(0)),
            )
        ):
            for direction, part in enumerate((slice(0, 1), slice(1, None))):
                for values, into in ((square, squares), (number, numbers)):
                    by_feature = values.reshape(providers, features)[part].sum(0)
                    into[2 * row + direction] = np.bincount(group, by_feature, 3)
        free, covariance, shared = self.users.free, self.users.covariance, self.users.shared
        common = 1 - free.sum((1, 2)) / providers
        both = providers - np.einsum("kll->k", free)
        level = (self.u.sum(1) ** 2).sum() / providers
        taken = shared[..., None] * self.weight
        left = shared + np.einsum("krl,klm,krm->kr", taken, covariance, taken, optimize=True)
        request = self.variances.user_request
        asked = np.sum(1 - left / request) if request else 0.0
        return (
            squares,
            numbers,
            np.array([level, (self.u**2).sum() - level, (self.v**2).sum()]),
            np.array([common.sum(), (both - common).sum(), asked]),
        )


def _estimate(y: np.ndarray, known: np.ndarray, phi: np.ndarray) -> tuple[Variances, float]:
    """Variances that make the answers likeliest, and the degrees of freedom of users' noise."""
    count = int(known.sum())
    total = float(y[known].var())
    pseudo = total / 2 if total > EQUAL else PSEUDO_SQUARE  # of one answer more
    total = max(total, pseudo / count)
    groups = group_of(phi.shape[1])[-1] + 1
    effects = np.zeros((4, 3))
    part = total / (4 * groups + 3)
    effects[:, :groups] = part / np.diff(SIZES, prepend=0)[:groups]
    typical, typical_own = effects.copy(), np.full(3, part)
    effects[0, 0] = LEVEL
    variances = Variances(effects, part, part, part, total / 4)
    freedom, noise = np.inf, np.full(len(y), variances.noise)
    sweep = _Sweep(y, known, phi)
    for _ in range(STEPS):
        sweep.weigh(variances, noise)
        sweep()
        squares, numbers, user_squares, user_numbers = sweep.parameters()
        rest = _at_least_one(count - numbers.sum() - user_numbers.sum())
        level_noise = float((np.sum(sweep.residual**2) + pseudo) / rest)
        effects = _step(variances.effects, squares, numbers, typical, total)
        effects[0, 0] = LEVEL
        own = _step(
            np.array([variances.user_common, variances.user_contrast, variances.user_request]),
            user_squares,
            user_numbers,
            typical_own,
            total,
        )
        common, contrast, request = own.tolist()
        new = Variances(effects, common, contrast, request, level_noise)
        freedom, noise = _user_noise(sweep.residual, known, rest / count, level_noise)
        change = np.abs(new.numbers - variances.numbers)
        variances = new
        if change.max() < SETTLED * total:
            break
    return variances, freedom


def _at_least_one(freedom: float) -> float:
    return max(float(freedom), 1.0)


def _step(
    variance: np.ndarray,
    squares: np.ndarray,
    numbers: np.ndarray,
    typical: np.ndarray,
    total: float,
) -> np.ndarray:
    """The next variances; 0 where what is left is negligible.

    ``typical``: squared scales of the half-Cauchy priors of standard deviations, 0 where there is
    no effect. Near the fixed point a step goes half as far again, because small ones are slow.
    """
    wide = np.divide(variance, variance + typical, out=np.zeros_like(variance), where=typical > 0)
    squares, numbers = squares + variance * (1 - wide), numbers + wide
    wanted = np.divide(squares, numbers, out=np.zeros_like(squares), where=numbers > 1e-12)
    ratio = np.divide(wanted, variance, out=np.zeros_like(wanted), where=variance > 0)
    new = variance * np.where(np.abs(ratio - 1) < 0.5, np.sqrt(ratio), 1) * ratio
    return np.asarray(np.where(new > VANISHED * total, new, 0))


def _user_noise(
    residual: np.ndarray, known: np.ndarray, share: float, common: float
) -> tuple[float, np.ndarray]:
    """Degrees of freedom of the common noise variance, and each user's own, drawn toward it [K].

    ``share`` of a user's answers are degrees of freedom. The freedom of the common variance is
    the one at which the logarithms of users' variances spread as they do (Smyth 2004, sec. 6.2).
    """
    answers = known.sum((1, 2))
    freedom = share * answers
    squares = (residual**2).sum((1, 2))
    some = freedom >= 2
    if some.sum() < 3 or not (squares[some] > 0).all():
        return np.inf, np.full(len(known), common)
    spread = np.log(squares[some] / freedom[some]) - digamma(freedom[some] / 2)
    spread += np.log(freedom[some] / 2)
    excess = float(np.var(spread, ddof=1) - polygamma(1, freedom[some] / 2).mean())
    if excess <= 0:
        return np.inf, np.full(len(known), common)
    prior_freedom = 2 * _inverse_trigamma(excess)
    return prior_freedom, _drawn_noise(residual, known, common, prior_freedom, share)


def _drawn_noise(
    residual: np.ndarray, known: np.ndarray, common: float, freedom: float, share: float
) -> np.ndarray:
    """Each user's noise variance, drawn toward the common one: [K]."""
    own = share * known.sum((1, 2))
    return np.asarray((freedom * common + (residual**2).sum((1, 2))) / (freedom + own))


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value: Newton's steps on its reciprocal (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        first = float(polygamma(1, x))
        step = first * (1 - first / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x
