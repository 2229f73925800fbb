"""A study so small that it runs in seconds: made-up pictures, made-up scores, tiny networks."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.console import Console

from rlli_jax import studies
from rlli_jax.experiments.run_directory import Existing
from rlli_jax.experiments.selection import judging
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.selection.tables import Problem
from rlli_jax.studies import load_study

PROVIDERS = ("ink", "oil", "wax")
REQUESTS = ("a boat", "a cat", "a tree", "an owl")


def write_pictures(folder: Path) -> Path:
    """A folder of made-up pictures ``provider/request.png``: noise of each provider's own kind."""
    generator = np.random.default_rng(5)
    for i, provider in enumerate(PROVIDERS):
        (folder / provider).mkdir(parents=True)
        for request in REQUESTS:
            noise = generator.integers(0, 80 + 80 * i, (24, 32, 3))
            noise[..., i] += 60 * (i < 2)
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            image.save(folder / provider / f"{request.replace(' ', '_')}.png")
    return folder


def write_scores(folder: Path, *, hole: bool = True) -> tuple[Path, Path]:
    """A manifest without images, and made-up scores of two users, 1-5, with one hole."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest, scores = folder / "images.csv", folder / "scores.csv"
    pairs = [(provider, request) for provider in PROVIDERS for request in REQUESTS]
    manifest.write_text(
        "provider,request,image\n" + "".join(f"{p},{r},{p}-{r}.png\n" for p, r in pairs)
    )
    rows = ["user,provider,request,score"]
    for k, user in enumerate(("ann", "ben")):
        for i, (provider, request) in enumerate(pairs):
            if not (hole and (user, provider, request) == ("ben", "wax", "a cat")):
                rows.append(f"{user},{provider},{request},{1 + (7 * i + 3 * k) % 17 / 4}")
    scores.write_text("\n".join(rows) + "\n")
    return manifest, scores


def write_human(folder: Path, skip: Sequence[tuple[str, str]] = ()) -> Path:
    """Made-up human scores, 0-5: ink 0 1 2 3, oil 4 5 0 1, wax 2 3 4 5 for the four requests."""
    path = folder / "human.csv"
    pairs = [(p, r) for p in PROVIDERS for r in REQUESTS]
    rows = [f"{p},{r},{i % 6}\n" for i, (p, r) in enumerate(pairs) if (p, r) not in skip]
    path.write_text("provider,request,mos\n" + "".join(rows))
    return path


def human_block(path: Path) -> dict[str, Any]:
    """The block ``evaluation.human`` for these scores."""
    block = {"kind": "recorded", "path": str(path), "scale": "0-5", "user": "people"}
    return block | {"columns": {"score": "mos"}}


# Enough iterations that a process can be stopped in the middle of either.
LEARNED: dict[str, Any] = {
    "PPO": {
        "learner": "ppo",
        "iterations": 24,
        "config": {"num_envs": 4, "num_steps": 8, "num_minibatches": 2, "hidden": [8]},
    },
    "DQN": {
        "learner": "dqn",
        "iterations": 24,
        "config": {
            "num_envs": 4,
            "num_steps": 8,
            "hidden": [8],
            "buffer_size": 64,
            "batch_size": 8,
            "warm_up": 16,
        },
    },
}


def content(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study of recorded scores, with PPO, DQN and random; ``changes`` replace whole blocks."""
    manifest, scores = folder / "images.csv", folder / "scores.csv"
    if not scores.exists():
        write_scores(folder)
    study = {
        "name": "tiny",
        "seeds": 2,
        "checkpoint_every": 2,
        "catalog": {"manifest": str(manifest), "pictures": False},
        "judge": {"kind": "recorded", "path": str(scores), "scale": "1-5"},
        "environment": {"rounds": 2},
        "policies": {**LEARNED, "Random": {"learner": "random"}},
        "evaluation": {"episodes": 16},
        "table": {"standardise": True, "held_out_requests": 0.5},
    }
    return study | changes


def write_config(folder: Path, **changes: Any) -> Path:
    """The study as a file."""
    study = content(folder, **changes)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def write_persona_config(folder: Path, iterations: int) -> Path:
    """A study of five users with personas, and two policies, one of which observes them."""
    return write_config(
        folder,
        population={"sample": {"size": 5, "seed": 3}},
        catalog={"folder": str(write_pictures(folder / "pictures"))},
        judge={"kind": "psychometric", "strength": 3.0},
        policies={
            "blind": LEARNED["PPO"] | {"iterations": 2},
            "knowing": LEARNED["PPO"]
            | {"iterations": iterations, "observation": ["action", "reward", "persona"]},
        },
    )


def carry_out(config: Path, path: Path, existing: Existing = "refuse", *overrides: str) -> Problem:
    """What ``rlli train`` does, in this process and without its output."""
    study = load_study(config, overrides)
    assert isinstance(study, StudyConfig)
    studies.carry_out(study, path, existing, Console(file=StringIO()))
    return judging.judge(study, path, Console(quiet=True))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a run directory, by file and name."""
    found = {}
    for file in sorted(path.rglob("*.npz")):
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                found[f"{file.relative_to(path)}: {name}"] = archive[name]
    return found


def assert_same_results(path: Path, other: Path) -> None:
    """Bit for bit, NaN included; everything in ``other`` is in ``path``."""
    first, second = arrays(path), arrays(other)
    assert second.keys() <= first.keys()
    for name, values in second.items():
        assert values.dtype == first[name].dtype, name
        np.testing.assert_array_equal(first[name], values, err_msg=name)
