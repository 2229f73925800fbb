"""A tiny random Llama that only reads, built on the spot, with a template that joins strings."""

from __future__ import annotations

from pathlib import Path

import tiny_llava
import torch
import transformers

# As of text models: content is concatenated, so a list of parts is a TypeError.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def build(folder: Path, template: str = TEMPLATE) -> Path:
    """Write the model into ``folder``: two layers, float32."""
    tokenizer = tiny_llava.make_tokenizer()
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **tiny_llava.SMALL, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
