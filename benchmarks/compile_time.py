"""Time to compile the paper's PPO in a fresh process: cold, and from the persistent cache.

    python benchmarks/compile_time.py [--learner ppo] [--seeds 10] [--repeats 3]

The three programs are those of ``rlli run``: they start, train and evaluate the learner of
configs/paper.yaml, 16 environments, 40 steps, 5 users, 4 providers, vmapped over the seeds.
``trace`` and ``lower`` happen in Python at every start; ``compile`` is XLA's work, which the cache
on disk saves. Imports are not counted. ``small`` is all else that compiles on the way.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import measure


def worker(cache: str, name: str, seeds: int) -> dict[str, float]:
    """Seconds of each stage on the wall, and of all in CPU time."""
    import jax
    import jax.numpy as jnp

    from rlli_jax.envs.policy import evaluate
    from rlli_jax.envs.provider_selection import ProviderSelection
    from rlli_jax.experiments import training
    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    env = ProviderSelection()
    learner, hyper = {
        "ppo": lambda: (ppo(env, PPOConfig(num_envs=16, num_steps=40)), PPOHyperparams()),
        "dqn": lambda: (
            dqn(env, DQNConfig(num_envs=16, num_steps=40, buffer_size=16_384, batch_size=64)),
            DQNHyperparams(),
        ),
    }[name]()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    hyper = jax.tree.map(jnp.asarray, hyper)
    params = jax.tree.map(jnp.asarray, env.default_params)
    keys = jax.random.split(jax.random.key(0), seeds)
    seconds = {"total": 0.0, "total CPU": 0.0, "trace": 0.0, "lower": 0.0}

    def compiled(stage: str, jitted: Any, *args: Any) -> Any:
        start = time.perf_counter()
        traced = jitted.trace(*args)
        seconds["trace"] += time.perf_counter() - start
        start = time.perf_counter()
        lowered = traced.lower()
        seconds["lower"] += time.perf_counter() - start
        start = time.perf_counter()
        lowered.compile()
        seconds[f"compile {stage}"] = time.perf_counter() - start
        return traced.out_info

    def judge(policy: Any, key: Any, params: Any) -> dict[str, Any]:
        return {"returns": evaluate(env, policy, key, params, 128).returns}

    same = training.all_shared(params)
    shared = training.Shared(same, same)
    program = training.Program(learner, 50, shared, jax.devices()[:1], judge)
    given = training.of_seeds(keys, hyper, params, keys, params)
    progress = compiled("start", program.starting, *program.arguments(given))
    span = jnp.int32(0), jnp.int32(50)
    compiled("train", program.training, progress, params, *span)
    words = jax.random.key_data(keys)
    compiled("evaluate", program.evaluation, progress[0], words, params)
    total, parts = time.perf_counter() - begin, sum(seconds.values())
    cpu = time.process_time() - begin_cpu
    return seconds | {"total": total, "total CPU": cpu, "small": total - parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--learner", choices=("ppo", "dqn"), default="ppo")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.learner, options.seeds)))
        return
    rows = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                command = [sys.executable, __file__, "--worker", cache]
                command += ["--learner", options.learner, "--seeds", str(options.seeds)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                seconds = json.loads(done.stdout.splitlines()[-1])
                rounded = {k: round(v, 2) for k, v in seconds.items()}
                rows.append({"learner": options.learner, "cache": state, **rounded})
    rows.sort(key=lambda row: str(row["cache"]))
    print(measure.table(rows))
    print(measure.versions("rlli_jax", "jax", "flax"))
    path = options.output / "compile_time.csv"
    others = [row for row in measure.read(path) if row["learner"] != options.learner]
    measure.keep([*others, *rows], path)


if __name__ == "__main__":
    main()
