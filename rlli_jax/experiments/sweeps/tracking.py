"""A finished sweep's runs in an experiment tracker: TensorBoard or Weights & Biases.

Learners are compiled whole, so a run is handed over when its sweep is finished: its settings, its
learning curve over environment steps, and its results.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from rlli_jax.errors import InputError

Tracker = Literal["tensorboard", "wandb"]
_PACKAGES: dict[Tracker, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
_RESULTS = ("objective", "ratio")


class TrackedRun(NamedTuple):
    """One policy at one point with one seed."""

    name: str  # policy/point/seed
    settings: dict[str, Any]  # swept keys, policy and seed
    env_steps: np.ndarray  # [iterations]
    episode_return: np.ndarray  # [iterations]; NaN where no episode ended
    results: dict[str, float]


def package(tracker: Tracker) -> ModuleType:
    """The tracker's package. Raises InputError if it is not installed."""
    try:
        return importlib.import_module(_PACKAGES[tracker])
    except ImportError:
        raise InputError(
            f"--track {tracker} needs the package {_PACKAGES[tracker]}, which is not installed; "
            f"pip install 'rlli_jax[{tracker}]'."
        ) from None


def prepare(tracker: Tracker) -> None:
    """Find out before training what would stop :func:`track` after it.

    Raises:
        InputError: the tracker's package is not installed, or it has no key.
    """
    module = package(tracker)
    if tracker == "wandb" and os.environ.get("WANDB_MODE", "online") in ("online", "run", "shared"):
        try:
            known = module.login()
        except module.errors.Error:  # no key, and nobody at a terminal to give one
            known = False
        if not known:
            raise InputError(
                "--track wandb: Weights & Biases has no key; set WANDB_API_KEY, run `wandb login`, "
                "or set WANDB_MODE=offline to keep the runs on this machine."
            )


def track(tracker: Tracker, path: Path) -> str:
    """Hand over every run of ``sweep.nc`` at ``path``; returns a line that says where they are.

    TensorBoard's files, in ``tensorboard`` beside it, are written anew each time. Weights & Biases
    gets new runs each time, in the group of the sweep's name; where it is offline
    (``WANDB_MODE=offline``) they are in ``wandb`` beside it.

    Raises:
        InputError: the tracker's package is not installed.
    """
    module, folder = package(tracker), path.parent
    dataset = xr.load_dataset(path, engine="scipy")
    if tracker == "wandb":
        return _to_wandb(module, dataset, folder)
    return _to_tensorboard(module, dataset, folder / "tensorboard")


def tracked_runs(dataset: xr.Dataset) -> Iterator[TrackedRun]:
    """Every run of a sweep's dataset."""
    keys = json.loads(dataset.attrs["swept"])
    for p, t, s in np.ndindex(*(dataset.sizes[name] for name in ("policy", "point", "seed"))):
        run = dataset.isel(policy=p, point=t, seed=s)
        policy, seed = str(run["policy"].item()), int(run["seed"].item())
        curve = run["curve"].values
        yield TrackedRun(
            name=f"{policy}/point {t}/seed {seed}",
            settings={key: run[key].item() for key in keys} | {"policy": policy, "seed": seed},
            env_steps=run["env_steps"].item() * np.arange(1, len(curve) + 1),
            episode_return=curve,
            results={name: float(run[name]) for name in _RESULTS},
        )


def _to_tensorboard(tensorboard: ModuleType, dataset: xr.Dataset, folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    for run in tracked_runs(dataset):
        with tensorboard.SummaryWriter(str(folder / run.name)) as writer:
            for step, value in _known(run):
                writer.add_scalar("episode_return", value, step)
            # Its own file, beside the curve's: TensorBoard's table of hyper-parameters reads it.
            writer.add_hparams(run.settings, run.results, name="settings")
    return f"tracked: tensorboard --logdir {shlex.quote(str(folder))}"


def _to_wandb(wandb: ModuleType, dataset: xr.Dataset, folder: Path) -> str:
    for run in tracked_runs(dataset):
        tracked = wandb.init(
            project="rlli_jax",
            group=dataset.attrs["title"],
            name=run.name,
            config=run.settings,
            dir=str(folder),
            settings=wandb.Settings(silent=True),
        )
        for step, value in _known(run):
            tracked.log({"episode_return": value}, step=step)
        tracked.summary.update(run.results)
        tracked.finish()
    return f"tracked: Weights & Biases, project rlli_jax, group {dataset.attrs['title']}"


def _known(run: TrackedRun) -> Iterator[tuple[int, float]]:
    for step, value in zip(run.env_steps, run.episode_return, strict=True):
        if np.isfinite(value):
            yield int(step), float(value)
