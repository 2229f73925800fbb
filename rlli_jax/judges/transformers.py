"""A vision-language model in this process, through Hugging Face transformers.

Any ``AutoModelForImageTextToText`` with a chat template: LLaVA, Qwen-VL, Gemma and others, by name
or folder. Nothing is generated: one pass over a prompt gives the probabilities of all labels.

All personas who look at one picture share the beginning of their prompts, so that is passed once,
and its keys and values are repeated under a batch of endings. Whether that gives what whole prompts
give depends on how a model counts positions. It is checked on the first batch; a model that fails
is asked whole prompts from then on, with one warning.

Only :meth:`TransformersJudge.rate` loads the model, so that a study whose answers are all stored
never does.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlli_jax.catalog import Picture
from rlli_jax.catalog.pictures import shrink
from rlli_jax.errors import InputError
from rlli_jax.judges import (
    JSON,
    Answer,
    Failed,
    Invalid,
    JudgeIdentity,
    Question,
    Scale,
    Usage,
)
from rlli_jax.judges.prompting import Messages, label_orders, messages, template_digest
from rlli_jax.judges.scoring import (
    MIN_VALID_MASS,
    Context,
    LabelTokens,
    averaged,
    expected_answer,
)

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

# How far log-probabilities from a shared prefix may be from those of whole prompts. Half precision
# rounds differently from kernel to kernel; a wrong count of positions is off by far more.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.1}
LEAST_COMPARED = -10.0  # log-probabilities below this are rounding in half precision
COMPARED_ROWS = 4

NEGLIGIBLE = 1e-7  # probability; less than this moves no rating by 1e-5

TOO_LARGE = Failed("the device's memory is too small for one prompt")


@dataclass(frozen=True)
class _Said:
    """What the model makes of one prompt."""

    # Behind which tokens of an answer -> log-probabilities of the next token, float64 [vocabulary
    # of the label tokens]. Contexts that are too unlikely to matter are not there.
    tables: dict[Context, np.ndarray]
    likeliest: int  # the first token that it would say


@dataclass(frozen=True)
class _Prefix:
    """The keys and values of what the rows of a batch share."""

    length: int
    cache: Any
    shift: int  # what the model adds to the positions behind the picture (M-RoPE), or 0
    device: torch.device


class TransformersJudge:
    """Rates by the label probabilities of a model in this process.

    Args:
        model: a name on the Hugging Face hub, or a folder that ``save_pretrained`` wrote.
        revision: of a name: a branch, tag or commit. Of a folder: what to call its contents; None
            takes a digest of all its files, which for large weights takes some seconds.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (that of the checkpoint, on every device), or one of DTYPES.
        both_orders: average over the labels listed worst first and best first.
        longest_side: pixels; larger pictures are scaled down to it before the model's own
            processor sees them. None leaves them as they are.
        min_valid_mass: below this probability on the scale's labels an answer is Invalid.
        batch_size: prompts at a time; halved whenever memory runs out.

    Raises:
        InputError: torch or transformers is not installed; there is no such model; an argument is
            out of its range.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        both_orders: bool = False,
        longest_side: int | None = None,
        min_valid_mass: float = MIN_VALID_MASS,
        batch_size: int = 16,
    ) -> None:
        for package, install in (("torch", "'rlli_jax[llm]'"), ("transformers", "transformers")):
            if find_spec(package) is None:
                raise InputError(
                    f"transformers judge: the package {package} is missing; pip install {install}."
                )
        if dtype not in ("auto", *DTYPES):
            raise InputError(
                f"transformers judge: dtype is {dtype!r}; choose auto, {', '.join(DTYPES)}."
            )
        if not 0 <= min_valid_mass <= 1:
            raise InputError(
                f"transformers judge: min_valid_mass is {min_valid_mass}; give a number from 0 "
                "to 1."
            )
        if longest_side is not None and longest_side < 1:
            raise InputError(
                f"transformers judge: longest_side is {longest_side}; give a number of pixels from "
                "1."
            )
        if batch_size < 1:
            raise InputError(
                f"transformers judge: batch_size is {batch_size}; give a number from 1."
            )
        self._name, self._given_revision = str(model), revision
        self._device_name, self._given_dtype = device, dtype
        self._orders = label_orders(both_orders)
        self._longest_side = longest_side
        self._min_valid_mass = min_valid_mass
        self._batch_size = batch_size
        self._shares: bool | None = None  # whether prefixes may be shared; None: not yet known
        self._label_tokens: dict[Scale, LabelTokens] = {}
        self._image_tokens: dict[tuple[int, ...], int] = {}  # by the shape of the pixels

    @cached_property
    def identity(self) -> JudgeIdentity:
        """The model and how it is asked; known without loading it."""
        revision, dtype = self._checkpoint
        parameters: dict[str, JSON] = {
            "model": Path(self._name).name if self._is_folder else self._name,
            "revision": revision,
            "template": template_digest(),
            "scoring": "label probabilities",
            "label_orders": list(self._orders),
            "dtype": dtype,
            "min_valid_mass": self._min_valid_mass,
        }
        if self._longest_side is not None:  # else absent: earlier answers keep their keys
            parameters["longest_side"] = self._longest_side
        return JudgeIdentity("transformers", parameters)

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer to each question, in order.

        Questions of one picture, request and scale should be in one call: they share a prefix.
        Samples of one question have one answer, for probabilities are not drawn.
        """
        answers: list[Answer] = [Invalid("no picture")] * len(questions)
        groups: dict[tuple[str, str, Scale], list[int]] = {}
        for i, question in enumerate(questions):
            if question.picture is not None:
                key = (question.picture.digest, question.request, question.scale)
                groups.setdefault(key, []).append(i)
        for members in groups.values():
            rated = self._rate_group([questions[i] for i in members])
            for i, answer in zip(members, rated, strict=True):
                answers[i] = answer
        return answers

    def expected_usage(self, question: Question) -> Usage:
        """Prompt tokens, counted by the model's own processor; nothing is generated or paid."""
        if question.picture is None:
            return Usage(0, 0, 0.0, 0.0)
        shape = _shape(question.picture)
        if shape not in self._image_tokens:
            chat = messages(question)
            whole = self._inputs(question.picture, chat)["input_ids"].shape[1]
            self._image_tokens[shape] = whole - self._text_tokens(self._render(chat))
        texts = [self._render(messages(question, order)) for order in self._orders]
        tokens = sum(self._image_tokens[shape] + self._text_tokens(text) for text in texts)
        return Usage(tokens, 0, 0.0)

    # ---- the checkpoint and its parts

    @property
    def _is_folder(self) -> bool:
        return Path(self._name).is_dir()

    @cached_property
    def _checkpoint(self) -> tuple[str, str]:
        """Revision and dtype, read from files only."""
        if self._is_folder:
            path = Path(self._name, "config.json")
            if not path.is_file():
                raise InputError(
                    f"the model folder {self._name} has no config.json; name a folder that "
                    "save_pretrained wrote."
                )
            revision = self._given_revision or _folder_digest(Path(self._name))
        else:
            path = _hub_config(self._name, self._given_revision)
            revision = path.parent.name  # the commit
        config = json.loads(path.read_text(encoding="utf-8"))
        inner = config.get("text_config") or {}
        if self._given_dtype != "auto":
            return revision, self._given_dtype
        kept = [c.get(k) for c in (config, inner) for k in ("dtype", "torch_dtype")]
        return revision, next((str(dtype) for dtype in kept if dtype in DTYPES), "float32")

    @property
    def _source(self) -> dict[str, Any]:
        return {} if self._is_folder else {"revision": self._checkpoint[0]}

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        with self._loading():
            processor = AutoProcessor.from_pretrained(self._name, **self._source)
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"the model {self._name} has no chat template; choose an instruction-tuned model."
            )
        return processor

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForImageTextToText

        dtype = getattr(torch, self._checkpoint[1])
        with self._loading():
            model: Any = AutoModelForImageTextToText.from_pretrained(
                self._name, dtype=dtype, **self._source
            )
            return model.to(self._device).eval()

    @contextmanager
    def _loading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise InputError(
                f"the model {self._name} cannot be loaded ({error}); name one that "
                "AutoModelForImageTextToText knows, and a device that is there."
            ) from error

    @cached_property
    def _device(self) -> torch.device:
        import torch

        if self._device_name != "auto":
            return torch.device(self._device_name)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    # ---- prompts

    def _render(self, chat: Messages) -> str:
        text: str = self._processor.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        return text

    def _inputs(self, picture: Picture, chat: Messages) -> dict[str, torch.Tensor]:
        """All that the model takes for one prompt with its picture; tensors of batch size 1."""
        from PIL import Image

        pixels = picture.pixels
        if self._longest_side is not None:
            pixels = shrink(pixels, self._longest_side)
        image: Any = {"type": "image", "image": Image.fromarray(pixels)}
        content: Any = chat[0]["content"]
        parts = [image if part["type"] == "image" else part for part in content]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        return dict(inputs)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text_tokens(self, text: str) -> int:
        return len(self._encode(text))

    def _prompts(self, chats: Sequence[Messages], whole: list[int]) -> list[list[int]] | None:
        """Token ids of every prompt, from those of the first with its picture.

        The prompts differ behind the picture only, so each is the first one's beginning and its
        own end. None if the tokens of the first do not end as its text does.
        """
        if len(chats) == 1:
            return [whole]
        texts = [self._encode(self._render(chat)) for chat in chats]
        common = min(_common(texts), min(map(len, texts)) - 1)
        tail = len(texts[0]) - common
        if whole[-tail:] != texts[0][common:]:
            return None
        return [whole[:-tail] + text[common:] for text in texts]

    def _tokens_of(self, scale: Scale, prompt: str) -> LabelTokens:
        """How the labels are spelt behind a prompt."""
        if scale not in self._label_tokens:
            end = prompt[-32:]

            def behind(before: str) -> Callable[[str], list[int] | None]:
                start = self._encode(before)

                def spell(text: str) -> list[int] | None:
                    ids = self._encode(before + text)
                    return ids[len(start) :] if ids[: len(start)] == start else None

                return spell

            self._label_tokens[scale] = LabelTokens.of(scale, behind(end))
        return self._label_tokens[scale]

    # ---- rating

    def _rate_group(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers to questions of one picture, request and scale."""
        started = time.monotonic()
        picture, scale = questions[0].picture, questions[0].scale
        assert picture is not None
        asked = {
            self._render(chat): chat
            for question in questions
            for chat in (messages(question, order) for order in self._orders)
        }
        tokens = self._tokens_of(scale, next(iter(asked)))
        said = dict(zip(asked, self._ask(picture, list(asked.values()), tokens), strict=True))
        seconds = (time.monotonic() - started) / len(questions)
        answers = []
        for question in questions:
            parts: list[Answer] = []
            for order in self._orders:
                length, heard = said[self._render(messages(question, order))]
                usage = Usage(length, 0, 0.0, seconds / len(self._orders))
                parts.append(self._answer(scale, tokens, heard, usage))
            answers.append(averaged(parts))
        return answers

    def _answer(
        self, scale: Scale, tokens: LabelTokens, said: _Said | Failed, usage: Usage
    ) -> Answer:
        if isinstance(said, Failed):
            return Failed(said.reason, usage)
        nothing = dict.fromkeys(tokens.contexts, np.full(len(tokens.vocabulary), -np.inf))
        probabilities = tokens.probabilities(nothing | said.tables)
        text = self._processor.tokenizer.decode([said.likeliest])
        return expected_answer(scale, probabilities, self._min_valid_mass, text, usage)

    def _ask(
        self, picture: Picture, chats: Sequence[Messages], tokens: LabelTokens
    ) -> list[tuple[int, _Said | Failed]]:
        """The length in tokens of each prompt, and what the model makes of it."""
        inputs = self._inputs(picture, chats[0])
        prompts = self._prompts(chats, inputs["input_ids"][0].tolist())
        if prompts is None:
            return [self._ask(picture, [chat], tokens)[0] for chat in chats]
        run = self._runner(prompts, inputs, tokens)
        return list(zip(map(len, prompts), run(prompts), strict=True))

    def _runner(
        self, prompts: Sequence[list[int]], inputs: dict[str, torch.Tensor], tokens: LabelTokens
    ) -> Callable[[Sequence[list[int]]], list[_Said | Failed]]:
        """What passes these prompts through the model: behind a shared prefix, if that is right
        for this model, else whole."""
        import torch

        assert self._model is not None  # loaded before its device is used, which may not be there
        common = min(_common(prompts), min(map(len, prompts)) - 1)
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}

        def whole(batch: Sequence[list[int]]) -> list[_Said]:
            return self._say(batch, tokens, _Whole(self._model, inputs, common))

        if len(prompts) == 1 or self._shares is False:
            return lambda prompts: self._in_batches(prompts, whole)
        try:
            with torch.inference_mode():
                prefix = self._prefix(inputs, common)

            def ending(batch: Sequence[list[int]]) -> list[_Said]:
                return self._say(batch, tokens, _Ending(self._model, prefix))

            if self._shares is None:
                compared = prompts[:COMPARED_ROWS]
                self._shares = self._agree(ending(compared), whole(compared))
        except Exception as error:
            if _is_out_of_memory(error):
                return lambda prompts: [TOO_LARGE] * len(prompts)
            if self._shares:
                raise
            self._shares = False  # a model that cannot take a prefix at all
        if not self._shares:
            warnings.warn(
                f"{self._name}: with a shared prefix the probabilities are not those of whole "
                "prompts, so every prompt is passed whole, which is slower.",
                RuntimeWarning,
                stacklevel=2,
            )
            return lambda prompts: self._in_batches(prompts, whole)
        return lambda prompts: self._in_batches(prompts, ending)

    def _say(
        self, batch: Sequence[list[int]], tokens: LabelTokens, passes: _Whole | _Ending
    ) -> list[_Said]:
        """What the model makes of each prompt: one pass over the prompts, and one over each path
        of label tokens that matters for one of them."""
        import torch

        vocabulary = list(tokens.vocabulary)
        column = {token: i for i, token in enumerate(vocabulary)}

        def read(logits: torch.Tensor) -> np.ndarray:
            return logits.float().log_softmax(-1)[..., vocabulary].double().cpu().numpy()

        with torch.inference_mode():
            logits = passes.prompts(batch)
            first = read(logits)
            likeliest = logits.argmax(-1).tolist()
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
        return [_Said(*pair) for pair in zip(tables, likeliest, strict=True)]

    def _agree(self, shared: Sequence[_Said], whole: Sequence[_Said]) -> bool:
        pairs = [
            (one.tables[context], other.tables[context])
            for one, other in zip(shared, whole, strict=True)
            for context in one.tables.keys() & other.tables.keys()
        ]
        a, b = np.array(pairs).swapaxes(0, 1)
        seen = ~(np.maximum(a, b) < LEAST_COMPARED)
        return bool(np.all(np.abs(a - b)[seen] <= TOLERANCE[self._checkpoint[1]]))

    def _in_batches(
        self, prompts: Sequence[list[int]], forward: Callable[[Sequence[list[int]]], list[_Said]]
    ) -> list[_Said | Failed]:
        """All prompts, as many at a time as fit into memory."""
        import torch

        done: list[_Said | Failed] = []
        while len(done) < len(prompts):
            batch = prompts[len(done) : len(done) + self._batch_size]
            try:
                done += forward(batch)
                continue
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
            # Only here are the failed pass's tensors let go of.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) == 1:
                done.append(TOO_LARGE)
            self._batch_size = max(1, len(batch) // 2)
        return done

    # ---- passes through the model

    def _prefix(self, inputs: dict[str, torch.Tensor], length: int) -> _Prefix:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        shape = inputs["input_ids"].shape
        cut = {n: t[:, :length] if t.shape == shape else t for n, t in inputs.items()}
        self._model(**cut, past_key_values=cache, use_cache=True, logits_to_keep=1)
        # Qwen-VL counts a picture's tokens by its sides: text behind it has smaller positions.
        shift = getattr(getattr(self._model, "model", None), "rope_deltas", None)
        shift = 0 if shift is None else int(shift.flatten()[0])
        return _Prefix(length, cache, shift, self._device)


class _Whole:
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


class _Ending:
    """Passes what stands behind a prefix whose keys and values are there."""

    def __init__(self, model: Any, prefix: _Prefix) -> None:
        self._model, self._prefix = model, prefix

    def prompts(self, batch: Sequence[list[int]]) -> torch.Tensor:
        """As :meth:`_Whole.prompts`; keeps the keys and values of the batch for paths."""
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
        """As :meth:`_Whole.path`: a few tokens behind the prompts' keys and values."""
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


def _common(rows: Sequence[list[int]]) -> int:
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


@lru_cache(maxsize=65536)
def _shape(picture: Picture) -> tuple[int, ...]:
    return picture.pixels.shape


def _folder_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(
                f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode()
            )
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
