"""A planner of GoTo: which thing to go to next, for each of finitely many situations.

The low level is a policy that was trained to go to any thing that it is told. A situation is an
instruction, "go to the red key, then go to the blue box", and how many of its goals are reached; a
language model is asked once for each which goal is next, as of SayCan (Ahn et al. 2022, arXiv
2204.01691) without its affordances.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import Key, PyTree
from rlli_jax.envs.go_to import EnvState, GoTo
from rlli_jax.envs.go_to.instructions import KINDS
from rlli_jax.envs.policy import Policy, policy_input
from rlli_jax.errors import InputError
from rlli_jax.language import LanguageModel
from rlli_jax.learners.options import Hierarchy


class Planning(NamedTuple):
    """What there is to plan."""

    hierarchy: Hierarchy
    prompts: tuple[str, ...]  # [S], what a language model reads
    options: tuple[str, ...]  # [O], what it may say: the names of things
    right: np.ndarray  # [S] int32, the goal that is next

    def oracle(self) -> jax.Array:
        """The right plan, [S, O]."""
        return jax.nn.one_hot(self.right, len(self.options))

    def chance(self) -> jax.Array:
        """Any option, [S, O]."""
        return jnp.full((len(self.prompts), len(self.options)), 1 / len(self.options))

    def asked(self, model: LanguageModel) -> jax.Array:
        """What a language model finds likeliest in each situation, [S, O].

        Raises:
            InputError: a prompt is longer than the model takes.
        """
        scores = model.score(
            model.params, model.prompts(self.prompts), model.candidates(self.options)
        )
        return jax.nn.one_hot(jnp.argmax(scores.candidates, -1), len(self.options))

    def given(self, goals: Sequence[str]) -> jax.Array:
        """A plan by its goals' names, one for each situation, [S, O].

        Raises:
            InputError: a goal that is none of the options, or more or fewer than situations.
        """
        if len(goals) != len(self.prompts):
            raise InputError(
                f"the plan has {len(goals)} goals for {len(self.prompts)} situations; give one "
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


def planning(env: GoTo, walker: GoTo, walk: Policy, limit: int = 32) -> Planning:
    """What there is to plan in a room.

    Args:
        env: whose instructions are to be followed.
        walker: in which the low level was trained, with an instruction for every kind of thing.
        walk: that policy; it has no memory.
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
        own = walker.default_params
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
    prompts = [
        f"Task: {text}.\nDone: {' and '.join(KINDS[k] for k in row[:part]) or 'nothing'}.\n"
        "Next: go to the"
        for text, row in zip(env.instructions, goals, strict=True)
        for part in range(parts)
    ]
    return Planning(
        hierarchy,
        tuple(prompts),
        tuple(KINDS[kind] for kind in kinds),
        np.searchsorted(kinds, goals.reshape(-1)).astype(np.int32),
    )
