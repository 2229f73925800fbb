"""Customers join three queues, each of which holds ten; a step serves two of one queue."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class State(environment.EnvState):  # has a field time
    waiting: jax.Array  # [3] float32, customers in each queue


@struct.dataclass
class Params(environment.EnvParams):
    arrivals: float = 0.6  # mean number of customers that join each queue in a step
    max_steps_in_episode: int = 50  # truncates


class Queues(environment.Environment[State, Params]):
    default_params = Params()

    def reset_env(self, key, params):
        state = State(time=0, waiting=jnp.zeros(3))
        return state.waiting, state

    def step_env(self, key, state, action, params):
        served = jnp.minimum(state.waiting[action], 2.0)
        joining = jax.random.poisson(key, params.arrivals, (3,))
        waiting = jnp.minimum(state.waiting.at[action].add(-served) + joining, 10.0)
        state = State(time=state.time + 1, waiting=waiting)
        return state.waiting, state, served, jnp.bool_(False), {}

    def action_space(self, params):
        return spaces.Discrete(3)
