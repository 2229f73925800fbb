"""The edge market in periods, each of which may have a goal: what a planner and a low level share.

A planner sees the load, the hour and how many VIPs came lately, and names what matters most in the
next ``period`` tasks. Below it, one policy serves them, told the goal and the task. That goals are
chosen from what is described in words, and options last a fixed number of tasks, makes it a
semi-Markov decision process over finitely many situations (Sutton, Precup and Singh 1999).
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs.edge_market.market import EdgeMarket, EnvState
from rlli_jax.envs.edge_market.observation import MarketObservationPart
from rlli_jax.envs.edge_market.params import EnvParams
from rlli_jax.envs.edge_market.tasks import own_steps
from rlli_jax.errors import InputError

GOALS = ("save capacity", "serve quality", "keep VIP users happy")
LOADS = ("almost idle", "half full", "almost full")
HOURS = (  # quarters of the swing of the arrival rate
    "many tasks come and more are to come",
    "many tasks come and fewer are to come",
    "few tasks come and fewer are to come",
    "few tasks come and more are to come",
)
CROWDS = ("Few of the last tasks were of VIP users", "Many of the last tasks were of VIP users")
SITUATIONS = tuple(
    f"The providers are {load}; {hour}. {crowd}."
    for load, hour, crowd in product(LOADS, HOURS, CROWDS)
)


@struct.dataclass
class GoalState(environment.EnvState):
    """A market, and the period that is under way."""

    time: jax.Array  # [] int32, decisions since the reset
    market: EnvState
    goal: jax.Array  # [] int32, of GOALS
    vips: jax.Array  # [] int32, tasks of VIPs in this period
    lately: jax.Array  # [] float32, part of the tasks of the period before that were VIPs'


@struct.dataclass(kw_only=True)
class GoalParams(environment.EnvParams):
    """A market, and who its VIPs are; all traced."""

    market: EnvParams
    vip: jax.Array  # [K] float32, 1 for a VIP
    vip_share: jax.Array  # [] float32, of the tasks
    vip_weight: float | jax.Array  # what is paid for a VIP's task counts so many times
    max_steps_in_episode: int | jax.Array = np.iinfo(np.int32).max


class GoalMarket(environment.Environment[GoalState, GoalParams]):
    """An :class:`EdgeMarket` whose VIPs count more, in periods of a fixed number of tasks.

    - Observation: that of the market, whether the task is a VIP's, sine and cosine of the hour;
      with ``by_goal`` also the goal, one-hot.
    - Reward: what the market pays, for a VIP's task ``vip_weight`` times; a crash costs what it
      costs there. With ``by_goal`` that of the goal instead, and a crash as before: *save
      capacity* the part of the provider's steps that stay free behind the task, *serve quality*
      what the market pays, *keep VIP users happy* what it pays for VIPs.
    - With ``by_goal`` a goal is drawn for each period, each equally likely; without it nobody
      follows one.
    """

    def __init__(
        self,
        params: EnvParams,
        *,
        vips: int = 1,
        vip_weight: float = 2.0,
        period: int = 20,
        by_goal: bool = False,
        mask: bool = True,
        queue: int = 0,
        observation: Sequence[MarketObservationPart] = ("providers", "task", "room", "utility"),
    ) -> None:
        """Fix what decides shapes.

        Args:
            params: of the market, with users.
            vips: the first so many users are VIPs.
            vip_weight: how many times a VIP's task counts.
            period: tasks that an option lasts.
            by_goal: whether goals are drawn, seen and paid.
            mask, queue, observation: of the market.

        Raises:
            InputError: the market has no users, or no VIP would be among them or nobody else; or
                as :class:`EdgeMarket`.
        """
        super().__init__()
        users = params.users
        if users is None:
            raise InputError("the market has no users, of whom some could be VIPs; give them.")
        people = users.user_mix.shape[0]
        if not 0 < vips < people:
            raise InputError(f"vips is {vips}; of {people} users, 1 to {people - 1} can be VIPs.")
        self.market = EdgeMarket(params, mask=mask, queue=queue, observation=observation)
        self.period, self.by_goal = period, by_goal
        self._params = GoalParams(
            market=params,
            vip=(jnp.arange(people) < vips).astype(jnp.float32),
            vip_share=jnp.float32(users.user_mix[vips - 1]),
            vip_weight=vip_weight,
        )

    @property
    def default_params(self) -> GoalParams:
        """Those of the construction."""
        return self._params

    @property
    def name(self) -> str:
        """Name of the environment."""
        return "GoalMarket-v0"

    @property
    def num_actions(self) -> int:
        """Providers."""
        return int(self._params.market.capacity.shape[0])

    def reset_env(self, key: jax.Array, params: GoalParams) -> tuple[jax.Array, GoalState]:
        """An idle market at the start of a period."""
        key, key_goal = jax.random.split(key)
        _, market = self.market.reset_env(key, params.market)
        state = GoalState(
            time=jnp.int32(0),
            market=market,
            goal=self._drawn(key_goal),
            vips=jnp.int32(0),
            lately=jnp.asarray(params.vip_share, jnp.float32),
        )
        return self.observe(state, params), state

    def step_env(
        self, key: jax.Array, state: GoalState, action: jax.Array, params: GoalParams
    ) -> tuple[jax.Array, GoalState, jax.Array, jax.Array, dict[str, Any]]:
        """Serve the waiting task; after the last of a period the next one begins."""
        key, key_goal = jax.random.split(key)
        vips = state.vips + params.vip[state.market.task.user].astype(jnp.int32)
        _, market, paid, terminated, info = self.market.step_env(
            key, state.market, action, params.market
        )
        reward = self._reward(state, action, paid, info["crashed"], params)
        time = state.time + 1
        over = time % self.period == 0
        state = GoalState(
            time=time,
            market=market,
            goal=jnp.where(over, self._drawn(key_goal), state.goal),
            vips=jnp.where(over, 0, vips),
            lately=jnp.where(over, vips / self.period, state.lately),
        )
        return self.observe(state, params), state, reward, terminated, info

    def _drawn(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, len(GOALS)) if self.by_goal else jnp.int32(0)

    def _reward(
        self,
        state: GoalState,
        action: jax.Array,
        paid: jax.Array,
        crashed: jax.Array,
        params: GoalParams,
    ) -> jax.Array:
        """What serving the waiting task is worth here, of what the market pays, float32 []."""
        market, vip = state.market, params.vip[state.market.task.user]
        if not self.by_goal:
            return jnp.where(crashed, paid, paid * (1 + (params.vip_weight - 1) * vip))
        provider = self.market.serving(market, action, params.market)
        left = self.market.available(market, params.market)[provider]
        left = left - own_steps(market.task, provider, params.market)
        goals = jnp.stack([left / params.market.capacity[provider], paid, paid * vip])
        return jnp.where(crashed, paid, goals[state.goal])

    def situation(self, state: GoalState, params: GoalParams) -> jax.Array:
        """Which of SITUATIONS it is, [] int32."""
        market, numbers = state.market, params.market
        free = self.market.available(market, numbers).sum() / numbers.capacity.sum()
        load = jnp.clip((len(LOADS) * (1 - free)).astype(jnp.int32), 0, len(LOADS) - 1)
        turn = (market.task.arrival / numbers.rate_period) % 1.0
        hour = jnp.clip((len(HOURS) * turn).astype(jnp.int32), 0, len(HOURS) - 1)
        crowd = (state.lately > params.vip_share).astype(jnp.int32)
        return (load * len(HOURS) + hour) * len(CROWDS) + crowd

    def observe(self, state: GoalState, params: GoalParams) -> jax.Array:
        """The observation vector, float32."""
        market = state.market
        seen = self.market.observe(jax.random.key(0), market, None, params.market)
        turn = 2 * jnp.pi * market.task.arrival / params.market.rate_period
        told = [seen, jnp.stack([params.vip[market.task.user], jnp.sin(turn), jnp.cos(turn)])]
        if self.by_goal:
            told.append(jax.nn.one_hot(state.goal, len(GOALS)))
        return jnp.concatenate(told).astype(jnp.float32)

    def legal_actions(self, state: GoalState, params: GoalParams) -> jax.Array:
        """As in the market."""
        return self.market.legal_actions(state.market, params.market)

    def statistics(
        self, state: GoalState, action: jax.Array, params: GoalParams
    ) -> dict[str, jax.Array]:
        """Counts of this decision: ``tasks``, ``lost`` (dropped in a crash), ``total_qoe``, and of
        VIPs ``vip_tasks`` and ``vip_qoe``; what was lost has QoE 0."""
        outcome = self.market.outcome(state.market, action, params.market)
        vip = params.vip[state.market.task.user]
        return {
            "tasks": jnp.float32(1),
            "lost": outcome["crashed"].astype(jnp.float32),
            "total_qoe": outcome["qoe"],
            "vip_tasks": vip,
            "vip_qoe": vip * outcome["qoe"],
        }

    def is_terminated(self, state: GoalState, params: GoalParams) -> jax.Array:
        """As in the market."""
        return self.market.is_terminated(state.market, params.market)

    def action_space(self, params: GoalParams) -> spaces.Discrete:
        """A provider."""
        return self.market.action_space(params.market)

    def observation_space(self, params: GoalParams) -> spaces.Box:
        """Any numbers."""
        size = self.market.observation_space(params.market).shape[0] + 3
        size += len(GOALS) if self.by_goal else 0
        return spaces.Box(-jnp.inf, jnp.inf, (size,), jnp.float32)
