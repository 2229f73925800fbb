"""GoTo with two goals: a longer trained low level under the right plan, and flat PPO with memory.

    python benchmarks/two_goals.py

"go to the red key, then go to the blue box". The low level is PPO, trained to go to any one thing;
the right plan tells it what to go to next, so what it lacks to 1 is its own. Flat PPO, without and
with memory (a gated recurrent unit), learns on the same instructions for as many environment steps
as a low level and a planner of ``--planning`` iterations together.
"""

import argparse
from pathlib import Path
from typing import Any

import measure


def main() -> None:
    import jax
    import numpy as np

    from rlli_jax import PPOConfig, PPOHyperparams, evaluate, ppo
    from rlli_jax.envs.go_to import GoTo
    from rlli_jax.learners.options import follow
    from rlli_jax.learners.training import train
    from rlli_jax.statistics import t_interval
    from rlli_jax.teaching.planner import planning

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--low-level", type=int, nargs="*", default=[60, 300], help="iterations")
    parser.add_argument("--flat", type=int, nargs="*", default=[60], help="the same, of its peer")
    parser.add_argument("--memory", type=int, nargs="+", default=[0, 64], help="units, of flat PPO")
    parser.add_argument("--planning", type=int, default=40, help="iterations of Q-learning")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    hyper = PPOHyperparams(learning_rate=1e-3, anneal=1.0, gamma=0.97, entropy_coefficient=0.01)
    keys = jax.random.split(jax.random.key(0), options.seeds)
    path = options.output / "two_goals.csv"

    def room(instructions: str, **more: Any) -> GoTo:
        return GoTo(objects=options.objects, instructions=instructions, **more)

    def learned(env: GoTo, iterations: int, memory: int = 0) -> Any:
        config = PPOConfig(
            num_envs=64, num_steps=64, num_minibatches=8, hidden=(128, 64), memory=memory
        )
        learner = ppo(env, config)
        return learner, train(learner, hyper, env.default_params, keys, iterations)[0]

    def judge(env: GoTo, policy: Any, states: Any, name: str, iterations: int, memory: int) -> None:
        """Success in rooms of another draw; ``policy`` is made of a state of each seed."""
        other = room("then" if env.default_params.goals.shape[1] == 2 else "all", seed=100)

        def play(state: Any) -> jax.Array:
            key = jax.random.key(1)
            return evaluate(env, policy(state), key, other.default_params, options.episodes).returns

        returns = np.asarray(jax.jit(jax.vmap(play))(states))
        value, low, high = (float(x) for x in t_interval((returns > 0).mean(1)))
        row = {
            "policy": name, "memory": memory, "iterations": iterations, "objects": options.objects,
            "seeds": options.seeds, "episodes": options.episodes, "success": round(value, 4),
            "low": round(low, 4), "high": round(high, 4), "return": round(float(returns.mean()), 4),
            "env steps": 64 * 64 * iterations,
        }  # fmt: skip
        print(measure.table([row]), flush=True)
        keys = ("policy", "memory", "iterations", "objects")
        measure.keep(measure.merged([row], path, keys), path)

    walker, two = room("all"), room("then")
    for iterations in options.low_level:
        learner, states = learned(walker, iterations)
        judge(walker, learner.policy, states, "low level, one goal", iterations, 0)

        def planned(state: Any, learner: Any = learner) -> Any:
            todo = planning(two, walker, lambda params: learner.policy(state))
            return follow(todo.hierarchy, todo.oracle())

        judge(two, planned, states, "low level, right plan", iterations, 0)
    flat = room("then", observation=("blocked", "likeness", "part"))
    for iterations in options.flat:
        for memory in options.memory:
            learner, states = learned(flat, iterations + options.planning, memory)
            judge(flat, learner.policy, states, "flat PPO", iterations + options.planning, memory)
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")


if __name__ == "__main__":
    main()
