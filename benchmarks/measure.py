"""What the benchmarks share: one way to time, to spread runs over devices, to print and to keep.

Imports no JAX at its top: the number of host devices is fixed when JAX starts.
"""

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def versions(*packages: str) -> str:
    """Versions of Python and of the packages that are there, and the platform, in one line."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return ", ".join([*found, f"{os.cpu_count()} cores", platform.platform(), load])


def device() -> str:
    """The JAX devices in words."""
    import jax

    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def cpu() -> str:
    """The processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def over_devices(
    function: Callable,
    donate: tuple[int, ...] = (),
    devices: int | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Jit ``function(runs, common)``, its first argument and result split by device."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, PartitionSpec

    mesh, runs = Mesh(np.asarray(jax.devices()[:devices]), ("runs",)), PartitionSpec("runs")
    sharded = jax.shard_map(
        function, mesh=mesh, in_specs=(runs, PartitionSpec()), out_specs=runs, check_vma=False
    )
    return jax.jit(sharded, donate_argnums=donate, compiler_options=options)


def compiled(jitted: Any, *arguments: Any) -> tuple[Any, float]:
    """-> the compiled program, seconds that tracing, lowering and compiling took."""
    start = time.perf_counter()
    program = jitted.lower(*arguments).compile()
    return program, time.perf_counter() - start


def repeated(call: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """-> seconds on the wall and seconds of CPU time of each repeat; the first call is not timed.

    CPU time counts all threads of this process, so it is steadier where others share the machine.
    """
    call()
    wall, busy = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_cpu)
    return wall, busy


def rates(work: float, seconds: list[float]) -> dict[str, float]:
    """Work per second: min, median and max over the repeats."""
    each = [work / s for s in seconds]
    return {"min": min(each), "median": statistics.median(each), "max": max(each)}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as aligned text."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return str(value)

    columns = list(rows[0])
    cells = [columns, *([text(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def keep(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows of the same keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV that ``keep`` wrote, numbers as numbers; none if there is no such file."""

    def value(text: str) -> Any:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
        return text

    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(file)]


def merged(rows: list[dict[str, Any]], path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a CSV, with ``rows`` in place of those of the same keys, ordered by the keys."""

    def key(row: dict[str, Any]) -> tuple:
        return tuple(row[k] for k in keys)

    every = {key(row): row for row in [*read(path), *rows]}
    return [every[k] for k in sorted(every)]
