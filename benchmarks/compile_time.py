"""Time to compile the paper's PPO in a fresh process: cold, and from the persistent cache.

    python benchmarks/compile_time.py [--seeds 10] [--repeats 3]

``trace`` and ``lower`` happen in Python at every start; ``compile`` is XLA's work, which the cache
on disk saves. Imports are not counted. The learner is that of configs/paper.yaml: 16 environments,
40 steps, 5 users, 4 providers, vmapped over the seeds, with ``init`` and a scan over 50 steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import measure


def worker(cache: str, seeds: int) -> dict[str, float]:
    """Seconds of wall and CPU time of each stage."""
    import jax
    import jax.numpy as jnp

    from rlli_jax.envs.provider_selection import ProviderSelection
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    env = ProviderSelection()
    learner = ppo(env, PPOConfig(num_envs=16, num_steps=40))
    hyper = jax.tree.map(jnp.asarray, PPOHyperparams())
    params = jax.tree.map(jnp.asarray, env.default_params)
    keys = jax.random.split(jax.random.key(0), seeds)
    init = jax.jit(jax.vmap(learner.init, (0, None, None)))

    def run(states, params):  # type: ignore[no-untyped-def]
        step = jax.vmap(learner.step, (0, None))
        return jax.lax.scan(lambda states, _: step(states, params), states, length=50)

    seconds = {}

    def stage(name, call):  # type: ignore[no-untyped-def]
        start, start_cpu = time.perf_counter(), time.process_time()
        result = call()
        seconds[name] = time.perf_counter() - start
        seconds[f"{name} CPU"] = time.process_time() - start_cpu
        return result

    traced = stage("init trace", lambda: init.trace(keys, hyper, params))
    lowered = stage("init lower", traced.lower)
    stage("init compile", lowered.compile)
    states = jax.eval_shape(init, keys, hyper, params)
    traced = stage("trace", lambda: jax.jit(run, donate_argnums=0).trace(states, params))
    lowered = stage("lower", traced.lower)
    stage("compile", lowered.compile)
    total = [v for k, v in seconds.items() if not k.endswith("CPU")]
    total_cpu = [v for k, v in seconds.items() if k.endswith("CPU")]
    return {"total": sum(total), "total CPU": sum(total_cpu), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.seeds)))
        return
    rows = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                command = [sys.executable, __file__, "--worker", cache, "--seeds", options.seeds]
                done = subprocess.run(
                    [str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True
                )
                seconds = json.loads(done.stdout.splitlines()[-1])
                rows.append({"cache": state} | {k: round(v, 2) for k, v in seconds.items()})
    rows.sort(key=lambda row: str(row["cache"]), reverse=False)
    print(measure.table(rows))
    print(measure.versions("rlli_jax", "jax", "flax", "distrax"))
    measure.keep(rows, options.output / "compile_time.csv")


if __name__ == "__main__":
    main()
