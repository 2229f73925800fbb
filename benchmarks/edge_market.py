"""Environment steps per second of the edge market over batch sizes, and the time to train PPO.

    python benchmarks/edge_market.py [--batches 64 256 1024] [--market users] [--devices 2]
    python benchmarks/edge_market.py --part train

Steps: each row runs whole steps with random actions, restarts included, with the state, the
observation and the reward of every step computed. XLA uses one core for work this small, so the
batch is split over as many host devices as there are cores. Compilation is timed apart; a repeat
is one compiled call. Train: the PPO of configs/edge_market.yaml, all seeds side by side.
"""

import argparse
import datetime
import os
import statistics
import time
from pathlib import Path
from typing import Any

import measure

from rlli_jax.experiments.sweeps.devices import use_host_devices


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
    parser.add_argument("--part", choices=("steps", "train"), default="steps")
    parser.add_argument("--seeds", type=int, default=8, help="of the training")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def train(seeds: int) -> dict[str, Any]:
    """Seconds to train the PPO of the shipped study, and what it returns while training."""
    import jax
    import numpy as np

    from rlli_jax.envs.edge_market import EdgeMarket, load_fleet, make_params
    from rlli_jax.experiments.market.config import MarketLearned
    from rlli_jax.studies import load_study

    config = load_study(Path(__file__).parent.parent / "configs" / "edge_market.yaml")
    block, file = config.policies["PPO"], config.market.fleet.file
    assert isinstance(block, MarketLearned)
    assert file is not None
    params = jax.tree.map(jax.numpy.asarray, make_params(load_fleet(file)))
    env = EdgeMarket(params, mask=block.mask, observation=block.observation)
    learner = block.make(env)
    keys = jax.random.split(jax.random.key(0), seeds)

    def whole(keys: jax.Array, params: Any) -> Any:
        def one(key: jax.Array) -> jax.Array:
            def step(state: Any, _: None) -> tuple[Any, jax.Array]:
                state, metrics = learner.step(state, params)
                return state, metrics["episode_return"]

            state = learner.init(key, block.hyperparams, params)
            return jax.lax.scan(step, state, length=block.iterations)[1]

        return jax.vmap(one)(keys)

    program, compile_seconds = measure.compiled(measure.over_devices(whole), keys, params)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    returns = np.asarray(jax.block_until_ready(program(keys, params)))
    return {
        "seeds": seeds,
        "env_steps_each": learner.env_steps * block.iterations,
        "compile_s": compile_seconds,
        "train_s": time.perf_counter() - begin,
        "train_cpu_s": time.process_time() - begin_cpu,
        "last_return": float(np.nanmean(returns[:, -20:])),
    }


def main() -> None:
    options = arguments()
    use_host_devices(options.devices)
    import jax
    import jax.numpy as jnp
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
    from rlli_jax.qoe import QoETable

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

    machine = {"device": measure.device(), "cpu": measure.cpu(), "date": f"{datetime.date.today()}"}
    print(measure.versions("jax", "jaxlib"))
    if options.part == "train":
        rows = [train(options.seeds) | machine]
        print(measure.table(rows))
        measure.keep(rows, options.output / "edge_market_train.csv")
        return
    env = market()
    params = env.default_params
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,))
    rows = []

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
        row = {"market": options.market, "batch": batch, "compile_s": compile_seconds}
        row |= {"min": min(speeds), "median": statistics.median(speeds), "max": max(speeds)}
        rows.append(row | machine)
        print(measure.table([row]).splitlines()[-1], flush=True)
    print(measure.table(rows))
    measure.keep(rows, options.output / f"edge_market_{options.market}.csv")


if __name__ == "__main__":
    main()
