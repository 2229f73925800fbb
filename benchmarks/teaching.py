"""Environment steps per second of a language policy: compiled, against a loop in Lamorel's manner.

    python benchmarks/teaching.py [--size tiny flan-t5-small] [--envs 32 1024] [--keep FILE]

Both act in BabyAI-GoToRedBallNoDists-v0 with a T5 of the same shape and random weights. The peer is
the usual arrangement: minigrid environments, texts made and tokenised in every step, one scoring
call of a torch T5 a step for all its 32 environments (the encoder once per text, shared by the
candidates), then PPO on minibatches of 64 for 4 epochs. Lamorel itself adds remote calls between
processes, which are left out here. The compiled loop scores its 556 texts once per update and looks
them up. Collecting and updating are timed apart, some minibatches standing for all; compilation is
left out.
"""

import argparse
import datetime
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import keep, table, versions

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

STEPS, MINIBATCH, EPOCHS = 40, 64, 4
TIMED = {"tiny": 20, "flan-t5-small": 1}  # minibatches of the compiled update
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


def seconds(function: Any, *arguments: Any, repeats: int) -> float:
    """The fastest call of a jitted function, compiled before."""
    program = function.lower(*arguments).compile()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - begin)
    return min(times)


def compiled(
    task: Task, model: LanguageModel, size: str, envs: list[int], repeats: int
) -> dict[int, dict[str, float]]:
    """Steps per second of the compiled loop, by the number of environments."""
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    candidates = model.candidates(task.advice)
    key = jax.random.key(1)

    def collecting(envs: int, steps: int) -> float:
        @jax.jit
        def collect(params: Any, start: core.Envs) -> Any:
            table = score(model.config, params, prompts, candidates).candidates
            return rollout(task.env, table, start, key, task.env_params, steps)

        start = core.reset(task.env, key, task.env_params, envs)
        return seconds(collect, model.params, start, repeats=repeats)

    # A whole iteration with some minibatches, less its collecting.
    count = TIMED[size]
    config = LanguagePolicyConfig(
        num_envs=32, num_steps=count * MINIBATCH // 32, num_minibatches=count, num_epochs=1,
        value_width=64,
    )  # fmt: skip
    learner = language_policy(task, model, config)
    state = learner.init(key, LAMOREL, task.env_params)
    whole = seconds(jax.jit(learner.step), state, task.env_params, repeats=repeats)
    minibatch = (whole - collecting(config.num_envs, config.num_steps)) / count
    return {
        n: speeds(n * STEPS, collecting(n, STEPS), minibatch * EPOCHS * n * STEPS / MINIBATCH)
        for n in envs
    }


def speeds(steps: int, collecting: float, updating: float) -> dict[str, float]:
    return {
        "collect": steps / collecting,
        "update": steps / updating,
        "whole": steps / (collecting + updating),
    }


def lamorel_style(
    task: Task, model: LanguageModel, envs: int, steps: int, repeats: int
) -> dict[str, float]:
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
    for _ in range(repeats):
        begin = time.perf_counter()
        log_policy = score_texts(texts).log_softmax(-1)[:, 0]
        ratio = (log_policy - log_policy.detach()).exp()
        loss = -torch.minimum(ratio * advantage, ratio.clip(0.8, 1.2) * advantage).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)
        optimizer.step()
        times.append(time.perf_counter() - begin)
    updating = min(times) * EPOCHS * envs * steps / MINIBATCH
    return speeds(envs * steps, collecting, updating)


def processor() -> str:
    """Model of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", nargs="+", choices=tuple(SHAPES), default=["tiny"])
    parser.add_argument("--envs", nargs="+", type=int, default=[32, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-steps", type=int, default=10, help="of each of its 32 environments")
    parser.add_argument("--keep", type=Path, help="CSV file to write")
    options = parser.parse_args()
    print(versions("jax", "torch", "transformers", "minigrid"))
    task = go_to_red_ball(jnp.full((rb.NUM_POLICY_TEXTS, 6), 1 / 6))
    rows = []
    for size in options.size:
        model = random_model(task, size)
        weights = sum(np.size(x) for x in jax.tree.leaves(model.params))
        peer = lamorel_style(task, model, 32, options.peer_steps, options.repeats)
        print(f"{size}, torch: {peer}", flush=True)
        loops = [("torch and minigrid", 32, peer)]
        found = compiled(task, model, size, options.envs, options.repeats)
        loops += [("compiled", envs, ours) for envs, ours in found.items()]
        for loop, envs, speed in loops:
            rows.append(
                {"size": size, "weights": weights, "loop": loop, "envs": envs}
                | {f"{phase}_steps_per_s": round(speed[phase], 1) for phase in speed}
                | {f"{phase}_factor": round(speed[phase] / peer[phase], 1) for phase in speed}
            )
    print(table(rows))
    if options.keep is not None:
        where = {
            "date": datetime.date.today().isoformat(),
            "cpu": f"{processor()}, {len(os.sched_getaffinity(0))} core(s)",
        }
        keep([where | row for row in rows], options.keep)


if __name__ == "__main__":
    main()
