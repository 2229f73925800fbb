"""Log-probabilities behind prompts that share a beginning, on a tiny random model, without a
judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra llm")
pytest.importorskip("transformers", reason="needs the extra llm")

import torch
import transformers

from rlli_jax.judges.prefix_cache import (
    TOLERANCE,
    Endings,
    PromptScorer,
    WholePrompts,
    agree,
    common_length,
    make_prefix,
    next_tokens,
)
from rlli_jax.judges.scoring import LabelTokens

# Labels of one and two tokens: 5, 5 6 and 7 8.
TOKENS = LabelTokens({(5,): 0, (5, 6): 1, (7, 8): 2}, 3)
BEGINNING = [1, 9, 4, 2]
PROMPTS = [[*BEGINNING, *ending] for ending in ([3], [11, 12, 13], [3, 14])]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return transformers.LlamaForCausalLM(config).eval()


def inputs_of(prompt):
    ids = torch.tensor([prompt])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def one_by_one(model, prompt, said):
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, -1]
    return logits.double().log_softmax(-1)[list(TOKENS.vocabulary)].numpy()


def test_endings_and_whole_prompts_give_what_one_token_at_a_time_gives(model):
    with torch.inference_mode():
        prefix = make_prefix(model, inputs_of(PROMPTS[0]), len(BEGINNING))
    whole = next_tokens(PROMPTS, TOKENS, WholePrompts(model, inputs_of(PROMPTS[0]), len(BEGINNING)))
    shared = next_tokens(PROMPTS, TOKENS, Endings(model, prefix))
    assert agree(shared, whole, TOLERANCE["float32"])
    for prompt, one, other in zip(PROMPTS, shared, whole, strict=True):
        assert set(one.tables) == set(other.tables) == {(), (5,), (7,)}
        for said, row in one.tables.items():
            expected = one_by_one(model, prompt, said)
            np.testing.assert_allclose(row, expected, atol=1e-4)
            np.testing.assert_allclose(other.tables[said], expected, atol=1e-4)


def test_positions_that_are_wrong_do_not_agree(model):
    with torch.inference_mode():
        prefix = make_prefix(model, inputs_of(PROMPTS[0]), len(BEGINNING))
    right = next_tokens(PROMPTS, TOKENS, Endings(model, prefix))
    wrong = next_tokens(PROMPTS, TOKENS, Endings(model, replace(prefix, shift=5)))
    assert not agree(wrong, right, TOLERANCE["float32"])


def test_a_scorer_learns_whether_prefixes_may_be_shared(model):
    scorer = PromptScorer("tiny", TOLERANCE["float32"], batch_size=2)
    heard = scorer.score(model, PROMPTS, inputs_of(PROMPTS[0]), TOKENS)
    assert scorer.shares is True
    for prompt, said in zip(PROMPTS, heard, strict=True):
        np.testing.assert_allclose(said.tables[()], one_by_one(model, prompt, ()), atol=1e-4)


def test_the_longest_common_beginning():
    assert common_length(PROMPTS) == 4
    assert common_length([[1, 2], [1, 2, 3]]) == 2
    assert common_length([[1], [2]]) == 0
