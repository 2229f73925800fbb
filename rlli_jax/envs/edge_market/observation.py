"""What an observation of the edge market may hold: one row a part. Times are over the longest
runtime of a task."""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.edge_market.tasks import own_steps, seconds
from rlli_jax.envs.parts import ANYTHING, TRAITS, Part, scaled_traits

_AHEAD = np.array([0, 0.1, 0.2, 0.4, 0.7], np.float32)  # of the longest runtime, for ``forecast``
_USERS = "users"
_PERSONAS = "users whose personas are known"
_DRIFT = "users whose tastes drift"


def _longest(params: Any) -> jax.Array:
    """Seconds of the longest task."""
    return seconds(params.demands.max(), params)


def _providers(env: Any, state: Any, params: Any) -> jax.Array:
    capacity = params.capacity.astype(jnp.float32)
    left = env.available(state, params) / capacity
    return jnp.stack([capacity / params.capacity_scale, left], -1)


def _task(env: Any, state: Any, params: Any) -> jax.Array:
    demand = state.task.demand
    return jnp.stack([demand / params.demands.max(), seconds(demand, params) / _longest(params)])


def _latency(env: Any, state: Any, params: Any) -> jax.Array:
    everyone = jnp.arange(params.capacity.shape[0])
    latency, _ = env.cost(state.task, everyone, env.offers(state, params)[0], params)
    return jnp.broadcast_to(latency / _longest(params), everyone.shape)


def _forecast(env: Any, state: Any, params: Any) -> jax.Array:
    ahead = (_AHEAD * _longest(params)).astype(jnp.int32)  # [5]
    still = (state.until - state.task.arrival)[..., None] > ahead  # [L, C, 5]
    busy = jnp.where(still, state.demand[..., None], 0).sum(1)
    capacity = params.capacity.astype(jnp.float32)
    own = own_steps(state.task, jnp.arange(params.capacity.shape[0]), params)
    return (capacity[:, None] - busy - own[:, None]) / params.capacity_scale


def _remaining(env: Any, state: Any, params: Any) -> jax.Array:
    return jnp.minimum((params.horizon - state.task.arrival) / _longest(params), 1.0)


def _tastes(env: Any, state: Any, params: Any) -> jax.Array:
    user, tastes = state.task.user, state.tastes
    return jnp.stack([tastes.interest[user], tastes.satiation[user]])


def _of_each(numbers: int) -> Any:
    return lambda env, params: numbers * params.capacity.shape[0]


PARTS = {
    # Capacity / scale and available / capacity, [L, 2]; what waits makes available negative.
    "providers": Part(
        _providers,
        _of_each(2),
        action_axis=0,
        low=lambda env, params: -ANYTHING if env.queue else 0.0,
        high=lambda env, params: ANYTHING if env.queue else 1.0,
    ),
    # Demand and runtime of the task over their largest values, [2].
    "task": Part(_task, lambda env, params: 2),
    # Whether the task fits, [L].
    "room": Part(lambda env, state, params: env.room(state, params), _of_each(1), action_axis=0),
    # What each provider would pay for the task, [L].
    "utility": Part(
        lambda env, state, params: env.value(state, params), _of_each(1), action_axis=0
    ),
    # Until its picture is there, [L].
    "latency": Part(_latency, _of_each(1), action_axis=0, low=-ANYTHING, high=ANYTHING),
    # Steps / scale that each would have left if it took the task and nothing else came, now and
    # later, [L, 5].
    "forecast": Part(_forecast, _of_each(len(_AHEAD)), action_axis=0, low=-ANYTHING, high=ANYTHING),
    # Time until the horizon, at most 1.
    "remaining": Part(_remaining, lambda env, params: 1),
    # Big Five of the task's user, [5].
    "persona": Part(
        lambda env, state, params: scaled_traits(params.users.personas[state.task.user]),
        lambda env, params: TRAITS,
        low=-1.0,
        needs=_PERSONAS,
    ),
    # Features of what is asked for, [F].
    "request": Part(
        lambda env, state, params: params.users.request_features[state.task.request],
        lambda env, params: params.users.request_features.shape[1],
        low=-ANYTHING,
        high=ANYTHING,
        needs=_USERS,
    ),
    # Interest and satiation of the task's user, [2, L].
    "tastes": Part(_tastes, _of_each(2), action_axis=1, low=-ANYTHING, high=ANYTHING, needs=_DRIFT),
}

if TYPE_CHECKING:
    MarketObservationPart = str
else:
    MarketObservationPart = Literal[tuple(PARTS)]
