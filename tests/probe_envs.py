"""Environments whose optimal value is known, so that a learner's answer can be asserted.

After Andy Jones's probe environments: each isolates one part of a learner.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class State(environment.EnvState):
    time: jax.Array  # [] int32
    sign: jax.Array  # [] float32, -1 or 1


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 1_000_000


class Probe(environment.Environment[State, Params]):
    """One observation (a sign), two actions; subclasses say what they are worth."""

    length = 1  # steps until termination

    @property
    def default_params(self) -> Params:
        return Params()

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        raise NotImplementedError

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = State(time=jnp.int32(0), sign=sign)
        return self.observe(key, state, None, params), state

    def step_env(self, key: jax.Array, state: State, action: Any, params: Params) -> Any:
        reward = self.reward(state, action)
        state = state.replace(time=state.time + 1)
        observation = self.observe(key, state, action, params)
        return observation, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Any, state: State, action: Any, params: Params) -> jax.Array:
        return jnp.array([state.sign, state.time.astype(jnp.float32)])

    def is_terminated(self, state: State, params: Params) -> jax.Array:
        return state.time >= self.length

    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Params) -> spaces.Box:
        return spaces.Box(-1, self.length, (2,))


class ConstantReward(Probe):
    """Reward 1, one step: the value is 1."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.float32(1)


class SignIsReward(Probe):
    """The reward is the observed sign: the value is that sign."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return state.sign


class DelayedReward(Probe):
    """Reward 1 at the second of two steps: the values are gamma and 1."""

    length = 2

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return (state.time == 1).astype(jnp.float32)


class MatchTheSign(Probe):
    """Action 1 is right for sign 1, action 0 for sign -1; right pays 1, wrong -1."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.where((action == 1) == (state.sign > 0), 1.0, -1.0)


class HiddenSign(SignIsReward):
    """The reward is a sign that nobody sees: -1 or 1, as likely."""

    def observe(self, key: Any, state: State, action: Any, params: Params) -> jax.Array:
        return jnp.array([1.0, 0.0])


class RememberTheSign(MatchTheSign):
    """The sign is shown at the first step and must be matched at the second: 1 if remembered.

    A learner without memory gets 0 on average.
    """

    length = 2

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.where(state.time == 1, super().reward(state, action), 0.0)

    def observe(self, key: Any, state: State, action: Any, params: Params) -> jax.Array:
        shown = jnp.where(state.time == 0, state.sign, 0.0)
        return jnp.array([shown, state.time.astype(jnp.float32)])


class EndlessReward(Probe):
    """Reward 1 for ever, cut off by the step limit: the value is 1 / (1 - gamma).

    A learner that takes a truncation for an end would find less.
    """

    length = 1_000_000

    @property
    def default_params(self) -> Params:
        return Params(max_steps_in_episode=4)

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.float32(1)

    def observe(self, key: Any, state: State, action: Any, params: Params) -> jax.Array:
        return jnp.array([1.0, 0.0])


class ForbiddenJackpot(MatchTheSign):
    """The first action pays a jackpot but is never legal; one of the others matches the sign."""

    def reward(self, state: State, action: jax.Array) -> jax.Array:
        return jnp.where(action == 0, 100.0, super().reward(state, action - 1))

    def legal_actions(self, state: State, params: Params) -> jax.Array:
        return jnp.array([False, True, True])

    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(3)
