"""Replay: the last transitions in a ring, drawn uniformly or by priority, with n-step returns.

The ring is written outside of any condition and only read inside an update, and it is filled by a
warm-up before learning starts: XLA then keeps it in place instead of copying it at every step.
"""

import jax
import jax.numpy as jnp
from flax import struct

from rlli_jax.errors import InputError
from rlli_jax.learners.core import Transition


@struct.dataclass
class Buffer:
    """The last transitions, in a ring over time."""

    steps: Transition  # [T, N, ...]
    written: jax.Array  # [] int32, vector steps written so far
    priorities: "Priorities | None" = None  # None: sampled uniformly


@struct.dataclass
class Priorities:
    """How likely each transition is drawn: (|error| + small)^alpha; 0 where none can start.

    Transition (slot, env) is number slot x N + env, in C order over [A, WIDTH, WIDTH]. Sums over
    the trailing axes are the inner nodes of a sum tree of three levels, made anew for each draw:
    one pass over the numbers takes less time than keeping a binary tree in step.
    """

    power: jax.Array  # [A, WIDTH, WIDTH] float32
    largest: jax.Array  # [] float32, what a new transition gets


WIDTH = 64
SMALL_ERROR = 1e-3


def check_buffer(buffer_size: int, num_envs: int) -> None:
    """Raise InputError unless a ring of ``buffer_size`` holds whole steps of all environments."""
    if buffer_size % num_envs:
        raise InputError(
            f"buffer_size = {buffer_size} is no multiple of num_envs = {num_envs}; choose one that "
            "is."
        )


def check_warm_up(warm_up: int, buffer_size: int, num_envs: int, n_step: int) -> None:
    """Raise InputError unless a warm-up fits the ring and leaves n-step returns to draw."""
    check_buffer(buffer_size, num_envs)
    if not num_envs * n_step <= warm_up <= buffer_size:
        raise InputError(
            f"warm_up = {warm_up} must lie between num_envs x n_step = {num_envs * n_step} and "
            f"buffer_size = {buffer_size}."
        )


def start(
    steps: Transition, buffer_size: int, *, n_step: int = 1, prioritized: bool = False
) -> Buffer:
    """A ring for ``buffer_size`` transitions that begins with the steps [W, N] of a warm-up."""
    written, num_envs = steps.reward.shape
    capacity = buffer_size // num_envs
    steps = jax.tree.map(
        lambda x: jnp.concatenate([x, jnp.zeros((capacity - written, *x.shape[1:]), x.dtype)]),
        steps,
    )
    priorities = first_priorities(written, n_step, capacity, num_envs) if prioritized else None
    return Buffer(steps, jnp.int32(written), priorities)


def write(buffer: Buffer, step: Transition, n_step: int = 1) -> Buffer:
    """Add one vector step [N, ...], over the oldest one once the ring is full."""
    capacity, num_envs = buffer.steps.reward.shape
    slot = buffer.written % capacity
    steps = jax.tree.map(lambda ring, x: ring.at[slot].set(x), buffer.steps, step)
    priorities = buffer.priorities
    if priorities is not None:
        # A transition can be drawn once the n steps that it looks ahead are there.
        ready = (buffer.written - n_step + 1) % capacity
        power = priorities.power.reshape(-1)
        power = jax.lax.dynamic_update_slice(
            power, jnp.zeros(num_envs, power.dtype), (slot * num_envs,)
        )
        largest = jnp.full(num_envs, priorities.largest)
        power = jax.lax.dynamic_update_slice(power, largest, (ready * num_envs,))
        priorities = Priorities(power.reshape(priorities.power.shape), priorities.largest)
    return Buffer(steps, buffer.written + 1, priorities)


