"""The prompt engineer: what a language model is told before it rates pictures as a person.

``general_setup`` is Part A of the paper's Fig. 2 and the same for all users; ``persona_text`` is
Parts C and D, one text a user. Both are pure functions of their arguments and need no language
model. The wording is our own; the adjectives and levels are those with which Serapio-García et al.
2023 (arXiv 2307.00184) shaped the personality of language models. The texts are part of every
question that is cached: a change of the wording is a change of the question.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from rlli_jax.errors import InputError, shown
from rlli_jax.personas.norms import load_data, pooled_norm
from rlli_jax.personas.persona import TRAIT_NAMES, TRAITS, Persona

# What a low and a high score of each trait mean, in order O C E A N.
POLES = (
    (
        "prefers the familiar, the plain and the conventional",
        "is drawn to imagination, art and new experiences, and has wide interests",
    ),
    (
        "takes things as they come and cares little for order",
        "is careful, orderly, disciplined and set on goals",
    ),
    (
        "is reserved and content with quiet and solitude",
        "is outgoing and lively, and gains energy from company",
    ),
    (
        "is critical, competitive and slow to trust",
        "is warm, trusting, helpful and considerate",
    ),
    (
        "is calm, even-tempered and hard to upset",
        "is easily worried, moody and sensitive to stress",
    ),
)

# Of each trait the pair that stands for all of it in the brief wording: imaginative, organized,
# extraverted, agreeable, emotionally unstable.
BRIEF_PAIRS = (0, 7, 1, 10, 9)


# What an answer from 1 to 5 says of a statement about oneself.
AGREEMENT = (
    "disagrees",
    "rather disagrees",
    "neither agrees nor disagrees",
    "rather agrees",
    "agrees",
)

# A life in which a trait is low, middling or high, in order O C E A N.
LIVES = (
    (
        "You have lived in the same town all your life, cook the same few dishes and see no use in "
        "art or theories",
        "You read a novel now and then and try something new when a friend suggests it",
        "You paint, collect strange music from all over the world, and would rather talk of ideas "
        "than of everyday things",
    ),
    (
        "Your desk is a heap, bills lie unopened, and you start more than you finish",
        "You keep most of your appointments, and tidy up when guests are coming",
        "You plan every week on Sunday, are never late, and finish what you begin to the last "
        "detail",
    ),
    (
        "At parties you stand at the edge and leave early; an evening alone suits you best",
        "You enjoy company, and are glad of a quiet weekend after it",
        "You know half of the city, talk to everybody on the train, and are the last to leave a "
        "party",
    ),
    (
        "You say what you think even where it hurts, bargain hard, and suspect that people want "
        "something of you",
        "You help where you are asked, and stand up for yourself where it matters",
        "You look after your neighbours, forgive quickly, and believe the best of everybody",
    ),
    (
        "Nothing upsets you: you sleep well before examinations and forget an insult within the "
        "hour",
        "You worry before a great day, and calm down when it is over",
        "You lie awake over what might go wrong, cry easily, and your mood turns within minutes",
    ),
)


class RatingScale(Protocol):
    """What ``general_setup`` reads of a scale."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...  # worst first


def general_setup(scale: RatingScale | Sequence[str]) -> str:
    """Part A: introduces the five traits and says how to rate a picture on the scale.

    Args:
        scale: a scale with a name and labels, or the labels alone; the worst label first.

    Raises:
        InputError: there are fewer than two labels, or a label is empty or repeated.
    """
    if isinstance(scale, Sequence):
        labels, called = scale, "this scale"
    else:
        labels, called = scale.labels, f'the scale "{scale.name}"'
    if (
        isinstance(labels, str)
        or len(labels) < 2
        or len(set(labels)) < len(labels)
        or not all(isinstance(label, str) and label.strip() for label in labels)
    ):
        raise InputError(
            f"A rating scale has the labels {shown(labels)}; "
            "give at least two different texts, the worst first."
        )
    traits = "\n".join(
        f"- {name}: a person who scores low {low}; a person who scores high {high}."
        for name, (low, high) in zip(TRAIT_NAMES, POLES, strict=True)
    )
    return (
        "The Big Five describe a personality by five traits. Each is a continuous range, and most "
        "people stand somewhere between its ends:\n"
        f"{traits}\n"
        "People with different personalities can see the same picture quite differently. You will "
        "take the part of a person whose personality is described by these traits, and rate a "
        "picture as that person would: by that person's own taste, not by what people like on "
        "average.\n"
        f"Use {called}, from worst to best: {', '.join(labels)}.\n"
        "Answer with exactly one of these labels and nothing else."
    )


