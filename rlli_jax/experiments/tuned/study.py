"""A language model tuned by reward as the policy of provider selection, against exact references.

The run directory holds, beside what all have, ``table.npz``, ``population.csv`` and
``references.json``; see :mod:`rlli_jax.run_files`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, policy_input
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection, make_params
from rlli_jax.envs.provider_selection.env import EnvState
from rlli_jax.experiments.kept_table import kept_table
from rlli_jax.experiments.sources import Parts
from rlli_jax.experiments.study import Arrays, Job, Told, TrainedStudy
from rlli_jax.experiments.tuned.config import TuningStudy
from rlli_jax.language import LanguageModel
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.tuning import TunedSummary, TuningReferences
from rlli_jax.teaching.language_policy import policy_table
from rlli_jax.teaching.scored import tokens
from rlli_jax.teaching.tasks import TextTask, provider_selection
from rlli_jax.teaching.tuning import TuningParams, Worded, expected_return


@dataclass(frozen=True, eq=False)
class Problem:
    """What every policy of a study meets."""

    task: TextTask
    model: LanguageModel
    shared: TuningParams  # on the host
    references: TuningReferences
    told: Told


class TunedPolicies(TrainedStudy):
    """The language model as the policy, and policies on numbers beside it."""

    summary = TunedSummary

    def prepare(self, config: TuningStudy, path: Path | None, console: Console) -> Problem:
        """Texts, table and model, and what choices are worth."""
        loaded = config.model.load()

        def check(parts: Parts) -> None:
            """That the model takes the texts."""
            task = _task(parts.users.rehearsal(), parts.users.population)
            tokens(task, loaded or config.model.make(task, config.seed))

        table, people, *_ = kept_table(
            config.population, config.catalog, config.judge, path, console, check
        )
        task = _task(table, people)
        model = loaded or config.model.make(task, config.seed)
        file = None if path is None else path / "references.json"
        if file is not None and file.exists():
            found = TuningReferences.read(file)
        else:
            with console.status(f"what {model.name} chooses as it is"):
                found = _references(table, task, model)
            if file is not None:
                found.write(file)
        shared = jax.tree.map(
            lambda x: np.asarray(x, np.int32 if isinstance(x, int) else None),
            TuningParams(task.env_params, model.params),
        )
        return Problem(task, model, shared, found, Told(table.judge, table.stand_in))

    def decides(self, config: TuningStudy) -> str:
        """The seed too: a tiny model's first weights follow from it."""
        return f"{super().decides(config)}{config.seed}"

    def job(self, config: TuningStudy, problem: Problem, name: str) -> Job:
        """Learned from samples of the table, judged by its means."""
        block: Any = config.policies[name]
        table = problem.shared.table
        shared: dict[str, Any] = {
            "test": table,
            "iterations": block.iterations,
            "hyperparams": block.hyperparams,
            "measure": _measure,
        }
        if not block.reads:
            env = ProviderSelection(table, observation=block.observation)
            return Job(
                train=table,
                judge=partial(_judge, env, partial(_observed, env)),
                learner=partial(block.make, env),
                shape=(block.observation,),
                about={"observation": env.observation},
                **shared,
            )
        task, model = problem.task, problem.model
        return Job(
            train=problem.shared,
            judge=partial(_judge, ProviderSelection(table), _text),
            learner=partial(block.make, Worded(task, model)),
            shape=(task.texts, task.advice, np.asarray(task.legal).tobytes(), model.config),
            about={"observation": ("text",), "adapt": block.config.adapt},
            **shared,
        )

    def references(self, problem: Problem) -> dict[str, float]:
        """Exact, each a round's QoE summed over users."""
        found = problem.references
        return {
            "optimum_per_request": found.optimum_per_request,
            "optimum": found.optimum,
            "best_single": found.best_single,
            "untuned": found.untuned,
            "random": found.random,
        }

    def told(self, problem: Problem) -> Told:
        """Who judged."""
        return problem.told


STUDY = TunedPolicies()


def _task(table: QoETable, people: Population) -> TextTask:
    params = make_params(table, people.traits)
    return provider_selection(params, people, table.requests, table.providers)


def _references(table: QoETable, task: TextTask, model: LanguageModel) -> TuningReferences:
    known = table.references()
    untuned = policy_table(task, model, model.params)
    return TuningReferences(
        model=model.name,
        parameters=sum(x.size for x in jax.tree.leaves(model.params)),
        prompts=len(task.texts),
        optimum_per_request=known["optimum_per_request"],
        optimum=known["optimum"],
        best_single=known["best_single"][1],
        best_single_provider=known["best_single"][0],
        random=known["random"],
        untuned=float(expected_return(untuned, task.env_params)),
    )


Observe = Callable[[EnvState, EnvParams], jax.Array]


def _observed(env: ProviderSelection, state: EnvState, table: EnvParams) -> jax.Array:
    return env.observe(jax.random.key(0), state, None, table)


def _text(state: EnvState, table: EnvParams) -> jax.Array:
    """Number of the prompt; before the first user is served twice, time tells the user."""
    return state.time * table.qoe.shape[1] + state.request


def _judge(
    env: ProviderSelection, observe: Observe, policy: Policy, key: Key, table: EnvParams
) -> dict[str, jax.Array]:
    """The choice for each user and request [K, R], and what they are worth by the table's means."""
    users, requests, providers = table.mean.shape

    def choose(user: jax.Array, request: jax.Array) -> jax.Array:
        state = EnvState(time=user, request=request, action=jnp.int32(-1), reward=jnp.float32(0))
        seen = policy_input(env, observe(state, table), state, table)
        return policy.act(key, seen, policy.initial)[0].astype(jnp.int32)

    choices = jax.vmap(choose)(*jnp.divmod(jnp.arange(users * requests), requests))
    worth = expected_return(jax.nn.one_hot(choices, providers), table)
    return {"returns": worth[None], "choices": choices.reshape(users, requests)}


def _measure(found: Arrays, played: Any) -> Arrays:
    """What runs are compared by."""
    return {"objective": found["returns"][:, 0]}
