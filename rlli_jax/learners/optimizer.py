"""Adam on clipped gradients. It is cheap to rebuild at every iteration, so its rate is traced."""

from typing import Protocol

import jax
import jax.numpy as jnp
import optax


class Annealed(Protocol):
    """Hyperparameters whose learning rates fall linearly."""

    @property
    def anneal(self) -> float | jax.Array: ...

    @property
    def total_iterations(self) -> int | jax.Array: ...


def remaining(hyperparams: Annealed, iteration: jax.Array) -> jax.Array:
    """Part of the learning rate that is left: 1 at first, 1 - anneal after total_iterations."""
    return 1 - hyperparams.anneal * jnp.minimum(iteration / hyperparams.total_iterations, 1)


def adam(
    max_grad_norm: float | jax.Array | None,
    rate: float | jax.Array,
    *,
    eps: float = 1e-8,
    weight_decay: float | jax.Array | None = None,
    flat: bool = False,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on gradients clipped by their global norm.

    Args:
        max_grad_norm: gradients are scaled down to this norm; None leaves them as they are.
        rate: the learning rate.
        eps: added to the root of the second moment.
        weight_decay: times the parameters, added to the gradients before Adam.
        flat: work on all parameters as one vector: a few large operations instead of many small
            ones, which a CPU does faster.
    """
    parts = [optax.scale_by_adam(eps=eps), optax.scale(-rate)]
    if weight_decay is not None:
        parts.insert(0, optax.add_decayed_weights(weight_decay))
    if max_grad_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(max_grad_norm))
    chain = optax.chain(*parts)
    return optax.flatten(chain) if flat else chain
