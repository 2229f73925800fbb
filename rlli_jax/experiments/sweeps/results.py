"""The results of a sweep as one labelled dataset, a netCDF file that any xarray opens.

Dimensions ``policy``, ``point``, ``seed``, and ``iteration``, ``episode``, ``user``; the swept keys
are coordinates along ``point``. Where points differ in users or iterations, what a point does not
have is NaN.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rlli_jax.experiments.study import Offered
from rlli_jax.experiments.sweeps.engine import Results, read_chunk
from rlli_jax.experiments.sweeps.plan import Group, Plan
from rlli_jax.files import write_bytes
from rlli_jax.statistics import bootstrap_iqm

RESAMPLES = 1000  # of the standard error of each point
_DIMS = {"curve": "iteration", "returns": "episode", "qoe": "user"}
_DIMENSIONS = ("policy", "point", "seed", *_DIMS.values())


def coordinate(key: str) -> str:
    """Name of a swept key's coordinate: the key, unless a dimension has that name (``seed``)."""
    return f"study.{key}" if key in _DIMENSIONS else key


def collect(plan: Plan, path: Path) -> xr.Dataset:
    """Read every chunk of a finished sweep into one dataset.

    Variables: ``objective`` (Eq. 2: QoE summed over users; of other studies the mean return) and,
    where an optimum is known, ``ratio`` to it, for each run; of what is ``compared`` (ratio, else
    objective) the interquartile mean over seeds, such as ``ratio_iqm``, with its 95 % bootstrap-t
    interval over seeds, ``ratio_low`` and ``ratio_high``; ``returns`` of the evaluation episodes;
    ``curve``, the mean return in each iteration of training; of provider selection ``qoe`` of each
    user; the references of each point; of studies with a table ``offered``, what it says, and
    ``saved``, the share of denoising steps that sharing saved each provider.

    Raises:
        InputError: a chunk is missing or damaged.
    """
    sweep = plan.sweep
    groups = [_whole(group, index, path) for index, group in enumerate(plan.groups)]
    dims = ("policy", "point", "seed")
    shape = plan.place.shape[:3]
    objective = np.full(shape, np.nan, np.float32)
    diverged = np.zeros(shape, np.int8)
    wide = {
        name: np.full((*shape, max(g[name].shape[1] for g in groups)), np.nan, np.float32)
        for name in _DIMS
        if all(name in g for g in groups)
    }
    steps = np.zeros(shape[:2], np.int32)
    env_steps = [group.learner().env_steps for group in plan.groups]
    for p, t in np.ndindex(shape[:2]):
        g, rows = plan.place[p, t, 0, 0], plan.place[p, t, :, 1]
        objective[p, t] = groups[g]["objective"][rows]
        if "diverged" in groups[g]:
            diverged[p, t] = groups[g]["diverged"][rows]
        for name, values in wide.items():
            part = groups[g][name][rows]
            values[p, t, :, : part.shape[1]] = part
        wide["curve"][p, t] += np.array(plan.groups[g].shift, np.float32)[rows, None]
        steps[p, t] = env_steps[g]
    references = [plan.study.references(problem) for problem in plan.problems]
    names = [name for name in references[0] if all(name in found for found in references)]
    known = {name: np.array([r[name] for r in references], np.float32) for name in names}
    variables: dict[str, Any] = {
        "objective": (dims, objective, {"long_name": "QoE summed over users, or mean return"}),
        "diverged": (dims, diverged, {"long_name": "1 where parameters are no numbers"}),
        "env_steps": (dims[:2], steps, {"long_name": "environment steps in one iteration"}),
    }
    if "optimum" in known:
        ratio = objective / known["optimum"][:, None]
        about = {"long_name": "objective over its optimum"}
        variables["ratio"] = dims, ratio, about
    compared = "ratio" if "optimum" in known else "objective"
    values = variables[compared][1]
    estimates = [bootstrap_iqm(values[p, t], resamples=RESAMPLES) for p, t in np.ndindex(shape[:2])]
    ends = {"iqm": "interquartile mean of {} over seeds",
            "low": "lower end of its 95 % bootstrap interval",
            "high": "upper end of its 95 % bootstrap interval"}  # fmt: skip
    for (end, words), parts in zip(ends.items(), zip(*estimates, strict=True), strict=True):
        numbers = np.array([float(part) for part in parts], np.float32).reshape(shape[:2])
        variables[f"{compared}_{end}"] = dims[:2], numbers, {"long_name": words.format(compared)}
    variables |= {name: ("point", values) for name, values in known.items()}
    variables |= {name: ((*dims, _DIMS[name]), values) for name, values in wide.items()}
    coordinates: dict[str, Any] = {
        coordinate(key): ("point", _labels([point[key] for point in sweep.points]))
        for key in sweep.block.keys
    }
    coordinates |= {"policy": list(sweep.policies), "seed": np.arange(shape[2], dtype=np.int32)}
    offered, offering = _offered([plan.study.offered(problem) for problem in plan.problems])
    variables |= offered
    coordinates |= offering
    told = [plan.study.told(problem) for problem in plan.problems]
    attributes = {
        "title": sweep.study.name,
        "description": sweep.study.description,
        "kind": sweep.study.kind,
        "compared": compared,
        "objective": plan.study.objective,
        "swept": json.dumps([coordinate(key) for key in sweep.block.keys]),
        "concerned": json.dumps(
            {
                coordinate(key): None if names is None else list(names)
                for key, names in (
                    (key, plan.study.concerned(sweep.study, key)) for key in sweep.block.keys
                )
            }
        ),
        "judge": _judge([part.judge for part in told]),
        "stand_in": int(any(part.stand_in for part in told)),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _offered(points: list[Offered | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What providers offer at each point, with its coordinates; nothing where there is no table, or
    the swept keys decide who the providers are, or how many users and requests there are."""
    known = [point for point in points if point is not None]
    tables = [point.table for point in known]
    if len(known) < len(points) or len({(t.providers, t.legal.shape) for t in tables}) > 1:
        return {}, {}
    qoe = np.stack([np.where(t.legal, t.mean, np.nan) for t in tables]).astype(np.float32)
    saved = [0.0 if point.spared is None else point.spared.mean(0) for point in known]
    steps = np.stack(np.broadcast_arrays(*saved, np.zeros(qoe.shape[-1]))[:-1]).astype(np.float32)
    dims = ("point", "person", "request", "provider")
    return {
        "offered": (dims, qoe, {"long_name": "QoE of a picture, NaN where there is none"}),
        "saved": (("point", "provider"), steps,
                  {"long_name": "share of denoising steps that sharing them saved"}),
    }, {"provider": list(tables[0].providers)}  # fmt: skip


def _whole(group: Group, index: int, path: Path) -> Results:
    """All chunks of a group, end to end."""
    parts = [read_chunk(path, index, c) for c in range(len(group.chunks()))]
    names = set.intersection(*map(set, parts))  # chunks of earlier versions lack some
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _judge(judges: list[str]) -> str:
    judges = list(dict.fromkeys(judges))
    if len(judges) == 1:
        return judges[0]
    return f"{len(judges)} judges, which the swept keys tell apart; at the first point: {judges[0]}"


def _labels(values: list[Any]) -> np.ndarray:
    """Numbers as numbers; all else (lists, words, mixtures) as text."""
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        # netCDF 3 has no wider integers; as text they keep their digits.
        narrow = all(-(2**31) <= v < 2**31 for v in values)
        return np.array(values, np.int32) if narrow else np.array([str(v) for v in values])
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return np.array(values, np.float64)
    return np.array([v if isinstance(v, str) else json.dumps(v) for v in values])


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write netCDF (version 3, which SciPy reads and writes) whole or not at all."""
    content = dataset.to_netcdf(engine="scipy")
    write_bytes(path, bytes(content))
