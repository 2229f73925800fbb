"""Ways to make a language policy's update cheap: milliseconds of one gradient, at the tiny size.

    python benchmarks/teaching_updates.py [--keep FILE]

The gradient of a function of all scores of a minibatch, in a scan over some minibatches of a
rollout of a random policy in GoToRedBall; the ways take turns, and the fastest of their turns
counts. ``learns`` tells what is differentiated: a way that leaves weights as they are is another
algorithm. Compilation is left out.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import cpu, keep, table, versions

from rlli_jax.envs import go_to_red_ball as rb
from rlli_jax.language import Candidates, Prompts, init_lora, merge_lora
from rlli_jax.language.t5 import T5, score, tiny_t5
from rlli_jax.learners import core
from rlli_jax.teaching.distinct import over_distinct
from rlli_jax.teaching.language_policy import rollout
from rlli_jax.teaching.quick import quick_jit
from rlli_jax.teaching.tasks import TextTask, go_to_red_ball

TURNS = 7
MINIBATCHES = {64: (32, 8), 2_048: (1_024, 2)}  # size: environments of the rollout, how many


def ways(task: TextTask) -> dict[str, tuple[str, Callable[[Any, jax.Array], jax.Array], Any]]:
    """name -> what learns, (params, texts [B]) -> scores [B, A], params."""
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    model = tiny_t5(jax.random.key(0), words, d_model=16, num_heads=2)
    config, params, num_texts = model.config, model.params, len(task.texts)
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    tree = model.candidates(task.advice)

    def every(
        params: Any, text: jax.Array, asked: Prompts = prompts, candidates: Candidates = tree
    ) -> jax.Array:
        return score(config, params, asked.take(text), candidates).candidates

    def one_batch(params: Any, text: jax.Array) -> jax.Array:
        most = min(text.size, num_texts)
        distinct, row = jnp.unique(text, size=most, fill_value=0, return_inverse=True)
        return every(params, distinct)[row]

    def bfloat16(params: Any, text: jax.Array) -> jax.Array:
        small = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
        return every(small, text).astype(jnp.float32)

    longer = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 64 - x.shape[1]))), prompts)
    encode = jax.jit(lambda p: T5(config).apply({"params": p}, *prompts, method="encode"))
    memory = encode(params)

    def frozen_encoder(params: Any, text: jax.Array) -> jax.Array:
        def apply(method: str, *inputs: Any) -> Any:
            return T5(config).apply({"params": params}, *inputs, method=method)

        nodes = (tree.tokens, tree.depth, tree.visible)
        hidden = apply("decode", *nodes, memory[text], prompts.mask[text])
        edge = jax.nn.log_softmax(apply("logits", hidden))[:, tree.edge_node, tree.edge_token]
        return edge @ tree.member.T

    groups = over_distinct(every, num_texts)
    lora = init_lora(jax.random.key(1), params, rank=4)
    apart = _without_shared_prefixes(model.tokenizer, task.advice)
    return {
        "every sample": ("all", every, params),
        "every sample, prompts padded to 64 tokens": (
            "all", lambda p, text: every(p, text, asked=longer), params,
        ),
        "every sample, each candidate decoded by itself": (
            "all", lambda p, text: every(p, text, candidates=apart), params,
        ),
        "every sample, bfloat16": ("all", bfloat16, params),
        "distinct texts in one batch": ("all", one_batch, params),
        "distinct texts in groups of 64": ("all", groups, params),
        "distinct texts in groups of 16": ("all", over_distinct(every, num_texts, 16), params),
        "distinct texts in groups of 64, LoRA": (
            "rank 4 on q and v", lambda p, text: groups(merge_lora(params, p), text), lora,
        ),
        "distinct texts in groups of 64, encoder kept": (
            "decoder and head", over_distinct(frozen_encoder, num_texts), params,
        ),
    }  # fmt: skip


def _without_shared_prefixes(tokenizer: Any, texts: tuple[str, ...]) -> Candidates:
    """Each candidate padded to the longest and decoded by itself."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    nodes = [(k, i) for k in range(len(rows)) for i in range(max(map(len, rows)))]
    edges = [(n, k, rows[k][i]) for n, (k, i) in enumerate(nodes) if i < len(rows[k])]
    return Candidates(
        tokens=jnp.array([rows[k][i - 1] if 0 < i <= len(rows[k]) else 0 for k, i in nodes]),
        depth=jnp.array([i for _, i in nodes]),
        visible=jnp.array([[a == b and j <= i for b, j in nodes] for a, i in nodes]),
        edge_node=jnp.array([n for n, _, _ in edges]),
        edge_token=jnp.array([token for _, _, token in edges]),
        member=jnp.array([[float(k == row) for _, k, _ in edges] for row in range(len(rows))]),
    )


def minibatches(task: TextTask, envs: int, size: int, count: int) -> jax.Array:
    """Texts [count, size] in random order, of 40 steps of a random policy."""
    start = core.reset(task.env, jax.random.key(0), task.env_params, envs)
    scores = jnp.zeros(task.legal.shape)
    steps = rollout(task.env, scores, start, jax.random.key(1), task.env_params, 40)[1][0]
    texts = jax.random.permutation(jax.random.key(2), steps.observation.astype(jnp.int32).ravel())
    return texts[: count * size].reshape(count, size)


def milliseconds(task: TextTask, size: int) -> list[dict[str, Any]]:
    """One row a way."""
    envs, count = MINIBATCHES[size]
    texts = minibatches(task, envs, size, count)
    programs, learns = {}, {}
    for name, (learns[name], scores, params) in ways(task).items():
        slope = jax.grad(lambda p, text, scores=scores: (scores(p, text) ** 2).sum())

        def descend(params: Any, texts: jax.Array, slope: Any = slope) -> Any:
            def step(params: Any, text: jax.Array) -> Any:
                return jax.tree.map(lambda x, g: x - 1e-9 * g, params, slope(params, text)), None

            return jax.lax.scan(step, params, texts)[0]

        programs[name] = quick_jit(descend).lower(params, texts).compile(), params
    best = dict.fromkeys(programs, np.inf)
    for _ in range(TURNS):
        for name, (program, params) in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(params, texts))
            best[name] = min(best[name], (time.perf_counter() - begin) / len(texts))
    distinct = float(np.mean([len(np.unique(text)) for text in texts]))
    rows = [
        {"minibatch": size, "distinct": round(distinct, 1), "way": name, "learns": what}
        | {"ms": round(1e3 * best[name], 2)}
        for name, what in learns.items()
    ]
    print(table(rows), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", type=Path, help="CSV file to write")
    options = parser.parse_args()
    print(versions("jax"), cpu())
    task = go_to_red_ball(jnp.full((rb.NUM_POLICY_TEXTS, 6), 1 / 6))
    rows = [row for size in MINIBATCHES for row in milliseconds(task, size)]
    if options.keep is not None:
        keep(rows, options.keep)


if __name__ == "__main__":
    main()
