"""The edge market: tasks arrive, providers fill up and crash, users have personal QoE."""

from rlli_jax.envs.edge_market.communication import Link, sample_distances
from rlli_jax.envs.edge_market.fleet import Fleet, load_fleet, sample_fleet
from rlli_jax.envs.edge_market.market import (
    EdgeMarket,
    EnvParams,
    EnvState,
    make_params,
    sample_tasks,
)
from rlli_jax.envs.edge_market.play import Played, follow, play
from rlli_jax.envs.edge_market.tasks import Recording, Task, given_tasks, load_recording
from rlli_jax.envs.edge_market.users import Drift, Users, make_users

__all__ = [
    "Drift",
    "EdgeMarket",
    "EnvParams",
    "EnvState",
    "Fleet",
    "Link",
    "Played",
    "Recording",
    "Task",
    "Users",
    "follow",
    "given_tasks",
    "load_fleet",
    "load_recording",
    "make_params",
    "make_users",
    "play",
    "sample_distances",
    "sample_fleet",
    "sample_tasks",
]
