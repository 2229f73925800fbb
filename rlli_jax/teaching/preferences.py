"""Policies from preferences between pictures, and how far a reward model can be trusted (RLHF).

A rater compares two providers' pictures for a user and a request (Bradley and Terry 1952;
Christiano et al. 2017, arXiv 1706.03741), a reward model is fitted to the answers, and a policy is
optimised against it, away from a reference policy. The reward model is the *proxy*, the table of
QoE *gold*: since users, requests and providers are finite, the expectation of both under a policy
and its divergence from the reference are exact at every point of an optimisation, as in the curves
of over-optimisation of Gao et al. 2022 (arXiv 2210.10760). One run takes a fraction of a second;
``vmap`` takes hundreds.

C contexts (user x request), A providers, Q = A (A - 1) / 2 unordered pairs, F features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from rlli_jax.envs.contract import Key
from rlli_jax.learners.networks import ILLEGAL
from rlli_jax.teaching.tuning import clipped_loss, kl_to

NEWTON_STEPS = 20
CLIP = 0.2  # PPO's


class World(NamedTuple):
    """What all runs share."""

    gold: jax.Array  # [C, A] float32, QoE; 0 where not legal
    legal: jax.Array  # [C, A] bool
    features: jax.Array  # [C, A, F] float32, persona x picture
    reference: jax.Array  # [C, A] float32, log-probabilities of the policy that is left


class Comparisons(NamedTuple):
    """How often which picture was preferred; all that a reward model needs."""

    wins: jax.Array  # [C, Q] float32, of the first of each pair; a tie is half a win
    total: jax.Array  # [C, Q] float32
    ties: jax.Array  # [] float32, share of the comparisons that nobody won


@struct.dataclass
class Rater:
    """Who compares; each number may be traced."""

    noise: jax.Array  # [] float32, QoE by which the odds rise by e: temperature of the choice
    bias: jax.Array  # [] float32, QoE by which the picture shown first seems better


class Path(NamedTuple):
    """Points of an optimisation, from the reference on; each [points] float32."""

    kl: jax.Array  # nats, mean over contexts
    gold: jax.Array  # expected QoE
    proxy: jax.Array  # expected reward by the reward model, in QoE


def pairs_of(providers: int) -> np.ndarray:
    """Every unordered pair of providers, [Q, 2]."""
    return np.stack(np.triu_indices(providers, 1), 1)


def reference_policy(gold: jax.Array, legal: jax.Array, temperature: float) -> jax.Array:
    """Log-probabilities [C, A]: providers by the mean of what they are worth to all, whoever asks.

    A softmax at ``temperature``, in QoE; it stands for a model before it is tuned.
    """
    mean = (gold * legal).sum(0) / jnp.maximum(legal.sum(0), 1)
    return jax.nn.log_softmax(jnp.where(legal, mean / temperature, ILLEGAL))


def compare(key: Key, world: World, rater: Rater, count: jax.Array, most: int) -> Comparisons:
    """``count`` of at most ``most`` pairs, drawn from the reference policy, rated in both orders.

    The rater prefers the first with probability sigmoid((gap + bias) / noise); where the two orders
    disagree it is a tie.
    """
    key_pair, key_rate = jax.random.split(key)
    first, second = pairs_of(world.gold.shape[1]).T
    p = jnp.where(world.legal, jnp.exp(world.reference), 0.0)
    left = jnp.maximum(1 - p, 1e-6)
    # Two providers without replacement, in either order.
    likely = p[:, first] * p[:, second] * (1 / left[:, first] + 1 / left[:, second])
    edges = jnp.cumsum(likely.ravel())
    place = jnp.searchsorted(edges, jax.random.uniform(key_pair, (most,)) * edges[-1])
    place = jnp.minimum(place, edges.size - 1)
    gap = (world.gold[:, first] - world.gold[:, second]).ravel()[place]
    orders = (gap[:, None] + rater.bias * jnp.array([1.0, -1.0])) / rater.noise
    won = (jax.random.uniform(key_rate, orders.shape) < jax.nn.sigmoid(orders)).mean(-1)
    shape = likely.shape[0], likely.shape[1]
    return tallied(place, won, jnp.arange(most) < count, shape)


def resampled(
    key: Key, place: jax.Array, won: jax.Array, count: jax.Array, shape: tuple[int, int]
) -> Comparisons:
    """``count`` of the given comparisons, drawn with replacement: as a bootstrap, so that draws
    differ as other comparisons of the same raters would.

    place: int32 [P], number of the context and pair (context x Q + pair); won: [P], 1 if the first
    of the pair was preferred, 0.5 for a tie.
    """
    drawn = jax.random.randint(key, place.shape, 0, place.size)
    return tallied(place[drawn], won[drawn], jnp.arange(place.size) < count, shape)


def tallied(
    place: jax.Array, won: jax.Array, counts: jax.Array, shape: tuple[int, int]
) -> Comparisons:
    """Sums over comparisons [P] by context and pair."""
    size = shape[0] * shape[1]

    def sums(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(x, place, size).reshape(shape)

    ties = ((won == 0.5) & counts).sum() / jnp.maximum(counts.sum(), 1)
    return Comparisons(sums(won * counts), sums(counts.astype(jnp.float32)), ties)


def differences(features: jax.Array) -> jax.Array:
    """What the pictures of each pair differ in: [C, A, F] -> [C x Q, F]."""
    first, second = pairs_of(features.shape[1]).T
    gaps = features[:, first] - features[:, second]
    return gaps.reshape(-1, features.shape[-1])


def bradley_terry(
    features: jax.Array, found: Comparisons, ridge: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Reward model of the form features . w, by maximum likelihood with a ridge, and the norm of
    the gradient that is left.

    P(first is preferred) = sigmoid(difference of rewards); Newton's method. Rewards are in units of
    the rater's noise. -> w [F], []
    """
    rows, wins, total = differences(features), found.wins.ravel(), found.total.ravel()

    def slope(w: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = jax.nn.sigmoid(rows @ w)
        return (wins - total * p) @ rows - ridge * w, total * p * (1 - p)

    def newton(_: int, w: jax.Array) -> jax.Array:
        gradient, weight = slope(w)
        hessian = (rows * weight[:, None]).T @ rows + ridge * jnp.eye(w.size)
        step = jax.scipy.linalg.solve(hessian, gradient, assume_a="pos")
        # Where answers are few a full step may overshoot; no logit need move by more than 4.
        reach = jnp.abs(rows @ step).max()
        return w + step * jnp.minimum(1, 4 / jnp.maximum(reach, 1e-9))

    w = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros(features.shape[-1]))
    return w, jnp.linalg.norm(slope(w)[0])


