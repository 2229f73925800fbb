"""Environment steps per second of a language policy: compiled, against a loop in Lamorel's manner.

    python benchmarks/teaching.py [--size tiny flan-t5-small] [--only NAME ...] [--keep FILE]

Both act in BabyAI-GoToRedBallNoDists-v0 with a T5 of the same shape and random weights, and train
all its weights and a value head of the same shape by PPO: the same loss, optimizer, clipping,
samples in a minibatch, epochs. The peer is the usual arrangement: minigrid environments, texts made
and tokenised in every step, one scoring call of a torch T5 a step for all environments (the encoder
once per text, shared by the candidates). Lamorel itself adds remote calls between processes, which
are left out here. The compiled loop scores its 556 texts once per update of the weights and looks
them up, and an update reads the distinct texts of a minibatch only. Collecting and updating are
timed apart; at the real size some minibatches stand for all. Compilation is left out.
"""

import argparse
import datetime
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from measure import cpu, keep, table, versions

from rlli_jax.envs import go_to_red_ball as rb
from rlli_jax.language import LanguageModel
from rlli_jax.language.t5 import T5Config, T5Model, score, tiny_t5
from rlli_jax.language.t5.model import draw_params
from rlli_jax.learners import core
from rlli_jax.teaching.language_policy import (
    LAMOREL,
    LanguagePolicyConfig,
    language_policy,
    rollout,
)
from rlli_jax.teaching.quick import quick_jit
from rlli_jax.teaching.tasks import TextTask, go_to_red_ball

STEPS, EPOCHS, VALUE_WIDTH = 40, 4, 64


class Setup(NamedTuple):
    envs: int
    minibatches: int  # of envs x STEPS samples
    timed: int  # minibatches of the compiled update that are timed, with as few steps
    peer_steps: int  # of each environment of the peer that are timed; 0: not with the peer


SETUPS = {
    "tiny": (
        Setup(32, 20, 20, 20),  # Lamorel's: minibatches of 64
        Setup(1_024, 20, 20, 2),
        # No larger ones for the peer: its time for a sample is the same at any size.
        Setup(1_024, 4, 4, 0),
        Setup(1_024, 1, 1, 0),
    ),
    "flan-t5-small": (Setup(32, 20, 1, 1),),
}
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


def random_model(task: TextTask, size: str) -> LanguageModel:
    """A T5 with random weights; at the real size too the words are those of the texts."""
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    tiny = tiny_t5(jax.random.key(0), words, d_model=16, num_heads=2)
    if size == "tiny":
        return tiny
    config = T5Config(
        **SHAPES[size], feed_forward_proj="gated-gelu", tie_head=False, scale_decoder_outputs=False
    )
    params = draw_params(jax.random.key(0), config)
    return T5Model(size, config, params, tiny.tokenizer)


def seconds(function: Any, *arguments: Any, repeats: int) -> float:
    """The fastest call of a jitted function, compiled before."""
    program = function.lower(*arguments).compile()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - begin)
    return min(times)


def compiled(task: TextTask, model: LanguageModel, setup: Setup, repeats: int) -> dict[str, float]:
    """Steps per second of the compiled loop."""
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    candidates = model.candidates(task.advice)
    key = jax.random.key(1)

    def collecting(steps: int) -> float:
        @quick_jit
        def collect(params: Any, start: core.Envs) -> Any:
            table = score(model.config, params, prompts, candidates).candidates
            return rollout(task.env, table, start, key, task.env_params, steps)

        start = core.reset(task.env, key, task.env_params, setup.envs)
        return seconds(collect, model.params, start, repeats=repeats)

    # A whole iteration with some minibatches, less its collecting.
    size = setup.envs * STEPS // setup.minibatches
    config = LanguagePolicyConfig(
        num_envs=setup.envs, num_steps=setup.timed * size // setup.envs,
        num_minibatches=setup.timed, num_epochs=1, value_width=VALUE_WIDTH,
    )  # fmt: skip
    learner = language_policy(task, model, config)
    state = learner.init(key, LAMOREL, task.env_params)
    whole = seconds(quick_jit(learner.step), state, task.env_params, repeats=repeats)
    minibatch = (whole - collecting(config.num_steps)) / setup.timed
    return speeds(setup.envs * STEPS, collecting(STEPS), minibatch * EPOCHS * setup.minibatches)


def speeds(steps: int, collecting: float, updating: float) -> dict[str, float]:
    return {
        "collect": steps / collecting,
        "update": steps / updating,
        "whole": steps / (collecting + updating),
    }


