"""Carry out a study: judge, train every policy on every seed, evaluate, write it all down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from rlli_jax.envs.policy import Policy, evaluate, random, round_robin
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection, make_params, policies
from rlli_jax.experiments.run_directory import write_json, write_npz
from rlli_jax.experiments.selection.config import Reference, SelectionLearned, StudyConfig
from rlli_jax.experiments.selection.tables import Problem
from rlli_jax.experiments.training import (
    Checkpoints,
    evaluate_seeds,
    policy_keys,
    train,
    training_progress,
)
from rlli_jax.judges import scale_of
from rlli_jax.qoe import QoETable


def train_all(config: StudyConfig, path: Path, problem: Problem, console: Console) -> None:
    """Train and evaluate every policy that is not finished yet."""
    with training_progress(console) as progress:
        for name, block in config.policies.items():
            if not (path / "policies" / name / "summary.json").exists():
                _run_policy(name, block, config, path, problem, progress)


def _run_policy(
    name: str,
    block: SelectionLearned | Reference,
    config: StudyConfig,
    path: Path,
    problem: Problem,
    progress: Progress,
) -> None:
    """Train (if it learns), evaluate, and write the folder of one policy."""
    folder = path / "policies" / name
    key_train, key_test = policy_keys(config.seed, name)
    env = ProviderSelection(
        _params(problem, problem.train, problem.train, config),
        assignment=config.environment.assignment,
        observation=block.observation,
    )
    test_params = _params(problem, problem.test, problem.worth, config)
    summary: dict[str, Any] = {
        "name": name,
        "learner": block.learner,
        "assignment": env.assignment,
        "observation": list(env.observation),
        "rounds": config.environment.rounds,
        "seeds": config.seeds,
        "iterations": None,
        "env_steps": None,
        "compile_seconds": None,
        "train_seconds": None,
        "steps_per_second": None,
    }
    episodes = config.evaluation.episodes
    if isinstance(block, SelectionLearned):
        learner = block.make(env)
        task = progress.add_task(name, total=block.iterations, note="compiling")

        def show(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
            recent = metrics["episode_return"][:, -10:]
            note = f"return {np.nanmean(recent):.3f}" if np.isfinite(recent).any() else ""
            progress.update(task, completed=iteration, note=note)

        trained = train(
            learner,
            block.hyperparams,
            env.default_params,
            jax.random.split(key_train, config.seeds),
            block.iterations,
            config.checkpoint_every,
            Checkpoints(path / "checkpoints" / name),
            show,
        )
        result = evaluate_seeds(env, learner, trained.state, key_test, test_params, episodes)
        steps = learner.env_steps * np.arange(1, block.iterations + 1)
        write_npz(folder / "curve.npz", {"env_steps": steps, **trained.metrics})
        summary |= {
            "iterations": block.iterations,
            "env_steps": int(steps[-1]),
            "compile_seconds": trained.compile_seconds,
            "train_seconds": trained.train_seconds,
            "steps_per_second": int(steps[-1]) * config.seeds / trained.train_seconds,
        }
    else:
        task = progress.add_task(name, total=1, note="")
        result = _evaluate_reference(
            env, _reference(block, env, test_params), key_test, test_params, config.seeds, episodes
        )
        progress.update(task, completed=1, note=f"return {result['returns'].mean():.3f}")
    write_npz(folder / "evaluation.npz", result | _qoe(result["choices"], problem.worth.mean))
    # Last, because its presence says that the policy is finished.
    write_json(folder / "summary.json", summary)


def _params(problem: Problem, table: QoETable, worth: QoETable, config: StudyConfig) -> EnvParams:
    params = make_params(
        table, problem.population.traits, rounds=config.environment.rounds, worth=worth
    )
    # Arrays, not Python numbers: weak types would compile anew.
    return jax.tree.map(jax.numpy.asarray, params)


def _reference(block: Reference, env: ProviderSelection, test_params: EnvParams) -> Policy:
    """``optimal`` and ``best_single`` choose by the table of training, ``greedy`` by that of the
    requests at hand."""
    if block.learner == "random":
        return random()
    if block.learner == "round_robin":
        return round_robin()
    if block.learner == "greedy":
        return policies.greedy(env, test_params)
    return {"optimal": policies.optimal, "best_single": policies.best_single}[block.learner](
        env, env.default_params
    )


def _evaluate_reference(
    env: ProviderSelection,
    policy: Policy,
    key: jax.Array,
    params: EnvParams,
    seeds: int,
    episodes: int,
) -> dict[str, np.ndarray]:
    play = jax.jit(jax.vmap(lambda key: evaluate(env, policy, key, params, episodes)))
    result = play(jax.random.split(key, seeds))
    return {
        "returns": np.asarray(result.returns),
        "choices": np.asarray(result.statistics["choices"]),
    }


def _qoe(choices: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Expected QoE of each user under choices [seeds, K, R, L], every request weighing alike."""
    qoe = expected_score(choices, mean)
    return {"qoe": qoe.astype(np.float32), "objective": qoe.sum(-1).astype(np.float32)}


def expected_score(choices: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mean score of what each user got: [seeds, K, R, L] counts, [K, R, L] -> [seeds, K].

    Within a request by how often a provider was chosen; requests weigh alike, as in Eq. (2),
    although chance draws some more often. A request that a user never met is left out.
    """
    met = choices.sum(-1)  # [seeds, K, R]
    within = (choices * score).sum(-1) / np.maximum(met, 1)
    return within.sum(-1) / (met > 0).sum(-1)


def human_opinion(config: StudyConfig, path: Path, problem: Problem) -> None:
    """Look up what people think of each policy's choices on the evaluation requests."""
    if problem.human is None:
        return
    block = config.evaluation.human
    assert block is not None  # the problem has human scores because the config names them
    scale = scale_of(block.scale)

    def opinion(qoe: Any) -> Any:
        return scale.low + (scale.high - scale.low) * np.asarray(qoe)

    scores, legal = problem.human.mean[0], problem.human.legal[0]  # [R, L]
    references = problem.human.references()
    policies = {}
    for name in config.policies:
        with np.load(path / "policies" / name / "evaluation.npz") as evaluation:
            score = expected_score(evaluation["choices"], np.where(legal, scores, 0)[None])
        policies[name] = opinion(score.mean(-1)).tolist()
    write_json(
        path / "human.json",
        {
            "scale": f"{scale.low:g} to {scale.high:g}",
            "requests": len(problem.test.requests),
            "references": {
                "random": float(opinion(references["random"])),
                "best_single": float(opinion(references["best_single"][1])),
                "best_single_provider": references["best_single"][0],
                "best_per_request": float(opinion(references["optimum_per_request"])),
            },
            "policies": policies,
        },
    )
