"""Environment steps per second of a language policy: compiled, against a loop in Lamorel's manner.

    python benchmarks/teaching.py [--size tiny flan-t5-small] [--envs 32 1024] [--repeats 3]

Both act in BabyAI-GoToRedBallNoDists-v0 with a T5 of the same shape and random weights. The peer is
the usual arrangement: minigrid environments, texts made and tokenised in every step, one scoring
call of a torch T5 a step for all its 32 environments (the encoder once per text, shared by the
candidates), then PPO on minibatches of 64. Lamorel itself adds remote calls between processes,
which are left out here. The compiled loop scores its 556 texts once per update and looks them up.
Collecting and updating are timed apart; compilation is left out and shown.
"""

import argparse
import os
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs import go_to_red_ball as rb
from rlli_jax.learners import core
from rlli_jax.teaching.language_policy import (
    LAMOREL,
    LanguagePolicyConfig,
    language_policy,
    rollout,
)
from rlli_jax.teaching.t5 import LanguageModel, T5Config, score, tiny_t5
from rlli_jax.teaching.t5.model import init_params
from rlli_jax.teaching.tasks import Task, go_to_red_ball

STEPS, MINIBATCH = 40, 64
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {},  # that of the study
    "flan-t5-small": {
        "vocab_size": 32_128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 1_024,
        "num_layers": 8,
        "num_decoder_layers": 8,
        "num_heads": 6,
    },
}


def random_model(task: Task, size: str) -> LanguageModel:
    """A T5 with random weights; at the real size too the words are those of the texts."""
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    tiny = tiny_t5(jax.random.key(0), words, d_model=16, num_heads=2)
    if size == "tiny":
        return tiny
    config = T5Config(
        **SHAPES[size], feed_forward_proj="gated-gelu", tie_head=False, scale_decoder_outputs=False
    )
    params = init_params(jax.random.key(0), config)
    return LanguageModel(size, config, params, tiny.tokenizer)


