"""How PPO and DQN grow with the number of runs, and their share of what the machine can multiply.

    python benchmarks/learners.py [--part growth limit] [--runs 1 8 64 512 4096]

``growth``: the paper's PPO on ProviderSelection, and DQN with a small buffer, over the runs that
are trained side by side: time a step and memory. ``limit``: the products of PPO's rollout and
update on CartPole-v1 (64 environments, 128 steps, 4 epochs), counted by hand, a second; over the
rate at which this machine multiplies [2048, 64] by [64, 64] on as many devices at once.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import measure

from rlli_jax.experiments.sweeps.devices import use_host_devices


def training(
    learner: Any, hyper: Any, params: Any, runs: int, iterations: int, repeats: int
) -> tuple:
    """-> environment steps of one call, wall seconds, CPU seconds, compile seconds, bytes."""
    import jax
    import jax.numpy as jnp

    hyper = jax.tree.map(jnp.asarray, hyper)
    keys = jax.random.split(jax.random.key(0), runs)

    def init(keys: jax.Array, params: Any) -> Any:
        return jax.vmap(learner.init, (0, None, None))(keys, hyper, params)

    def train(states: Any, params: Any) -> Any:
        def iteration(_: int, states: Any) -> Any:
            return jax.vmap(learner.step, (0, None))(states, params)[0]

        return jax.lax.fori_loop(0, iterations, iteration, states)

    one = min(runs, jax.device_count())
    states = measure.over_devices(init, devices=one)(keys, params)
    jitted = measure.over_devices(train, donate=(0,), devices=one)
    program, seconds = measure.compiled(jitted, states, params)

    def call() -> None:
        nonlocal states
        states = jax.block_until_ready(program(states, params))

    wall, busy = measure.repeated(call, repeats)
    memory = program.memory_analysis()
    size = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) * one
    return learner.env_steps * iterations * runs, wall, busy, seconds, size


def growth(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    from rlli_jax.envs.provider_selection import ProviderSelection
    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    env = ProviderSelection()
    small = DQNConfig(num_envs=16, num_steps=40, buffer_size=4_096, batch_size=64)
    cases = {
        "PPO": (ppo(env, PPOConfig(num_envs=16, num_steps=40)), PPOHyperparams()),
        "DQN": (dqn(env, small), DQNHyperparams()),
    }
    rows = []
    for name, (learner, hyper) in cases.items():
        for runs in counts:
            iterations = max(1, 64 // runs)
            work, wall, busy, seconds, size = training(
                learner, hyper, env.default_params, runs, iterations, repeats
            )
            rows.append({
                "learner": name, "runs": runs, "compile s": round(seconds, 1),
                **measure.rates(work, wall), "per CPU second": work / min(busy), "MB": size / 1e6,
            })  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def products(widths: list[int], samples: int) -> tuple[int, int]:
    """Floating-point operations of a network's products: forward, and backward."""
    layers = [2 * samples * a * b for a, b in itertools.pairwise(widths)]
    return sum(layers), 2 * sum(layers) - layers[0]  # the input needs no gradient


def limit(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    import gymnax
    import jax

    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    env, params = gymnax.make("CartPole-v1")
    config = PPOConfig(num_envs=64, num_steps=128)
    learner = ppo(env, config)
    rows = []
    for runs in counts:
        work, wall, busy, *_ = training(
            learner, PPOHyperparams(), params, runs, max(1, 8 // runs), repeats
        )
        actor, critic = products([4, 64, 64, 2], 1), products([4, 64, 64, 1], 1)
        update = config.num_epochs * (sum(actor) + sum(critic))
        each = actor[0] + 2 * critic[0] + update

        def multiply(x: jax.Array, w: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, 200, lambda _, x: (x @ w) * 0.1, x)

        devices = min(runs, jax.device_count())
        x = jax.random.normal(jax.random.key(0), (devices * 2048, 64))
        program = measure.over_devices(multiply, devices=devices).lower(x, x[:64]).compile()
        weight = x[:64]
        mul_wall, mul_busy = measure.repeated(
            lambda program=program, x=x, w=weight: jax.block_until_ready(program(x, w)), repeats
        )
        products_done = 200 * 2 * devices * 2048 * 64 * 64
        rows.append({
            "runs": runs, "GFLOP/s of PPO": each * work / min(wall) / 1e9,
            "GFLOP/s of products": products_done / min(mul_wall) / 1e9,
            "share": each * work / min(wall) / (products_done / min(mul_wall)),
            "share by CPU time": each * work / min(busy) / (products_done / min(mul_busy)),
        })  # fmt: skip
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for name in dict.fromkeys(r["learner"] for r in rows):
        mine = [r for r in rows if r["learner"] == name]
        x = [r["runs"] for r in mine]
        time_axis.plot(x, [1e6 / r["median"] for r in mine], "o-", label=name)
        memory_axis.plot(x, [r["MB"] for r in mine], "o-", label=name)
    time_axis.set(xscale="log", yscale="log", xlabel="runs", ylabel="microseconds a step")
    memory_axis.set(xscale="log", yscale="log", xlabel="runs", ylabel="memory, MB")
    time_axis.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--part", nargs="+", choices=("growth", "limit"), default=["limit", "growth"]
    )
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 8, 64, 512, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    use_host_devices()
    for part in options.part:
        if part == "limit":
            rows = limit([1, 32], options.repeats)
        else:
            rows = growth(options.runs, options.repeats)
            options.output.mkdir(parents=True, exist_ok=True)
            draw(rows, options.output / "learners_growth.svg")
        print(measure.table(rows))
        measure.keep(rows, options.output / f"learners_{part}.csv")
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")


if __name__ == "__main__":
    main()
