"""PPO and DQN on CartPole-v1 to the end: the mean return of each seed's greedy policy.

    python benchmarks/cartpole.py [--seeds 16] [--steps 500000] [--output benchmarks/results]

Each seed trains for ``--steps`` environment steps and is then judged over 32 whole episodes. The
figure of merit is the interquartile mean over seeds (Agarwal et al. 2021); 500 is the most that
CartPole-v1 pays. Time is that of all seeds together, on one host device a core.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import measure

from rlli_jax.experiments.sweeps.devices import use_host_devices

EPISODES = 32


def learners(steps: int) -> dict[str, tuple[Any, Any]]:
    """-> learner and hyperparameters of each, for so many environment steps."""
    import gymnax

    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

    env, _ = gymnax.make("CartPole-v1")
    policy_gradient = ppo(env, PPOConfig(num_envs=8, num_steps=128))
    value = dqn(
        env,
        DQNConfig(num_envs=8, num_steps=128, batch_size=128, hidden=(128, 128), n_step=3),
    )
    return {
        "PPO": (
            policy_gradient,
            PPOHyperparams(
                learning_rate=1e-3, anneal=1.0, total_iterations=steps // policy_gradient.env_steps
            ),
        ),
        "DQN": (
            value,
            DQNHyperparams(
                learning_rate=5e-4, target_period=200, exploration=0.2,
                anneal=1.0, total_iterations=steps // value.env_steps,
            ),
        ),
    }  # fmt: skip


def trained(learner: Any, hyperparams: Any, seeds: int, iterations: int) -> tuple[Any, float]:
    """-> mean return [seeds] over the episodes of evaluation, seconds of training."""
    import gymnax
    import jax
    import jax.numpy as jnp
    import numpy as np

    from rlli_jax.envs.policy import evaluate

    env, params = gymnax.make("CartPole-v1")
    hyperparams = jax.tree.map(jnp.asarray, hyperparams)

    def train(keys: jax.Array, params: Any) -> Any:
        states = jax.vmap(learner.init, (0, None, None))(keys, hyperparams, params)

        def iteration(_: int, states: Any) -> Any:
            return jax.vmap(learner.step, (0, None))(states, params)[0]

        return jax.lax.fori_loop(0, iterations, iteration, states)

    def judge(states: Any, params: Any) -> Any:
        def one(state: Any) -> jax.Array:
            key = jax.random.fold_in(state.key, 1)
            return evaluate(env, learner.policy(state), key, params, EPISODES).returns.mean()

        return jax.vmap(one)(states)

    keys = jax.random.split(jax.random.key(0), seeds)
    program, _ = measure.compiled(measure.over_devices(train), keys, params)
    start = time.perf_counter()
    states = jax.block_until_ready(program(keys, params))
    seconds = time.perf_counter() - start
    return np.asarray(measure.over_devices(judge)(states, params)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--learners", nargs="+", choices=("PPO", "DQN"), default=["PPO", "DQN"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    use_host_devices()
    from scipy.stats import trim_mean

    rows = []
    for name in options.learners:
        learner, hyperparams = learners(options.steps)[name]
        iterations = options.steps // learner.env_steps
        returns, seconds = trained(learner, hyperparams, options.seeds, iterations)
        rows.append({
            "learner": name, "seeds": options.seeds, "env steps": iterations * learner.env_steps,
            "interquartile mean": round(float(trim_mean(returns, 0.25)), 1),
            "mean": round(float(returns.mean()), 1), "worst": round(float(returns.min()), 1),
            "train s": round(seconds, 1),
        })  # fmt: skip
        print(f"{name}: {' '.join(f'{r:.0f}' for r in sorted(returns))}", flush=True)
    print(measure.table(rows))
    print(f"{measure.versions('rlli_jax', 'jax', 'gymnax')}, {measure.device()}")
    measure.keep(rows, options.output / "cartpole.csv")


if __name__ == "__main__":
    main()
