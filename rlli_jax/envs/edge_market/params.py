"""The numbers of an edge market: its fleet, how tasks arrive, and what is off in AGOD."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment

from rlli_jax.envs.edge_market.communication import Link, check_link
from rlli_jax.envs.edge_market.fleet import Fleet
from rlli_jax.envs.edge_market.users import Users
from rlli_jax.errors import InputError


@struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """The fleet and how tasks arrive; all traced. Time is in whole seconds."""

    capacity: jax.Array  # [L] int32, denoising steps that run at once
    utility: jax.Array  # [L, 4] float32, (ax, ay, bx, by) of Fleet
    demands: jax.Array  # [D] int32, denoising steps t of a task, drawn uniformly
    runtime: jax.Array  # [3] float32, a, b, c: a task runs a t^2 + b t + c seconds
    arrival_rate: float | jax.Array  # tasks per second, on average
    rate_amplitude: float | jax.Array  # in [0, 1), swing of the rate around its average
    rate_period: float | jax.Array  # seconds, of that swing
    horizon: int | jax.Array  # seconds, tasks arrive before it
    crash_penalty: float | jax.Array  # for the dropped task and for each task that is killed
    capacity_scale: float | jax.Array  # what the observation divides capacities by
    patience: float | jax.Array  # seconds, the reward falls by exp(-latency / patience)
    users: Users | None = None  # personal QoE; without it a picture is worth its utility
    link: Link | None = None  # the wireless leg and energy; without it neither counts
    # [R, L] float32 in [0, 1], part of a task's steps that sharing spares the provider; None: none.
    shared: jax.Array | None = None
    pace: jax.Array | None = None  # [L] float32, factors of the runtime; without it 1
    # A step limit that truncates; the default is never reached.
    max_steps_in_episode: int | jax.Array = np.iinfo(np.int32).max


def make_params(
    fleet: Fleet,
    *,
    demands: Sequence[int] = tuple(range(100, 260, 10)),
    runtime: Sequence[float] = (0.06, 150.0, -840.0),
    arrival_rate: float = 1e-3,
    rate_amplitude: float = 0.0,
    rate_period: float = 86_400.0,
    horizon: int = 1_000_000,
    crash_penalty: float = 2.0,
    capacity_scale: float = 900.0,
    patience: float = float("inf"),
    users: Users | None = None,
    link: Link | None = None,
    shared: np.ndarray | None = None,
) -> EnvParams:
    """Put a fleet and its arrivals on the device; the defaults are those of AGOD.

    Args:
        fleet: the L providers.
        demands: denoising steps that a task may ask for, each equally likely.
        runtime: (a, b, c), seconds that a task of t steps runs: a t^2 + b t + c.
        arrival_rate: tasks per second.
        rate_amplitude, rate_period: the rate at time s is
            arrival_rate (1 + rate_amplitude sin(2 pi s / rate_period)); see ``_gap``.
        horizon: seconds, tasks arrive in [0, horizon).
        crash_penalty: paid for the dropped task, and for each killed task times what it still
            had to run.
        capacity_scale: the observation divides capacities by it.
        patience: seconds; what is paid falls by exp(-latency / patience). Latency is the wait in
            the queue, the runtime and, with a link, the transmissions.
        users: those of :func:`.users.make_users`, for personal QoE; AGOD has none.
        link: the wireless leg of each task; AGOD has none.
        shared: [R, L] in [0, 1], the part of the steps of a task, by request and provider, that
            its provider need not run because a group of similar requests shares steps; needs users.
            Of N steps, n of which m requests share, (n / N)(1 - 1 / m): the shared ones are run
            once for each m tasks, and each bears its part. A picture is worth what all of its steps
            are worth.

    Raises:
        InputError: a number outside the range that makes sense.
    """
    steps = np.asarray(demands)
    if steps.ndim != 1 or not steps.size or (steps < 1).any() or (steps != steps.round()).any():
        raise InputError(
            f"demands is {list(np.ravel(steps))}: give at least one whole number of denoising "
            "steps, all positive"
        )
    if len(runtime) != 3:
        raise InputError(f"runtime has {len(runtime)} numbers: give the three of a t^2 + b t + c")
    seconds = np.polyval(np.asarray(runtime, float), steps)
    if not (seconds >= 1).all() or not np.isfinite(seconds).all():
        raise InputError(
            f"runtime gives {seconds.min():g} s for a demand of {steps[seconds.argmin()]} steps: "
            "every task must run for at least one second"
        )
    for name, value, valid, need in (
        ("arrival_rate", arrival_rate, arrival_rate > 0, "positive, in tasks per second"),
        ("rate_amplitude", rate_amplitude, 0 <= rate_amplitude < 1, "in [0, 1)"),
        ("rate_period", rate_period, rate_period > 0, "positive, in seconds"),
        ("horizon", horizon, 1 <= horizon <= 5 * 10**8, "from 1 to 5e8 whole seconds"),
        ("crash_penalty", crash_penalty, crash_penalty >= 0, "at least 0"),
        ("capacity_scale", capacity_scale, capacity_scale > 0, "positive"),
        ("patience", patience, patience > 0, "positive, in seconds"),
    ):
        if not valid or not (np.isfinite(value) or name == "patience"):
            raise InputError(f"{name} is {value}: it must be {need}")
    if users is not None and users.qoe.shape[2] != len(fleet):
        raise InputError(
            f"the fleet has {len(fleet)} providers but the QoE table knows {users.qoe.shape[2]}: "
            "give a fleet with one provider for each of the table"
        )
    if link is not None:
        check_link(link, 1 if users is None else users.qoe.shape[0], len(fleet))
        link = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), link)
    if shared is not None:
        shape = None if users is None else users.qoe.shape[1:3]
        if np.shape(shared) != shape or not ((shared >= 0) & (shared <= 1)).all():
            raise InputError(
                f"shared is of shape {np.shape(shared)}: give a part in [0, 1] for each request "
                f"and provider of the QoE table{'' if shape is None else f', {shape}'}"
            )
    return EnvParams(
        capacity=jnp.asarray(fleet.capacity),
        utility=jnp.asarray(fleet.utility),
        demands=jnp.asarray(steps, jnp.int32),
        runtime=jnp.asarray(runtime, jnp.float32),
        arrival_rate=arrival_rate,
        rate_amplitude=rate_amplitude,
        rate_period=rate_period,
        horizon=horizon,
        crash_penalty=crash_penalty,
        capacity_scale=capacity_scale,
        patience=patience,
        users=users,
        link=link,
        shared=None if shared is None else jnp.asarray(shared, jnp.float32),
        pace=None if fleet.pace is None else jnp.asarray(fleet.pace),
    )


def most_running(params: EnvParams) -> int:
    """Tasks that a provider can run at once. Host side."""
    steps = np.asarray(params.demands)
    if params.shared is not None:
        part = np.asarray(params.shared)[..., None]
        steps = steps - np.round(part * steps.astype(np.float32)).astype(int)  # [R, L, D]
        steps = steps[steps > 0]  # what has none left is done at once
    least = int(steps.min()) if steps.size else 1
    return max(1, int(np.max(params.capacity)) // least)
