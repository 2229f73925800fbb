"""Synthetic run directories: made-up numbers in the layout that `rlli run` writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rlli_jax.qoe import QoETable

ACTION_REWARD = ["action", "reward"]
PERSONA = [*ACTION_REWARD, "persona"]
POLICIES = {  # name -> learner, observation, share of the best choice (made up)
    "PPO": ("ppo", ACTION_REWARD, 0.56),
    "DQN": ("dqn", ACTION_REWARD, 0.55),
    "PPO knowing the persona": ("ppo", PERSONA, 0.995),
    "DQN knowing the persona": ("dqn", PERSONA, 0.95),
    "Random": ("random", ACTION_REWARD, 0.0),
    "Optimal": ("optimal", PERSONA, 1.0),
}
MADE_UP_JUDGE = "made-up judge (synthetic numbers for tests)"


def synthetic_run(
    path: Path,
    *,
    users=("Ada", "Bruno", "Chiara", "Dmitri", "Eun-ji"),
    requests=("a cat", "an astronaut", "a cup of coffee", "a rocket", "galaxies", "a motorcycle"),
    providers=("Vivid", "Film", "Painterly", "Monochrome"),
    samples=4,
    seeds=10,
    iterations=120,
    rounds=10,
    pictures=True,
    human=False,
    holes=0.0,
    held_out=0.0,
) -> Path:
    """A run directory of made-up numbers; the learned policies mix the best and a random choice."""
    generator = np.random.default_rng(7)
    shape = (len(users), len(requests), len(providers), samples)
    taste = generator.uniform(0.25, 0.9, (len(users), 1, len(providers), 1))
    noise = generator.normal(0, 0.05, shape[:3])[..., None] + generator.normal(0, 0.02, shape)
    valid = np.broadcast_to(generator.random(shape[:3])[..., None] >= holes, shape)
    qoe = np.where(valid, np.clip(taste + noise, 0, 1), 0).astype(np.float32)
    path.mkdir(parents=True)
    table = QoETable(
        qoe=qoe,
        valid=valid,
        users=users,
        requests=requests,
        providers=providers,
        judge=MADE_UP_JUDGE,
        stand_in=True,
    )
    table.save(path / "table.npz")
    traits = generator.uniform(1, 5, (len(users), 5)).round(1)
    lines = [",".join([name, *map(str, row)]) for name, row in zip(users, traits, strict=True)]
    (path / "population.csv").write_text("\n".join(["name,O,C,E,A,N", *lines]) + "\n")
    config = {
        "name": "synthetic",
        "description": "Made-up numbers to test the report with.",
        "table": {"held_out_requests": held_out, "split_seed": 5},
        "environment": {"rounds": rounds},
        "policies": {name: {"learner": values[0]} for name, values in POLICIES.items()},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "versions.json").write_text(
        json.dumps(
            {"python": "3.0", "jax": "0.0", "device": "made-up device", "command": "rlli made-up"}
        )
    )

    test = table.split_requests(held_out, 5)[0] if held_out else table
    references = test.references()
    (path / "references.json").write_text(json.dumps(references))
    mean, random = test.provider_values, references["random"]

    one_hot = np.eye(len(providers))[mean.argmax(1)]
    for name, (learner, observation, skill) in POLICIES.items():
        folder = path / "policies" / name
        folder.mkdir(parents=True)
        spread = 0.02 if 0 < skill < 1 else 0.0
        skills = np.clip(skill + spread * generator.normal(size=seeds), 0, 1)
        chance = skills[:, None, None] * one_hot + (1 - skills[:, None, None]) / len(providers)
        expected = (chance * mean).sum(-1)
        np.savez(
            folder / "evaluation.npz",
            returns=rounds * expected.sum(1)[:, None] + generator.normal(0, 0.3, (seeds, 8)),
            choices=np.repeat(np.rint(200 * chance)[:, :, None], len(test.requests), 2).astype(int),
            qoe=expected,
            objective=expected.sum(1),
        )
        learned = learner in ("ppo", "dqn")
        summary = {
            "name": name,
            "learner": learner,
            "assignment": "sequential",
            "observation": observation,
            "rounds": rounds,
            "seeds": seeds,
            "iterations": iterations if learned else None,
            "env_steps": iterations * 2048 if learned else None,
            "compile_seconds": 3.21 if learned else None,
            "train_seconds": 12.6 if learned else None,
            "steps_per_second": 1.234e6 if learned else None,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        if learned:
            progress = 1 - np.exp(-np.arange(iterations) / (iterations / 8))
            level = random + progress * (expected.sum(1).mean() - random)
            curve = rounds * level + generator.normal(0, 1.2, (seeds, iterations))
            curve[generator.random(curve.shape) < 0.05] = np.nan
            curve[:, 0] = np.nan
            np.savez(
                folder / "curve.npz",
                env_steps=2048 * np.arange(1, iterations + 1),
                episode_return=curve,
            )
    if pictures:
        (path / "pictures").mkdir()
        for r, p in np.ndindex(len(requests), len(providers)):
            if (r, p) != (1, 2):  # one pair has no picture
                ramp = np.linspace(0, 255, 96 * 128).reshape(96, 128)
                colour = generator.uniform(0.2, 1, 3)
                pixels = (ramp[..., None] * colour).astype(np.uint8)
                Image.fromarray(pixels).save(path / "pictures" / f"{r}-{p}.jpg")
    if human:
        scores = {
            name: list(2 + skill + generator.normal(0, 0.02, seeds))
            for name, (_, _, skill) in POLICIES.items()
        }
        value = {
            "scale": "0 to 5",
            "requests": 40,
            "references": {
                "random": 2.0,
                "best_single": 2.8,
                "best_single_provider": references["best_single"][0],
                "best_per_request": 3.3,
            },
            "policies": scores,
        }
        (path / "human.json").write_text(json.dumps(value))
    return path


@pytest.fixture(scope="session")
def make_run():
    """The function that writes a synthetic run directory."""
    return synthetic_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Small: what a test may damage."""
    return synthetic_run(
        tmp_path / "synthetic",
        users=("Ada", "Bruno"),
        requests=("a cat", "an astronaut"),
        providers=("Vivid", "Film", "Monochrome"),
        seeds=5,
        iterations=30,
        human=True,
    )
