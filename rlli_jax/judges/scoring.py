"""From what a language model says to a rating.

Where its probabilities are known, the rating is the expectation over the scale's labels,
sum of r p(r) / sum of p(r): the likeliest word alone throws most of the signal away (Wu et al.
2024, Q-Bench; Wu et al. 2024, Q-Align). ``valid_mass`` is sum of p(r); when it is low the model
was about to say something else, and the answer is Invalid. Where only text is known, it must be
one label and nothing else: no number is fished out of a sentence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, Rated, Scale, Usage

MIN_VALID_MASS = 0.5

Context = tuple[int, ...]  # tokens of a label that have been said already


def expected_answer(
    scale: Scale, probabilities: np.ndarray, min_valid_mass: float, text: str, usage: Usage | None
) -> Answer:
    """The expectation over label probabilities [labels], worst first, or Invalid.

    ``text`` is what the model said, or was most likely to say; it is kept with the probabilities.
    """
    mass = float(probabilities.sum())
    if not 0 <= mass <= 1.001:  # also if it is not a number
        return Invalid("the model's probabilities are no probabilities", text, usage)
    shown = {k: float(f"{p:.6g}") for k, p in zip(scale.labels, probabilities, strict=True)}
    raw = json.dumps({"text": text, "probabilities": shown}, ensure_ascii=False)
    if mass < min_valid_mass or mass == 0:
        return Invalid(
            f"only {mass:.2g} of the probability is on the scale's labels, of {min_valid_mass:.2g} "
            "that is asked for",
            raw,
            usage,
        )
    ratings = np.linspace(scale.low, scale.high, len(scale.labels))
    rating = float(np.clip(probabilities @ ratings / mass, scale.low, scale.high))
    return Rated(rating, min(mass, 1.0), raw, usage)


def text_answer(scale: Scale, text: str, usage: Usage | None) -> Answer:
    """The rating of a text that is one label, in any case, with or without a full stop."""
    label = _folded(text).removesuffix(".")
    labels = [_folded(label) for label in scale.labels]
    if label not in labels:
        return Invalid("the answer is not one label of the scale", text, usage)
    ratings = np.linspace(scale.low, scale.high, len(labels))
    return Rated(float(ratings[labels.index(label)]), raw=text, usage=usage)


def averaged(answers: Sequence[Answer]) -> Answer:
    """One answer from those under each label order: their mean, if all are ratings."""
    if len(answers) == 1:
        return answers[0]
    usage = total_usage([answer.usage for answer in answers])
    raw = "\n".join(a.raw for a in answers if not isinstance(a, Failed))
    for answer in answers:
        if isinstance(answer, Failed):
            return Failed(answer.reason, usage)
    for answer in answers:
        if isinstance(answer, Invalid):
            return Invalid(answer.reason, raw, usage)
    rated = [answer for answer in answers if isinstance(answer, Rated)]
    return Rated(
        float(np.mean([answer.rating for answer in rated])),
        float(np.mean([answer.valid_mass for answer in rated])),
        raw,
        usage,
    )


def total_usage(parts: Sequence[Usage | None]) -> Usage | None:
    """The sum of usages; what is unknown of one part is unknown of the sum."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None

    def total(values: Sequence[Any]) -> Any:
        return None if None in values else sum(values)

    return Usage(
        total([part.prompt_tokens for part in known]),
        total([part.completion_tokens for part in known]),
        total([part.cost for part in known]),
        total([part.seconds for part in known]),
    )


