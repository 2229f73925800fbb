"""How tasks come: their times, demands, users and requests, drawn as an episode goes."""

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.chance import index_below
from rlli_jax.envs.edge_market.communication import power_gain
from rlli_jax.envs.edge_market.tasks import Task

if TYPE_CHECKING:
    from rlli_jax.envs.edge_market.params import EnvParams


def sample_tasks(key: jax.Array, params: "EnvParams") -> Task:
    """The tasks [T + 1] of one episode, drawn as the environment draws them. Host side.

    For playing several policies, or finding the optimum, on the same tasks.
    """
    mean = float(params.arrival_rate) * float(params.horizon)
    drawn = _draw_tasks(key, params, int(mean + 10 * np.sqrt(mean) + 10))
    count = int(np.argmax(np.asarray(drawn.arrival) >= params.horizon))
    return jax.tree.map(lambda x: x[: max(count, 2)], drawn)  # the first one is always served


@partial(jax.jit, static_argnums=2)
def _draw_tasks(key: jax.Array, params: "EnvParams", length: int) -> Task:
    def body(clock: tuple, key: jax.Array) -> tuple[tuple, Task]:
        arrival, fraction = clock
        chance = chances(key, params)
        task = draw_task(chance[1:], arrival, params)
        return next_arrival(chance[0], arrival, fraction, params), task

    start = jnp.int32(0), jnp.float32(0)
    return jax.lax.scan(body, start, jax.random.split(key, length))[1]


def draw_task(chance: jax.Array, arrival: jax.Array, params: "EnvParams") -> Task:
    """The task that comes at ``arrival``, from uniform numbers in [0, 1): see :func:`chances`."""
    users, link = params.users, params.link
    user = request = jnp.int32(0)
    draw = jnp.float32(0)
    if users is not None:
        user = jnp.searchsorted(users.user_mix, chance[1], side="right").astype(jnp.int32)
        request = jnp.searchsorted(users.request_mix, chance[2], side="right").astype(jnp.int32)
        draw = chance[3]
    return Task(
        arrival=arrival,
        demand=params.demands[index_below(params.demands.shape[0], chance[0])],
        user=user,
        request=request,
        draw=draw,
        fading=None if link is None else power_gain(chance[4:]),
    )


def chances(key: jax.Array, params: "EnvParams") -> jax.Array:
    """Uniform numbers of a step: gap, demand; with users or a link user, request, draw, fading."""
    if params.users is None and params.link is None:
        return jax.random.uniform(key, (2,))
    channels = 0 if params.link is None else params.capacity.shape[0]
    return jax.random.uniform(key, (5 + channels,))


def next_arrival(
    chance: jax.Array, arrival: jax.Array, fraction: jax.Array, params: "EnvParams"
) -> tuple[jax.Array, jax.Array]:
    """The arrival after ``arrival + fraction``, cut to whole seconds, and what was cut off.

    Exponential gaps make a Poisson process. Where the rate swings, each gap is drawn at the rate
    of the arrival before it, which is close as long as gaps are short beside the period.
    """
    swing = jnp.sin(2 * jnp.pi * arrival / params.rate_period)
    rate = params.arrival_rate * (1 + params.rate_amplitude * swing)
    gap = fraction - jnp.log1p(-chance) / rate
    # A gap past the horizon ends the episode, so its exact length is of no matter; uncut, the
    # clock could overflow.
    gap = jnp.minimum(gap, params.horizon)
    whole = jnp.floor(gap)
    return arrival + whole.astype(jnp.int32), gap - whole
