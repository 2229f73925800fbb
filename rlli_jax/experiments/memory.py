"""Whether memory suffices, asked before it is taken."""

from pathlib import Path

import jax

from rlli_jax.envs.contract import PyTree
from rlli_jax.errors import InputError


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def free_bytes() -> float | None:
    """Bytes that the first device has free; None where nobody knows."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return _host_bytes()
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _host_bytes() -> float | None:
    """What Linux has available, within the bounds of a container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    available = {line.split(":")[0]: line.split()[1] for line in lines}["MemAvailable"]
    free = 1024.0 * int(available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used, stat = (
            (group / f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
        kinds = {kind: int(size) for kind, size in map(str.split, stat.splitlines())}
        # What files were read is kept as long as nobody needs the room.
        cached = kinds["active_file"] + kinds["inactive_file"]
        return min(free, int(limit) - int(used) + cached)
    except (OSError, ValueError, KeyError):  # no container, or one without a limit
        return free


def require_memory(what: str, state: PyTree) -> None:
    """See that a state, given by its shapes, fits what is free.

    Raises:
        InputError: it does not.
    """
    needed, free = tree_bytes(state), free_bytes()
    if free is None or needed <= free:
        return
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    path, largest = max(leaves, key=lambda leaf: tree_bytes(leaf[1]))
    most = tree_bytes(largest)
    raise InputError(
        f"{what} needs {needed / 1e9:,.1f} GB for its state ({most / 1e9:,.1f} GB of them for "
        f"state{jax.tree_util.keystr(path)}), but {free / 1e9:,.1f} GB are free: make buffers "
        "smaller, or take fewer seeds, environments or users."
    )
