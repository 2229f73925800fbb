"""A language model in this process, through Hugging Face transformers.

Any ``AutoModelForImageTextToText`` with a chat template (LLaVA, Qwen-VL, Gemma and others), by name
or folder; or any ``AutoModelForCausalLM``, which reads a description in place of the picture.
Nothing is generated: one pass over a prompt gives the probabilities of all labels.

All personas who look at one picture share the beginning of their prompts, which is passed once
where the model allows it: :mod:`rlli_jax.judges.prefix_cache`. So do all items of a questionnaire
that one persona answers.

Only :meth:`TransformersJudge.rate` loads the model, so that a study whose answers are all stored
never does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from rlli_jax.judges.checkpoint import DTYPES, Checkpoint
from rlli_jax.judges.prefix_cache import (
    TOLERANCE,
    NextTokens,
    PromptScorer,
    common_length,
)
from rlli_jax.judges.prompting import (
    NOT_DESCRIBED,
    Messages,
    Sees,
    flat,
    label_orders,
    messages,
    orders_of,
    shows_picture,
    template_digest,
)
from rlli_jax.judges.scoring import (
    MIN_VALID_MASS,
    LabelTokens,
    averaged,
    expected_answer,
)

if TYPE_CHECKING:
    import torch

TOO_LARGE = Failed("the device's memory is too small for one prompt")


class TransformersJudge:
    """Rates by the label probabilities of a model in this process.

    Args:
        model: a name on the Hugging Face hub, a folder that ``save_pretrained`` wrote, a ``.gguf``
            file, or ``smollm2`` (:mod:`rlli_jax.judges.checkpoint`).
        revision: of a name: a branch, tag or commit. Of a folder: what to call its contents; None
            takes a digest of all its files, which for large weights takes some seconds.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (that of the checkpoint, on every device), or one of DTYPES.
        both_orders: average over the labels listed worst first and best first.
        longest_side: pixels; larger pictures are scaled down to it before the model's own
            processor sees them. None leaves them as they are.
        min_valid_mass: below this probability on the scale's labels an answer is Invalid.
        sees: ``picture``, or ``description`` for a model that only reads: questions then need a
            description.
        prefill: how the answer begins, such as ``"Rating:"``; the labels are scored behind it.
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
        sees: Sees = "picture",
        prefill: str = "",
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
        self._checkpoint = Checkpoint(str(model), revision, dtype, device, sees)
        self._both_orders, self._prefill = both_orders, prefill
        self._longest_side = longest_side
        self._min_valid_mass = min_valid_mass
        self._batch_size = batch_size
        self._label_tokens: dict[Scale, LabelTokens] = {}
        self._image_tokens: dict[tuple[int, ...], int] = {}  # by the shape of the pixels

    @cached_property
    def identity(self) -> JudgeIdentity:
        """The model and how it is asked; known without loading it."""
        revision, dtype = self._checkpoint.facts
        parameters: dict[str, JSON] = {
            "model": self._checkpoint.shown_name,
            "revision": revision,
            "template": template_digest(self._checkpoint.sees),
            "scoring": "label probabilities",
            "label_orders": list(label_orders(self._both_orders)),
            "dtype": dtype,
            "min_valid_mass": self._min_valid_mass,
        }
        # Absent if not set: earlier answers keep their keys.
        if self._longest_side is not None:
            parameters["longest_side"] = self._longest_side
        if self._checkpoint.sees != "picture":
            parameters["sees"] = self._checkpoint.sees
        if self._prefill:
            parameters["prefill"] = self._prefill
        return JudgeIdentity("transformers", parameters)

    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer to each question, in order.

        Questions of one picture, request and scale should be in one call: they share a prefix.
        Samples of one question have one answer, for probabilities are not drawn.
        """
        answers: list[Answer] = [Invalid("no picture")] * len(questions)
        groups: dict[Any, list[int]] = {}
        for i, question in enumerate(questions):
            if question.shown is None:
                continue
            if self._checkpoint.sees == "description" and shows_picture(question):
                answers[i] = NOT_DESCRIBED
                continue
            # What the beginning of the prompt is made of.
            who = question.persona if question.form.asks == "statement" else question.request
            form = question.form._replace(order=None)
            groups.setdefault((question.shown, who, question.scale, form), []).append(i)
        for members in groups.values():
            rated = self._rate_group([questions[i] for i in members])
            for i, answer in zip(members, rated, strict=True):
                answers[i] = answer
        return answers

    def expected_usage(self, question: Question) -> Usage:
        """Prompt tokens, counted by the model's own processor; nothing is generated or paid."""
        if question.shown is None:
            return Usage(0, 0, 0.0, 0.0)
        picture, image_tokens = _picture(question), 0
        if picture is not None:
            shape = _shape(picture)
            if shape not in self._image_tokens:
                chat = messages(question)
                whole = self._inputs(picture, chat)["input_ids"].shape[1]
                self._image_tokens[shape] = whole - self._text_tokens(self._render(chat))
            image_tokens = self._image_tokens[shape]
        texts = [self._render(chat) for chat in self._chats(question)]
        return Usage(sum(image_tokens + self._text_tokens(text) for text in texts), 0, 0.0)

    @cached_property
    def _scorer(self) -> PromptScorer:
        dtype = self._checkpoint.facts[1]
        return PromptScorer(self._checkpoint.name, TOLERANCE[dtype], self._batch_size)

    # ---- prompts

    def _chats(self, question: Question) -> list[Messages]:
        return [messages(question, order) for order in orders_of(question, self._both_orders)]

    def _shaped(self, chat: Messages) -> Messages:
        """The messages as the model's template takes them."""
        return flat(chat) if self._checkpoint.sees == "description" else chat

    def _render(self, chat: Messages) -> str:
        try:
            text: str = self._checkpoint.processor.apply_chat_template(
                self._shaped(chat), tokenize=False, add_generation_prompt=True
            )
        except InputError:
            raise
        except Exception as error:  # templates are programs, which raise what they like
            raise InputError(
                f"the chat template of the model {self._checkpoint.name} refuses a message of the "
                f"user ({type(error).__name__}: {error}); choose another model."
            ) from error
        return text + self._prefill

    def _inputs(self, picture: Picture | None, chat: Messages) -> dict[str, torch.Tensor]:
        """All that the model takes for one prompt with its picture; tensors of batch size 1."""
        from PIL import Image

        processor, text = self._checkpoint.processor, self._render(chat)
        if picture is None:
            start = processor.apply_chat_template(
                self._shaped(chat), tokenize=True, add_generation_prompt=True, return_dict=True,
                return_tensors="pt",
            )  # fmt: skip
            return self._begun(start, text)
        pixels = picture.pixels
        if self._longest_side is not None:
            pixels = shrink(pixels, self._longest_side)
        image: Any = {"type": "image", "image": Image.fromarray(pixels)}
        content: Any = chat[0]["content"]
        parts = [image if part["type"] == "image" else part for part in content]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        return self._begun(inputs, text)

    def _begun(self, inputs: Any, text: str) -> dict[str, torch.Tensor]:
        """The inputs of a prompt with the tokens of the prefill behind them."""
        import torch

        inputs = dict(inputs)
        if not self._prefill:
            return inputs
        before = self._encode(text[: -len(self._prefill)])
        after = self._encode(text)
        if after[: len(before)] != before:
            raise InputError(
                f"judge.prefill: {self._prefill!r} does not follow the prompt of "
                f"{self._checkpoint.name} in whole tokens; begin it with another letter."
            )
        shape = inputs["input_ids"].shape
        added = torch.tensor([after[len(before) :]])
        fill = {"input_ids": added, "attention_mask": torch.ones_like(added)}
        return {
            name: torch.cat([tensor, fill.get(name, torch.zeros_like(added)).to(tensor.dtype)], 1)
            if tensor.shape == shape
            else tensor
            for name, tensor in inputs.items()
        }

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
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
        picture, scale = _picture(questions[0]), questions[0].scale
        asked = {
            self._render(chat): chat for question in questions for chat in self._chats(question)
        }
        tokens = self._tokens_of(scale, next(iter(asked)))
        said = dict(zip(asked, self._ask(picture, list(asked.values()), tokens), strict=True))
        seconds = (time.monotonic() - started) / len(questions)
        answers = []
        for question in questions:
            parts: list[Answer] = []
            texts = [self._render(chat) for chat in self._chats(question)]
            for text in texts:
                length, heard = said[text]
                usage = Usage(length, 0, 0.0, seconds / len(texts))
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
        decode = self._checkpoint.tokenizer.decode
        likely = {decode([token]): p for token, p in said.likeliest}
        text = decode([said.likeliest[0][0]])
        return expected_answer(scale, probabilities, self._min_valid_mass, text, usage, likely)

    def _ask(
        self, picture: Picture | None, chats: Sequence[Messages], tokens: LabelTokens
    ) -> list[tuple[int, NextTokens | Failed]]:
        """The length in tokens of each prompt, and what the model would say after it."""
        inputs = self._inputs(picture, chats[0])
        prompts = self._prompts(chats, inputs["input_ids"][0].tolist())
        if prompts is None:
            return [self._ask(picture, [chat], tokens)[0] for chat in chats]
        model = self._checkpoint.model  # before its device is used, which may not be there
        inputs = {name: tensor.to(self._checkpoint.device) for name, tensor in inputs.items()}
        heard = self._scorer.score(model, prompts, inputs, tokens)
        return [(len(ids), said or TOO_LARGE) for ids, said in zip(prompts, heard, strict=True)]


def _picture(question: Question) -> Picture | None:
    """The picture, if it is shown itself."""
    return question.picture if shows_picture(question) else None


@lru_cache(maxsize=65536)
def _shape(picture: Picture) -> tuple[int, ...]:
    return picture.pixels.shape
