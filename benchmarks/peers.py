"""PPO and DQN against rejax and stable-baselines3 on CartPole-v1: steps per second, one table.

    python benchmarks/peers.py [--runs 1 32] [--algorithms ppo dqn] [--output benchmarks/results]

Same network (two layers of 64), batch sizes, epochs, learning rates and number of environments.
Each peer runs in an environment of its own, made below ``--cache`` if this one lacks it; rejax
needs gymnax below 1.0. Every measurement is a process of its own. Several runs: ours are
split over one host device a core, as in a sweep; rejax's are vmapped, which is its own way;
stable-baselines3 trains one run in each of as many processes as cores, one thread each.
Compilation is timed apart. The codes take turns, ``--rounds`` times, for the speed of a machine
drifts: a ratio is the median over rounds, each within one round. What is measured replaces its
lines in ``peers.csv`` and leaves the others, so the table can be made in parts. DQN is that of the
peer: rejax learns by double Q-learning, stable-baselines3 by the targets of Mnih et al. 2015.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import measure

PACKAGES = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2", "setuptools<81"],
    "stable-baselines3": ["stable-baselines3==2.9.2"],
}
PPO = {"num_envs": 64, "num_steps": 128, "num_minibatches": 4, "num_epochs": 4}
DQN = {"num_envs": 10, "batch_size": 128, "buffer_size": 131_070, "warm_up": 1_000}
TARGET_STEPS = 2_000  # environment steps between copies of the target network
ALGORITHMS = {
    "ppo": tuple(PACKAGES), "double dqn": ("rejax",), "dqn": ("stable-baselines3",),
}  # fmt: skip
# Environment steps of one repeat, for each run: about a second of a quiet core or more.
STEPS = {
    ("rlli_jax", "ppo"): (163_840, 16_384), ("rlli_jax", "dqn"): (40_000, 4_000),
    ("rlli_jax", "double dqn"): (40_000, 4_000),
    ("rejax", "ppo"): (163_840, 16_384), ("rejax", "double dqn"): (10_000, 500),
    ("stable-baselines3", "ppo"): (16_384, 16_384), ("stable-baselines3", "dqn"): (5_000, 5_000),
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="in each round")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/rlli_jax/benchmarks")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # a measurement, as JSON
    return parser.parse_args()


def rlli_jax(algorithm: str, runs: int, steps: int, repeats: int) -> dict[str, Any]:
    from rlli_jax.experiments.sweeps.devices import use_host_devices

    if runs > 1:
        use_host_devices()
    import gymnax
    import jax
    import jax.numpy as jnp

    from rlli_jax.learners.cpu import TRAIN, compiler_options, vmap_in_groups
    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    env, params = gymnax.make("CartPole-v1")
    if algorithm == "ppo":
        learner, hyper = ppo(env, PPOConfig(**PPO)), PPOHyperparams()
    else:
        learner = dqn(env, DQNConfig(**DQN, num_steps=100, double=algorithm == "double dqn"))
        hyper = DQNHyperparams(target_period=TARGET_STEPS // DQN["num_envs"])
    hyper = jax.tree.map(jnp.asarray, hyper)
    iterations = steps // learner.env_steps

    def init(keys: jax.Array, params: Any) -> Any:
        return jax.vmap(learner.init, (0, None, None))(keys, hyper, params)

    def train(states: Any, params: Any) -> Any:
        def one(state: Any, params: Any) -> Any:
            def iteration(state: Any, _: None) -> Any:
                state, metrics = learner.step(state, params)
                return state, metrics["episode_return"]

            return jax.lax.scan(iteration, state, None, iterations)

        return vmap_in_groups(one, (0, None), learner.group_size)(states, params)

    keys = jax.random.split(jax.random.key(0), runs)
    state = measure.over_devices(init)(keys, params)
    trained = measure.over_devices(train, donate=(0,), options=compiler_options(TRAIN))
    program, seconds = measure.compiled(trained, state, params)

    def call() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(program(state, params))

    wall, busy = measure.repeated(call, repeats)
    versions = measure.versions("rlli_jax", "jax", "gymnax")
    work = iterations * learner.env_steps * runs
    return {"work": work, "wall": wall, "busy": busy, "compile": seconds, "versions": versions}


def rejax(algorithm: str, runs: int, steps: int, repeats: int) -> dict[str, Any]:
    import jax
    from rejax import DQN as RejaxDQN
    from rejax import PPO as RejaxPPO

    common = {
        "env": "CartPole-v1", "total_timesteps": steps, "eval_freq": steps,
        "skip_initial_evaluation": True, "gamma": 0.99,
    }  # fmt: skip
    if algorithm == "ppo":
        learner = RejaxPPO.create(
            **common, **PPO, learning_rate=3e-4, gae_lambda=0.95, clip_eps=0.2, vf_coef=0.5,
            ent_coef=0.01, max_grad_norm=0.5, agent_kwargs={"activation": "tanh"},
        )  # fmt: skip
    else:
        learner = RejaxDQN.create(
            **common, num_envs=DQN["num_envs"], buffer_size=DQN["buffer_size"],
            fill_buffer=DQN["warm_up"], batch_size=DQN["batch_size"], num_epochs=1,
            learning_rate=5e-4, target_update_freq=TARGET_STEPS, polyak=0.0, max_grad_norm=10.0,
            agent_kwargs={"activation": "relu"},
        )  # fmt: skip
    # Its evaluation is left out, as ours is; training goes on from where the last call ended.
    learner = learner.replace(eval_callback=lambda *_: ())
    keys = jax.random.split(jax.random.key(0), runs)
    state = jax.jit(jax.vmap(learner.init_state))(keys)
    train = jax.jit(jax.vmap(lambda state: learner.train(train_state=state)[0]), donate_argnums=0)
    program, seconds = measure.compiled(train, state)

    def call() -> None:
        nonlocal state
        state = jax.block_until_ready(program(state))

    wall, busy = measure.repeated(call, repeats)
    versions = measure.versions("rejax", "jax", "gymnax")
    work = int(state.global_step[0]) // (repeats + 1) * runs
    return {"work": work, "wall": wall, "busy": busy, "compile": seconds, "versions": versions}


def stable_baselines3(algorithm: str, runs: int, steps: int, repeats: int) -> dict[str, Any]:
    import torch
    from stable_baselines3 import DQN as SB3DQN
    from stable_baselines3 import PPO as SB3PPO
    from stable_baselines3.common.env_util import make_vec_env

    if runs > 1:
        torch.set_num_threads(1)
    hidden = {"net_arch": [64, 64]}
    common = {"policy": "MlpPolicy", "gamma": 0.99, "device": "cpu", "seed": 0}
    if algorithm == "ppo":
        model = SB3PPO(
            env=make_vec_env("CartPole-v1", PPO["num_envs"]), n_steps=PPO["num_steps"],
            batch_size=PPO["num_envs"] * PPO["num_steps"] // PPO["num_minibatches"],
            n_epochs=PPO["num_epochs"], learning_rate=3e-4, gae_lambda=0.95, clip_range=0.2,
            clip_range_vf=0.2, ent_coef=0.01, max_grad_norm=0.5, policy_kwargs=hidden, **common,
        )  # fmt: skip
    else:
        model = SB3DQN(
            env=make_vec_env("CartPole-v1", DQN["num_envs"]), learning_rate=5e-4,
            buffer_size=DQN["buffer_size"], learning_starts=DQN["warm_up"], train_freq=1,
            gradient_steps=1, batch_size=DQN["batch_size"], max_grad_norm=10.0,
            target_update_interval=TARGET_STEPS, policy_kwargs=hidden, **common,
        )  # fmt: skip
    model.learn(2 * DQN["warm_up"])  # past the warm-up
    before = model.num_timesteps
    wall, busy = measure.repeated(
        lambda: model.learn(steps, reset_num_timesteps=False) and None, repeats
    )
    work = (model.num_timesteps - before) / (repeats + 1)
    versions = measure.versions("stable-baselines3", "torch", "gymnasium")
    return {"work": work, "wall": wall, "busy": busy, "compile": 0.0, "versions": versions}


WORKERS = {"rlli_jax": rlli_jax, "rejax": rejax, "stable-baselines3": stable_baselines3}


def interpreter(peer: str, cache: Path) -> str:
    """The Python that has a peer: this one, or one of an environment made for it."""
    asked = PACKAGES.get(peer, [])
    installed = [measure.versions(p.split("==")[0]) for p in asked[:2]]
    if all(p.replace("==", " ") in v for p, v in zip(asked[:2], installed, strict=True)):
        return sys.executable
    folder = cache / peer
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != repr(asked):
        print(f"installing {', '.join(asked)} in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *asked], check=True)
        ready.write_text(repr(asked))
    return str(python)


def measured(name: str, algorithm: str, runs: int, repeats: int, cache: Path) -> dict[str, Any]:
    """Steps per second of each repeat, on the wall and of CPU time; seconds of compilation."""
    steps = STEPS[name, algorithm][runs > 1]
    setting = json.dumps([name, algorithm, runs, steps, repeats])
    command = [interpreter(name, cache), __file__, "--worker", setting]
    parallel = os.cpu_count() or 1 if name == "stable-baselines3" and runs > 1 else 1
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(parallel)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{name} {algorithm} failed; its message is above.")
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    first, work = results[0], sum(r["work"] for r in results)
    wall = [work / seconds for seconds in first["wall"]]
    busy = [first["work"] / seconds for seconds in first["busy"]]
    print(f"{name} {algorithm} {runs}: {statistics.median(wall):,.0f} steps/s", file=sys.stderr)
    return {"wall": wall, "busy": busy} | {k: first[k] for k in ("compile", "versions")}


def compared(algorithm: str, runs: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lines of the table: ours, then each peer."""
    codes = ["rlli_jax", *ALGORITHMS[algorithm]]
    rounds: dict[str, list[dict[str, Any]]] = {code: [] for code in codes}
    for _ in range(options.rounds):
        for code in codes:
            rounds[code].append(measured(code, algorithm, runs, options.repeats, options.cache))

    def ratio(code: str, time: str) -> list[float]:
        return [
            statistics.median(ours[time]) / statistics.median(peer[time])
            for ours, peer in zip(rounds["rlli_jax"], rounds[code], strict=True)
        ]

    rows = []
    for code, results in rounds.items():
        speed = [x for result in results for x in result["wall"]]
        faster = ratio(code, "wall")
        rows.append({
            "algorithm": algorithm.upper().replace("DOUBLE", "double"), "code": code, "runs": runs,
            "compile s": round(min(result["compile"] for result in results), 2),
            "min": round(min(speed)), "median": round(statistics.median(speed)),
            "max": round(max(speed)),
            "rlli_jax is faster by": round(statistics.median(faster), 2),
            "least": round(min(faster), 2), "most": round(max(faster), 2),
            "by CPU time": round(statistics.median(ratio(code, "busy")), 2),
            "date": time.strftime("%Y-%m-%d"), "versions": results[0]["versions"],
        })  # fmt: skip
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Median steps per second as bars, with the range over repeats."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((r["algorithm"], r["runs"]) for r in rows))
    codes = list(dict.fromkeys(r["code"] for r in rows))
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for i, code in enumerate(codes):
        mine = [r for r in rows if r["code"] == code]
        x = [groups.index((r["algorithm"], r["runs"])) + 0.27 * (i - 1) for r in mine]
        low = [r["median"] - r["min"] for r in mine]
        high = [r["max"] - r["median"] for r in mine]
        axes.bar(x, [r["median"] for r in mine], 0.25, yerr=[low, high], label=code, capsize=2)
    axes.set(yscale="log", ylabel="environment steps a second")
    axes.set_xticks(range(len(groups)), [f"{a}, {n} run{'s' * (n > 1)}" for a, n in groups])
    axes.legend()
    figure.savefig(path)


def main() -> None:
    options = arguments()
    if options.worker:
        name, *setting = json.loads(options.worker)
        print(json.dumps(WORKERS[name](*setting)))
        return
    path = options.output / "peers.csv"
    for algorithm in options.algorithms:
        for runs in options.runs:
            rows = compared(algorithm, runs, options)
            measure.keep(measure.merged(rows, path, ("algorithm", "runs", "code")), path)
    rows = measure.read(path)
    print("CartPole-v1, environment steps a second over the repeats\n")
    print(measure.table([{k: v for k, v in r.items() if k != "versions"} for r in rows]))
    for code in dict.fromkeys(r["code"] for r in rows):
        print(f"{code}: {next(r['versions'] for r in rows if r['code'] == code)}")
    draw(rows, options.output / "peers.svg")


if __name__ == "__main__":
    main()
