"""From what a language model says to a rating.

Where its probabilities are known, the rating is the expectation over the scale's labels,
sum of r p(r) / sum of p(r): the likeliest word alone throws most of the signal away (Wu et al.
2024, Q-Bench; Wu et al. 2024, Q-Align). ``valid_mass`` is sum of p(r); when it is low the model
was about to say something else, and the answer is Invalid. Where only text is known, it must be
one label and nothing else: no number is fished out of a sentence.

All labels are scored alike: by the probability that the answer begins with the label, whatever
comes after it, less that of going on to a longer label. So p("4") and p("1") are comparable on a
scale that also has "10", whether or not a model likes to write more behind a digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.judges import Answer, Failed, Invalid, Rated, Scale, Usage

MIN_VALID_MASS = 0.5
LISTED = 8  # of the likeliest first tokens that are no labels
ALL_BUT_ALL = 0.9  # with more on the labels, what else was likely does not matter

# How far a rating may be moved by what a server's lists leave open, as a part of the scale.
MAX_OPEN = 0.05

# Letters of a token that tell a label which it alone begins: "exc" is excellent, "go" anything.
TELLING = 3

Context = tuple[int, ...]  # tokens of a label that have been said already


def expected_answer(
    scale: Scale,
    probabilities: np.ndarray,
    min_valid_mass: float,
    text: str,
    usage: Usage | None,
    likely: Mapping[str, float] | None = None,
) -> Rated | Invalid:
    """The expectation over label probabilities [labels], worst first, or Invalid.

    ``text`` is what the model said, or was most likely to say; it is kept with the probabilities.
    ``likely`` are the likeliest first tokens with their probabilities: those that begin no label
    are kept too where much of the probability is theirs.
    """
    mass = float(probabilities.sum())
    if not 0 <= mass <= 1.001:  # also if it is not a number
        return Invalid("the model's probabilities are no probabilities", text, usage)
    shown = {k: float(f"{p:.6g}") for k, p in zip(scale.labels, probabilities, strict=True)}
    kept: dict[str, Any] = {"text": text, "probabilities": shown}
    if likely and mass < ALL_BUT_ALL:
        labels = [folded(label) for label in scale.labels]
        kept["others"] = {
            token: float(f"{p:.3g}")
            for token, p in likely.items()
            if not any(folded(token) and label.startswith(folded(token)) for label in labels)
        }
    raw = json.dumps(kept, ensure_ascii=False)
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


def text_answer(scale: Scale, text: str, usage: Usage | None) -> Rated | Invalid:
    """The rating of a text that is one label, in any case, with or without a full stop."""
    labels = [folded(label) for label in scale.labels]
    label = folded(text)
    if label not in labels:
        label = label.removesuffix(".")
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
    spellings. Where one spelling begins another ("1" and "10"), the shorter has what does not go
    on to the longer: p("10") = p(1) p(0|1), p("1") = p(1) - p("10").
    """

    spellings: Mapping[Context, int]  # token ids -> index of the label
    labels: int

    @classmethod
    def of(cls, scale: Scale, tokens: Callable[[str], Sequence[int] | None]) -> LabelTokens:
        """Spell the labels of a scale.

        Args:
            scale: its labels, as they are, capitalised and in small letters, with and without a
                leading space.
            tokens: ids of a text that follows the prompt, or None if it cannot follow.

        Raises:
            InputError: the tokenizer has no tokens for a label, or the same for two.
        """
        spellings: dict[Context, int] = {}
        for index, label in enumerate(scale.labels):
            cases = (label, label.capitalize(), label.lower())
            for text in (space + case for space in ("", " ") for case in cases):
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
        return cls(spellings, len(scale.labels))

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
        return tuple(sorted({token for ids in self.spellings for token in ids}))

    @cached_property
    def _longer(self) -> dict[Context, list[Context]]:
        """The spellings that each begins, without those that go on from one of them."""
        longer = {
            ids: [o for o in self.spellings if len(o) > len(ids) and o[: len(ids)] == ids]
            for ids in self.spellings
        }
        return {
            ids: [o for o in more if not any(o in longer[other] for other in more)]
            for ids, more in longer.items()
        }

    def probabilities(self, log_probabilities: Mapping[Context, np.ndarray]) -> np.ndarray:
        """Probability of each label: float64 [labels].

        ``log_probabilities[context]`` is float [vocabulary]: that of the next token.
        """
        column = {token: i for i, token in enumerate(self.vocabulary)}
        said = {
            ids: math.exp(
                sum(float(log_probabilities[ids[:i]][column[t]]) for i, t in enumerate(ids))
            )
            for ids in self.spellings
        }
        result = np.zeros(self.labels)
        for ids, label in self.spellings.items():
            result[label] += said[ids] - sum(said[longer] for longer in self._longer[ids])
        return np.maximum(result, 0.0)  # but for rounding


