"""How PPO and DQN grow, and their share of what the machine can multiply.

    python benchmarks/learners.py [--part runs size limit] [--runs 1 2 4 ... 4096]

``runs``: the paper's PPO on ProviderSelection, and DQN with a small buffer, over the runs that are
trained by one program, as a sweep trains them: time a step, memory, and by what factor time grows
with each doubling. ``size``: that PPO over users K and providers L. ``limit``: the products of
PPO's rollout and update on CartPole-v1 (64 environments, 128 steps, 4 epochs), counted by hand, a
second; over the rate at which this machine multiplies [2048, 64] by [64, 64] on as many devices at
once. Lines that are measured anew replace the old ones in the CSV, so it can be made in parts.
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

    from rlli_jax.learners.cpu import START, TRAIN, compiler_options, vmap_in_groups

    hyper = jax.tree.map(jnp.asarray, hyper)
    keys = jax.random.split(jax.random.key(0), runs)

    def init(keys: jax.Array, params: Any) -> Any:
        return jax.vmap(learner.init, (0, None, None))(keys, hyper, params)

    def train(states: Any, params: Any) -> Any:
        def one(state: Any, params: Any) -> Any:
            def iteration(_: int, state: Any) -> Any:
                return learner.step(state, params)[0]

            return jax.lax.fori_loop(0, iterations, iteration, state)

        return vmap_in_groups(one, (0, None), learner.group_size)(states, params)

    one = min(runs, jax.device_count())
    start = measure.over_devices(init, devices=one, options=compiler_options(START))
    states = start(keys, params)
    options = compiler_options(TRAIN)
    jitted = measure.over_devices(train, donate=(0,), devices=one, options=options)
    program, seconds = measure.compiled(jitted, states, params)

    def call() -> None:
        nonlocal states
        states = jax.block_until_ready(program(states, params))

    wall, busy = measure.repeated(call, repeats)
    memory = program.memory_analysis()
    size = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) * one
    return learner.env_steps * iterations * runs, wall, busy, seconds, size


def row(learner: str, varied: str, value: int, measured: tuple) -> dict[str, Any]:
    work, wall, busy, seconds, size = measured
    print(f"{learner}, {varied} {value}: {work / min(wall):,.0f} steps/s", file=sys.stderr)
    return {
        "learner": learner, "varied": varied, "value": value, "compile s": round(seconds, 1),
        **{k: round(v) for k, v in measure.rates(work, wall).items()},
        "per CPU second": round(work / min(busy)), "MB": round(size / 1e6, 2),
    }  # fmt: skip


def over_runs(learners: list[str], counts: list[int], repeats: int) -> list[dict[str, Any]]:
    from rlli_jax.envs.provider_selection import ProviderSelection
    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    env = ProviderSelection()
    small = DQNConfig(num_envs=16, num_steps=10, buffer_size=4_096, batch_size=64)
    cases = {
        "PPO": (ppo(env, PPOConfig(num_envs=16, num_steps=40)), PPOHyperparams()),
        "DQN": (dqn(env, small), DQNHyperparams()),
    }
    rows = []
    for name in learners:
        learner, hyper = cases[name]
        for runs in counts:
            # A call takes the states of its groups of runs in and out once: not for a step or two.
            iterations = max(1_280 // learner.env_steps, 128 // runs)
            measured = training(learner, hyper, env.default_params, runs, iterations, repeats)
            rows.append(row(name, "runs", runs, measured))
    return rows


def over_size(repeats: int) -> list[dict[str, Any]]:
    from environments import GROWTH, PAPER, environment

    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    rows = []
    for varied in ("users", "providers"):
        for value in GROWTH[varied]:
            size = {k: v for k, v in PAPER.items() if k != "envs"} | {varied: value}
            env = environment(**size)
            learner = ppo(env, PPOConfig(num_envs=16, num_steps=40))
            measured = training(learner, PPOHyperparams(), env.default_params, 8, 16, repeats)
            rows.append(row("PPO", varied, value, measured))
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

    names = {"runs": "runs", "users": "users K", "providers": "providers L"}
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained", sharey="row")
    for column, (varied, label) in enumerate(names.items()):
        for name in ("PPO", "DQN"):
            mine = [r for r in rows if (r["learner"], r["varied"]) == (name, varied)]
            if mine:
                x = [r["value"] for r in mine]
                axes[0, column].plot(x, [1e6 / r["per CPU second"] for r in mine], "o-", label=name)
                axes[1, column].plot(x, [r["MB"] for r in mine], "o-")
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("CPU microseconds a step")
    axes[1, 0].set_ylabel("memory, MB")
    axes[0, 0].legend()
    for axis in axes.flat:
        axis.set(xscale="log", yscale="log")
    figure.savefig(path)


def doublings(rows: list[dict[str, Any]]) -> None:
    """Print the largest factor of CPU time by which any doubling of the runs came."""
    for name in ("PPO", "DQN"):
        mine = [r for r in rows if (r["learner"], r["varied"]) == (name, "runs")]
        factors = {
            f"{a['value']} to {b['value']}": 2 * a["per CPU second"] / b["per CPU second"]
            for a, b in itertools.pairwise(mine) if b["value"] == 2 * a["value"]
        }  # fmt: skip
        if factors:
            worst = max(factors, key=lambda k: factors[k])
            print(f"{name}: CPU time grows most from {worst} runs, {factors[worst]:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = ("runs", "size", "limit")
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--learners", nargs="+", choices=("PPO", "DQN"), default=["PPO", "DQN"])
    parser.add_argument("--runs", type=int, nargs="+", default=[2**i for i in range(13)])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    use_host_devices()
    if "limit" in options.part:
        rows = limit([1, 32], options.repeats)
        print(measure.table(rows))
        measure.keep(rows, options.output / "learners_limit.csv")
    rows = []
    if "runs" in options.part:
        rows += over_runs(options.learners, options.runs, options.repeats)
    if "size" in options.part:
        rows += over_size(options.repeats)
    if rows:
        path = options.output / "learners_growth.csv"
        rows = measure.merged(rows, path, ("learner", "varied", "value"))
        measure.keep(rows, path)
        print(measure.table(rows))
        doublings(rows)
        draw(rows, options.output / "learners_growth.svg")
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")


if __name__ == "__main__":
    main()
