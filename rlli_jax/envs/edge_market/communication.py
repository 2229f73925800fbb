"""The wireless leg of a task and the queue of a provider, both optional.

The prompt goes up and the picture comes down over a channel with distance-dependent path loss,
Rayleigh fading and thermal noise, at Shannon's rate. Default values and their sources are in
``docs/edge_market.md``; all of them are traced, so a sweep does not recompile.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlli_jax.errors import InputError

NEVER = np.iinfo(np.int32).max


class Link(struct.PyTreeNode):
    """The radio channels between users and providers, and what energy costs."""

    distance: jax.Array  # [K, L] float32, metres; one row if the market has no users
    bandwidth: float | jax.Array = 1e6  # Hz, of the channel of one task
    path_loss: float | jax.Array = 128.1  # dB at 1 km
    path_loss_slope: float | jax.Array = 37.6  # dB for ten times the distance
    user_power: float | jax.Array = 0.2  # W, sent by the user (23 dBm)
    provider_power: float | jax.Array = 1.0  # W, sent by the provider (30 dBm)
    noise_density: float | jax.Array = -174.0  # dBm/Hz
    noise_figure: float | jax.Array = 9.0  # dB
    prompt_bits: float | jax.Array = 2_464.0  # 77 tokens of 32 bits
    image_bits: float | jax.Array = 65_536.0  # 8 KiB
    compute_power: float | jax.Array = 350.0  # W, of a provider while it runs a task
    energy_price: float | jax.Array = 0.0  # reward that a joule costs


DEEP = 2.0**-10  # an SNR below which 1 + SNR loses its digits
LEAST_FADING = 2.0**-24  # half of the least that is drawn but 0, which one draw in 8 million is


def check_link(link: Link, users: int, providers: int) -> None:
    """Raise InputError if ``link`` does not fit the market or holds an impossible number."""
    shape = np.shape(link.distance)
    if shape != (users, providers):
        raise InputError(
            f"the link has distance of shape {shape}: give the metres from each of the {users} "
            f"users to each of the {providers} providers"
        )
    for name in Link.__dataclass_fields__:
        value = np.asarray(getattr(link, name))
        low = -np.inf if name in ("path_loss", "noise_density", "noise_figure") else 0.0
        may_be_zero = name in ("path_loss_slope", "compute_power", "energy_price")
        if not (np.isfinite(value) & ((value > low) | (may_be_zero & (value == 0)))).all():
            raise InputError(
                f"{name} of the link is {value.min():g}: it must be finite"
                + ("" if low < 0 else " and not negative" if may_be_zero else " and positive")
            )


def sample_distances(
    seed: int, users: int, providers: int, *, side: float = 1_000.0, least: float = 10.0
) -> np.ndarray:
    """Distances [K, L] in metres of users and providers spread uniformly over a square.

    AGOD, too, puts both at random in a square, but uses the places for nothing. Distances below
    ``least`` are lifted to it, as the path loss holds for none.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, side, (users + providers, 1, 2))
    apart = np.linalg.norm(places[:users] - places[users:].transpose(1, 0, 2), axis=-1)
    return np.maximum(apart, least).astype(np.float32)


def power_gain(chance: jax.Array) -> jax.Array:
    """Rayleigh fading, of numbers uniform in [0, 1): exponential with mean 1, but never 0."""
    return jnp.maximum(-jnp.log1p(-chance), LEAST_FADING)


def rate(link: Link, power: jax.Array | float, distance: jax.Array, fading: jax.Array) -> jax.Array:
    """Shannon's rate B log2(1 + SNR), bit/s, of the shape of ``distance`` and ``fading``."""
    loss = link.path_loss + link.path_loss_slope * jnp.log10(distance / 1_000)
    density = link.noise_density + link.noise_figure
    noise = 10 ** ((density - 30) / 10) * link.bandwidth  # W
    snr = power * fading * 10 ** (-loss / 10) / noise
    # 1 + SNR is 1 in float32 where fading is deep, and a rate of 0 would take for ever.
    deep = jnp.log1p(snr) / jnp.log(2.0)
    return link.bandwidth * jnp.where(snr < DEEP, deep, jnp.log2(1 + snr))


def airtime(
    link: Link, user: jax.Array, provider: jax.Array, fading: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Seconds that the prompt goes up and the picture comes down, each of ``provider``'s shape."""
    distance = link.distance[user, provider]
    up = link.prompt_bits / rate(link, link.user_power, distance, fading)
    down = link.image_bits / rate(link, link.provider_power, distance, fading)
    return up, down


def earliest_start(
    now: jax.Array,
    demand: jax.Array,
    capacity: jax.Array,
    begin: jax.Array,
    until: jax.Array,
    steps: jax.Array,
) -> jax.Array:
    """When a queue, first come first served, starts a task of ``demand`` steps; NEVER: too large.

    Args:
        now, demand, capacity: int32 [].
        begin, until, steps: int32 [C], the tasks of the provider; those with until <= now are over.
    """
    ahead = until > now
    earliest = jnp.maximum(now, jnp.where(ahead, begin, now).max())  # nobody overtakes
    times = jnp.append(jnp.maximum(until, earliest), earliest)  # room comes when a task ends
    used = jnp.where(until[None, :] > times[:, None], steps, 0).sum(1, dtype=jnp.int32)
    return jnp.where(used + demand <= capacity, times, NEVER).min()
