"""The loop, simulated: a policy that is trained on a judge serves people who think otherwise.

People are another table than the judge's: another preset, other noise, another model. Every request
comes from a random person; a policy chooses; the person's rating comes back. Policies are Bayesian
linear models of QoE for each provider, over (1, traits), with Thompson sampling. *Cold start*
begins with a wide prior around a common level; *model-trained* ones begin at the judge's regression
on the traits, and learn from feedback or stay *frozen*.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

WIDE, NARROW = 0.3, 0.1  # prior standard deviations of coefficients without and with a judge
DOUBT = 1.0  # prior standard deviation of how far a judge's tastes count
BATCH = 50  # requests between two updates of the posterior


class Start(NamedTuple):
    """Where a policy begins; vmap over several."""

    mean: jax.Array  # [L, d], coefficients of the prior
    covariance: jax.Array  # [L, d, d], of the prior
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


def cold(providers: int, d: int, level: float = 0.5, spread: float = WIDE) -> Start:
    """Nothing is known but that QoE is about ``level``."""
    mean = jnp.zeros((providers, d)).at[:, 0].set(level)
    return Start(mean, jnp.tile(spread**2 * jnp.eye(d), (providers, 1, 1)), jnp.bool_(True))


def trained(coefficients: jax.Array, learns: bool, spread: float = NARROW) -> Start:
    """A judge's regression [L, d] as prior: s w + e, with s ~ N(1, DOUBT^2) and e ~ N(0, spread^2).

    So a judge whose tastes are too weak, too strong or the wrong way round is soon found out.
    """
    doubt = DOUBT**2 * coefficients[:, :, None] * coefficients[:, None]
    return Start(
        coefficients, doubt + spread**2 * jnp.eye(coefficients.shape[1]), jnp.bool_(learns)
    )


@partial(jax.jit, static_argnames=("requests",))
def simulate(key: jax.Array, start: Start, world: World, requests: int) -> jax.Array:
    """Expected QoE of what was chosen, mean of each batch of requests: [requests / BATCH].

    vmap over keys and starts: all of them are one program. Ratings are the person's QoE plus normal
    noise, within [0, 1].
    """
    people, providers = world.qoe.shape
    d = world.features.shape[1]
    precision = jnp.linalg.inv(start.covariance)
    variance = world.noise**2

    def batch(carry: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple, jax.Array]:
        precision, right = carry  # [L, d, d], [L, d]
        person_key, thompson_key, rating_key = jax.random.split(key, 3)
        person = jax.random.randint(person_key, (BATCH,), 0, people)
        x = world.features[person]
        lower = jnp.linalg.cholesky(precision)
        solve = jax.vmap(lambda c, b: jax.scipy.linalg.cho_solve((c, True), b))
        mean = solve(lower, right)  # [L, d]
        # A draw of the coefficients for each request; mean alone where nothing is learned.
        normal = jax.random.normal(thompson_key, (providers, d, BATCH))
        drawn = jax.vmap(partial(jax.scipy.linalg.solve_triangular, trans=1, lower=True))
        doubt = jnp.where(start.learns, 1.0, 0.0) * drawn(lower, normal)  # [L, d, BATCH]
        score = jnp.einsum("bd,ldb->bl", x, mean[..., None] + doubt)
        action = score.argmax(-1)
        truth = world.qoe[person, action]
        rating = truth + world.noise * jax.random.normal(rating_key, (BATCH,))
        one = jax.nn.one_hot(action, providers) * start.learns
        precision = precision + jnp.einsum("bl,bd,be->lde", one, x, x) / variance
        right = right + jnp.einsum("bl,bd,b->ld", one, x, rating.clip(0, 1)) / variance
        return (precision, right), truth.mean()

    right = jnp.einsum("lde,le->ld", precision, start.mean)
    _, qoe = jax.lax.scan(batch, (precision, right), jax.random.split(key, requests // BATCH))
    return qoe
