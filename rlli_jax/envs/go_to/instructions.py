"""Instructions in words: what they ask for, and which of them are kept for evaluation."""

import re
from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.sentences import encode

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
THINGS = ("key", "ball", "box")
KINDS = tuple(f"{colour} {thing}" for colour, thing in product(COLOURS, THINGS))  # 18
HELD_OUT = ("red key", "green ball", "blue box", "purple key", "yellow ball", "grey box")
OTHER_WORDS = {
    "crimson": "red", "emerald": "green", "azure": "blue", "violet": "purple", "golden": "yellow",
    "gray": "grey", "sphere": "ball", "crate": "box",
}  # fmt: skip
FILLING = ("go", "walk", "run", "move", "head", "get", "travel", "reach", "find", "approach", "to",
           "for", "up", "the", "a", "an", "please", "first")  # fmt: skip
THEN = re.compile(r"(?:,\s*|\s+)then\s+")  # between the parts of an instruction


def _split(verb: str, kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{verb} the {kind}" for kind in kinds)


def _other_words(kind: str) -> str:
    other = {known: word for word, known in OTHER_WORDS.items()}
    return " ".join(other.get(word, word) for word in kind.split())


TRAINED = tuple(kind for kind in KINDS if kind not in HELD_OUT)  # 12
SPLITS = {
    "all": _split("go to", KINDS),
    # Pairs of a colour and a thing; each colour and each thing is in both.
    "trained": _split("go to", TRAINED),
    "held_out": _split("go to", HELD_OUT),
    "synonyms": _split("walk to", TRAINED) + _split("reach", TRAINED),
    "other_words": _split("go to", [_other_words(kind) for kind in TRAINED]),
    # One thing and then another: minigrid's BeforeInstr.
    "then": tuple(
        f"go to the {one}, then go to the {other}" for one, other in permutations(HELD_OUT, 2)
    ),
}


def goals(instruction: str) -> tuple[int, ...]:
    """The kinds that an instruction asks for, 0 to 17, in their order.

    Raises:
        InputError: it has a word that is unknown, or a part of it names no one goal.
    """
    return tuple(_goal(part, instruction) for part in THEN.split(instruction.lower().strip(" .")))


def _goal(part: str, instruction: str) -> int:
    words = [(OTHER_WORDS.get(word, word), word) for word in part.replace(",", " ").split()]
    for word, given in words:
        if word not in (*COLOURS, *THINGS, *FILLING):
            raise InputError(
                f"the instruction {instruction!r} has the word {given!r}, which is unknown; name "
                f"things by {', '.join([*COLOURS, *THINGS, *OTHER_WORDS])}, and say else only "
                f"{', '.join([*FILLING, 'then'])}."
            )
    colours = [word for word, _ in words if word in COLOURS]
    things = [word for word, _ in words if word in THINGS]
    if len(colours) != 1 or len(things) != 1:
        raise InputError(
            f"the instruction {instruction!r} names no one goal in {part!r}; name one colour "
            f"({', '.join(COLOURS)}) and one of {', '.join(THINGS)}, as in 'go to the blue key'."
        )
    return COLOURS.index(colours[0]) * len(THINGS) + THINGS.index(things[0])


class Told(NamedTuple):
    """What M instructions say."""

    goals: np.ndarray
    """[M, G] int32, the kinds that are asked for, in their order."""
    vectors: np.ndarray
    """[M, D] float32, by a sentence encoder."""
    likeness: np.ndarray
    """[M, 18] float32, cosine of an instruction and the name of each kind, less the mean over
    kinds, in standard deviations over kinds."""


def split(name: str) -> tuple[str, ...]:
    """The instructions of a set of SPLITS.

    Raises:
        InputError: there is none of this name.
    """
    if name not in SPLITS:
        raise InputError(
            f"instructions {name!r} are unknown; choose one of {', '.join(SPLITS)}, or give a list "
            "of texts."
        )
    return SPLITS[name]


def told(instructions: Sequence[str], encoder: str) -> Told:
    """Read instructions.

    Args:
        instructions: texts.
        encoder: as of :func:`rlli_jax.sentences.encode`.

    Raises:
        InputError: one cannot be read, there is none, or the encoder cannot be had.
    """
    if not instructions:
        raise InputError("instructions is empty; give at least one.")
    wanted = [goals(text) for text in instructions]
    if len(wanted[0]) > 2:
        raise InputError(
            f"the instruction {instructions[0]!r} has {len(wanted[0])} parts; 2 at most."
        )
    for text, kinds in zip(instructions, wanted, strict=True):
        if len(kinds) != len(wanted[0]):
            raise InputError(
                f"the instruction {text!r} has {len(kinds)} parts and {instructions[0]!r} "
                f"{len(wanted[0])}; give instructions of as many parts."
            )
    # All together, so that a number for each text (one_hot) is the same in every environment.
    known = dict.fromkeys([text for texts in SPLITS.values() for text in texts])
    texts = list(known | dict.fromkeys(instructions))
    found = encode([*texts, *KINDS], encoder).vectors
    vectors = found[[texts.index(text) for text in instructions]]
    cosine = vectors @ found[len(texts) :].T
    cosine = cosine - cosine.mean(1, keepdims=True)
    spread = np.maximum(cosine.std(1, keepdims=True), 1e-6)
    return Told(np.array(wanted, np.int32), vectors, (cosine / spread).astype(np.float32))