def persona_text(persona: Persona) -> str:
    """Parts C and D: asks for answers as this person, described by graded adjectives.

    In the full wording each trait gives one sentence, in which every one of its adjective pairs
    (52 in all) stands at the level ``trait_level``. The brief wording is one sentence with one
    pair for each trait. The biography tells, in a sentence for each trait, what such a person does:
    at low, middling and high levels, and more so at the ends. The answers say of each statement of
    a questionnaire how far this person agrees. What the person said of other pictures stands behind
    any of them. The name is left out on purpose: it
    says nothing of the personality, and people with the same levels are to be the same question.
    """
    return "\n".join([_described(persona), *_examples(persona)])


def _examples(persona: Persona) -> list[str]:
    """What the person said of other pictures, an example a line."""
    if not persona.rated:
        return []
    shown = [f"- {picture.rstrip('.')}: {rating}" for picture, rating in persona.rated]
    return ["This person rated other pictures:", *shown]


def _described(persona: Persona) -> str:
    """Who the person is, in the persona's wording."""
    if persona.wording == "answers":
        said = [f'- "{statement}" {AGREEMENT[at - 1]}' for statement, at in persona.answers]
        return "\n".join(["Respond as the person who said of themselves:", *said])
    levels = [trait_level(*pair) for pair in zip(TRAITS, persona.known_traits, strict=True)]
    if persona.wording == "brief":
        described = [
            _adjectives(trait, level)[pair]
            for trait, level, pair in zip(TRAITS, levels, BRIEF_PAIRS, strict=True)
        ]
        return f"Respond as a person who is {_listed(described)}."
    if persona.wording == "biography":
        lives = [_life(trait, level) for trait, level in enumerate(levels)]
        return f"Respond as the person who is told this about their life. {' '.join(lives)}"
    sentences = [
        f"{name}: this person is {_listed(_adjectives(trait, level))}."
        for trait, name, level in zip(TRAITS, TRAIT_NAMES, levels, strict=True)
    ]
    return "\n".join(
        (
            "For the following task, respond as a person with this personality.",
            *sentences,
            "Stay in this part, and answer as this person would.",
        )
    )


def _life(trait: int, level: int) -> str:
    """A sentence of the biography; levels 1, 2, 8 and 9 are told to be rare."""
    place = 0 if level <= 3 else 2 if level >= 7 else 1
    rare = ", more than anybody you know" if level in (1, 2, 8, 9) else ""
    return f"{LIVES[trait][place]}{rare}."


def trait_level(trait: str, score: float) -> int:
    """Level of a trait from 1 (extremely low) to 9 (extremely high), 5 being the average.

    The score (1-5) becomes a z-score against ``norms.pooled_norm()``, and the z-score a stanine:
    cuts at -1.75, -1.25, ..., 1.75 standard deviations, a value on a cut counting upward. So the
    adjectives place a person among other people, as test reports do. A straight map of 1-5 to
    nine levels would not: the standard deviation is about 0.6 of the scale's four points, so that
    people would crowd into few levels and nearly all would be said to be agreeable. In turn the
    middle of the scale need not be the middle level: an Agreeableness of 3 is below what most
    people score.
    """
    index = TRAITS.index(trait)
    mean, sd = pooled_norm()
    z = (score - mean[index]) / sd[index]
    return 1 + bisect_right(load_data("trait_markers_104")["stanine_z_bounds"], z)


def _adjectives(trait: str, level: int) -> list[str]:
    """The trait's adjective pairs, each worded at the level."""
    markers = load_data("trait_markers_104")
    wording: str = markers["levels"][str(level)]
    return [wording.format(low=low, high=high) for low, high in markers["pairs_low_high"][trait]]


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])}, and {words[-1]}"
