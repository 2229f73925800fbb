"""ProviderSelection with random actions: environment steps a second, and how cost grows.

    python benchmarks/environments.py [--part speed numpy growth gymnasium] [--output DIRECTORY]

Every step is whole: action drawn, QoE drawn, observation made, ended episodes restarted (gymnax's
own ``env.step``). The batch is split over one host device a core. ``growth`` varies one size at a
time: environments 1 to 65,536, users K 5 to 10,000, providers L 4 to 256. ``gymnasium`` steps the
same environment through gymnax's Gymnasium wrapper, one step a call. ``numpy`` steps the same batch
by hand-written, vectorised NumPy, in turns with ``speed``. Tables hold random numbers.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import measure

from rlli_jax.experiments.sweeps.devices import use_host_devices

PAPER = {"users": 5, "requests": 6, "providers": 4, "samples": 8, "envs": 4096}
GROWTH = {
    "envs": [4**i for i in range(9)],
    "users": [5, 10, 50, 100, 500, 1_000, 5_000, 10_000],
    "providers": [2**i for i in range(2, 9)],
}


def environment(users: int, requests: int, providers: int, samples: int) -> Any:
    import numpy as np

    from rlli_jax.envs.provider_selection import ProviderSelection, make_params
    from rlli_jax.qoe import QoETable

    shape = (users, requests, providers, samples)
    table = QoETable(
        qoe=np.random.default_rng(0).random(shape, np.float32),
        valid=np.ones(shape, bool),
        users=tuple(f"user {i}" for i in range(users)),
        requests=tuple(f"request {i}" for i in range(requests)),
        providers=tuple(f"provider {i}" for i in range(providers)),
        judge="random numbers, for timing only",
        stand_in=True,
    )
    return ProviderSelection(make_params(table))


def speed(size: dict[str, int], repeats: int, work: int = 4_000_000) -> dict[str, Any]:
    """Steps per second of a batch of environments of one size."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from rlli_jax.learners.cpu import TRAIN, compiler_options

    sizes = dict(size)
    envs = sizes.pop("envs")
    env = environment(**sizes)
    devices = min(jax.device_count(), envs)
    each, steps = envs // devices, max(20, work // envs)

    def rollout(keys: jax.Array, params: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            key, state, total = carry
            key, key_act, key_step = jax.random.split(key, 3)
            action = jax.random.uniform(key_act, (each,)) * sizes["providers"]
            observation, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(key_step, each), state, action.astype(jnp.int32), params
            )
            # The sums keep every part of a step from being optimised away.
            return (key, state, total + reward + observation.sum(-1)), None

        key, key_reset = jax.random.split(keys[0])
        _, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, each), params)
        return jax.lax.scan(step, (key, state, jnp.zeros(each)), None, steps)[0][2]

    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("runs",))
    spec = jax.sharding.PartitionSpec
    jitted = jax.jit(
        jax.shard_map(
            rollout, mesh=mesh, in_specs=(spec("runs"), spec()), out_specs=spec("runs"),
            check_vma=False,
        ),
        compiler_options=compiler_options(TRAIN),
    )  # fmt: skip
    arguments = jax.random.split(jax.random.key(0), devices), env.default_params
    program, seconds = measure.compiled(jitted, *arguments)
    wall, busy = measure.repeated(lambda: jax.block_until_ready(program(*arguments)), repeats)
    memory = program.memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return {
        **size, "compile s": round(seconds, 2), **measure.rates(each * devices * steps, wall),
        "per CPU second": each * devices * steps / min(busy), "MB": total / 1e6,
    }  # fmt: skip


