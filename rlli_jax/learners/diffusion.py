"""The actor of D2SAC: logits that a denoising chain makes from noise.

Du et al., "Diffusion-based reinforcement learning for edge-enabled AI-generated content services",
IEEE TMC 23(9), 2024, Algorithm 1.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import Key
from rlli_jax.learners.networks import ACTIVATIONS, ILLEGAL, MLP, Activation

# Noise rates of the variance-preserving schedule at its two ends (Xiao et al. 2022, as in D2SAC).
LEAST_NOISE, MOST_NOISE = 0.1, 10.0


class DiffusionActor(nn.Module):
    """Logits that a denoising chain makes from Gaussian noise, given the observation.

    D2SAC, Algorithm 1: x_T ~ N(0, I). At each step a network with a tanh output tells from (x_t,
    embedding of t, observation) what the end x_0 of the chain is, or what noise is in x_t, from
    which x_0 follows; x_{t-1} is drawn from q(x_{t-1} | x_t, x_0). Logits are x_0, scaled if the
    network predicts them.
    """

    num_actions: int
    hidden: tuple[int, ...]
    activation: Activation
    steps: int
    embedding: int
    predicts: Literal["logits", "noise"]
    scale: float

    @nn.compact
    def __call__(
        self, key: Key, observation: jax.Array, legal: jax.Array, spread: float = 1.0
    ) -> jax.Array:
        """[], [..., size], [..., L] -> logits [..., L]; illegal ones are ILLEGAL.

        ``spread`` scales all noise; 0 leaves the chain of means.
        """
        time = _sinusoidal(jnp.arange(1, self.steps + 1), self.embedding)  # [steps, embedding]
        time = nn.Dense(self.embedding)(
            ACTIVATIONS[self.activation](nn.Dense(2 * self.embedding)(time))
        )
        network = MLP(self.hidden, self.num_actions, 0.01, self.activation)
        # As Python's floats, which leave the type of what they are multiplied with as it is.
        retained = retention(self.steps).tolist()  # alpha of each step
        kept = np.cumprod(retained).tolist()  # alpha bar
        key_start, *keys = jax.random.split(key, self.steps + 1)
        x = spread * jax.random.normal(key_start, legal.shape)
        for t in reversed(range(self.steps)):
            embedded = jnp.broadcast_to(time[t], (*x.shape[:-1], self.embedding))
            end = jnp.tanh(network(jnp.concatenate([x, embedded, observation], -1)))
            if self.predicts == "noise":
                end = (x - math.sqrt(1 - kept[t]) * end) / math.sqrt(kept[t])
            if not t:
                return jnp.where(
                    legal, (self.scale if self.predicts == "logits" else 1.0) * end, ILLEGAL
                )
            # Mean and variance of the posterior (Ho et al. 2020, Eq. 7).
            before = kept[t - 1]
            x = (1 - retained[t]) * math.sqrt(before) * end + (1 - before) * math.sqrt(
                retained[t]
            ) * x
            variance = (1 - retained[t]) * (1 - before) / (1 - kept[t])
            noise = math.sqrt(variance) * jax.random.normal(keys[t], x.shape)
            x = x / (1 - kept[t]) + spread * noise
        raise AssertionError("the chain has at least one step")


def retention(steps: int) -> np.ndarray:
    """Share of the signal that each step keeps, [steps]: the variance-preserving schedule.

    alpha_t = exp(-b_min / T - (b_max - b_min) (2 t - 1) / (2 T^2)), t = 1..T (Xiao et al. 2022,
    arXiv 2112.07804, Appendix; D2SAC's default).
    """
    t = np.arange(1, steps + 1)
    slope = (MOST_NOISE - LEAST_NOISE) * (2 * t - 1) / (2 * steps**2)
    return np.exp(-LEAST_NOISE / steps - slope)


def _sinusoidal(time: jax.Array, size: int) -> jax.Array:
    """Sines and cosines of ``time`` [...] at ``size / 2`` frequencies, [..., size]."""
    half = size // 2
    angle = time[..., None] * jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
