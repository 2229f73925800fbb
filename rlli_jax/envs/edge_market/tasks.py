"""Tasks of an edge market. All chance of the market lies in its tasks; serving is deterministic.

A task carries whatever is random about it: when it comes, how much it asks, who asks for what,
which of the judge's samples is drawn, and how its radio channels fade. An episode is therefore
fully given by its tasks, which makes replays exact and the offline optimum well defined.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.envs.edge_market.fleet import Fleet
from rlli_jax.errors import InputError, why

if TYPE_CHECKING:
    from rlli_jax.envs.edge_market.params import EnvParams


class Task(struct.PyTreeNode):
    """One task; with a leading axis [T + 1] on every field, the tasks of a whole episode."""

    arrival: jax.Array  # int32 [], whole seconds since the episode began
    demand: jax.Array  # int32 [], denoising steps t
    user: jax.Array  # int32 [], in 0..K-1
    request: jax.Array  # int32 [], in 0..R-1
    draw: jax.Array  # float32 [], in [0, 1): which of the judge's samples the reward uses
    fading: jax.Array | None = None  # float32 [L], power gain of each channel; None: no link


def given_tasks(
    arrival: np.ndarray,
    demand: np.ndarray,
    user: np.ndarray | None = None,
    request: np.ndarray | None = None,
    draw: np.ndarray | None = None,
    fading: np.ndarray | None = None,
) -> Task:
    """Tasks that are known beforehand, to be played with :func:`.replay.play`.

    The last task only ends the episode and is not served, as in AGOD.

    Args:
        arrival: [T + 1] seconds, in order, cut to whole seconds as AGOD does.
        demand: [T + 1] denoising steps.
        user, request: [T + 1] indices; 0 if not given.
        draw: [T + 1] in [0, 1); 0 (the first valid sample) if not given.
        fading: [T + 1, L] power gains, for a market with a link.

    Raises:
        InputError: fewer than two tasks, unequal lengths, tasks out of order, or numbers
            outside their range.
    """
    times = np.asarray(arrival)
    if times.ndim != 1 or times.size < 2:
        raise InputError(
            f"the tasks have arrival of shape {times.shape}: give a list of at least two times, "
            "as the last task only ends the episode"
        )
    count = times.size
    zeros = np.zeros(count, np.int32)
    columns = {
        "arrival": times,
        "demand": np.asarray(demand),
        "user": zeros if user is None else np.asarray(user),
        "request": zeros if request is None else np.asarray(request),
        "draw": zeros if draw is None else np.asarray(draw),
    }
    for name, column in columns.items():
        if column.shape != (count,):
            raise InputError(
                f"{name} of the tasks has shape {column.shape} but there are {count} arrivals: "
                "give one value for each task"
            )
        least = 1 if name == "demand" else 0
        limit = 1 if name == "draw" else 2**31
        wrong = np.flatnonzero(~((column >= least) & (column < limit)))
        if wrong.size:
            raise InputError(
                f"task {wrong[0]} has {name} {column[wrong[0]]:g}: "
                f"{name} must be at least {least} and below {limit}"
            )
    late = np.flatnonzero(np.diff(times) < 0)
    if late.size:
        i = late[0] + 1
        raise InputError(
            f"task {i} arrives at {times[i]:g} s, before task {i - 1} at {times[i - 1]:g} s: "
            "sort the tasks by arrival"
        )
    if fading is not None and (np.ndim(fading) != 2 or len(fading) != count):
        raise InputError(
            f"fading of the tasks has shape {np.shape(fading)}: give one row of gains, "
            f"one for each provider, for each of the {count} tasks"
        )
    whole = {k: jnp.asarray(v.astype(np.int32)) for k, v in columns.items() if k != "draw"}
    return Task(
        **whole,
        draw=jnp.asarray(columns["draw"], jnp.float32),
        fading=None if fading is None else jnp.asarray(fading, jnp.float32),
    )


@dataclass(frozen=True)
class Recording:
    """One episode recorded from the public AGOD simulator."""

    fleet: Fleet
    tasks: Task  # [T + 1]
    action: np.ndarray  # int32 [T]
    reward: np.ndarray  # float64 [T]
    crashed: np.ndarray  # bool [T]
    observation: np.ndarray  # float32 [T + 1, 2 L + 2]


def load_recording(path: str | Path) -> Recording:
    """Reads an episode of ``shared/data/agod``.

    The demand of the last task was not recorded; it is read from the last observation.

    Raises:
        InputError: the file is missing, damaged, or lacks a key.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            last = round(float(data["observation"][-1, -2]) * 250)
            return Recording(
                fleet=Fleet(data["capacity"], data["utility_coefs"]),
                tasks=given_tasks(data["arrival_time"], np.append(data["demand"], last)),
                action=data["action"].astype(np.int32),
                reward=data["reward"],
                crashed=data["crashed"].astype(bool),
                observation=data["observation"],
            )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a zip file can be damaged in many ways
        raise InputError(
            f"{path}: no recorded episode can be read here ({why(error)}), check the path"
        ) from error


def worth(coefficients: jax.Array, demand: jax.Array) -> jax.Array:
    """Utility of a picture of ``demand`` steps; coefficients [..., 4] give float32 [...]."""
    ax, ay, bx, by = jnp.moveaxis(coefficients, -1, 0)
    return (by - ay) * jnp.clip((demand - ax) / (bx - ax), 0.0, 1.0)


def seconds(demand: jax.Array, params: "EnvParams") -> jax.Array:
    """Runtime of a task of ``demand`` steps, float32, in seconds; never below 0, as the fit would
    be for the few steps that sharing leaves of a task."""
    a, b, c = params.runtime
    return jnp.maximum((a * demand + b) * demand + c, 0.0)


def runtime_at(steps: jax.Array, provider: jax.Array, params: "EnvParams") -> jax.Array:
    """Seconds that ``steps`` take at ``provider``, float32 of their shape."""
    usual = seconds(steps, params)
    return usual if params.pace is None else usual * params.pace[provider]


def own_steps(task: Task, provider: jax.Array, params: "EnvParams") -> jax.Array:
    """Denoising steps of ``task`` that ``provider`` runs, int32 of its shape: all, or those that
    sharing does not spare it (its own, and its part of those that its group shares)."""
    if params.shared is None:
        return jnp.broadcast_to(task.demand, jnp.shape(provider))
    part = params.shared[task.request, provider]
    return task.demand - jnp.round(part * task.demand).astype(jnp.int32)
