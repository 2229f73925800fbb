"""The edge market: tasks arrive, providers fill up and crash, users have personal QoE."""

from typing import TYPE_CHECKING

from rlli_jax.lazy import attach

if TYPE_CHECKING:
    from rlli_jax.envs.edge_market import references
    from rlli_jax.envs.edge_market.arrivals import sample_tasks
    from rlli_jax.envs.edge_market.communication import Link, sample_distances
    from rlli_jax.envs.edge_market.fleet import Fleet, load_fleet, sample_fleet
    from rlli_jax.envs.edge_market.goals import GoalMarket
    from rlli_jax.envs.edge_market.market import EdgeMarket, EnvState
    from rlli_jax.envs.edge_market.params import EnvParams, make_params
    from rlli_jax.envs.edge_market.replay import Played, follow, play
    from rlli_jax.envs.edge_market.tasks import Recording, Task, given_tasks, load_recording
    from rlli_jax.envs.edge_market.users import Drift, Users, make_users

__all__ = [
    "Drift",
    "EdgeMarket",
    "EnvParams",
    "EnvState",
    "Fleet",
    "GoalMarket",
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
    "references",
    "sample_distances",
    "sample_fleet",
    "sample_tasks",
]

_MODULES = {
    ".arrivals": ("sample_tasks",),
    ".communication": ("Link", "sample_distances"),
    ".fleet": ("Fleet", "load_fleet", "sample_fleet"),
    ".goals": ("GoalMarket",),
    ".market": ("EdgeMarket", "EnvState"),
    ".params": ("EnvParams", "make_params"),
    ".replay": ("Played", "follow", "play"),
    ".tasks": ("Recording", "Task", "given_tasks", "load_recording"),
    ".users": ("Drift", "Users", "make_users"),
}
__getattr__, __dir__ = attach(__name__, _MODULES)