@dataclass(frozen=True)
class LabelTokens:
    """How a tokenizer spells the labels, and what that makes of next-token probabilities.

    A label may have several spellings ("good", "Good", " good"), each of one or more tokens; the
    probability of a spelling is the product over its tokens, and a label's is the sum over its
    spellings. Where one spelling begins another ("1" and "10"), the shorter counts only with an
    end of the answer behind it: p("10") = p(1) p(0|1), p("1") = p(1) p(end|1).
    """

    spellings: Mapping[Context, int]  # token ids -> index of the label
    ends: frozenset[int]  # tokens that end an answer
    labels: int

    @classmethod
    def of(
        cls, scale: Scale, tokens: Callable[[str], Sequence[int] | None], ends: frozenset[int]
    ) -> LabelTokens:
        """Spell the labels of a scale.

        Args:
            scale: its labels, as they are and capitalised, with and without a leading space.
            tokens: ids of a text that follows the prompt, or None if it cannot follow.
            ends: ids of the tokens that end an answer.

        Raises:
            InputError: the tokenizer has no tokens for a label, or the same for two.
        """
        spellings: dict[Context, int] = {}
        for index, label in enumerate(scale.labels):
            for text in (label, label.capitalize(), f" {label}", f" {label.capitalize()}"):
                ids = tuple(tokens(text) or ())
                if ids and spellings.setdefault(ids, index) != index:
                    other = scale.labels[spellings[ids]]
                    raise InputError(
                        f"the model's tokenizer spells {label!r} and {other!r} of the scale "
                        f"{scale.name!r} alike; choose another scale."
                    )
            if index not in spellings.values():
                raise InputError(
                    f"the model's tokenizer cannot spell {label!r} of the scale {scale.name!r}; "
                    "choose another scale."
                )
        return cls(spellings, ends, len(scale.labels))

    @cached_property
    def contexts(self) -> tuple[Context, ...]:
        """After which tokens of an answer the next token's probabilities are needed."""
        return tuple(sorted({ids[:i] for ids in self.spellings for i in range(len(ids))}))

    @cached_property
    def paths(self) -> tuple[Context, ...]:
        """The longest contexts, short ones first. A pass over each gives all contexts."""
        longest = (
            c
            for c in self.contexts
            if not any(len(o) > len(c) and o[: len(c)] == c for o in self.contexts)
        )
        return tuple(sorted(longest, key=len))

    @cached_property
    def vocabulary(self) -> tuple[int, ...]:
        """All tokens whose probability is needed."""
        return tuple(sorted({token for ids in self.spellings for token in ids} | self.ends))

    def probabilities(self, log_probabilities: Mapping[Context, np.ndarray]) -> np.ndarray:
        """Probability of each label: float64 [labels].

        ``log_probabilities[context]`` is float [vocabulary]: that of the next token.
        """
        column = {token: i for i, token in enumerate(self.vocabulary)}
        result = np.zeros(self.labels)
        for ids, label in self.spellings.items():
            p = math.exp(
                sum(float(log_probabilities[ids[:i]][column[t]]) for i, t in enumerate(ids))
            )
            if ids in log_probabilities:  # another spelling goes on from here
                next_token = np.asarray(log_probabilities[ids], np.float64)
                p *= float(np.exp(next_token[[column[t] for t in sorted(self.ends)]]).sum())
            result[label] += p
        return result


def listed_probabilities(scale: Scale, positions: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Probability of each label from a server's lists of likely tokens: float64 [labels].

    Args:
        scale: the scale that was asked for.
        positions: ``logprobs.content`` of a chat completion. Each has a generated ``token``, its
            ``logprob``, and ``top_logprobs`` with the same of the likeliest tokens.

    A server says what is likely after the tokens that it generated, and nothing of the other
    ways. A label of several tokens therefore counts where the answer went that way. Elsewhere
    its beginning is left out ("1", which may be "10"), which lowers the valid mass, rather than
    guessed at.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the lists are malformed.
    """
    labels = {_folded(label): index for index, label in enumerate(scale.labels)}
    result = np.zeros(len(labels))

    def may_go_on(word: str) -> bool:
        return any(label != word and label.startswith(word) for label in labels)

    def count(position: int, said: str, mass: float) -> None:
        chosen = str(positions[position]["token"])
        is_last = position + 1 == len(positions)
        listed: dict[str, float] = {}
        for entry in positions[position]["top_logprobs"]:
            # Tokens of part of a letter are shown alike.
            listed[entry["token"]] = listed.get(entry["token"], 0.0) + _probability(entry)
        listed.setdefault(chosen, _probability(positions[position]))
        for token, share in listed.items():
            p = mass * share
            word = _folded(said + token)
            if token == chosen and not is_last and may_go_on(word):
                count(position + 1, said + token, p)
            elif _ends(token) and _folded(said) in labels:
                result[labels[_folded(said)]] += p
            elif word in labels and (not may_go_on(word) or (token == chosen and is_last)):
                result[labels[word]] += p

    if positions:
        count(0, "", 1.0)
    return result


def _probability(entry: Mapping[str, Any]) -> float:
    p = math.exp(entry["logprob"])
    if not 0 <= p <= 1.001:
        raise ValueError("a log-probability is not a number up to 0")
    return p


def _folded(text: str) -> str:
    return text.strip().casefold()


def _ends(token: str) -> bool:
    """Whether a token of an answer ends it: nothing, a full stop, a new line, <|im_end|>."""
    return token in ("", ".") or "\n" in token or re.fullmatch(r"<.*>", token) is not None
