"""People whom nobody asked, drawn from published norms; their QoE is what a model believes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.envs.chance import index_below
from rlli_jax.personas import norms
from rlli_jax.qoe.model import QoEModel
from rlli_jax.qoe.model_blocks import features_of
from rlli_jax.qoe.predicted import QUANTILES

LOW, HIGH = 1.0, 5.0  # of a trait


@struct.dataclass
class FreshPeople:
    """Who may come, and the posterior of a model of QoE; all traced. F features of a persona."""

    mean: jax.Array  # [5] float32, of the traits on the 1-5 scale
    root: jax.Array  # [5, 5] float32, a root of their covariance
    level: jax.Array  # [] float32, mean of all answers
    coefficients: jax.Array  # [R, L, F] float32, posterior mean
    covariance: jax.Array  # [R, L, F, F] float32, posterior of the coefficients of each picture
    own: jax.Array  # [] float32, variance of what a person thinks beyond the persona
    quantiles: jax.Array  # [S] float32, of a standard normal: the draws of a belief

    def traits(self, people: jax.Array, users: jax.Array) -> jax.Array:
        """Big Five [..., 5] of the users [...] of an episode, which ``people`` [] tells apart."""
        episode = jax.random.key(jax.lax.bitcast_convert_type(people, jnp.uint32))

        def normal(user: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(episode, user), self.mean.shape)

        drawn = jax.vmap(normal)(users.reshape(-1)).reshape(*users.shape, -1)
        return jnp.clip(self.mean + drawn @ self.root.T, LOW, HIGH)

    def believed(
        self, traits: jax.Array, requests: jax.Array, providers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation [...] of what people of these traits [..., 5] think of the
        pictures (requests [...], providers [...]), as :meth:`QoEModel.people`."""
        phi = features_of(traits)[..., : self.coefficients.shape[-1]]
        cell = requests, providers
        mean = self.level + jnp.einsum("...f,...f->...", phi, self.coefficients[cell])
        variance = jnp.einsum("...f,...fg,...g->...", phi, self.covariance[cell], phi) + self.own
        return mean, jnp.sqrt(jnp.maximum(variance, 0))

    def drawn(
        self, traits: jax.Array, requests: jax.Array, providers: jax.Array, chance: jax.Array
    ) -> jax.Array:
        """QoE [...], one of the quantiles of what is believed, by ``chance`` [...] in [0, 1).

        A predicted table's samples are drawn alike (:mod:`rlli_jax.qoe.predicted`).
        """
        mean, spread = self.believed(traits, requests, providers)
        place = index_below(len(self.quantiles), chance)
        return jnp.clip(mean + spread * self.quantiles[place], 0, 1)


def fresh_people(model: QoEModel, group: str, correlations: str) -> FreshPeople:
    """People of a group, with the QoE that a model fitted to others' answers predicts.

    Args:
        model: of the answers of users whose traits are known.
        group, correlations: as of :meth:`rlli_jax.personas.Population.sample`.

    Raises:
        InputError: a name is unknown.
    """
    mean, covariance = norms.traits_of(group, correlations)
    numbers = {
        "mean": mean,
        "root": np.linalg.cholesky(covariance),
        "level": model.level,
        "coefficients": model.coefficients,
        "covariance": model.picture_covariance(),
        "own": model.own_variance(),
        "quantiles": QUANTILES,
    }
    return FreshPeople(**{name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()})
