"""Carry out a teaching study: every method in every case on every seed.

Files, beside those of every run directory (see :mod:`rlli_jax.experiments.run_directory`):
``task.json`` (texts, advice, teacher, exact value of the expert), ``methods/<case>/<method>.npz``
(``_run_method``) and ``language_policy.npz`` (``_run_policy``).

What is finished is kept: a method's file appears whole or not at all, and a resumed study goes on
with the next one.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.envs.provider_selection import make_params
from rlli_jax.experiments.config import load_config
from rlli_jax.experiments.run_directory import write_json, write_npz
from rlli_jax.experiments.tables import build_problem
from rlli_jax.experiments.teaching.config import (
    Ball,
    CaseBlock,
    LanguagePolicyBlock,
    Loaded,
    StandIn,
    TeachingStudy,
)
from rlli_jax.teaching.bidirectional import Adapt, Choices, Method, TeachingConfig, teaching
from rlli_jax.teaching.language_policy import language_policy, policy_table
from rlli_jax.teaching.t5 import LanguageModel, load_t5, tiny_t5
from rlli_jax.teaching.tasks import Task, go_to_red_ball, provider_selection
from rlli_jax.teaching.teachers import StandIns, stand_in_teachers, teacher


def build_task(study: TeachingStudy) -> Task:
    """The task that a study names."""
    if isinstance(study.task, Ball):
        return go_to_red_ball()
    problem = build_problem(load_config(study.task.study))
    table = problem.train
    params = jax.tree.map(jnp.asarray, make_params(table, problem.population.traits))
    return provider_selection(params, problem.population, table.requests, table.providers)


def build_teachers(study: TeachingStudy, task: Task, key: jax.Array) -> StandIns:
    """One teacher a seed: tiny ones that differ in what they know, or one that is loaded."""
    block = study.teacher
    if isinstance(block, StandIn):
        return stand_in_teachers(
            jax.random.split(key, study.seeds), task, block.ability,
            d_model=block.d_model, steps=block.steps,
        )  # fmt: skip
    model = load_t5(block.model)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (study.seeds, *x.shape)), model.params)
    return StandIns(teacher(task, model), params, jnp.zeros((study.seeds, len(task.texts)), bool))


def build_policy_model(study: TeachingStudy, task: Task, key: jax.Array) -> LanguageModel:
    """The language model that is itself the policy: tiny with random weights, or one loaded."""
    if isinstance(study.teacher, Loaded):
        return load_t5(study.teacher.model)
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    width = study.teacher.d_model
    return tiny_t5(key, words, d_model=width, num_heads=max(1, width // 8))


def carry_out(study: TeachingStudy, path: Path, console: Console) -> None:
    """Fill a run directory with what is not there yet."""
    task = build_task(study)
    key_teacher, key_run, key_policy = jax.random.split(jax.random.key(study.seed), 3)
    # XLA uses one core for work this small, so jobs run side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            running = []
            file = path / "language_policy.npz"
            if study.language_policy is not None and not file.exists():
                key_model, key_learner = jax.random.split(key_policy)
                # Here and not in the job: transformers cannot be imported in two threads at once.
                model = build_policy_model(study, task, key_model)
                asked = (study.language_policy, task, model, key_learner, file)
                running.append(pool.submit(_run_policy, *asked))
            start = time.perf_counter()
            teachers = jax.block_until_ready(build_teachers(study, task, key_teacher))
            seconds = time.perf_counter() - start
            console.print(f"{teachers.teacher.model.name}: {seconds:.1f} s", highlight=False)
            _describe(study, task, teachers, path)
            programs = _Programs(study, task, teachers)
            # The same for every method, so that they can be compared seed by seed.
            keys = jax.random.split(key_run, study.seeds)
            # Long ones first, so that no core is idle at the end.
            for case, block in sorted(study.cases.items(), key=lambda item: -item[1].iterations):
                for name, method in study.methods.items():
                    file = path / "methods" / case / f"{name}.npz"
                    if not file.exists():
                        job = (programs, block, method, keys, file)
                        running.append(pool.submit(_run_method, *job))
            for done in as_completed(running):
                console.print(done.result(), highlight=False, markup=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _describe(study: TeachingStudy, task: Task, teachers: StandIns, path: Path) -> None:
    """Write ``task.json``."""
    expert = {name: float(value) for name, value in task.value(task.expert).items()}
    content = {
        "name": task.name,
        "texts": list(task.texts),
        "advice": list(task.advice),
        "teacher": teachers.teacher.model.name,
        "stand_in": isinstance(study.teacher, StandIn),
        "env_steps_per_iteration": {
            name: study.loop(case).num_envs * study.config.num_steps
            for name, case in study.cases.items()
        },
        "expert": np.asarray(task.expert).argmax(1).tolist(),
        "metric": "success" if "success" in expert else "return",
        "expert_value": expert,
    }
    write_json(path / "task.json", content)


class _Programs:
    """Compiled rounds, one for each shape and way in which teachers' weights change."""

    def __init__(self, study: TeachingStudy, task: Task, teachers: StandIns) -> None:
        self.study, self.task, self.teachers = study, task, teachers
        self._guard = threading.Lock()
        self._locks: dict[Any, threading.Lock] = {}
        self._compiled: dict[Any, tuple[Any, Any, Any]] = {}

    def get(self, method: Method, case: CaseBlock) -> tuple[Any, Any, Any]:
        """init, round and examine, vmapped over seeds; compiled by the first who asks."""
        config = self.study.loop(case)
        kind = (config, method.trains)
        with self._guard:
            lock = self._locks.setdefault(kind, threading.Lock())
        with lock:
            if kind not in self._compiled:
                self._compiled[kind] = self._compile(method.choices, *kind)
        return self._compiled[kind]

    def _compile(
        self, choices: Choices, config: TeachingConfig, adapt: Adapt | None
    ) -> tuple[Any, Any, Any]:
        loop = teaching(self.task, self.teachers.teacher, config, adapt=adapt)
        hyperparams, env_params = self.study.hyperparams, self.task.env_params

        @jax.jit
        def init(keys: jax.Array, weights: Any, choices: Choices) -> Any:
            start = jax.vmap(lambda key, w: loop.init(key, w, choices, hyperparams, env_params))
            return start(keys, weights)

        def round_(states: Any, env_params: Any, iterations: jax.Array) -> Any:
            practise = jax.vmap(loop.practise, (0, None, None))
            states, asked, result = practise(states, env_params, iterations)
            # One language model after the other: a CPU's caches hold one, not all.
            return jax.lax.map(lambda x: loop.teach(*x), (states, asked)), result

        over_seeds = jax.jit(round_, donate_argnums=0)
        keys = jax.random.split(jax.random.key(0), self.study.seeds)
        example = jax.eval_shape(init, keys, self.teachers.params, choices)
        return (
            init,
            over_seeds.lower(example, env_params, jnp.int32(1)).compile(),
            jax.jit(jax.vmap(loop.examine)),
        )


