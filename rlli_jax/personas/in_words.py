"""A persona in one line, for policies that read: each trait in five levels."""

import numpy as np

from rlli_jax.personas.persona import TRAIT_NAMES, Persona

GOAL = "give the user a picture that the user likes"
# Steps from the middle of the 1-5 scale, in words; a level begins at its number.
_LEVELS = ((-np.inf, "very low"), (1.8, "low"), (2.6, "medium"), (3.4, "high"), (4.2, "very high"))


def in_words(persona: Persona) -> str:
    """``The user has high Openness, ...``; the name where nobody has measured the traits."""
    if persona.traits is None:
        return f"The user is {persona.name}"
    levels = [[word for start, word in _LEVELS if x >= start][-1] for x in persona.traits]
    told = (f"{level} {name}" for level, name in zip(levels, TRAIT_NAMES, strict=True))
    return "The user has " + ", ".join(told)


def asks(persona: Persona, request: str) -> str:
    """What a policy of provider selection is told: who asks for what."""
    return f"{in_words(persona)}. The user asks for: {request}"


def goal_prompt(goal: str, text: str, remark: str = "") -> str:
    """Lamorel's prompt, which shows the current observation only; a remark comes first."""
    return f"{remark}Goal of the agent: {goal}\nObservation: {text}\nAction:"


def advice(provider: str) -> str:
    """The answer that names a provider."""
    return f"choose {provider}"
