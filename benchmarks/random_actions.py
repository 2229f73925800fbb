"""Steps per second of the environments of sessions and of instructions, with random actions.

    python benchmarks/random_actions.py

An environment steps many copies under ``vmap``, split over the devices of the host; the sums
that it returns keep every part of a step from being optimised away.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import measure

from rlli_jax.experiments.sweeps.devices import use_host_devices

ENVS = 4_096


def session() -> Any:
    """100 people, 6 requests, 4 providers, 8 samples: the size of configs/session.yaml."""
    import numpy as np

    from rlli_jax.envs.session import Session, make_params
    from rlli_jax.qoe import QoETable

    shape = 100, 6, 4, 8
    table = QoETable(
        qoe=np.random.default_rng(0).random(shape, np.float32),
        valid=np.ones(shape, bool),
        users=tuple(f"user {i}" for i in range(shape[0])),
        requests=tuple(f"request {i}" for i in range(shape[1])),
        providers=tuple(f"provider {i}" for i in range(shape[2])),
        judge="random numbers, for timing only",
        stand_in=True,
    )
    return Session(make_params(table))


def go_to(*observation: str) -> Any:
    """GoTo with eight things in a room, the hashing stand-in as encoder."""
    from rlli_jax.envs.go_to import GoTo

    return GoTo(observation=observation)


ENVIRONMENTS = {
    "Session": session,
    "GoTo, view": partial(go_to, "blocked", "likeness"),
    "GoTo, list": partial(go_to, "room", "things"),
}


def speed(name: str, envs: int, repeats: int, work: int = 8_000_000) -> dict[str, Any]:
    """Steps per second of a batch of environments."""
    import jax
    import jax.numpy as jnp

    from rlli_jax.learners.cpu import TRAIN, compiler_options

    env = ENVIRONMENTS[name]()
    params = jax.tree.map(jnp.asarray, env.default_params)
    actions = env.action_space(params).n
    devices = jax.device_count()
    each, steps = envs // devices, work // envs

    def rollout(keys: jax.Array, params: Any) -> jax.Array:
        def step(carry: Any, _: None) -> Any:
            key, state, total = carry
            key, key_act, key_step = jax.random.split(key, 3)
            action = (jax.random.uniform(key_act, (each,)) * actions).astype(jnp.int32)
            observation, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(key_step, each), state, action, params
            )
            return (key, state, total + reward + observation.reshape(each, -1).sum(-1)), None

        key, key_reset = jax.random.split(keys[0])
        _, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, each), params)
        return jax.lax.scan(step, (key, state, jnp.zeros(each)), None, steps)[0][2]

    jitted = measure.over_devices(rollout, options=compiler_options(TRAIN))
    arguments = jax.random.split(jax.random.key(0), devices), params
    program, seconds = measure.compiled(jitted, *arguments)
    wall, busy = measure.repeated(lambda: jax.block_until_ready(program(*arguments)), repeats)
    done = each * devices * steps
    return {
        "environment": name, "envs": envs, "compile s": round(seconds, 2),
        **measure.rates(done, wall), "per CPU second": done / min(busy),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS))
    parser.add_argument("--envs", type=int, default=ENVS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    use_host_devices()
    rows = [speed(name, options.envs, options.repeats) for name in options.only]
    print(measure.table(rows))
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")
    path = options.output / "random_actions.csv"
    measure.keep(measure.merged(rows, path, ("environment", "envs")), path)


if __name__ == "__main__":
    main()
