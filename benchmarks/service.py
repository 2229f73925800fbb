"""Decisions a second of `rlli serve`, every one on the disk, under a load that is not ours: wrk.

    apt-get install wrk
    python benchmarks/service.py RUN --connections 14 16 24 --seconds 10

Beside latencies it prints what they hang on besides the service: the machine's load average, what
one durable write of this disk takes just then, and how much of a core a decision took the service
(CPU time, which other work does not lengthen much).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np

from rlli_jax.service.batching import GATHER

SCRIPT = """
wrk.method = "POST"
wrk.path = "/v1/select"
wrk.headers["Content-Type"] = "application/json"
local n = 0
request = function()
  n = n + 1
  local body = string.format(
    '{"persona": [%.1f, 3.1, 2.5, %.1f, 2.0], "user": "u%d"}', 1 + n % 41 / 10, 1 + n % 37 / 10, n)
  return wrk.format(nil, nil, nil, body)
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %f", summary.requests, summary.duration,
    summary.errors.status + summary.errors.timeout, latency.mean / 1000))
  for _, p in pairs({50, 90, 95, 99, 99.9}) do
    io.write(string.format(" %f", latency:percentile(p) / 1000))
  end
  io.write("\\n")
end
"""


START = """
from rlli_jax import cli
from rlli_jax.service import batching
batching.GATHER = {gather}
cli.main()
"""


def durable_write(folder: Path) -> str:
    """Milliseconds of fdatasync behind 12 kB: median and 99 %."""
    took = []
    with open(folder / "write.bin", "wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 12_288)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - start))
    return f"{np.median(took):.1f} ms (99 %: {np.percentile(took, 99):.1f})"


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(
    run: Path, explore: str, gather: float, connections: list[int], seconds: int, folder: Path
) -> None:
    """Start the service and print a line for each number of connections."""
    log = folder / "decisions.sqlite"
    script = folder / "select.lua"
    script.write_text(SCRIPT)
    command = [
        sys.executable, "-c", START.format(gather=gather), "serve", str(run), "--explore", explore,
        "--port", "0", "--rate", "1000000", "--log", f"sqlite:///{log}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            where = next(filter(None, (re.match(r"(http://\S+)", x) for x in service.stdout)))
            measure(service.pid, where[1], connections, seconds, folder, script)
        finally:
            service.kill()


def measure(
    service: int, where: str, connections: list[int], seconds: int, folder: Path, script: Path
) -> None:
    """A line for each number of connections to the process ``service`` at ``where``."""
    for _ in range(100):  # it says where it is a moment before it listens
        with suppress(OSError), urllib.request.urlopen(f"{where}/healthz", timeout=5):
            break
        time.sleep(0.1)
    load = ["wrk", "--latency", "-t", "1", "-s", str(script)]
    subprocess.run([*load, "-c", "8", "-d", "2", where], capture_output=True, check=True)
    for number in connections:
        write, before = durable_write(folder), cpu_seconds(service)
        out = subprocess.run(
            [*load, "-c", str(number), "-d", str(seconds), where],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        used = cpu_seconds(service) - before
        found = re.search(r"RESULT (.*)", out)
        assert found is not None, out
        done, micros, bad, mean, *percentiles = map(float, found[1].split())
        print(
            f"{number:3} connections: {1e6 * done / micros:6.0f} decisions/s, mean {mean:.1f}, "
            "50/90/95/99/99.9 %: "
            f"{' '.join(f'{x:.1f}' for x in percentiles)} ms, {bad:.0f} refused; "
            f"{1000 * used / done:.3f} ms of CPU each; a durable write {write}; load "
            f"{os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--explore", default="epsilon=0.1")
    parser.add_argument("--gather", type=float, default=GATHER, help="seconds to wait for others")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 14, 16, 24, 32])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="for the log; a new one if not given")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as new:
        main(a.run, a.explore, a.gather, a.connections, a.seconds, a.folder or Path(new))
