"""What a planner is asked: which goal is next, in each of finitely many situations, in words.

The low level is a policy that was trained to follow any goal that it is told. A planner is asked
once for each situation which goal is next, as of SayCan (Ahn et al. 2022, arXiv 2204.01691) without
its affordances; its answers are a table, the plan. In GoTo a situation is an instruction, "go to
the red key, then go to the blue box", and how many of its goals are reached; in the edge market it
is the load, the hour and how many VIPs came lately.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.edge_market.goals import GOALS, SITUATIONS, GoalMarket, GoalState
from rlli_jax.envs.go_to import EnvState, GoTo
from rlli_jax.envs.go_to.instructions import KINDS
from rlli_jax.envs.policy import Policy, policy_input
from rlli_jax.errors import InputError
from rlli_jax.language import LanguageModel
from rlli_jax.learners.options import Hierarchy

LowLevel = Callable[[PyTree], Policy]  # parameters -> what follows goals; it has no memory


@dataclass(frozen=True)
class Situations:
    """Finitely many situations in words, in each of which one of the options is to be named."""

    situations: tuple[str, ...]  # [S]
    options: tuple[str, ...]  # [O], what may be said: the names of goals
    cue: str  # behind a situation, for a model that goes on with a text
    question: str  # the same for a model that answers
    right: np.ndarray | None = None  # [S] int32, the goal that is next, where that is known

    @property
    def prompts(self) -> tuple[str, ...]:
        """[S], what a language model goes on with."""
        return tuple(f"{text}\n{self.cue}" for text in self.situations)

    def oracle(self) -> jax.Array:
        """The right plan, [S, O]; only where it is known."""
        return jax.nn.one_hot(self.right, len(self.options))

    def chance(self) -> jax.Array:
        """Any option, [S, O]."""
        return jnp.full((len(self.situations), len(self.options)), 1 / len(self.options))

    def constant(self, option: int) -> jax.Array:
        """One option in every situation, [S, O]."""
        chosen = jnp.full(len(self.situations), option)
        return jax.nn.one_hot(chosen, len(self.options))

    def asked(self, model: LanguageModel) -> jax.Array:
        """What a language model finds likeliest in each situation, [S, O].

        Raises:
            InputError: a prompt is longer than the model takes.
        """
        scores = model.score(
            model.params, model.prompts(self.prompts), model.candidates(self.options)
        )
        return jax.nn.one_hot(jnp.argmax(scores.candidates, -1), len(self.options))

    def by_rule(self, rule: Mapping[str, str]) -> jax.Array:
        """The plan of a rule: in each situation the goal of the first words that its text has.

        Args:
            rule: words, such as "almost full", to a goal; "" stands for all other situations.

        Returns:
            [S, O].

        Raises:
            InputError: words that are in no situation, a situation without any, or a goal that is
                none of the options.
        """
        for words in rule:
            if not any(words.lower() in text.lower() for text in self.situations):
                raise InputError(
                    f"no situation has the words {words!r}; a situation is, for instance: "
                    f"{' '.join(self.situations[0].split())}"
                )
        goals = []
        for text in self.situations:
            found = [goal for words, goal in rule.items() if words.lower() in text.lower()]
            if not found:
                raise InputError(
                    f"the rule names no goal for the situation: {' '.join(text.split())} Give "
                    "words that it has, or '' for all others."
                )
            goals.append(found[0])
        return self.given(goals)

    def given(self, goals: Sequence[str]) -> jax.Array:
        """A plan by its goals' names, one for each situation, [S, O].

        Raises:
            InputError: a goal that is none of the options, or more or fewer than situations.
        """
        if len(goals) != len(self.situations):
            raise InputError(
                f"the plan has {len(goals)} goals for {len(self.situations)} situations; give one "
                "for each."
            )
        for goal in goals:
            if goal not in self.options:
                raise InputError(
                    f"the plan names {goal!r}, which is no goal here; the goals are "
                    f"{', '.join(self.options)}."
                )
        return jax.nn.one_hot(
            jnp.array([self.options.index(goal) for goal in goals]), len(self.options)
        )


@dataclass(frozen=True, kw_only=True)
class Planning(Situations):
    """What there is to plan, and how a plan is carried out."""

    hierarchy: Hierarchy


def planning(env: GoTo, walker: GoTo, low: LowLevel, limit: int = 32) -> Planning:
    """What there is to plan in a room.

    Args:
        env: whose instructions are to be followed.
        walker: in which the low level was trained, with an instruction for every kind of thing.
        low: that policy, by the parameters that it is given.
        limit: steps after which the planner chooses anew anyway.

    Raises:
        InputError: ``walker`` has no instruction for a thing that ``env`` asks for.
    """
    goals = np.asarray(env.default_params.goals)  # [M, G]
    kinds = np.unique(goals)
    known = np.asarray(walker.default_params.goals)[:, 0]
    for kind in kinds:
        if kind not in known:
            raise InputError(
                f"the low level has no instruction for the {KINDS[kind]}; train it on all kinds "
                "(instructions: all)."
            )
    told = jnp.array([np.flatnonzero(known == kind)[0] for kind in kinds])
    wanted, parts = jnp.asarray(kinds), goals.shape[1]

    def act(key: Key, state: EnvState, option: jax.Array, params: PyTree) -> jax.Array:
        own, walk = walker.default_params, low(params)
        seen = state.replace(instruction=told[option], part=jnp.int32(0))
        observation = walker.observe(seen, own)
        action, _ = walk.act(key, policy_input(walker, observation, seen, own), walk.initial)
        return action

    hierarchy = Hierarchy(
        situations=goals.size,
        situation=lambda s, _: s.instruction * parts + jnp.minimum(s.part, parts - 1),
        options=len(kinds),
        act=act,
        ended=lambda state, option, _: env.reached(state, wanted[option]),
        limit=limit,
    )
    situations = [
        f"Task: {text}.\nDone: {' and '.join(KINDS[k] for k in row[:part]) or 'nothing'}."
        for text, row in zip(env.instructions, goals, strict=True)
        for part in range(parts)
    ]
    return Planning(
        tuple(situations),
        tuple(KINDS[kind] for kind in kinds),
        hierarchy=hierarchy,
        cue="Next: go to the",
        question="Which of these is to be gone to next?",
        right=np.searchsorted(kinds, goals.reshape(-1)).astype(np.int32),
    )


def market_planning(env: GoalMarket, follower: GoalMarket, low: LowLevel) -> Planning:
    """What there is to plan in a market: the goal of the next period.

    Parameters are :class:`rlli_jax.learners.options.Levels` over those of ``env``.

    Args:
        env: the market.
        follower: the same with goals, in which the low level was trained.
        low: that policy, by the parameters that it is given.
    """

    def act(key: Key, state: GoalState, option: jax.Array, params: PyTree) -> jax.Array:
        policy, seen = low(params), state.replace(goal=option)
        observation = follower.observe(seen, params.env)
        told = policy_input(follower, observation, seen, params.env)
        action, _ = policy.act(key, told, policy.initial)
        return action

    hierarchy = Hierarchy(
        situations=len(SITUATIONS),
        situation=lambda state, params: env.situation(state, params.env),
        options=len(GOALS),
        act=act,
        ended=lambda state, option, params: jnp.bool_(False),
        limit=env.period,
    )
    return Planning(
        SITUATIONS,
        GOALS,
        hierarchy=hierarchy,
        cue=f"What matters most for the next {env.period} pictures: to",
        question=f"What matters most for the next {env.period} pictures?",
    )