def regularised(world: World, reward: jax.Array, beta: jax.Array) -> jax.Array:
    """The best policy for E[reward] - beta KL(policy || reference), exact: log-probabilities of
    reference x exp(reward / beta), [C, A]."""
    return jax.nn.log_softmax(jnp.where(world.legal, world.reference + reward / beta, ILLEGAL))


def _point(world: World, reward: jax.Array, log_policy: jax.Array) -> Path:
    p = jnp.exp(log_policy)
    return Path(
        kl_to(world.reference, log_policy).mean(),
        (p * world.gold).sum(-1).mean(),
        (p * jnp.where(world.legal, reward, 0)).sum(-1).mean(),
    )


def exact_path(world: World, reward: jax.Array, betas: jax.Array) -> Path:
    """The best policies for each ``beta`` [points], in QoE a nat."""
    return jax.vmap(lambda beta: _point(world, reward, regularised(world, reward, beta)))(betas)


def ppo_path(
    world: World, reward: jax.Array, iterations: int, learning_rate: float, kl: float = 0.0
) -> Path:
    """PPO in expectation on a softmax for every context, after each iteration.

    The clipped objective (Schulman et al. 2017, Eq. 7) is summed over all answers in place of drawn
    ones, so that nothing but the reward model is noisy; four gradient steps of Adam an iteration.
    ``kl`` weighs the divergence from the reference; with 0, where it is stopped bounds it.
    """
    optimizer = optax.adam(learning_rate)
    reward = jnp.where(world.legal, reward, 0)

    def log_policy(logits: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.where(world.legal, logits, ILLEGAL))

    def iteration(carry: tuple, _: None) -> tuple[tuple, Path]:
        logits, state = carry
        old = log_policy(logits)
        p = jnp.exp(old)
        advantage = reward - (p * reward).sum(-1, keepdims=True)
        advantage /= jnp.sqrt((p * advantage**2).sum(-1).mean()) + 1e-8

        def loss(logits: jax.Array) -> jax.Array:
            new = log_policy(logits)
            clipped = (p * clipped_loss(new, old, advantage, CLIP)).sum()
            return clipped + kl * kl_to(world.reference, new).sum()

        def update(carry: tuple, _: None) -> tuple[tuple, None]:
            logits, state = carry
            updates, state = optimizer.update(jax.grad(loss)(logits), state)
            return (optax.apply_updates(logits, updates), state), None

        (logits, state), _ = jax.lax.scan(update, (logits, state), None, 4)
        return (logits, state), _point(world, reward, log_policy(logits))

    start = jnp.where(world.legal, world.reference, 0.0)
    return jax.lax.scan(iteration, (start, optimizer.init(start)), None, iterations)[1]


