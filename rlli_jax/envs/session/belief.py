"""What is believed of the person of a session: a conjugate normal belief, kept by a Kalman filter.

What person k feels of provider l in turn t, beyond what people feel on average and apart from
satiation, is u_l + z_l + noise: u is the person's own and stays, z is the taste of the moment, an
AR(1). Both are normal before anything was felt, u with the covariance over the people from whom
the belief was learned, so that what was felt of one provider tells of the others. The posterior is
exact for such a person (Kalman 1960, "A New Approach to Linear Filtering and Prediction Problems",
Journal of Basic Engineering 82(1)).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable

LEAST_NOISE = 1e-4  # variance: answers without any would make a covariance singular


class Prior(struct.PyTreeNode):
    """What people are like on average and how they differ; all traced."""

    crowd: jax.Array  # [R, L] float32, mean QoE over people
    people: jax.Array  # [L, L] float32, covariance over people of their mean over requests
    noise: jax.Array  # [L] float32, variance of a felt QoE around the crowd and the person


class Belief(struct.PyTreeNode):
    """Of (u, z), each [L], after what was felt so far."""

    mean: jax.Array  # [2 L] float32
    covariance: jax.Array  # [2 L, 2 L] float32


def learned_prior(table: QoETable) -> Prior:
    """By moments of a table's people, on the host.

    Raises:
        InputError: fewer than two people.
    """
    people, _, providers, _ = table.qoe.shape
    if people < 2:
        raise InputError(
            f"the table to learn from has {people} person; a belief about people needs two or more."
        )
    mean = table.mean
    crowd = mean.mean(0)
    own = (mean - crowd).mean(1)  # [K, L]
    peculiar = mean - crowd - own[:, None]
    within = np.where(table.valid, (table.qoe - mean[..., None]) ** 2, 0).sum(-1)
    drawn = within / np.maximum(table.valid.sum(-1), 1)
    noise = (peculiar**2 + drawn).mean((0, 1)) + LEAST_NOISE
    covariance = np.cov(own, rowvar=False).reshape(providers, providers)
    return Prior(*(jnp.asarray(x, jnp.float32) for x in (crowd, covariance, noise)))


def start(prior: Prior, spread: jax.Array | float) -> Belief:
    """Before anything was felt."""
    providers = prior.people.shape[0]
    covariance = jnp.zeros((2 * providers, 2 * providers), jnp.float32)
    covariance = covariance.at[:providers, :providers].set(prior.people)
    taste = jnp.square(spread) * jnp.eye(providers, dtype=jnp.float32)
    return Belief(
        jnp.zeros(2 * providers, jnp.float32), covariance.at[providers:, providers:].set(taste)
    )


def update(
    belief: Belief,
    prior: Prior,
    provider: jax.Array,
    surprise: jax.Array,
    memory: jax.Array | float,
    spread: jax.Array | float,
) -> Belief:
    """After one turn.

    Args:
        belief: before it.
        prior: of the people.
        provider: [] int32, who served.
        surprise: [] float32, what was felt minus what the crowd feels of it, satiation apart.
        memory: of the taste from one turn to the next.
        spread: standard deviation of the taste.
    """
    providers = prior.noise.shape[0]
    column = belief.covariance[provider] + belief.covariance[providers + provider]  # [2 L]
    along = column[provider] + column[providers + provider]
    gain = column / (along + prior.noise[provider])
    missed = surprise - belief.mean[provider] - belief.mean[providers + provider]
    mean = belief.mean + gain * missed
    covariance = belief.covariance - gain[:, None] * column
    kept = jnp.where(jnp.arange(2 * providers) < providers, 1.0, memory).astype(jnp.float32)
    fresh = (1 - jnp.square(memory)) * jnp.square(spread) * (kept < 1.0)
    moved = kept[:, None] * kept * covariance + jnp.diag(fresh * jnp.ones(2 * providers))
    return Belief(kept * mean, moved.astype(jnp.float32))


def expected(belief: Belief) -> tuple[jax.Array, jax.Array]:
    """u + z of each provider: mean [L] and standard deviation [L]."""
    providers = belief.mean.shape[0] // 2
    mean = belief.mean[:providers] + belief.mean[providers:]
    own, taste = belief.covariance[:providers], belief.covariance[providers:]
    variance = jnp.diag(own[:, :providers] + 2 * own[:, providers:] + taste[:, providers:])
    return mean, jnp.sqrt(jnp.maximum(variance, 0.0))