def seconds(function: Any, *arguments: Any, repeats: int) -> tuple[float, float]:
    """First call, and the fastest of the later ones."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return times[0], min(times[1:])


def compiled(task: Task, model: LanguageModel, envs: int, repeats: int) -> dict[str, float]:
    """Steps per second of the compiled loop."""
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    candidates = model.candidates(task.advice)

    @jax.jit
    def collect(params: Any, start: core.Envs, key: jax.Array) -> Any:
        table = score(model.config, params, prompts, candidates).candidates
        return rollout(task.env, table, start, key, task.env_params, STEPS)

    key = jax.random.key(1)
    start = core.reset(task.env, key, task.env_params, envs)
    compile_seconds, collecting = seconds(collect, model.params, start, key, repeats=repeats)
    # One minibatch is timed and counted as often as PPO needs it: 4 epochs over all samples.
    config = LanguagePolicyConfig(
        num_envs=1, num_steps=MINIBATCH, num_minibatches=1, num_epochs=1, value_width=64
    )
    learner = language_policy(task, model, config)
    state = learner.init(key, LAMOREL, task.env_params)
    twice = language_policy(
        task, model,
        LanguagePolicyConfig(
            num_envs=1, num_steps=MINIBATCH, num_minibatches=1, num_epochs=3, value_width=64
        ),
    )  # fmt: skip
    _, one = seconds(jax.jit(learner.step), state, task.env_params, repeats=repeats)
    _, three = seconds(jax.jit(twice.step), state, task.env_params, repeats=repeats)
    updating = (three - one) / 2 * 4 * envs * STEPS / MINIBATCH
    return {"compile": compile_seconds, **speeds(envs * STEPS, collecting, updating)}


def speeds(steps: int, collecting: float, updating: float) -> dict[str, float]:
    return {
        "collect": steps / collecting,
        "update": steps / updating,
        "whole": steps / (collecting + updating),
    }


def lamorel_style(task: Task, model: LanguageModel, envs: int, steps: int) -> dict[str, float]:
    """Steps per second of the torch loop."""
    import gymnasium
    import minigrid  # noqa: F401 - registers the environments
    import torch
    import transformers

    c = model.config
    peer = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=c.vocab_size, d_model=c.d_model, d_kv=c.d_kv, d_ff=c.d_ff,
            num_layers=c.num_layers, num_decoder_layers=c.num_decoder_layers,
            num_heads=c.num_heads, feed_forward_proj=c.feed_forward_proj,
            tie_word_embeddings=False, decoder_start_token_id=0,
        )
    )  # fmt: skip
    actions = [model.tokenizer(a, add_special_tokens=False)["input_ids"] for a in task.advice]
    longest = max(map(len, actions))
    padded = torch.tensor([a + [0] * (longest - len(a)) for a in actions])
    real = torch.tensor([[i < len(a) for i in range(longest)] for a in actions])
    decoder_input = torch.cat([torch.zeros(len(actions), 1, dtype=torch.long), padded[:, :-1]], 1)

    def score_texts(texts: list[str]) -> Any:
        prompts = [task.prompt(text) for text in texts]
        batch = model.tokenizer(
            prompts, add_special_tokens=False, padding=True, return_tensors="pt"
        )
        mask = batch["attention_mask"]
        memory = peer.encoder(input_ids=batch["input_ids"], attention_mask=mask)[0]
        count = len(actions)
        logits = peer(
            encoder_outputs=(memory.repeat_interleave(count, 0),),
            attention_mask=mask.repeat_interleave(count, 0),
            decoder_input_ids=decoder_input.repeat(len(texts), 1),
        ).logits
        labels = padded.repeat(len(texts), 1)[..., None]
        log_prob = logits.log_softmax(-1).gather(-1, labels)[..., 0]
        return (log_prob * real.repeat(len(texts), 1)).sum(1).reshape(len(texts), count)

    worlds = [gymnasium.make("BabyAI-GoToRedBallNoDists-v0").unwrapped for _ in range(envs)]
    for seed, world in enumerate(worlds):
        world.reset(seed=seed)

    def describe(world: Any) -> str:
        ball = next(
            (i % world.grid.width, i // world.grid.width)
            for i, cell in enumerate(world.grid.grid)
            if cell is not None and cell.type == "ball"
        )
        agent = (int(world.agent_pos[0]), int(world.agent_pos[1]))
        return ", ".join(rb.describe(rb.Layout(ball, agent, world.agent_dir)))

    seen: list[str] = []
    begin = time.perf_counter()
    for _ in range(steps):
        texts = [describe(world) for world in worlds]
        with torch.no_grad():
            policy = torch.distributions.Categorical(logits=score_texts(texts))
        for world, action in zip(worlds, policy.sample().tolist(), strict=True):
            _, _, terminated, truncated, _ = world.step(action)
            if terminated or truncated:
                world.reset()
        seen += texts
    collecting = time.perf_counter() - begin

    optimizer = torch.optim.Adam(peer.parameters(), lr=1e-6, eps=1e-5)
    texts = (seen * MINIBATCH)[:MINIBATCH]
    advantage = torch.randn(MINIBATCH)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        log_policy = score_texts(texts).log_softmax(-1)[:, 0]
        ratio = (log_policy - log_policy.detach()).exp()
        loss = -torch.minimum(ratio * advantage, ratio.clip(0.8, 1.2) * advantage).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)
        optimizer.step()
        times.append(time.perf_counter() - begin)
    updating = min(times) * 4 * envs * steps / MINIBATCH
    return speeds(envs * steps, collecting, updating)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", nargs="+", choices=tuple(SHAPES), default=["tiny"])
    parser.add_argument("--envs", nargs="+", type=int, default=[32, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-steps", type=int, default=20, help="of each of its 32 environments")
    options = parser.parse_args()
    import torch

    print(
        f"python {platform.python_version()}, jax {jax.__version__}, torch {torch.__version__}, "
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    task = go_to_red_ball(jnp.full((rb.NUM_POLICY_TEXTS, 6), 1 / 6))
    print(f"{'':34} {'collect':>12} {'update':>10} {'whole':>10}  environment steps/s")
    for size in options.size:
        model = random_model(task, size)
        weights = sum(np.size(x) for x in jax.tree.leaves(model.params))
        print(f"{size}, {weights:,} weights")
        peer = lamorel_style(task, model, 32, options.peer_steps)
        show("torch and minigrid, 32 envs", peer, {})
        for envs in options.envs:
            show(f"compiled, {envs} envs", compiled(task, model, envs, options.repeats), peer)


def show(name: str, ours: dict[str, float], peer: dict[str, float]) -> None:
    """One row; with factors over the peer."""
    cells = [f"{ours[phase]:>10,.0f}" for phase in ("collect", "update", "whole")]
    factors = [f"{ours[p] / peer[p]:,.1f} x" for p in ("collect", "update", "whole") if peer]
    print(f"  {name:32} {'  '.join(cells)}  {', '.join(factors)}", flush=True)


if __name__ == "__main__":
    main()
