"""Hugging Face folders: a model's configuration, weights (safetensors) and tokenizer."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rlli_jax.errors import InputError, shown, why
from rlli_jax.files import refused, whole, write_text

Config = TypeVar("Config")
Path_ = tuple[str, ...]  # of a parameter in its nested dict
_PARTS = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def find_folder(name: str) -> Path:
    """The folder of this path, or of this name on the Hugging Face hub.

    Raises:
        InputError: there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"Model folder {name} does not exist; give the folder of a model.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"Model {name!r} is no folder here and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``, without what is null.

    Raises:
        InputError: there is none, or it is no JSON object.
    """
    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{folder} has no config.json; give the folder of a model.")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({why(error)}); fetch the model again."
        ) from error
    if not isinstance(given, dict):
        raise InputError(f"{path} is no JSON object; fetch the model again.")
    return {key: value for key, value in given.items() if value is not None}


def make_config(kind: type[Config], given: Mapping[str, Any], source: Path) -> Config:
    """A dataclass from what of ``given`` it has.

    Raises:
        InputError: one of its numbers is none.
    """
    names = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    for name, wanted in names.items():
        value = given.get(name, 0)
        if wanted is int and (type(value) is not int or value < 0):
            raise InputError(f"{source}: {name} is {shown(value)}; it must be a whole number.")
        if wanted is float and type(value) not in (int, float):
            raise InputError(f"{source}: {name} is {shown(value)}; it must be a number.")
    return kind(**{name: given[name] for name in names if name in given})


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder: one, or its shards.

    Raises:
        InputError: there are none, or one is missing.
    """
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.exists():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is damaged ({why(error)}); fetch it again.") from error
        files = [folder / shard for shard in sorted(set(shards))]
    for file in files:
        if not file.exists():
            raise InputError(
                f"{folder} has no weights ({file.name} is missing); fetch the model again, with "
                "its weights in safetensors format."
            )
    return files


def read_tensors(folder: Path) -> dict[str, jax.Array]:
    """All weights of a folder.

    Raises:
        InputError: there are none, or a file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    tensors: dict[str, jax.Array] = {}
    for file in weight_files(folder):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is damaged ({why(error)}); fetch it again.") from error
    return tensors


def tensor_name(path: Path_) -> str:
    """("encoder", "block_0", ..., "kernel") -> "encoder.block.0. ... .weight"."""
    parts = [re.sub(r"^(block|layers?)_(\d+)$", r"\1.\2", part) for part in path[:-1]]
    return ".".join([*parts, _PARTS[path[-1]]])


def fill_params(
    expected: Any,
    tensors: Mapping[str, Any],
    name: Callable[[Path_], str | list[str]],
    source: Path,
) -> dict:
    """Parameters of the shapes ``expected``, from the tensors of these names; float32.

    Several names are of a parameter that has one tensor for each layer, stacked.

    Raises:
        InputError: one is missing or of another shape.
    """

    def tensor(name: str, shape: tuple[int, ...], transposed: bool) -> jax.Array:
        if name not in tensors:
            raise InputError(
                f"The weights in {source} have no tensor {name}, which its configuration asks for; "
                "give a complete model."
            )
        given = tensors[name]
        asked = shape[::-1] if transposed else shape
        if tuple(given.shape) != asked:
            raise InputError(
                f"Tensor {name} in {source} has shape {tuple(given.shape)}, but its configuration "
                f"asks for {asked}; take weights and configuration of the same model."
            )
        return jnp.asarray(given.T if transposed else given, jnp.float32)

    params: dict[Path_, jax.Array] = {}
    for path, leaf in flatten_dict(expected).items():
        transposed = path[-1] == "kernel"  # torch keeps [out, in]
        names = name(path)
        params[path] = (
            tensor(names, leaf.shape, transposed)
            if isinstance(names, str)
            else jnp.stack([tensor(each, leaf.shape[1:], transposed) for each in names])
        )
    return unflatten_dict(params)


def named_tensors(params: Any, name: Callable[[Path_], str | list[str]]) -> dict[str, np.ndarray]:
    """The way back of ``fill_params``."""
    tensors = {}
    for path, leaf in flatten_dict(jax.device_get(params)).items():
        names = name(path)
        leaves = {names: leaf} if isinstance(names, str) else dict(zip(names, leaf, strict=True))
        for each, x in leaves.items():
            tensors[each] = np.ascontiguousarray(x.T if path[-1] == "kernel" else x)
    return tensors


def read_tokenizer(folder: Path, vocab_size: int, **options: Any) -> Any:
    """The tokenizer of a folder.

    Raises:
        InputError: there is none, or it has more tokens than the model.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # transformers raises many kinds, down to KeyError
        raise InputError(
            f"{folder} has no tokenizer that transformers can read ({type(error).__name__}); add "
            "the model's tokenizer files."
        ) from error
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens but the model's vocab_size is "
            f"{vocab_size}; take the tokenizer that belongs to the model."
        )
    return tokenizer


def tokenise(tokenizer: Any, texts: Any) -> list[list[int]]:
    """Token numbers of each text, without those that begin or end a sequence."""
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return rows


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], tokenizer: Any
) -> None:
    """Write a Hugging Face folder. Raises InputError where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    with whole(folder / "model.safetensors") as partial:
        try:
            save_file(dict(tensors), partial, metadata={"format": "pt"})
        except SafetensorError as error:  # its writer's own, for a full disk too
            raise OSError(str(error)) from error
    try:
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise refused(folder, error) from error