def _run_method(
    programs: _Programs, case: CaseBlock, method: Method, keys: jax.Array, file: Path
) -> str:
    """Train one method on all seeds and write its file; a line to show."""
    init, over_seeds, examine = programs.get(method, case)
    # A copy, since every round reuses the memory of its state.
    state = jax.tree.map(jnp.copy, init(keys, programs.teachers.params, method.choices))
    before = jax.device_get(examine(state)) if method.teacher else {}
    start = time.perf_counter()
    rounds = []
    for _ in range(case.iterations // case.teacher_every):
        state, metrics = over_seeds(state, programs.task.env_params, jnp.int32(case.teacher_every))
        rounds.append(metrics)
    rounds = jax.device_get(rounds)
    seconds = time.perf_counter() - start
    after = jax.device_get(examine(state)) if method.trains else before
    result = {
        "iterations": np.arange(1, len(rounds) + 1) * case.teacher_every,
        "episode_return": np.stack([r.episode_return for r in rounds], 1),  # [seeds, rounds]
        "followed": np.stack([r.followed for r in rounds], 1),
        "positive": np.stack([r.positive for r in rounds], 1),
        "seconds": np.array(seconds),
        "heard": np.asarray(state.heard),  # [seeds, T, 2]
    }
    for name in rounds[0].value:
        result[name] = np.stack([r.value[name] for r in rounds], 1)
    for when, examined in (("before", before), ("after", after)):
        for name, value in examined.items():
            result[f"teacher_{name}_{when}"] = value
    write_npz(file, result)
    return (
        f"case {file.parent.name}, {file.stem}: return {result['return'][:, -1].mean():.3f} "
        f"({seconds:.1f} s)"
    )


def _run_policy(
    block: LanguagePolicyBlock, task: Task, model: LanguageModel, key: jax.Array, file: Path
) -> str:
    """The language model as the policy: its exact values after each iteration, on every seed."""
    learner = language_policy(task, model, block.config)

    def step(state: Any, env_params: Any) -> Any:
        state, metrics = learner.step(state, env_params)
        table = policy_table(task, model, state.params["model"], block.config.scoring)
        return state, task.value(table) | {"episode_return": metrics["episode_return"]}

    compiled = jax.jit(step, donate_argnums=0)
    curves = []
    start = time.perf_counter()
    for seed_key in jax.random.split(key, block.seeds):
        # A copy, since every step reuses the memory of its state.
        state = jax.tree.map(jnp.copy, learner.init(seed_key, block.hyperparams, task.env_params))
        metrics = []
        for _ in range(block.iterations):
            state, new = compiled(state, task.env_params)
            metrics.append(new)
        curves.append(jax.device_get(metrics))
    result = {
        name: np.array([[float(m[name]) for m in curve] for curve in curves])
        for name in curves[0][0]
    }
    steps = learner.env_steps * np.arange(1, block.iterations + 1)
    write_npz(file, result | {"env_steps": steps, "seconds": np.array(time.perf_counter() - start)})
    return f"language policy: return {result['return'][:, -1].mean():.3f}"