def first_priorities(steps: int, n_step: int, capacity: int, num_envs: int) -> Priorities:
    """Equal ones for a ring that ``steps`` vector steps have been written to."""
    size = -(-capacity * num_envs // WIDTH**2) * WIDTH**2
    power = (jnp.arange(size) < (steps - n_step + 1) * num_envs).astype(jnp.float32)
    return Priorities(power.reshape(-1, WIDTH, WIDTH), jnp.float32(1))


def sample(
    bits: jax.Array, buffer: Buffer, n_step: int, gamma: float | jax.Array
) -> tuple[Transition, jax.Array]:
    """Draw n-step transitions [B] uniformly, with the discount [B] of what follows them.

    ``bits`` are random words, [2, B] uint32. Their remainder prefers no transition by more than
    the number of steps in 2^32.
    """
    capacity, num_envs = buffer.steps.reward.shape
    stored = jnp.minimum(buffer.written, capacity)
    age = (bits[0] % (stored - n_step + 1).astype(jnp.uint32)).astype(jnp.int32)
    start = (buffer.written - stored + age) % capacity
    env = (bits[1] % num_envs).astype(jnp.int32)
    return look_ahead(buffer, start, env, n_step, gamma)


def draw(uniform: jax.Array, priorities: Priorities) -> tuple[jax.Array, jax.Array]:
    """Numbers of transitions [B] in proportion to their priorities, and their probabilities [B].

    One from each of B strata of equal mass (Schaul et al. 2016, Section 3.3), by numbers [B] that
    are uniform in [0, 1).
    """
    batch_size = len(uniform)
    leaves = priorities.power
    branches = leaves.sum(-1)  # [A, WIDTH]
    trunk = branches.sum(-1)  # [A]
    strata = (jnp.arange(batch_size) + uniform) / batch_size

    def descend(target: jax.Array, sums: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The child that holds the mass ``target`` of [B, children], and what of it is left."""
        upto = jnp.cumsum(sums, -1)
        # Only a child with any mass: an accelerator adds in another order at each place, so that
        # the sums may rise a little over children without any.
        massive = sums > 0
        holds = massive & (upto > target[:, None])
        # A target that rounding lifts over the total belongs to the last one.
        last = sums.shape[-1] - 1 - jnp.argmax(massive[:, ::-1], -1)
        child = jnp.where(holds.any(-1), jnp.argmax(holds, -1), last)
        before = jnp.where(child > 0, upto[jnp.arange(len(child)), child - 1], 0.0)
        return child, target - before

    shape = (batch_size, len(trunk))
    a, target = descend(strata * trunk.sum(), jnp.broadcast_to(trunk, shape))
    b, target = descend(target, branches[a])
    c, _ = descend(target, leaves[a, b])
    return (a * WIDTH + b) * WIDTH + c, leaves[a, b, c] / trunk.sum()


def read(ring: jax.Array, slot: jax.Array, env: jax.Array) -> jax.Array:
    """``ring[slot, env]`` of a ring [T, N, ...]; slots [...], environments of the same shape."""
    if ring.ndim > 2:
        return ring[slot, env]
    # By whole rows: XLA's CPU code would fuse reading single numbers with the write before, and
    # then copy the ring at every step.
    return jnp.take_along_axis(ring[slot], env[..., None], -1, mode="promise_in_bounds")[..., 0]


def look_ahead(
    buffer: Buffer, start: jax.Array, env: jax.Array, n_step: int, gamma: float | jax.Array
) -> tuple[Transition, jax.Array]:
    """The n-step transitions [B] that start at slots ``start`` of ``env``, and their discounts.

    The reward is the discounted sum up to the n-th step or the end of the episode, whichever is
    first; ``next_observation`` and ``terminated`` are those of that last step.
    """
    capacity = len(buffer.steps.reward)
    batch = jax.tree.map(lambda ring: read(ring, start, env), buffer.steps)
    if n_step == 1:
        return batch, jnp.full(start.shape, gamma)

    times = (start[:, None] + jnp.arange(n_step)) % capacity  # [B, n]
    envs = jnp.broadcast_to(env[:, None], times.shape)
    reward = read(buffer.steps.reward, times, envs)
    done = read(buffer.steps.done, times, envs)
    before = jnp.cumsum(done, -1) - done  # episodes that ended earlier
    counts = before == 0  # [B, n], the steps within the first episode
    discounts = jnp.asarray(gamma) ** jnp.arange(n_step)
    length = counts.sum(-1)  # [B]
    last = times[jnp.arange(len(start)), length - 1]
    end = jax.tree.map(lambda ring: read(ring, last, env), buffer.steps)
    batch = batch.replace(
        reward=(reward * counts * discounts).sum(-1),
        terminated=end.terminated,
        done=end.done,
        next_observation=end.next_observation,
        next_legal=end.next_legal,
    )
    return batch, jnp.asarray(gamma) ** length
