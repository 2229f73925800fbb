"""Options: a planner names what to do next, a low level does it until it is done.

An option lasts several steps, so the problem of the planner is a semi-Markov decision process, and
what follows an option of k steps is discounted by gamma^k (Sutton, Precup and Singh 1999, "Between
MDPs and semi-MDPs", Artificial Intelligence 112). Situations are finitely many, so a plan is a
table, and whoever makes it - a rule, a language model, :func:`smdp_q` - is asked once for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment
from pydantic import Field

from rlli_jax.checking import checked
from rlli_jax.envs.contract import Env, Key, PyTree, check_environment, legal_actions
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.errors import InputError
from rlli_jax.learners.core import Episodes, Learner, traced
from rlli_jax.learners.hyperparams import Hyperparams


class Hierarchy(NamedTuple):
    """What a planner chooses by, and what carries its choices out; of one environment."""

    situations: int
    """S."""
    situation: Callable[[PyTree, PyTree], jax.Array]
    """state, env_params -> [] int32, all that a planner knows."""
    options: int
    """O."""
    act: Callable[[Key, PyTree, jax.Array, PyTree], jax.Array]
    """key, state, option, env_params -> action."""
    ended: Callable[[PyTree, jax.Array, PyTree], jax.Array]
    """state after a step, option, env_params -> whether the option has done what it was for."""
    limit: int = 32
    """Steps after which an option ends anyway."""


class Running(struct.PyTreeNode):
    """The option that is being carried out."""

    option: jax.Array  # [] int32, -1 before the first
    age: jax.Array  # [] int32, its steps so far


class Following(Policy):
    """The policy of a plan, which it tells."""

    plan: jax.Array  # [S, O]


def follow(hierarchy: Hierarchy, plan: jax.Array) -> Following:
    """The policy of a plan.

    Args:
        hierarchy: of the environment.
        plan: [S, O], probabilities of the options in each situation.

    Raises:
        InputError: the plan has another shape: it names options that are not there, or leaves out
            a situation.
    """
    shape = hierarchy.situations, hierarchy.options
    if plan.shape != shape:
        raise InputError(
            f"a plan has shape {plan.shape}; give one probability for each of {shape[0]} "
            f"situations and {shape[1]} options."
        )
    policy = Following(*_following(hierarchy, lambda params: plan))
    policy.plan = plan
    return policy


def follow_given(hierarchy: Hierarchy) -> Policy:
    """The policy of the plan that stands in the parameters, see :class:`Levels`."""
    return _following(hierarchy, lambda params: params.plan)


def _following(hierarchy: Hierarchy, plan: Callable[[PyTree], jax.Array]) -> Policy:
    def act(key: Key, seen: PolicyInput, carry: Running) -> tuple[jax.Array, Running]:
        key_plan, key_act = jax.random.split(key)
        over = _over(hierarchy, seen.state, carry, seen.params)
        chances = plan(seen.params)[hierarchy.situation(seen.state, seen.params)]
        drawn = jax.random.categorical(key_plan, jnp.log(chances)).astype(jnp.int32)
        carry = _next(carry, over, drawn)
        action = hierarchy.act(key_act, seen.state, carry.option, seen.params)
        return action, carry.replace(age=carry.age + 1)

    return Policy(Running(jnp.int32(-1), jnp.int32(0)), act)


def _over(hierarchy: Hierarchy, state: PyTree, running: Running, params: PyTree) -> jax.Array:
    """Whether the planner is to choose anew."""
    done = hierarchy.ended(state, running.option, params) & (running.age > 0)
    return done | (running.option < 0) | (running.age >= hierarchy.limit)


def _next(running: Running, over: jax.Array, option: jax.Array) -> Running:
    return Running(jnp.where(over, option, running.option), jnp.where(over, 0, running.age))


@checked
@dataclass(frozen=True)
class SMDPConfig:
    """What decides shapes; a change compiles anew."""

    num_envs: Annotated[int, Field(gt=0)] = 64
    """Environments side by side."""
    num_steps: Annotated[int, Field(gt=0)] = 64
    """Steps of each environment in one iteration."""


class SMDPHyperparams(Hyperparams):
    """What a sweep may vary within one compilation; every field is traced."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """How far a value moves toward the mean of what was found, each step that it was found in."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each step of the environment, not for each option."""
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of options that are drawn at random."""


class Carried(struct.PyTreeNode):
    """N environments side by side, in each of which an option is carried out."""

    envs: PyTree  # [N, ...], states
    running: Running  # [N]
    began: jax.Array  # [N] int32, the situation in which the option was chosen
    paid: jax.Array  # [N] float32, discounted rewards since then
    discount: jax.Array  # [N] float32, gamma^age
    episode_return: jax.Array  # [N] float32


class Ended(NamedTuple):
    """What is known of N options after a step; of those that go on, only as far as they are."""

    over: jax.Array  # [N] bool, whether the option ended with this step
    began: jax.Array  # [N] int32, the situation in which it was chosen
    option: jax.Array  # [N] int32
    paid: jax.Array  # [N] float32, discounted rewards since then
    discount: jax.Array  # [N] float32, gamma^k after k steps
    situation: jax.Array  # [N] int32, the one that follows
    terminated: jax.Array  # [N] bool, nothing follows


def begin(env: Env, key: Key, params: PyTree, many: int) -> Carried:
    """Fresh episodes, in which no option is chosen yet. InputError as check_environment."""
    check_environment(env, params)
    _, envs = jax.vmap(env.reset, (0, None))(jax.random.split(key, many), params)
    none = jnp.zeros(many, jnp.int32)
    zero = jnp.zeros(many, jnp.float32)
    return Carried(envs, Running(none - 1, none), none, zero, zero + 1, zero)


def carry_on(
    env: Env,
    hierarchy: Hierarchy,
    choose: Callable[[Key, jax.Array], jax.Array],
    key: Key,
    carried: Carried,
    gamma: jax.Array | float,
    params: PyTree,
) -> tuple[Carried, Ended, Episodes]:
    """One step of each environment; where an option has ended, ``choose`` names the next.

    Args:
        choose: keys [2] and a situation [] int32 -> an option [] int32.
        gamma: discount for each step.
    """

    def one(keys: Key, env_state: PyTree, running: Running) -> tuple:
        situation = hierarchy.situation(env_state, params)
        over = _over(hierarchy, env_state, running, params)
        running = _next(running, over, choose(keys[:2], situation).astype(jnp.int32))
        action = hierarchy.act(keys[2], env_state, running.option, params)
        _, after, reward, terminated, _ = env.step_env(keys[3], env_state, action, params)
        done = terminated | env.is_truncated(after, params)
        running = running.replace(age=running.age + 1)
        ended = done | _over(hierarchy, after, running, params)
        ahead = hierarchy.situation(after, params)
        _, fresh = env.reset_env(keys[4], params)
        after = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, after)
        return situation, over, running, after, reward, terminated, done, ended, ahead

    keys = jax.random.split(key, (len(carried.began), 5))
    situation, over, running, envs, reward, terminated, done, ended, ahead = jax.vmap(one)(
        keys, carried.envs, carried.running
    )
    began = jnp.where(over, situation, carried.began)
    discount = jnp.where(over, 1.0, carried.discount)
    paid = jnp.where(over, 0.0, carried.paid) + discount * reward
    discount = discount * gamma
    total = carried.episode_return + reward
    told = Ended(ended, began, running.option, paid, discount, ahead, terminated)
    # An episode that is over leaves no option behind.
    running = Running(jnp.where(done, -1, running.option), jnp.where(done, 0, running.age))
    carried = Carried(envs, running, began, paid, discount, jnp.where(done, 0.0, total))
    return carried, told, Episodes((total * done).sum(), done.sum())


class SMDPState(struct.PyTreeNode):
    """All that a run needs to go on."""

    key: Key  # []
    values: jax.Array  # [S, O] float32
    carried: Carried
    hyperparams: SMDPHyperparams


def smdp_q(env: Env, hierarchy: Hierarchy, config: SMDPConfig | None = None) -> Learner:
    """A planner that learns: tabular Q-learning over options (Sutton, Precup and Singh, Eq. 7)."""
    cfg = config or SMDPConfig()

    def init(key: Key, hyperparams: SMDPHyperparams, params: PyTree) -> SMDPState:
        key, key_reset = jax.random.split(key)
        return SMDPState(
            key=key,
            values=jnp.zeros((hierarchy.situations, hierarchy.options), jnp.float32),
            carried=begin(env, key_reset, params, cfg.num_envs),
            hyperparams=traced(hyperparams),
        )

    def once(state: SMDPState, key: Key, params: PyTree) -> tuple[SMDPState, Episodes]:
        hyper, values = state.hyperparams, state.values

        def choose(keys: Key, situation: jax.Array) -> jax.Array:
            explore = jax.random.uniform(keys[0]) < hyper.epsilon
            drawn = jax.random.randint(keys[1], (), 0, hierarchy.options)
            return jnp.where(explore, drawn, jnp.argmax(values[situation]))

        carried, told, episodes = carry_on(
            env, hierarchy, choose, key, state.carried, hyper.gamma, params
        )
        ahead = jnp.where(told.terminated, 0.0, values[told.situation].max(-1))
        cell = told.began, told.option
        error = jnp.where(told.over, told.paid + told.discount * ahead - values[cell], 0.0)
        count = jnp.zeros_like(values).at[cell].add(told.over.astype(jnp.float32))
        moved = jnp.zeros_like(values).at[cell].add(error) / jnp.maximum(count, 1)
        values = values + hyper.learning_rate * moved
        return state.replace(values=values, carried=carried), episodes

    def step(state: SMDPState, params: PyTree) -> tuple[SMDPState, dict[str, jax.Array]]:
        key, key_steps = jax.random.split(state.key)
        keys = jax.random.split(key_steps, cfg.num_steps)
        state, ended = jax.lax.scan(lambda s, k: once(s, k, params), state.replace(key=key), keys)
        return state, jax.tree.map(jnp.sum, ended).metrics()

    def policy(state: SMDPState) -> Following:
        best = jnp.argmax(state.values, -1)
        return follow(hierarchy, jax.nn.one_hot(best, hierarchy.options))

    return Learner(init, step, policy, env_steps=cfg.num_envs * cfg.num_steps)


@struct.dataclass
class Levels:
    """Parameters of an environment, and of what acts in it on two levels; all traced."""

    env: PyTree
    """Of the environment itself."""
    low: PyTree = None
    """Of the low level, whatever it is."""
    plan: Any = None
    """[S, O] float32, that of :func:`follow_given`."""


class TwoLevels(environment.Environment):
    """An environment whose parameters are :class:`Levels`: a hierarchy finds its low level there.

    So one compiled program serves any low level and any plan.
    """

    def __init__(self, env: Env) -> None:
        super().__init__()
        self.inner = env
        if hasattr(env, "statistics"):
            self.statistics = lambda state, action, params: env.statistics(
                state, action, params.env
            )

    @property
    def name(self) -> str:
        """Of the environment."""
        return str(self.inner.name)

    def reset_env(self, key: Key, params: Levels) -> tuple[jax.Array, PyTree]:
        """As the environment."""
        return self.inner.reset_env(key, params.env)

    def step_env(self, key: Key, state: PyTree, action: jax.Array, params: Levels) -> tuple:
        """As the environment."""
        return self.inner.step_env(key, state, action, params.env)

    def is_truncated(self, state: PyTree, params: Levels) -> jax.Array:
        """As the environment."""
        return self.inner.is_truncated(state, params.env)

    def action_space(self, params: Levels) -> Any:
        """As the environment."""
        return self.inner.action_space(params.env)

    def legal_actions(self, state: PyTree, params: Levels) -> jax.Array:
        """As the environment, or all."""
        return legal_actions(self.inner, state, params.env)