def by_numpy(size: dict[str, int], repeats: int, steps: int = 100) -> dict[str, Any]:
    """Steps per second of the same batch in vectorised NumPy, on one core as NumPy is."""
    import numpy as np

    sizes = dict(size)
    envs = sizes.pop("envs")
    users, requests, providers, _ = sizes.values()
    params = environment(**sizes).default_params
    qoe, count = np.asarray(params.qoe), np.asarray(params.count)
    rng = np.random.default_rng(0)
    rows, length = np.arange(envs), users * int(params.rounds)
    order = np.arange(providers)
    total = np.zeros(envs, np.float32)

    def call() -> None:
        time, request = np.zeros(envs, np.int32), rng.integers(requests, size=envs)
        for _ in range(steps):
            action = rng.integers(providers, size=envs)
            user = time % users
            # As the environment: the chosen provider, or the next one that has rated this.
            legal = count[user, request] > 0
            distance = np.where(legal, (order - action[:, None]) % providers, providers)
            action = distance.argmin(-1)
            sample = (rng.random(envs, np.float32) * count[user, request, action]).astype(np.int32)
            reward = qoe[user, request, action, sample]
            time += 1
            done = time >= length
            request = np.where(time % users == 0, rng.integers(requests, size=envs), request)
            time[done] = 0
            observation = np.zeros((envs, providers + 1), np.float32)
            observation[rows, action] = 1
            observation[:, -1] = reward
            observation[done] = 0
            total[:] += reward + observation.sum(-1)

    wall, busy = measure.repeated(call, repeats)
    return {
        **size, "compile s": 0.0, **measure.rates(envs * steps, wall),
        "per CPU second": envs * steps / min(busy), "MB": 0.0,
    }  # fmt: skip


def in_turns(repeats: int) -> list[dict[str, Any]]:
    """``speed`` and ``numpy``, one after the other; each row is one of a pair."""
    rows = []
    for _ in range(repeats):
        rows.append({"part": "speed", **speed(PAPER, 1)})
        rows.append({"part": "numpy", **by_numpy(PAPER, 1)})
    return rows


def through_gymnasium(repeats: int, steps: int = 2_000) -> dict[str, Any]:
    """Steps per second of the paper's size, stepped through the Gymnasium interface."""
    import numpy as np
    from gymnax.wrappers.gym import GymnaxToGymWrapper

    sizes = {k: v for k, v in PAPER.items() if k != "envs"}
    env = GymnaxToGymWrapper(environment(**sizes), seed=0)
    actions = np.random.default_rng(0).integers(sizes["providers"], size=steps)
    env.reset()

    def call() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    wall, busy = measure.repeated(call, repeats)
    return {
        **PAPER, "envs": 1, "compile s": 0.0, **measure.rates(steps, wall),
        "per CPU second": steps / min(busy), "MB": 0.0,
    }  # fmt: skip


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = {"envs": "environments", "users": "users K", "providers": "providers L"}
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained", sharey="row")
    for column, (name, label) in enumerate(names.items()):
        mine = [r for r in rows if r["part"] == name]
        if not mine:
            continue
        x = [r[name] for r in mine]
        axes[0, column].plot(x, [1e9 / r["median"] for r in mine], "o-")
        axes[1, column].plot(x, [r["MB"] for r in mine], "o-")
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylabel("nanoseconds a step")
    axes[1, 0].set_ylabel("memory, MB")
    for axis in axes.flat:
        axis.set(xscale="log", yscale="log")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = ["speed", "numpy", "growth", "gymnasium"]
    parser.add_argument("--part", nargs="+", choices=parts, default=parts)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    use_host_devices()

    rows = []
    if {"speed", "numpy"} <= set(options.part):
        pairs = in_turns(options.repeats)
        for key in ("median", "per CPU second"):
            each = sorted(a[key] / b[key] for a, b in zip(pairs[::2], pairs[1::2], strict=True))
            print(
                f"against NumPy, {key}: {each[len(each) // 2]:.1f} "
                f"({each[0]:.1f} to {each[-1]:.1f})"
            )
        rows += pairs
    elif "speed" in options.part:
        rows.append({"part": "speed", **speed(PAPER, options.repeats)})
    if "gymnasium" in options.part:
        rows.append({"part": "gymnasium", **through_gymnasium(options.repeats)})
    if "growth" in options.part:
        for name, values in GROWTH.items():
            for value in values:
                size = PAPER | {name: value} | ({"envs": 1024} if name != "envs" else {})
                rows.append({"part": name, **speed(size, options.repeats, 1_000_000)})
                print(f"{name} {value}: {rows[-1]['median']:,.0f} steps/s", file=sys.stderr)
    print(measure.table(rows))
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax', 'gymnasium')}, {measure.device()}")
    rate = {row["part"]: row["median"] for row in rows}  # the last of each
    if {"speed", "gymnasium"} <= set(rate):
        print(f"against Gymnasium: {rate['speed'] / rate['gymnasium']:,.0f} times as fast")
    measure.keep(rows, options.output / "environments.csv")
    draw(rows, options.output / "environments.svg")


if __name__ == "__main__":
    main()
