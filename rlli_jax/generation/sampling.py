"""What decides a picture of a pipeline of diffusers. Knows no torch, so that plans start fast."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

SAMPLE = 2**20  # bytes at both ends of a large file that its digest covers


class Sampling(NamedTuple):
    """How pictures are denoised; all of it changes them."""

    steps: int
    guidance: float | None = None  # None: as the pipeline has it
    seed: int = 0
    width: int | None = None  # pixels; None: as the model has it
    height: int | None = None
    scheduler: str | None = None  # a class of diffusers; None: the model's own
    negative_prompt: str | None = None


class Weights(NamedTuple):
    """What is loaded."""

    model: str  # a folder, a name, or one of TINY
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"


class Lora(NamedTuple):
    """Low-rank weights on top (Hu et al. 2022)."""

    model: str  # a file, a folder or a name
    scale: float = 1.0


def commit_of(model: str, revision: str | None) -> str | None:
    """Which commit of a model on Hugging Face this machine has and would load without a network.

    None for what is no name there, and for a model that was never downloaded to this machine.
    """
    if model.startswith("tiny:") or Path(model).expanduser().exists():
        return None
    if _is_commit(revision):
        return revision
    from huggingface_hub.constants import HF_HUB_CACHE

    # Written by the hub's client whenever it downloads, and what it loads by without a network.
    folder = f"models--{model.replace('/', '--')}"
    try:
        commit = Path(HF_HUB_CACHE, folder, "refs", revision or "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _is_commit(commit) else None


def _is_commit(revision: str | None) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


def content_of(model: str) -> str | None:
    """Digest of the files of a folder, or of a file; None for the name of a model elsewhere.

    Of a file larger than two megabytes, its size and both ends count: other weights differ there.
    """
    path = Path(model).expanduser()
    if not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())
        with open(file, "rb") as opened:
            if size <= 2 * SAMPLE:
                digest.update(opened.read())
            else:
                digest.update(opened.read(SAMPLE))
                opened.seek(-SAMPLE, 2)
                digest.update(opened.read())
    return digest.hexdigest()
