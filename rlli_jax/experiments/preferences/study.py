"""Preferences as a study: raters, reward models and policies, hundreds of runs in one program.

The run directory holds, beside what all have, ``table.npz``, ``population.csv``,
``references.json`` and ``runs.npz``, and ``pairs.npz`` where the judge compares; see
:mod:`rlli_jax.run_files.preferences`. Runs are made in chunks; those of ``chunks/`` are finished,
and a resumed study goes on with the next.
"""

import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.catalog.features import FEATURES, picture_features
from rlli_jax.errors import InputError
from rlli_jax.experiments.kept_table import kept_table
from rlli_jax.experiments.preferences.asked_pairs import kept_pairs, most_pairs, wanted
from rlli_jax.experiments.preferences.config import PreferencesStudy
from rlli_jax.experiments.preferences.pairs import read_pairs
from rlli_jax.experiments.sources import Parts
from rlli_jax.experiments.training import training_progress
from rlli_jax.learners.cpu import TRAIN, compiler_options
from rlli_jax.oracle import Budget
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model_blocks import persona_features
from rlli_jax.run_files import write_npz
from rlli_jax.run_files.preferences import PreferenceReferences, PreferenceRuns
from rlli_jax.teaching.preferences import (
    Ask,
    Comparisons,
    Methods,
    Rater,
    Setting,
    World,
    compare,
    pairs_of,
    reference_policy,
    resampled,
    run,
)

CHUNK = 64  # runs of one call, which are kept together
TOGETHER = 8  # of these side by side: more leave a CPU core's cache
PERSONA = {"pictures": 1, "linear": 6, "quadratic": 21}  # features of a persona, by size


class Preferences:
    """Reinforcement learning from preferences between pictures."""

    def carry_out(
        self, config: PreferencesStudy, path: Path, console: Console, *, train: bool = True
    ) -> None:
        """Fill an open run directory with what is not there yet.

        Raises:
            InputError: what the config asks for cannot be had.
        """
        table, people, _, left = kept_table(
            config.population, config.catalog, config.judge, path, console, partial(check, config)
        )
        world = build_world(config, table, people.traits)
        pairs = _given_pairs(config, table, path, console, left)
        if not (path / "references.json").exists():
            _references(table, world, pairs).write(path / "references.json")
        if train and not (path / "runs.npz").exists():
            _carry_out(config, world, pairs, path, console)


STUDY = Preferences()


def check(config: PreferencesStudy, parts: Parts) -> None:
    """That all pictures can be measured, and that there are as many pairs as runs are to have."""
    inquiry = parts.users
    table = inquiry.rehearsal()
    world = build_world(config, table, inquiry.population.traits)
    if config.pairs.file is not None:
        _asker(config, world, read_pairs(config.pairs.file, table))
    if config.pairs.ask is not None:
        wanted(config, most_pairs(inquiry))


