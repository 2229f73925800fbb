"""Hugging Face folders: a T5's configuration, weights (safetensors) and tokenizer, in and out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rlli_jax.errors import InputError, shown
from rlli_jax.files import refused, whole, write_text
from rlli_jax.language.t5.model import ComputeDtype, T5Config, init_params
from rlli_jax.language.t5.scoring import (
    Candidates,
    Prompts,
    encode_candidates,
    encode_prompts,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class LanguageModel:
    """A T5 with its tokenizer; ``params`` is a nested dict of float32 arrays."""

    name: str
    config: T5Config
    params: dict
    tokenizer: "PreTrainedTokenizerBase"

    def prompts(self, texts: Sequence[str]) -> Prompts:
        """See ``encode_prompts``."""
        return encode_prompts(self.tokenizer, self.config, texts)

    def candidates(self, texts: Sequence[str]) -> Candidates:
        """See ``encode_candidates``."""
        return encode_candidates(self.tokenizer, self.config, texts)

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that transformers and ``load_t5`` read.

        Raises:
            InputError: it cannot be written there.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        folder = Path(folder)
        config = {f.name: getattr(self.config, f.name) for f in fields(self.config)}
        config["tie_word_embeddings"] = config.pop("tie_head")
        del config["compute_dtype"]  # how it is used, not what it is
        config |= {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
        config |= {"pad_token_id": self.tokenizer.pad_token_id}
        config |= {"eos_token_id": self.tokenizer.eos_token_id, "is_encoder_decoder": True}
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
        tensors = {
            _hugging_face_name(path): np.ascontiguousarray(leaf.T if path[-1] == "kernel" else leaf)
            for path, leaf in flatten_dict(jax.device_get(self.params)).items()
        }
        with whole(folder / "model.safetensors") as partial:
            try:
                save_file(tensors, partial, metadata={"format": "pt"})
            except SafetensorError as error:  # its writer's own, for a full disk too
                raise OSError(str(error)) from error
        try:
            self.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise refused(folder, error) from error


def load_t5(name: str | Path, *, compute_dtype: ComputeDtype = "float32") -> LanguageModel:
    """Load a T5 from a folder, or by its name on the Hugging Face hub where a network is there.

    ``compute_dtype``: in which matrix products are computed, see :mod:`rlli_jax.language.t5.model`;
    the weights are float32 in any case.

    Raises:
        InputError: no such folder or name; the folder lacks config, weights or tokenizer; the
            configuration is no T5; the weights are damaged or do not fit the configuration.
    """
    folder = _folder(str(name))
    config = _read_config(folder / "config.json")
    tensors = _read_tensors(folder)
    config = replace(config, tie_head=_head_is_tied(tensors), compute_dtype=compute_dtype)
    params = _to_params(tensors, config, folder)
    tokenizer = _read_tokenizer(folder)
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens but the model's vocab_size is "
            f"{config.vocab_size}; take the tokenizer that belongs to the model."
        )
    return LanguageModel(str(name), config, params, tokenizer)


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"Model folder {name} does not exist; give the folder of a T5.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"Model {name!r} is no folder here and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error


def _read_config(path: Path) -> T5Config:
    if not path.exists():
        raise InputError(f"{path.parent} has no config.json; give the folder of a T5.")
    try:
        given = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); fetch the model again.") from error
    kind = given.get("model_type") if isinstance(given, dict) else None
    if kind != "t5":
        raise InputError(f"{path} describes a model of type {kind!r}, not 't5'; give a T5 model.")
    # num_decoder_layers: as many as in the encoder. Scaling: T5 v1.1 is told by its untied head.
    given = {"num_decoder_layers": given.get("num_layers", T5Config.num_layers)} | {
        key: value for key, value in given.items() if value is not None
    }
    given.setdefault("scale_decoder_outputs", given.get("tie_word_embeddings", True))
    given.setdefault("decoder_start_token_id", given.get("pad_token_id", 0))
    config = T5Config(**{f.name: given[f.name] for f in fields(T5Config) if f.name in given})
    for field in fields(T5Config):
        value = getattr(config, field.name)
        if field.type is int and (type(value) is not int or value < 0):
            raise InputError(f"{path}: {field.name} is {shown(value)}; it must be a whole number.")
        if field.type is float and type(value) not in (int, float):
            raise InputError(f"{path}: {field.name} is {shown(value)}; it must be a number.")
    if config.feed_forward_proj not in ("relu", "gated-gelu"):
        raise InputError(
            f"{path}: feed_forward_proj is {config.feed_forward_proj!r}; only 'relu' and "
            "'gated-gelu' are known, so give another T5."
        )
    return config


def _read_tensors(folder: Path) -> dict[str, jax.Array]:
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.exists():
        try:
            shards = json.loads(index.read_text())["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is damaged ({error}); fetch it again.") from error
        files = [folder / shard for shard in sorted(set(shards))]
    tensors: dict[str, jax.Array] = {}
    for file in files:
        if not file.exists():
            raise InputError(
                f"{folder} has no weights ({file.name} is missing); fetch the model again, with "
                "its weights in safetensors format."
            )
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is damaged ({error}); fetch it again.") from error
    for alias in _SHARED:
        if alias in tensors:
            tensors.setdefault("shared.weight", tensors[alias])
    return tensors


def _head_is_tied(tensors: dict[str, jax.Array]) -> bool:
    """No head, or a copy of the embedding: transformers' own rule, whatever the config says."""
    head, shared = tensors.get(_HEAD), tensors.get("shared.weight")
    return head is None or (shared is not None and np.array_equal(head, shared))


def _hugging_face_name(path: tuple[str, ...]) -> str:
    """("encoder", "block_0", ..., "kernel") -> "encoder.block.0. ... .weight"."""
    parts = [
        part.replace("_", ".")
        if part.startswith(("block_", "layer_")) and part[6:].isdigit()
        else part
        for part in path[:-1]
    ]
    return ".".join([*parts, "weight"])


def _to_params(tensors: dict[str, jax.Array], config: T5Config, folder: Path) -> dict:
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    params: dict[tuple[str, ...], jax.Array] = {}
    for path, leaf in flatten_dict(expected).items():
        name = _hugging_face_name(path)
        if name not in tensors:
            raise InputError(
                f"The weights in {folder} have no tensor {name}, which its config.json asks for; "
                "give a complete encoder-decoder T5."
            )
        tensor = tensors[name].T if path[-1] == "kernel" else tensors[name]
        if tensor.shape != leaf.shape:
            shape = leaf.shape[::-1] if path[-1] == "kernel" else leaf.shape
            raise InputError(
                f"Tensor {name} in {folder} has shape {tensors[name].shape}, but config.json asks "
                f"for {shape}; take weights and config of the same model."
            )
        params[path] = jnp.asarray(tensor, jnp.float32)
    return unflatten_dict(params)


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers raises many kinds, down to KeyError
        raise InputError(
            f"{folder} has no tokenizer that transformers can read ({type(error).__name__}); add "
            "the model's tokenizer files."
        ) from error