@dataclass(frozen=True)
class Listed:
    """What a server's lists of likely tokens say of the labels."""

    probabilities: np.ndarray  # float64 [labels], of what is certain
    # Tokens that may become one of several labels: their probability and the labels' indices.
    open: tuple[tuple[float, tuple[int, ...]], ...] = ()
    # The same of beginnings of labels, which may also become no label at all.
    begun: tuple[tuple[float, tuple[int, ...]], ...] = ()

    def unclear(self, scale: Scale) -> str:
        """Why there is no rating, if what is open could move it by more than MAX_OPEN; else ""."""
        ratings = np.linspace(scale.low, scale.high, len(scale.labels))

        def mean(p: np.ndarray) -> float:
            return float(p @ ratings / p.sum()) if p.sum() else 0.0

        def extreme(choose: Callable[..., Any]) -> float:
            p = self.probabilities.copy()
            for mass, labels in self.open:
                p[choose(labels)] += mass
            for mass, labels in self.begun:
                label = choose(labels)
                if choose(ratings[label], mean(p)) == ratings[label]:
                    p[label] += mass
            return mean(p)

        if not self.probabilities.any() or (
            extreme(max) - extreme(min) <= MAX_OPEN * (scale.high - scale.low)
        ):
            return ""
        mass, labels = max(self.open + self.begun)
        names = f"{scale.labels[labels[0]]!r} or "
        names += "no label" if len(labels) == 1 else repr(scale.labels[labels[-1]])
        return (
            f"the server's lists leave open whether {mass:.2g} of the probability is on {names}; "
            "choose scoring 'text', or a scale of which no label begins another, such as 1-5"
        )


def listed_probabilities(
    scale: Scale, positions: Sequence[Mapping[str, Any]], is_whole: bool = True
) -> Listed:
    """What a server's lists of likely tokens say of each label.

    Args:
        scale: the scale that was asked for.
        positions: ``logprobs.content`` of a chat completion, from where the answer begins. Each
            has a generated ``token``, its ``logprob``, and ``top_logprobs`` with the same of the
            likeliest tokens.
        is_whole: the answer was not cut off by a limit of tokens.

    A server says what is likely after the tokens that it generated, and nothing of the other
    ways. Where a token begins several labels ("1" and "10") and the answer did not go that way,
    its probability is open, unless the list shows that this tokenizer writes the longer label as
    one token. A beginning of TELLING letters that only one label has counts as that label, for a
    model that was asked for one of them hardly goes on otherwise; a shorter one is open.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the lists are malformed.
    """
    labels = {folded(label): index for index, label in enumerate(scale.labels)}
    result = np.zeros(len(labels))
    unsettled: list[tuple[float, tuple[int, ...]]] = []
    begun: list[tuple[float, tuple[int, ...]]] = []

    def longer(word: str) -> tuple[int, ...]:
        return tuple(
            index for label, index in labels.items() if label != word and label.startswith(word)
        )

    def count(position: int, said: str, mass: float, so_far: int | None) -> None:
        """Divide the probability of the tokens ``said``; ``so_far`` is the label that they are."""
        chosen = str(positions[position]["token"])
        is_last = position + 1 == len(positions)
        listed: dict[str, float] = {}
        for entry in positions[position]["top_logprobs"]:
            # Tokens of part of a letter are shown alike.
            listed[entry["token"]] = listed.get(entry["token"], 0.0) + _probability(entry)
        listed.setdefault(chosen, _probability(positions[position]))
        words = {token: (said + spaced(token)).lstrip().casefold() for token in listed}
        in_one_token = any(
            word != other and word in labels and other in labels and word.startswith(other)
            for word in words.values()
            for other in words.values()
        )
        rest = mass  # what is neither a longer label nor may become one
        for token, share in listed.items():
            p, word = mass * share, words[token]
            label, more = labels.get(word.strip()), longer(word)
            if label is None:
                label = labels.get(word.strip().removesuffix("."))
            if (label is None and not more) or (said and not token):  # "" ends an answer
                continue
            rest -= p
            if more and token == chosen and not is_last:
                count(position + 1, said + spaced(token), p, label if label is not None else so_far)
            elif label is not None and (not more or in_one_token or (token == chosen and is_whole)):
                result[label] += p
            else:
                own = label if label is not None else so_far
                if own is None and token != chosen and len(more) == 1 and len(word) >= TELLING:
                    result[more[0]] += p
                elif own is None:
                    begun.append((p, more))
                else:
                    unsettled.append((p, (own, *more)))
        if so_far is not None:
            result[so_far] += max(0.0, rest)

    if positions:
        count(0, "", 1.0, None)
    return Listed(result, tuple(unsettled), tuple(begun))


def likely_tokens(position: Mapping[str, Any]) -> dict[str, float]:
    """The likeliest tokens of one position of ``logprobs.content``: text -> probability."""
    listed = sorted(position["top_logprobs"], key=lambda entry: -entry["logprob"])[:LISTED]
    return {spaced(entry["token"]): _probability(entry) for entry in listed}


def _probability(entry: Mapping[str, Any]) -> float:
    p = math.exp(entry["logprob"])
    if not 0 <= p <= 1.001:
        raise ValueError("a log-probability is not a number up to 0")
    return p


def folded(text: str) -> str:
    """A label as it is compared: in any case, without blanks around it."""
    return text.strip().casefold()


def spaced(token: str) -> str:
    """A token's text: some servers show the pieces of a vocabulary, with signs for blanks."""
    return token.replace("\u2581", " ").replace("\u0120", " ").replace("\u010a", "\n")
