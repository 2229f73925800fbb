"""Ten steps of TRL's GRPOTrainer on a tiny model, rewarded by a table: ``make real``."""

import numpy as np
import pytest

from rlli_jax.personas import Persona, Population
from rlli_jax.qoe import QoETable
from rlli_jax.rewards import table_reward

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
QOE = np.array([[[0.2, 0.9]], [[0.8, 0.3]]])  # two users, one request, two providers


@pytest.fixture
def reward():
    people = Population((Persona("ann", (4.5, 2, 3, 3, 3)), Persona("ben", (1, 3, 4, 2, 5))))
    table = QoETable.from_array(
        QOE, users=people.names, requests=("a cat",), providers=("Ink", "Oil"), judge="made up"
    )
    return table_reward(table, people)


def tiny(reward):
    """A random Llama whose words are those of the prompts and of "Ink" and "Oil" alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlli_jax.language.words import word_tokenizer

    tokenizer = word_tokenizer([*reward.prompts, *reward.providers])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    return model, tokenizer


def test_ten_steps_of_grpo_earn_what_the_table_says(reward, tmp_path):
    trl = pytest.importorskip("trl", reason="needs the extra trl")
    from datasets import Dataset

    model, tokenizer = tiny(reward)
    told = []

    def watched(prompts, completions, **columns):
        found = reward(prompts, completions, **columns)
        told.append((list(prompts), list(completions), list(columns["user"]), found))
        return found

    trainer = trl.GRPOTrainer(
        model, watched, processing_class=tokenizer,
        train_dataset=Dataset.from_list(reward.rows() * 20),
        args=trl.GRPOConfig(
            str(tmp_path), max_steps=10, per_device_train_batch_size=8, num_generations=4,
            max_completion_length=4, learning_rate=1e-2, report_to=[], logging_steps=1,
            save_strategy="no", use_cpu=True, seed=0,
        ),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 10
    assert len(told) == 10
    earned = 0
    for prompts, completions, users, found in told:
        assert len(found) == 8
        for prompt, completion, user, value in zip(prompts, completions, users, found, strict=True):
            k = ("ann", "ben").index(user)
            assert prompt == reward.prompts[k]
            first = next((w for w in completion.split() if w in ("Ink", "Oil")), None)
            right = 0 if first is None else QOE[k, 0, ("Ink", "Oil").index(first)]
            assert value == pytest.approx(right)
            earned += first is not None
    assert earned >= 10  # or nothing was shown
    logged = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    np.testing.assert_allclose(logged, [np.mean(found) for *_, found in told], rtol=1e-4)
