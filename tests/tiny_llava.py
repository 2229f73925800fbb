"""A tiny random LLaVA, built on the spot: its ratings mean nothing, but it is the real architecture
with a real tokenizer and processor, and needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rlli_jax.judges import Question, named_scale
from rlli_jax.judges.prompting import messages
from rlli_jax.personas import Persona

TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}\nASSISTANT:{% endif %}"
)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.5,  # the usual 0.02 makes all answers nearly equally likely
}


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on some prompts, so that it can spell anything."""
    chats = [
        messages(
            Question(Persona("any", traits), "a cat on a roof", "p0", None, named_scale(scale))
        )
        for i in range(4)
        for traits in [tuple(map(float, np.random.default_rng(i).uniform(1, 5, 5)))]
        for scale in ("adjectives", "1-10")
    ]
    texts = [part.get("text", "") for chat in chats for part in chat[0]["content"]]  # type: ignore
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>"
    )


def build(folder: Path, side: int = 4, **text: float) -> Path:
    """Write the model into ``folder``: side x side image tokens, some 60k parameters.

    ``text`` changes the language model's configuration.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    patch, size = 8, 8 * side
    vision = {k: v for k, v in SMALL.items() if "key_value" not in k and "position" not in k}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, image_size=size, patch_size=patch),
        text_config=transformers.LlamaConfig(
            **{**SMALL, **text}, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=side * side,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder
