"""Log-probabilities of the tokens behind prompts that share a beginning.

The shared beginning, with its picture, is passed through the model once, and its keys and values
are repeated under a batch of endings. Whether that gives what whole prompts give depends on how a
model counts positions. It is checked on the first batch; a model that fails is asked whole prompts
from then on, with one warning.

``model`` is any causal model of transformers, here only called.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlli_jax.judges.scoring import Context, LabelTokens

if TYPE_CHECKING:
    import torch

# How far log-probabilities from a shared prefix may be from those of whole prompts, by dtype. Half
# precision rounds differently from kernel to kernel; a wrong count of positions is off by far more.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.1}
LEAST_COMPARED = -10.0  # log-probabilities below this are rounding in half precision
COMPARED_ROWS = 4

LISTED = 8  # of the likeliest first tokens
NEGLIGIBLE = 1e-7  # probability; less than this moves no rating by 1e-5


@dataclass(frozen=True)
class NextTokens:
    """What a model would say after one prompt."""

    # For each beginning of an answer, as token ids: log-probabilities of the token after it,
    # float64 [vocabulary of the label tokens]. Beginnings too unlikely to matter are left out.
    tables: dict[Context, np.ndarray]
    likeliest: tuple[tuple[int, float], ...]  # first tokens and their probabilities, falling


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the beginning that the prompts of a batch share."""

    length: int  # tokens
    cache: Any
    shift: int  # what the model adds to the positions behind the picture (M-RoPE), or 0
    device: torch.device


class PromptScorer:
    """Passes prompts through a model, and remembers what it has found out about that model.

    Args:
        name: of the model, for a warning.
        tolerance: how far the log-probabilities behind a shared prefix may be from those of whole
            prompts; see TOLERANCE.
        batch_size: prompts at a time; halved whenever memory runs out.
    """

    def __init__(self, name: str, tolerance: float, batch_size: int = 16) -> None:
        self._name, self._tolerance = name, tolerance
        self.batch_size = batch_size
        self.shares: bool | None = None  # whether prefixes may be shared; None: not yet known

    def score(
        self,
        model: Any,
        prompts: Sequence[list[int]],
        inputs: dict[str, torch.Tensor],
        tokens: LabelTokens,
    ) -> list[NextTokens | None]:
        """What the model would say after each prompt; None where one alone overfills its memory.

        Args:
            model: the model; it is on the device of ``inputs``.
            prompts: token ids. Up to the longest beginning that they share, they are those of
                ``inputs``.
            inputs: all that the model takes for the first prompt with its picture; tensors of
                batch size 1.
            tokens: the labels, whose tokens' probabilities are wanted.
        """
        import torch

        common = min(common_length(prompts), min(map(len, prompts)) - 1)

        def whole(batch: Sequence[list[int]]) -> list[NextTokens]:
            return next_tokens(batch, tokens, WholePrompts(model, inputs, common))

        if len(prompts) == 1 or self.shares is False:
            return self._in_batches(prompts, whole)
        try:
            with torch.inference_mode():
                prefix = make_prefix(model, inputs, common)

            def ending(batch: Sequence[list[int]]) -> list[NextTokens]:
                return next_tokens(batch, tokens, Endings(model, prefix))

            if self.shares is None:
                compared = prompts[:COMPARED_ROWS]
                self.shares = agree(ending(compared), whole(compared), self._tolerance)
        except Exception as error:
            if _is_out_of_memory(error):
                return [None] * len(prompts)
            if self.shares:
                raise
            self.shares = False  # a model that cannot take a prefix at all
        if self.shares:
            return self._in_batches(prompts, ending)
        warnings.warn(
            f"{self._name}: with a shared prefix the probabilities are not those of whole "
            "prompts, so every prompt is passed whole, which is slower.",
            RuntimeWarning,
            stacklevel=2,
        )
        return self._in_batches(prompts, whole)

    def _in_batches(
        self,
        prompts: Sequence[list[int]],
        forward: Callable[[Sequence[list[int]]], list[NextTokens]],
    ) -> list[NextTokens | None]:
        """All prompts, as many at a time as fit into memory."""
        import torch

        done: list[NextTokens | None] = []
        while len(done) < len(prompts):
            batch = prompts[len(done) : len(done) + self.batch_size]
            try:
                done += forward(batch)
                continue
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
            # Only here are the failed pass's tensors let go of.
            torch.cuda.empty_cache()
            if len(batch) == 1:
                done.append(None)
            self.batch_size = max(1, len(batch) // 2)
        return done


def next_tokens(
    batch: Sequence[list[int]], tokens: LabelTokens, passes: WholePrompts | Endings
) -> list[NextTokens]:
    """What the model would say after each prompt: one pass over the prompts, and one over each
    path of label tokens that matters for one of them."""
    import torch

    vocabulary = list(tokens.vocabulary)
    column = {token: i for i, token in enumerate(vocabulary)}

    def read(logits: torch.Tensor) -> np.ndarray:
        return logits.float().log_softmax(-1)[..., vocabulary].double().cpu().numpy()

    with torch.inference_mode():
        logits = passes.prompts(batch)
        first = read(logits)
        top = logits.float().softmax(-1).topk(min(LISTED, logits.shape[-1]))
        likeliest = [
            tuple(zip(ids, probabilities, strict=True))
            for ids, probabilities in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        tables: list[dict[Context, np.ndarray]] = [{(): row} for row in first]
        paths = [
            path
            for path in tokens.paths
            if path and (first[:, column[path[0]]] > np.log(NEGLIGIBLE)).any()
        ]
        for path in paths:
            behind = read(passes.path(batch, path, is_last=path is paths[-1]))
            for table, rows in zip(tables, behind, strict=True):
                table |= {path[: i + 1]: row for i, row in enumerate(rows)}
    return [NextTokens(*pair) for pair in zip(tables, likeliest, strict=True)]


def agree(shared: Sequence[NextTokens], whole: Sequence[NextTokens], tolerance: float) -> bool:
    """Whether two ways to pass the same prompts give the same log-probabilities."""
    pairs = [
        (one.tables[context], other.tables[context])
        for one, other in zip(shared, whole, strict=True)
        for context in one.tables.keys() & other.tables.keys()
    ]
    a, b = np.array(pairs).swapaxes(0, 1)
    seen = ~(np.maximum(a, b) < LEAST_COMPARED)
    return bool(np.all(np.abs(a - b)[seen] <= tolerance))


def make_prefix(model: Any, inputs: dict[str, torch.Tensor], length: int) -> Prefix:
    """Pass the first ``length`` tokens of a prompt, with its picture, through the model."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    shape = inputs["input_ids"].shape
    cut = {n: t[:, :length] if t.shape == shape else t for n, t in inputs.items()}
    model(**cut, past_key_values=cache, use_cache=True, logits_to_keep=1)
    # Qwen-VL counts a picture's tokens by its sides: text behind it has smaller positions.
    shift = getattr(getattr(model, "model", None), "rope_deltas", None)
    shift = 0 if shift is None else int(shift.flatten()[0])
    return Prefix(length, cache, shift, inputs["input_ids"].device)


class WholePrompts:
    """Passes prompts whole, padded on the right."""

    def __init__(self, model: Any, inputs: dict[str, torch.Tensor], common: int) -> None:
        self._model, self._inputs, self._common = model, inputs, common

    def prompts(self, batch: Sequence[list[int]]) -> torch.Tensor:
        """Logits of the token behind each prompt: [prompts, vocabulary]."""
        return self._behind(batch, batch)[:, 0]

    def path(self, batch: Sequence[list[int]], path: Context, is_last: bool) -> torch.Tensor:
        """Logits behind each token of a path that follows a prompt: [prompts, path, vocabulary]."""
        return self._behind(batch, [[*ids, *path] for ids in batch])[:, 1:]

    def _behind(self, batch: Sequence[list[int]], rows: Sequence[list[int]]) -> torch.Tensor:
        """Logits behind the last token of the prompt and all that follow it in the row."""
        import torch

        token_like = self._inputs["input_ids"]
        ids, mask = _padded(rows, token_like.device)
        arguments: dict[str, Any] = {}
        for name, tensor in self._inputs.items():
            if tensor.shape == token_like.shape:  # something of each token
                arguments[name] = torch.zeros_like(ids, dtype=tensor.dtype)
                arguments[name][:, : self._common] = tensor[:, : self._common]
            else:  # something of the picture
                arguments[name] = torch.cat([tensor] * len(rows))
        arguments |= {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        lengths = [len(ids) for ids in batch]
        return _logits(self._model, arguments, lengths, len(rows[0]) - lengths[0] + 1)


class Endings:
    """Passes what stands behind a prefix whose keys and values are there."""

    def __init__(self, model: Any, prefix: Prefix) -> None:
        self._model, self._prefix = model, prefix

    def prompts(self, batch: Sequence[list[int]]) -> torch.Tensor:
        """As :meth:`WholePrompts.prompts`; keeps the keys and values of the batch for paths."""
        import torch

        start = self._prefix.length
        self._cache = copy.deepcopy(self._prefix.cache)
        self._cache.batch_repeat_interleave(len(batch))
        ids, self._mask = _padded([row[start:] for row in batch], self._prefix.device)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        # No mask: padding is on the right, where a causal model does not look.
        arguments = {
            "input_ids": ids,
            "position_ids": (positions + self._prefix.shift).expand(len(batch), -1),
            "past_key_values": self._cache,
            "use_cache": True,
        }
        return _logits(self._model, arguments, [len(row) - start for row in batch], 1)[:, 0]

    def path(self, batch: Sequence[list[int]], path: Context, is_last: bool) -> torch.Tensor:
        """As :meth:`WholePrompts.path`: a few tokens behind the prompts' keys and values."""
        import torch

        ids = torch.tensor(path, device=self._mask.device).expand(len(batch), -1)
        prefix = self._mask.new_ones(len(batch), self._prefix.length)
        lengths = torch.tensor([[len(row)] for row in batch], device=ids.device)
        positions = lengths + torch.arange(len(path), device=ids.device) + self._prefix.shift
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.cat([prefix, self._mask, torch.ones_like(ids)], 1),
            "position_ids": positions,
            "past_key_values": self._cache if is_last else copy.deepcopy(self._cache),
            "use_cache": True,
        }
        return _logits(self._model, arguments, [1] * len(batch), len(path))


def _logits(
    model: Any, arguments: dict[str, Any], lengths: Sequence[int], count: int
) -> torch.Tensor:
    """Logits behind token ``lengths[row]`` (from 1) of each row and the next: [rows, count, V]."""
    import torch

    kept = sorted({length - 1 + i for length in lengths for i in range(count)})
    device = arguments["input_ids"].device
    logits = model(**arguments, logits_to_keep=torch.tensor(kept, device=device)).logits
    place = {position: i for i, position in enumerate(kept)}
    wanted = [[place[length - 1 + i] for i in range(count)] for length in lengths]
    rows = torch.arange(len(lengths), device=logits.device)[:, None]
    return logits[rows, torch.tensor(wanted, device=logits.device)]


def _padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 [rows, longest]. Padding is on the right, where a causal model
    does not look, so that its id does not matter and positions stay what they are."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def common_length(rows: Sequence[list[int]]) -> int:
    """Length of the longest common prefix."""
    least, most = min(rows), max(rows)  # all others are between them, in the order of lists
    for i, (a, b) in enumerate(zip(least, most, strict=False)):
        if a != b:
            return i
    return min(len(least), len(most))


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("out of memory", "can't allocate memory"))
    )
