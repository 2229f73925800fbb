"""The edge market with regret as its reward: the same problem with less noise.

What a task could pay at most depends on the task alone, and tasks come as they come, whatever the
policy does. Subtracting it therefore moves every policy's expected return alike, but takes the
luck of the draw out of each reward (a control variate; Mao et al., ICLR 2019, "Variance reduction
for reinforcement learning in input-driven environments"). Learners that see it need fewer steps.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rlli_jax.envs.edge_market.arrivals import draw_task
from rlli_jax.envs.edge_market.market import EdgeMarket, EnvState
from rlli_jax.envs.edge_market.params import EnvParams
from rlli_jax.envs.edge_market.tasks import Task


class RegretMarket(EdgeMarket):
    """Reward: that of :class:`EdgeMarket` minus the most the task pays in a market without load."""

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """As in :class:`EdgeMarket`."""
        most = self.most(state.task, params)
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        return observation, state, reward - most, terminated, info

    def most(self, task: Task, params: EnvParams) -> jax.Array:
        """What ``task`` pays at the best of all providers if they are idle, float32 []."""
        return self.value(self.start(task, params), params).max()

    def mean_total(self, params: EnvParams, draws: int = 65_536) -> float:
        """Mean over episodes of what is subtracted in one: return = this + regret's return.

        An episode serves arrival_rate x horizon tasks on average. ``draws`` tasks are sampled.
        """
        channels = 0 if params.link is None else params.capacity.shape[0]
        chance = jax.random.uniform(jax.random.key(0), (draws, 4 + channels))
        most = jax.vmap(lambda c: self.most(draw_task(c, jnp.int32(0), params), params))
        return float(params.arrival_rate * params.horizon * most(chance).mean())