def lamorel_style(
    task: TextTask, model: LanguageModel, setup: Setup, repeats: int
) -> dict[str, float]:
    """Steps per second of the torch loop."""
    import gymnasium
    import minigrid  # noqa: F401 - registers the environments
    import torch
    import transformers
    from torch import nn

    c = model.config
    peer = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=c.vocab_size, d_model=c.d_model, d_kv=c.d_kv, d_ff=c.d_ff,
            num_layers=c.num_layers, num_decoder_layers=c.num_decoder_layers,
            num_heads=c.num_heads, feed_forward_proj=c.feed_forward_proj,
            tie_word_embeddings=False, decoder_start_token_id=0,
        )
    ).eval()  # fmt: skip
    head = nn.Sequential(
        nn.Linear(c.d_model, VALUE_WIDTH), nn.Sigmoid(),
        nn.Linear(VALUE_WIDTH, VALUE_WIDTH), nn.Sigmoid(), nn.Linear(VALUE_WIDTH, 1),
    )  # fmt: skip
    weights = [*peer.parameters(), *head.parameters()]
    actions = [model.tokenizer(a, add_special_tokens=False)["input_ids"] for a in task.advice]
    longest = max(map(len, actions))
    padded = torch.tensor([a + [0] * (longest - len(a)) for a in actions])
    real = torch.tensor([[i < len(a) for i in range(longest)] for a in actions])
    decoder_input = torch.cat([torch.zeros(len(actions), 1, dtype=torch.long), padded[:, :-1]], 1)

    def read(texts: list[str]) -> tuple[Any, Any]:
        """Scores [texts, actions] and values [texts]."""
        prompts = [task.prompt(text) for text in texts]
        batch = model.tokenizer(
            prompts, add_special_tokens=False, padding=True, return_tensors="pt"
        )
        mask = batch["attention_mask"]
        memory = peer.encoder(input_ids=batch["input_ids"], attention_mask=mask)[0]
        count = len(actions)
        out = peer(
            encoder_outputs=(memory.repeat_interleave(count, 0),),
            attention_mask=mask.repeat_interleave(count, 0),
            decoder_input_ids=decoder_input.repeat(len(texts), 1),
            output_hidden_states=True,
        )
        labels = padded.repeat(len(texts), 1)[..., None]
        log_prob = out.logits.log_softmax(-1).gather(-1, labels)[..., 0]
        scores = (log_prob * real.repeat(len(texts), 1)).sum(1).reshape(len(texts), count)
        return scores, head(out.decoder_hidden_states[-1][::count, 0])[:, 0]

    worlds = [gymnasium.make("BabyAI-GoToRedBallNoDists-v0").unwrapped for _ in range(setup.envs)]
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
    for _ in range(setup.peer_steps):
        texts = [describe(world) for world in worlds]
        with torch.no_grad():
            policy = torch.distributions.Categorical(logits=read(texts)[0])
        for world, action in zip(worlds, policy.sample().tolist(), strict=True):
            _, _, terminated, truncated, _ = world.step(action)
            if terminated or truncated:
                world.reset()
        seen += texts
    collecting = time.perf_counter() - begin

    optimizer = torch.optim.Adam(weights, lr=1e-6, eps=1e-5)
    size = setup.envs * STEPS // setup.minibatches
    texts = (seen * size)[:size]
    action = torch.randint(len(actions), (size,))
    advantage, target, old_value = torch.randn(3, size)
    old = torch.full((size,), -np.log(len(actions)))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        scores, value = read(texts)
        policy = torch.distributions.Categorical(logits=scores)
        ratio = (policy.log_prob(action) - old).exp()
        near = old_value + (value - old_value).clip(-0.2, 0.2)
        loss = (
            -torch.minimum(ratio * advantage, ratio.clip(0.8, 1.2) * advantage).mean()
            + 0.25 * torch.maximum((value - target) ** 2, (near - target) ** 2).mean()
            - 0.01 * policy.entropy().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        times.append(time.perf_counter() - begin)
    scale = STEPS / setup.peer_steps
    updating = min(times) * EPOCHS * setup.minibatches
    return speeds(setup.envs * STEPS, collecting * scale, updating)


def in_turn(task: TextTask, model: LanguageModel, size: str, repeats: int) -> list[dict[str, Any]]:
    """Both loops in every setup, one after the other; factors are over the peer in the first."""
    weights = sum(np.size(x) for x in jax.tree.leaves(model.params))
    rows: list[dict[str, Any]] = []
    for setup in SETUPS[size]:
        loops = {"torch and minigrid": lamorel_style, "compiled": compiled}
        for loop, measure in loops.items():
            if loop != "compiled" and not setup.peer_steps:
                continue
            speed = measure(task, model, setup, repeats)
            rows.append(
                {"size": size, "weights": weights, "loop": loop, "envs": setup.envs}
                | {"minibatch": setup.envs * STEPS // setup.minibatches}
                | {f"{phase}_steps_per_s": round(speed[phase], 1) for phase in speed}
            )
            print(rows[-1], flush=True)
    for row in rows:
        for phase in ("collect", "update", "whole"):
            key = f"{phase}_steps_per_s"
            row[f"{phase}_factor"] = round(row[key] / rows[0][key], 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", nargs="+", choices=tuple(SHAPES), default=["tiny"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="CSV file to write")
    options = parser.parse_args()
    print(versions("jax", "torch", "transformers", "minigrid"))
    task = go_to_red_ball(jnp.full((rb.NUM_POLICY_TEXTS, 6), 1 / 6))
    rows = []
    for size in options.size:
        rows += in_turn(task, random_model(task, size), size, options.repeats)
    print(table(rows))
    if options.keep is not None:
        cores = len(os.sched_getaffinity(0))
        where = {
            "date": datetime.date.today().isoformat(),
            "cpu": f"{cpu()}, {cores} core{'s' if cores > 1 else ''}",
        }
        keep([where | row for row in rows], options.keep)


if __name__ == "__main__":
    main()
