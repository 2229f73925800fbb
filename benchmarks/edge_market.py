"""Environment steps per second of the edge market with random actions, over batch sizes.

    python benchmarks/edge_market.py [--batches 64 256 1024] [--market users] [--devices 2]

Each row runs whole steps, restarts included, with the state, the observation and the reward of
every step computed. XLA uses one core for work this small, so the batch is split over as many
host devices as there are cores. Compilation is timed apart; a repeat is one compiled call.
"""

import argparse
import os
import platform
import statistics
import time


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[2, 16, 64, 256, 1024, 4096, 16384]
    )
    parser.add_argument("--devices", type=int, default=os.cpu_count(), help="host devices on a CPU")
    parser.add_argument("--steps", type=int, default=2_000_000, help="steps of one repeat, about")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--market",
        choices=("agod", "users", "link"),
        default="agod",
        help="the rules of AGOD, with personal QoE, or with QoE and the wireless link",
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # Read when jax starts, so it is set before jax is imported.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + f" --xla_force_host_platform_device_count={options.devices}"
    )
    import jax
    import jax.numpy as jnp
    import jaxlib
    import numpy as np
    from jax.sharding import AxisType, PartitionSpec

    from rlli_jax.envs.edge_market import (
        EdgeMarket,
        Link,
        make_params,
        make_users,
        sample_distances,
        sample_fleet,
    )
    from rlli_jax.oracle import QoETable

    def market() -> EdgeMarket:
        fleet = sample_fleet(0)
        if options.market == "agod":
            return EdgeMarket(make_params(fleet))
        rng = np.random.default_rng(0)
        table = QoETable(
            qoe=rng.random((5, 6, len(fleet), 3), np.float32),
            valid=np.ones((5, 6, len(fleet), 3), bool),
            users=tuple(f"user {i}" for i in range(5)),
            requests=tuple(f"request {i}" for i in range(6)),
            providers=tuple(f"provider {i}" for i in range(len(fleet))),
            judge="random numbers, for timing only",
            stand_in=True,
        )
        users = make_users(table, np.full((5, 5), 3.0))
        link = None
        if options.market == "link":
            link = Link(distance=sample_distances(0, users=5, providers=len(fleet)))
        return EdgeMarket(
            make_params(fleet, users=users, link=link),
            observation=("providers", "task", "persona", "request"),
        )

    env = market()
    params = env.default_params
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,))
    print(
        f"EdgeMarket ({options.market}), {params.capacity.shape[0]} providers, "
        f"observation {env.observation_space(params).shape[0]}\n"
        f"python {platform.python_version()}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, "
        f"{len(devices)} x {devices[0].device_kind}, {os.cpu_count()} cores, {platform.platform()}"
    )
    print(f"{'batch':>7} {'compile s':>10} {'min':>12} {'median':>12} {'max':>12}  steps/s")

    for batch in options.batches:
        if batch % len(devices):
            raise SystemExit(f"batch {batch} cannot be split over {len(devices)} devices")
        each = batch // len(devices)
        length = max(20, options.steps // batch)

        def rollout(key: jax.Array, each: int = each, length: int = length) -> tuple:
            key = key[0]
            step = jax.vmap(env.step, (0, 0, 0, None))

            def body(carry: tuple, _: None) -> tuple[tuple, None]:
                key, observation, state, total = carry
                key, key_act, key_step = jax.random.split(key, 3)
                chance = jax.random.uniform(key_act, (each,))
                action = (chance * params.capacity.shape[0]).astype(jnp.int32)
                observation, state, reward, *_ = step(
                    jax.random.split(key_step, each), state, action, params
                )
                return (key, observation, state, total + reward), None

            key, key_reset = jax.random.split(key)
            observation, state = jax.vmap(env.reset, (0, None))(
                jax.random.split(key_reset, each), params
            )
            start = (key, observation, state, jnp.zeros(each))
            _, observation, state, total = jax.lax.scan(body, start, None, length)[0]
            return observation, state, total

        spec = PartitionSpec("batch")
        sharded = jax.jit(
            jax.shard_map(rollout, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        )
        keys = jax.random.split(jax.random.key(0), (options.repeats + 1) * len(devices))
        keys = keys.reshape(options.repeats + 1, len(devices))
        begin = time.perf_counter()
        compiled = sharded.lower(keys[0]).compile()
        compile_seconds = time.perf_counter() - begin
        jax.block_until_ready(compiled(keys[0]))
        speeds = []
        for key in keys[1:]:
            begin = time.perf_counter()
            jax.block_until_ready(compiled(key))
            speeds.append(batch * length / (time.perf_counter() - begin))
        print(
            f"{batch:>7} {compile_seconds:>10.2f} {min(speeds):>12,.0f} "
            f"{statistics.median(speeds):>12,.0f} {max(speeds):>12,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
