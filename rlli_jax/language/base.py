"""What a language model is to those who use one: teacher, policy and adapters take any."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import flax.linen as nn
import jax

from rlli_jax.language.files import write_folder
from rlli_jax.language.scoring import Candidates, Prompts, Scores, Scoring, sum_along

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Architecture(Protocol):
    """The shape of a language model; hashable."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def width(self) -> int:
        """D, of the hidden states."""

    def module(self) -> nn.Module:
        """That computes hidden states [C, N, D] and logits [C, N, V] of candidates after prompts.

        Called with ids [C, S], mask [C, S], tokens [N], depth [N] and visible [N, N].
        """

    def text_bytes(self, tokens: int, nodes: int) -> int:
        """Memory, roughly, of the gradient of one text's scores: a prompt of ``tokens`` tokens,
        ``nodes`` nodes of the candidates' tree."""


@partial(jax.jit, static_argnames=("config", "scoring"))
def score(
    config: Architecture,
    params: Any,
    prompts: Prompts,
    candidates: Candidates,
    scoring: Scoring = "log_probability",
) -> Scores:
    """See :meth:`LanguageModel.score`; ``config`` and ``scoring`` are static."""
    hidden, logits = config.module().apply(
        {"params": params},
        prompts.ids,
        prompts.mask,
        candidates.tokens,
        candidates.depth,
        candidates.visible,
    )
    return Scores(sum_along(logits, candidates, scoring), hidden[:, 0])


@dataclass(frozen=True, eq=False)
class LanguageModel(ABC):
    """A language model with its tokenizer."""

    name: str
    config: Any  # an Architecture
    params: dict  # nested, of float32 arrays
    tokenizer: "PreTrainedTokenizerBase"

    @property
    def width(self) -> int:
        """D, of the hidden states."""
        return int(self.config.width)

    def named(self, name: str) -> Self:
        """The same model under another name."""
        return replace(self, name=name)

    @abstractmethod
    def prompts(self, texts: Sequence[str]) -> Prompts:
        """Tokenise prompts, without an end-of-sequence token.

        Raises:
            InputError: no prompts; one that has no tokens, or more than the model takes.
        """

    @abstractmethod
    def candidates(self, texts: Sequence[str]) -> Candidates:
        """Tokenise what may follow a prompt, without an end-of-sequence token.

        Raises:
            InputError: no candidates; one that has no tokens, or words that the tokenizer does not
                know; two with the same tokens.
        """

    def score(
        self,
        params: Any,
        prompts: Prompts,
        candidates: Candidates,
        scoring: Scoring = "log_probability",
    ) -> Scores:
        """Score every candidate after every prompt, see :func:`sum_along`.

        Jitted; differentiable in ``params``.
        """
        return score(self.config, params, prompts, candidates, scoring)

    @abstractmethod
    def draw_params(self, key: Any) -> dict:
        """Random parameters of the model's shape."""

    def text_bytes(self, prompts: Prompts, candidates: Candidates) -> int:
        """Memory, roughly, that the gradient of one prompt's scores takes."""
        return int(self.config.text_bytes(prompts.ids.shape[1], len(candidates.tokens)))

    @abstractmethod
    def folder(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config and the tensors, by name, of a Hugging Face folder."""

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that transformers and ``load_model`` read.

        Raises:
            InputError: it cannot be written there.
        """
        write_folder(Path(folder), *self.folder(), self.tokenizer)
