"""GoTo: does a policy that was trained on some instructions follow others?

    python benchmarks/go_to.py --encoders hashing minilm

PPO learns on the trained instructions, in rooms with a growing number of things, and is judged in
other rooms: on those instructions, on pairs of colour and thing that it was never asked for, on
other verbs and on other words for colours and things. Success is that of whole episodes of at most
64 steps.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import measure

# What the policy is told: parts of the observation.
TOLD = {
    "likeness": ("blocked", "likeness"),
    "vector": ("blocked", "looks", "instruction"),
    "nothing": ("blocked", "looks"),
}
JUDGED = ("trained", "held_out", "synonyms", "other_words")


def learned(encoder: str, told: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train on one encoder, and judge on every set of instructions."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from rlli_jax import PPOConfig, PPOHyperparams, evaluate, ppo
    from rlli_jax.envs.go_to import GoTo
    from rlli_jax.learners.training import train_program
    from rlli_jax.statistics import t_interval

    def env(**more: Any) -> GoTo:
        return GoTo(objects=options.objects, encoder=encoder, observation=TOLD[told], **more)

    room = env()
    learner = ppo(
        room,
        PPOConfig(num_envs=64, num_steps=64, num_minibatches=8, num_epochs=4, hidden=(128, 64)),
    )
    hyper = PPOHyperparams(
        learning_rate=1e-3, anneal=1.0, total_iterations=options.iterations, gamma=0.97,
        entropy_coefficient=0.01,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(options.seed), options.seeds)
    state = jax.jit(jax.vmap(learner.init, (0, None, None)))(keys, hyper, room.default_params)
    program, start = train_program(learner), time.perf_counter()
    for done in range(0, options.iterations, 50):
        part = min(50, options.iterations - done)
        state, metrics = program(state, room.default_params, length=part)
        mean = float(np.nanmean(metrics["episode_return"][:, -10:]))
        print(f"{encoder} {told} {done + part}: return {mean:.3f}", flush=True)
    seconds = time.perf_counter() - start

    @jax.jit
    def play(state: Any, params: Any) -> jax.Array:
        key = jax.random.key(options.seed + 1)
        return jax.vmap(
            lambda s: evaluate(room, learner.policy(s), key, params, options.episodes).returns
        )(state)

    rows = []
    for name in JUDGED:
        params = env(instructions=name, seed=options.seed + 100).default_params
        returns = np.asarray(play(state, jax.tree.map(jnp.asarray, params)))
        value, low, high = (float(x) for x in t_interval((returns > 0).mean(1)))
        rows.append({
            "encoder": encoder, "told": told, "objects": options.objects, "instructions": name,
            "seeds": options.seeds, "env steps": learner.env_steps * options.iterations,
            "episodes": options.episodes, "success": round(value, 4), "low": round(low, 4),
            "high": round(high, 4), "return": round(float(returns.mean()), 4),
            "train s": round(seconds),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoders", nargs="+", default=["one_hot", "hashing", "minilm"])
    parser.add_argument("--told", nargs="+", default=list(TOLD), choices=list(TOLD))
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    path = options.output / "go_to.csv"
    for told in options.told:
        for encoder in options.encoders:
            rows = learned(encoder, told, options)
            print(measure.table(rows))
            columns = ("encoder", "told", "objects", "instructions", "env steps")
            measure.keep(measure.merged(rows, path, columns), path)
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")


if __name__ == "__main__":
    main()
