"""A vision-language model in this process, through Hugging Face transformers.

Any ``AutoModelForImageTextToText`` with a chat template: LLaVA, Qwen-VL, Gemma and others, by name
or folder. Nothing is generated: one pass over a prompt gives the probabilities of all labels.

All personas who look at one picture share the beginning of their prompts, which is passed once
where the model allows it: :mod:`rlli_jax.judges.prefix_cache`.

Only :meth:`TransformersJudge.rate` loads the model, so that a study whose answers are all stored
never does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from rlli_jax.judges.prefix_cache import (
    TOLERANCE,
    NextTokens,
    PromptScorer,
    common_length,
)
from rlli_jax.judges.prompting import Messages, label_orders, messages, template_digest
from rlli_jax.judges.scoring import (
    MIN_VALID_MASS,
    LabelTokens,
    averaged,
    expected_answer,
)

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

TOO_LARGE = Failed("the device's memory is too small for one prompt")


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
    def _scorer(self) -> PromptScorer:
        return PromptScorer(self._name, TOLERANCE[self._checkpoint[1]], self._batch_size)

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
        common = min(common_length(texts), min(map(len, texts)) - 1)
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
        self, scale: Scale, tokens: LabelTokens, said: NextTokens | Failed, usage: Usage
    ) -> Answer:
        if isinstance(said, Failed):
            return Failed(said.reason, usage)
        nothing = dict.fromkeys(tokens.contexts, np.full(len(tokens.vocabulary), -np.inf))
        probabilities = tokens.probabilities(nothing | said.tables)
        text = self._processor.tokenizer.decode([said.likeliest])
        return expected_answer(scale, probabilities, self._min_valid_mass, text, usage)

    def _ask(
        self, picture: Picture, chats: Sequence[Messages], tokens: LabelTokens
    ) -> list[tuple[int, NextTokens | Failed]]:
        """The length in tokens of each prompt, and what the model would say after it."""
        inputs = self._inputs(picture, chats[0])
        prompts = self._prompts(chats, inputs["input_ids"][0].tolist())
        if prompts is None:
            return [self._ask(picture, [chat], tokens)[0] for chat in chats]
        model = self._model  # loaded before its device is used, which may not be there
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        heard = self._scorer.score(model, prompts, inputs, tokens)
        return [(len(ids), said or TOO_LARGE) for ids, said in zip(prompts, heard, strict=True)]


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
