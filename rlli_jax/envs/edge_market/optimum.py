"""The most that an episode can return: the best assignment with all arrivals known.

A linear program for scipy's HiGHS, on the host. With x_il the share of task i that provider l
serves, v_il what it pays and t_i the demand::

    maximise    sum_il v_il x_il
    subject to  sum_l x_il <= 1                                  for each task i
                sum_{j <= i, still running at arrival i} t_j x_jl <= capacity_l    for each i, l
                0 <= x_il <= 1

The second row of an arrival by whose successor no task has ended says less than that of the
successor, and is left out: half of them, which halves the time.

Whole tasks (x in {0, 1}) make it an integer program; letting them be shared can only raise the
value, so the linear program bounds every policy that crashes no provider. A crash costs at least
the penalty and what was running; that breaking a provider on purpose could pay is left out.

With users, v_il is the mean over the judge's samples: the program then bounds the expected return.
Where tastes drift or tasks queue, v_il depends on what was served before and no such program
exists.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, kron, vstack
from scipy.sparse import eye_array as identity

from rlli_jax.envs.edge_market.market import EdgeMarket
from rlli_jax.envs.edge_market.params import EnvParams
from rlli_jax.envs.edge_market.replay import check_tasks
from rlli_jax.envs.edge_market.tasks import Task, seconds
from rlli_jax.errors import InputError


class Optimum(NamedTuple):
    """What HiGHS found for an episode of T tasks."""

    value: float  # the return
    shares: np.ndarray  # [T, L] float64, x


def offline_optimum(
    env: EdgeMarket, params: EnvParams, tasks: Task, *, whole: bool = False
) -> Optimum:
    """The optimum over assignments of ``tasks`` [T + 1], of which the last one is not served.

    Args:
        env, params: the market.
        tasks: as for :func:`.replay.play`.
        whole: whether tasks must be served whole; this can take much longer.

    Raises:
        InputError: the tasks do not fit the parameters, tastes drift, or tasks queue.
        RuntimeError: HiGHS found no optimum.
    """
    check_tasks(env, params, tasks)
    if params.users is not None and params.users.drift is not None:
        raise InputError(
            "the offline optimum is not defined where tastes drift: make the users without drift"
        )
    if params.shared is not None or params.pace is not None:
        raise InputError(
            "the offline optimum is found for tasks that run alike at all providers: make the "
            "market without shared steps and paces"
        )
    if env.queue:
        raise InputError(
            "the offline optimum is not defined where tasks queue: make the market with queue=0"
        )
    served = jax.tree.map(lambda x: np.asarray(x)[:-1], tasks)
    arrival = served.arrival.astype(np.int64)
    end = arrival + np.round(np.asarray(seconds(served.demand, params))).astype(np.int64)
    value = np.asarray(jax.vmap(lambda task: env.value(env.start(task, params), params))(served))
    count, providers = value.shape

    i = np.arange(count)
    runs = (i[None, :] <= i[:, None]) & (end[None, :] > arrival[:, None])  # [at arrival of, task]
    following = np.append(arrival[1:], np.iinfo(np.int64).max)
    tightest = (runs & (end[None, :] <= following[:, None])).any(1)
    used = csr_array(runs[tightest] * served.demand.astype(float))
    once = kron(identity(count), np.ones((1, providers)))
    capacity = np.tile(np.asarray(params.capacity, float), tightest.sum())
    result = milp(
        -value.astype(float).ravel(),
        constraints=LinearConstraint(
            vstack([once, kron(used, identity(providers))], format="csr"),
            ub=np.concatenate([np.ones(count), capacity]),
        ),
        bounds=Bounds(0, 1),
        integrality=np.full(value.size, int(whole)),
    )
    if result.x is None:
        raise RuntimeError(f"HiGHS found no optimum: {result.message}")
    return Optimum(-result.fun, result.x.reshape(count, providers))
