"""The environments of planner studies: what there is to plan in each, and how it is judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import Env, Key, PyTree
from rlli_jax.envs.edge_market import GoalMarket
from rlli_jax.envs.go_to import GoTo
from rlli_jax.envs.policy import Policy, evaluate
from rlli_jax.errors import InputError
from rlli_jax.experiments.market.study import market_params
from rlli_jax.experiments.planner.config import GoToWorld, MarketWorld, PlannerStudy
from rlli_jax.experiments.study import Told
from rlli_jax.experiments.training import on_host
from rlli_jax.learners.core import Learner
from rlli_jax.learners.options import Levels, TwoLevels, follow
from rlli_jax.learners.smdp import best_plan, estimate
from rlli_jax.teaching.planner import LowLevel, Planning, market_planning, planning

Found = dict[str, jax.Array]


@dataclass(frozen=True)
class World:
    """What all policies of a study meet."""

    todo: Planning
    env: Env
    low_env: Env
    """In which the low level learns."""
    train: PyTree
    """Parameters of ``env`` in training, on the host."""
    test: PyTree
    """The same in evaluation."""
    low: PyTree
    """Parameters of ``low_env``."""
    flat: Callable[[Sequence[str] | None], Env]
    """observation -> the environment of a flat policy."""
    told: Told
    success: bool = False
    """Whether an episode succeeds or not; else its return counts."""
    samples: int = 0
    """Steps from which the best plan is estimated; 0 where the right one is known."""


def make_world(config: PlannerStudy, path: Path | None, console: Console) -> World:
    """The environment of a study.

    Raises:
        InputError: anything that is wrong with it.
    """
    block = config.environment
    try:
        if isinstance(block, GoToWorld):
            return _go_to(config, block)
        return _market(config, block, path, console)
    except InputError as error:
        raise InputError(f"environment: {error}") from None


def low_learner(config: PlannerStudy, env: Env) -> Learner:
    """What learns to follow goals."""
    return config.low_level.make(env)


def _low(config: PlannerStudy, env: Env) -> LowLevel:
    learner = low_learner(config, env)
    return lambda params: learner.policy(params.low)


def _go_to(config: PlannerStudy, block: GoToWorld) -> World:
    rooms: dict[str, Any] = {"objects": block.objects, "encoder": block.encoder}
    same = rooms | {"instructions": block.instructions, "observation": block.observation}
    env = GoTo(**same, seed=block.seed)
    walker = GoTo(**rooms, instructions="all", observation=block.observation, seed=block.seed)

    def flat(observation: Sequence[str] | None) -> Env:
        seen = observation or tuple(dict.fromkeys([*block.observation, "part"]))
        return GoTo(**(same | {"observation": seen}), seed=block.seed)

    return World(
        todo=planning(env, walker, _low(config, walker), block.limit),
        env=env,
        low_env=walker,
        train=on_host(env.default_params),
        test=on_host(GoTo(**same, seed=block.seed + 100).default_params),
        low=on_host(walker.default_params),
        flat=flat,
        told=Told(),
        success=True,
    )


def _market(config: PlannerStudy, block: MarketWorld, path: Path | None, console: Console) -> World:
    params, _, table = market_params(block, path, console)
    numbers: dict[str, Any] = {
        "vips": block.vips,
        "vip_weight": block.vip_weight,
        "period": block.period,
        "mask": block.mask,
        "queue": block.market.queue,
    }

    def make(observation: Sequence[str] | None = None, by_goal: bool = False) -> GoalMarket:
        seen: Any = observation or block.observation
        return GoalMarket(params, observation=seen, by_goal=by_goal, **numbers)

    env, follower = make(), make(by_goal=True)
    known = on_host(env.default_params)
    assert table is not None  # its users have personal QoE
    return World(
        todo=market_planning(env, follower, _low(config, follower)),
        env=env,
        low_env=follower,
        train=known,
        test=known,
        low=known,
        flat=make,
        told=Told(table.judge, table.stand_in),
        samples=block.samples,
    )


def play(
    env: Env, policy: Policy, key: Key, params: PyTree, *, episodes: int, success: bool
) -> Found:
    """``returns`` [E], ``objective``, and the mean of an episode of whatever is counted."""
    result = evaluate(env, policy, key, params, episodes)
    scores = (result.returns > 0).astype(jnp.float32) if success else result.returns
    means = jax.tree.map(lambda x: x / episodes, result.statistics)
    return {"returns": result.returns, "objective": scores.mean(), **means}


def best_of_estimated(world: World, low: PyTree, keys: Key, gamma: float) -> np.ndarray:
    """The best plan of the estimated process of each seed, int32 [seeds, S]."""
    env, many = TwoLevels(world.env), 64
    steps = -(-world.samples // many)
    run = partial(estimate, env, world.todo.hierarchy, many=many, steps=steps)
    found = jax.jit(
        jax.vmap(
            lambda key, low: run(key, Levels(jax.tree.map(jnp.asarray, world.train), low), gamma)
        )
    )(keys, low)
    seeds = len(jax.tree.leaves(found)[0])
    return np.stack([best_plan(jax.tree.map(lambda x, i=i: x[i], found)) for i in range(seeds)])


def best_constant(world: World, low: PyTree, keys: Key, episodes: int) -> np.ndarray:
    """The option that is best in training if it is always taken, int32 [seeds]."""
    env, todo = TwoLevels(world.env), world.todo
    params = jax.tree.map(jnp.asarray, world.train)

    def worth(key: Key, low: PyTree, plan: jax.Array) -> jax.Array:
        policy = follow(todo.hierarchy, plan)
        played: dict[str, Any] = {"episodes": episodes, "success": world.success}
        return play(env, policy, key, Levels(params, low), **played)["objective"]

    plans = jnp.stack([todo.constant(option) for option in range(len(todo.options))])
    each = jax.jit(jax.vmap(jax.vmap(worth, (None, None, 0)), (0, 0, None)))
    return np.asarray(each(keys, low, plans)).argmax(1).astype(np.int32)
