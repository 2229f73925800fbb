"""GoTo with two goals: a hierarchy with different planners, against flat PPO.

    python benchmarks/planner.py --model smollm2

"go to the red key, then go to the blue box". The low level is PPO, trained to go to any one
thing; planners choose what to go to next: the right plan (ceiling), chance (floor), Q-learning over
options (SMDP), a language model that is asked once for each of 60 situations, and a tiny one with
random weights. Flat PPO learns on the same instructions for as many environment steps as low level
and planner together.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import measure


def main() -> None:
    import jax
    import numpy as np

    from rlli_jax import PPOConfig, PPOHyperparams, evaluate, ppo
    from rlli_jax.envs.go_to import GoTo
    from rlli_jax.language import load_model
    from rlli_jax.language.tiny import tiny_model
    from rlli_jax.learners.options import SMDPConfig, SMDPHyperparams, follow, smdp_q
    from rlli_jax.learners.training import train
    from rlli_jax.statistics import t_interval
    from rlli_jax.teaching.planner import planning

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=1000, help="of PPO, low level")
    parser.add_argument("--planning", type=int, default=100, help="iterations of Q-learning")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2048)
    parser.add_argument("--model", nargs="*", default=[], help="language models that plan")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    config = PPOConfig(num_envs=64, num_steps=64, num_minibatches=8, hidden=(128, 64))
    hyper = PPOHyperparams(learning_rate=1e-3, anneal=1.0, gamma=0.97, entropy_coefficient=0.01)
    keys = jax.random.split(jax.random.key(0), options.seeds)
    common = {"objects": options.objects, "instructions": "then"}
    env, other = GoTo(**common), GoTo(**common, seed=100)
    walker = GoTo(objects=options.objects, instructions="all")
    walked = ppo(walker, config)
    walks, _ = train(walked, hyper, walker.default_params, keys, options.iterations)
    q = SMDPConfig(num_envs=64, num_steps=64)
    rows: list[dict[str, Any]] = []

    def add(planner: str, returns: Any, right: Any = "") -> None:
        value, low, high = (float(x) for x in t_interval((np.asarray(returns) > 0).mean(1)))
        rows.append({
            "policy": planner, "objects": options.objects, "seeds": options.seeds,
            "episodes": options.episodes, "plan right": right, "success": round(value, 4),
            "low": round(low, 4), "high": round(high, 4),
            "return": round(float(np.mean(returns)), 4),
            "env steps": walked.env_steps * (options.iterations + options.planning),
        })  # fmt: skip
        print(measure.table(rows[-1:]), flush=True)
        path = options.output / "planner.csv"
        measure.keep(measure.merged(rows, path, ("policy", "objects")), path)

    @jax.jit
    @jax.vmap
    def carried_out(walk: Any, plan: Any) -> Any:
        own = planning(env, walker, walked.policy(walk))
        key = jax.random.key(1)
        policy = follow(own.hierarchy, plan)
        return evaluate(env, policy, key, other.default_params, options.episodes).returns

    def judged(plan: Any) -> Any:
        return carried_out(walks, jax.numpy.broadcast_to(plan, (options.seeds, *plan.shape[-2:])))

    todo = planning(env, walker, walked.policy(jax.tree.map(lambda x: x[0], walks)))
    add("oracle planner", judged(todo.oracle()), 1.0)

    def learn(walk: Any, key: Any) -> Any:
        own = planning(env, walker, walked.policy(walk))
        learner = smdp_q(env, own.hierarchy, q)
        state = learner.init(key, SMDPHyperparams(), env.default_params)
        state, _ = jax.lax.scan(
            lambda s, _: learner.step(s, env.default_params), state, length=options.planning
        )
        return jax.nn.one_hot(state.values.argmax(-1), own.hierarchy.options)

    plans = jax.jit(jax.vmap(learn))(walks, keys)
    right = float((np.asarray(plans).argmax(-1) == todo.right).mean())
    add("Q-learning over options", judged(plans), round(right, 3))
    add("random planner", judged(todo.chance()), round(1 / len(todo.options), 3))

    tell = ("blocked", "likeness", "part")
    flat_env = GoTo(**common, observation=tell)
    flat = ppo(flat_env, config)
    flats, _ = train(
        flat, hyper, flat_env.default_params, keys, options.iterations + options.planning
    )

    def play(state: Any) -> Any:
        key = jax.random.key(1)
        policy = flat.policy(state)
        return evaluate(flat_env, policy, key, other.default_params, options.episodes).returns

    add("flat PPO", jax.jit(jax.vmap(play))(flats))
    for name in ["tiny", *options.model]:
        start = time.perf_counter()
        if name == "tiny":
            words = [*todo.prompts, *todo.options]
            model = tiny_model("llama", jax.random.key(0), words, width=16, heads=2)
        else:
            model = load_model(name)
        plan = todo.asked(model)
        right = float((np.asarray(plan).argmax(-1) == todo.right).mean())
        print(
            f"{model.name}: asked {len(todo.prompts)} times in {time.perf_counter() - start:.0f} s"
        )
        add(f"{model.name} as planner", judged(plan), round(right, 3))
    print(measure.table(rows))
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")


if __name__ == "__main__":
    main()