def _given_pairs(
    config: PreferencesStudy, table: QoETable, path: Path, console: Console, left: Budget | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """The comparisons of a file or of the judge; None where a rater is simulated."""
    if config.pairs.file is not None:
        return read_pairs(config.pairs.file, table)
    if config.pairs.ask is not None:
        return kept_pairs(config, table, path, console, left).comparisons()
    return None


def build_world(config: PreferencesStudy, table: QoETable, traits: np.ndarray | None) -> World:
    """The table as gold, the features of persona x picture, and the reference policy.

    Raises:
        InputError: there is no picture of some cell, or nobody to choose for some user and request.
    """
    users, requests, providers = table.legal.shape
    if not table.served.all():
        raise InputError(
            "Some users have no provider for some requests, but policies choose for all of them; "
            "select users and requests that have ratings."
        )
    pictures = _measured(config.catalog.load(), table)
    phi = persona_features(traits, users)
    features = np.einsum("kf,rlp->krlfp", phi, pictures).reshape(users * requests, providers, -1)
    legal = jnp.asarray(table.legal.reshape(-1, providers))
    gold = jnp.asarray(np.where(table.legal, table.mean, 0).reshape(-1, providers), jnp.float32)
    reference = reference_policy(gold, legal, config.optimisation.reference_temperature)
    return World(gold, legal, jnp.asarray(features, jnp.float32), reference)


def _measured(catalog: Catalog, table: QoETable) -> np.ndarray:
    """What is measured in each picture [R, L, 10], with mean 0 and standard deviation 1."""
    rows = {}
    for r, request in enumerate(table.requests):
        for p, provider in enumerate(table.providers):
            if table.legal[:, r, p].any():
                places = catalog.requests.index(request), catalog.providers.index(provider)
                picture = catalog.picture(*places)
                if picture is None:
                    raise InputError(
                        f"There is no picture of {request!r} by {provider!r}, but the reward model "
                        "knows pictures by what is measured in them; give a catalog with pictures."
                    )
                rows[r, p] = picture_features(picture)
    known = np.stack(list(rows.values()))
    measured = np.zeros((len(table.requests), len(table.providers), known.shape[1]))
    for place, row in rows.items():
        measured[place] = (row - known.mean(0)) / np.maximum(known.std(0), 1e-9)
    return measured


def settings(config: PreferencesStudy) -> dict[str, np.ndarray]:
    """All runs: count, noise, size (its number) and seed, each [runs]."""
    block = config.pairs
    every = product(
        block.counts, block.noise, range(len(config.reward_model.sizes)), range(config.seeds)
    )
    count, noise, size, seed = zip(*every, strict=True)
    return {
        "count": np.array(count, np.int32),
        "noise": np.array(noise, np.float32),
        "size": np.array(size, np.int32),
        "seed": np.array(seed, np.int32),
    }


def methods_of(config: PreferencesStudy) -> Methods:
    """The static part of a run."""
    block = config.optimisation
    return Methods(
        betas=tuple(np.geomspace(*block.betas, block.points).tolist()),
        iterations=block.iterations,
        ppo_learning_rate=block.ppo.learning_rate,
        ppo_kl=block.ppo.kl,
        dpo_beta=block.dpo.beta,
        dpo_learning_rate=block.dpo.learning_rate,
        ridge=config.reward_model.ridge,
    )


def _asker(config: PreferencesStudy, world: World, pairs: Any) -> Ask:
    """Where a run's comparisons come from.

    Raises:
        InputError: the file has, or the judge answered, fewer than a run is to have.
    """
    most = max(config.pairs.counts)
    if pairs is None:
        return lambda key, s: compare(key, world, s.rater, s.pairs, most)
    place, won = (jnp.asarray(x) for x in pairs)
    if most > place.size:
        has = f"{config.pairs.file} has" if config.pairs.file else "the judge answered"
        raise InputError(
            f"pairs.counts: {most} pairs are wanted, but {has} {place.size}; want at most so many."
        )
    shape = world.gold.shape[0], len(pairs_of(world.gold.shape[1]))

    def ask(key: jax.Array, s: Setting) -> Comparisons:
        return resampled(key, place, won, s.pairs, shape)

    return ask


def _carry_out(
    config: PreferencesStudy, world: World, pairs: Any, path: Path, console: Console
) -> None:
    every, methods = settings(config), methods_of(config)
    ask = _asker(config, world, pairs)
    runs, features = len(every["count"]), world.features.shape[-1]
    sizes = np.array([PERSONA[size] * len(FEATURES) for size in config.reward_model.sizes])
    masks = jnp.asarray(np.arange(features) < sizes[:, None], jnp.float32)
    root = jax.random.key(np.uint32(config.seed % 2**32))

    def one(x: dict[str, jax.Array]) -> Any:
        # A seed draws the same pairs whatever the size of the reward model.
        key = jax.random.fold_in(root, x["seed"])
        rater = Rater(x["noise"], jnp.float32(config.pairs.bias))
        return run(key, Setting(x["count"], rater, masks[x["size"]]), world, ask, methods)

    size = min(CHUNK, runs)

    def chunk_of(start: int) -> dict[str, np.ndarray]:
        places = np.minimum(np.arange(start, start + size), runs - 1)
        return {name: x[places] for name, x in every.items()}

    console.print(f"{runs:,} runs", highlight=False)
    options = compiler_options(TRAIN)
    many = jax.jit(lambda xs: jax.lax.map(one, xs, batch_size=TOGETHER), compiler_options=options)
    program = many.lower(chunk_of(0)).compile()
    # One after the other: two batches of linear equations at once wait for each other's threads.
    chunks = []
    with training_progress(console) as progress:
        task = progress.add_task("runs", total=runs, note="")
        for first in range(0, runs, size):
            file = path / "chunks" / f"{first}.npz"
            if not file.exists():
                start = time.perf_counter()
                found = jax.device_get(program(chunk_of(first)))
                kept = {"ties": found.ties, "gradient": found.gradient}
                kept["seconds"] = np.array([time.perf_counter() - start])
                for name in ("exact", "ppo", "dpo"):
                    points = getattr(found, name)._asdict()
                    kept |= {f"{name}_{what}": x for what, x in points.items()}
                write_npz(file, kept)
            with np.load(file) as archive:
                chunks.append(dict(archive))
            progress.update(task, advance=min(size, runs - first))
    arrays: dict[str, Any] = {
        name: np.concatenate([chunk[name] for chunk in chunks])[:runs] for name in chunks[0]
    }
    PreferenceRuns(**every, **arrays).write(path / "runs.npz")
    for first in range(0, runs, size):
        (path / "chunks" / f"{first}.npz").unlink()


def _references(table: QoETable, world: World, pairs: Any) -> PreferenceReferences:
    known, users = table.references(), len(table.users)
    reference = (jnp.exp(world.reference) * world.gold).sum(-1).mean()
    return PreferenceReferences(
        users=users,
        requests=len(table.requests),
        providers=len(table.providers),
        reference=float(reference),
        optimum=known["optimum_per_request"] / users,
        best_single=known["best_single"][1] / users,
        best_single_provider=known["best_single"][0],
        random=known["random"] / users,
        comparisons=None if pairs is None else len(pairs[0]),
    )
