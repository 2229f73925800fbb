"""The loop, simulated: a policy that is trained on a judge serves people who think otherwise.

People are another table than the judge's: another preset, other noise, another model. Every request
comes from a random person; a policy chooses; the person's rating comes back. Policies are Bayesian
linear models of QoE for each provider, over (1, traits), with Thompson sampling. *Cold start*
begins with a wide prior around a common level; *model-trained* ones begin at the judge's regression
on the traits, and learn from feedback, which may tell them to forget the judge, or stay *frozen*.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

WIDE = 0.3  # prior standard deviation of coefficients where nothing is known
NARROW = 0.03  # and of how far people are from a judge that is right
BATCH = 50  # requests between two updates of the posterior


class Start(NamedTuple):
    """Where a policy begins; vmap over several. It has two hypotheses of what people think."""

    mean: jax.Array  # [2, L, d], coefficients of the priors
    spread: jax.Array  # [2], prior standard deviations
    learns: jax.Array  # [] bool, whether feedback changes it


class World(NamedTuple):
    """Who asks, and what they think."""

    features: jax.Array  # [K, d]: 1 and the traits, about unit size
    qoe: jax.Array  # [K, L], mean of a person's ratings of each provider
    noise: jax.Array  # [], standard deviation of one rating


def features(traits: jax.Array) -> jax.Array:
    """(1, traits) of personas on the 1-5 scale: [K, 5] -> [K, 6]."""
    return jnp.concatenate([jnp.ones((len(traits), 1)), (traits - 3) / 2], 1)


def judged(x: jax.Array, judge: jax.Array, penalty: float = 1e-3) -> jax.Array:
    """The judge's table [K, L] regressed on features [K, d]: coefficients [L, d]."""
    gram = x.T @ x / len(x) + penalty * jnp.eye(x.shape[1])
    return jnp.linalg.solve(gram, x.T @ judge / len(x)).T


def cold(providers: int, d: int, level: float = 0.5) -> Start:
    """Nothing is known but that QoE is about ``level``: both hypotheses are this one."""
    mean = jnp.zeros((2, providers, d)).at[:, :, 0].set(level)
    return Start(mean, jnp.full(2, WIDE), jnp.bool_(True))


def trained(coefficients: jax.Array, learns: bool, level: float = 0.5) -> Start:
    """People are as the judge's regression [L, d] says, or nothing is known of them.

    Ratings decide which (Bayesian model averaging: Hoeting et al. 1999, Statistical Science 14), so
    that a judge that is wrong is soon left alone.
    """
    unknown = jnp.zeros_like(coefficients).at[:, 0].set(level)
    return Start(jnp.stack([coefficients, unknown]), jnp.array([NARROW, WIDE]), jnp.bool_(learns))


@partial(jax.jit, static_argnames=("requests",))
def simulate(key: jax.Array, start: Start, world: World, requests: int) -> jax.Array:
    """Expected QoE of what was chosen, mean of each batch of requests: [requests / BATCH].

    vmap over keys and starts: all of them are one program. Ratings are the person's QoE plus normal
    noise, within [0, 1]. Each request draws a hypothesis by its posterior probability and
    coefficients from its posterior (Thompson sampling); a frozen policy takes the first prior's
    mean. The evidence takes the ratings of one batch as independent given those before it.
    """
    people, d = world.features.shape
    providers = world.qoe.shape[1]
    variance = world.noise**2
    precision = jnp.eye(d) / start.spread[:, None, None, None] ** 2  # [2, 1, d, d]
    precision = jnp.broadcast_to(precision, (2, providers, d, d))
    right = jnp.einsum("hlde,hle->hld", precision, start.mean)
    evidence = jnp.where(start.learns, jnp.zeros(2), jnp.array([0.0, -1e9]))

    def batch(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        precision, right, evidence = carry
        person_key, which_key, thompson_key, rating_key = jax.random.split(key, 4)
        person = jax.random.randint(person_key, (BATCH,), 0, people)
        x = world.features[person]
        covariance = jnp.linalg.inv(precision)
        mean = jnp.einsum("hlde,hle->hld", covariance, right)
        expected = jnp.einsum("bd,hld->hbl", x, mean)
        doubt = jnp.einsum("bd,hlde,be->hbl", x, covariance, x)
        # Scores of one request are independent over providers, so they are drawn themselves.
        normal = jax.random.normal(thompson_key, (BATCH, providers))
        which = jax.random.categorical(which_key, evidence, shape=(BATCH,))
        every = jnp.arange(BATCH)
        spread = jnp.sqrt(jnp.maximum(doubt, 0)) * start.learns
        action = (expected + spread * normal)[which, every].argmax(-1)
        truth = world.qoe[person, action]
        rating = (truth + world.noise * jax.random.normal(rating_key, (BATCH,))).clip(0, 1)
        error = rating - expected[:, every, action]  # [2, BATCH]
        total = variance + doubt[:, every, action]
        surprise = 0.5 * (error**2 / total + jnp.log(total)).sum(1)
        one = jax.nn.one_hot(action, providers) * start.learns
        precision = precision + jnp.einsum("bl,bd,be->lde", one, x, x) / variance
        right = right + jnp.einsum("bl,bd,b->ld", one, x, rating) / variance
        return (precision, right, evidence - start.learns * surprise), truth.mean()

    keys = jax.random.split(key, requests // BATCH)
    _, qoe = jax.lax.scan(batch, (precision, right, evidence), keys)
    return qoe