def dpo_path(
    world: World,
    features: jax.Array,
    found: Comparisons,
    reward: jax.Array,
    beta: float,
    iterations: int,
    learning_rate: float,
) -> Path:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7), after each
    gradient step on all comparisons.

    The policy is reference x exp(features . w): what beta x its log-ratio to the reference can be
    is what the reward model can be, and without a ridge both have the same optimum.
    ``reward`` only tells the proxy at each point.
    """
    optimizer, rows = optax.adam(learning_rate), differences(features)
    wins, total = found.wins.ravel(), found.total.ravel()
    many = jnp.maximum(total.sum(), 1)

    def loss(w: jax.Array) -> jax.Array:
        margin = beta * (rows @ w)
        lost = wins * jax.nn.softplus(-margin) + (total - wins) * jax.nn.softplus(margin)
        return lost.sum() / many

    def update(carry: tuple, _: None) -> tuple[tuple, Path]:
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state)
        w = optax.apply_updates(w, updates)
        return (w, state), _point(world, reward, regularised(world, features @ w, jnp.float32(1)))

    w = jnp.zeros(features.shape[-1])
    return jax.lax.scan(update, (w, optimizer.init(w)), None, iterations)[1]


class Setting(NamedTuple):
    """What a run is about; each number traced."""

    pairs: jax.Array  # [] int32, how many are compared
    rater: Rater
    mask: jax.Array  # [F] float32, the features that the reward model has


class Found(NamedTuple):
    """What a run finds."""

    exact: Path
    ppo: Path
    dpo: Path
    ties: jax.Array  # [] float32, as of Comparisons
    gradient: jax.Array  # [] float32, norm left when the reward model was fitted


class Methods(NamedTuple):
    """How policies are optimised; static."""

    betas: tuple[float, ...]  # of the exact path, in QoE a nat, falling
    iterations: int
    ppo_learning_rate: float
    ppo_kl: float
    dpo_beta: float
    dpo_learning_rate: float
    ridge: float


Ask = Callable[[Key, Setting], Comparisons]


def run(key: Key, setting: Setting, world: World, ask: Ask, methods: Methods) -> Found:
    """One rater, one reward model, three ways to a policy."""
    found = ask(key, setting)
    features = world.features * setting.mask
    w, gradient = bradley_terry(features, found, methods.ridge)
    reward = setting.rater.noise * (features @ w)
    return Found(
        exact=exact_path(world, reward, jnp.asarray(methods.betas)),
        ppo=ppo_path(
            world, reward, methods.iterations, methods.ppo_learning_rate, methods.ppo_kl
        ),
        dpo=dpo_path(
            world, features, found, reward, methods.dpo_beta, methods.iterations,
            methods.dpo_learning_rate,
        ),
        ties=found.ties,
        gradient=gradient,
    )  # fmt: skip
