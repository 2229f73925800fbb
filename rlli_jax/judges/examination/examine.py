"""Carries an examination out: asks, checks, and stops early where going on would be wasted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.catalog.features import FEATURES, picture_features
from rlli_jax.errors import InputError
from rlli_jax.judges.base import Answer, Failed, Question, Rated, Scale
from rlli_jax.judges.examination import checks, design
from rlli_jax.judges.examination.verdicts import CHECKS, Check, Finding, not_applicable
from rlli_jax.judges.prompting import ORDERS, Sees
from rlli_jax.judges.psychometric import REPLICATED_SIGNS
from rlli_jax.personas import Wording
from rlli_jax.personas.psychometrics import first_half, people
from rlli_jax.personas.questionnaire import ipip50

Ask = Callable[[Sequence[Question]], Sequence[Answer]]

LEAST_PICTURES = 3  # with a valid answer in each wording
LEAST_PERSONAS = 5  # with a valid answer to each item
VALID = 0.9  # of the answers in a wording, or it is left out
REPEATS = 2  # of a judge that draws its answers
MOST_QUALITY = 40  # pictures that are compared with people's scores
IN_WORDS = "the stand-in is a formula, which is not asked in words"

ADVICE = {
    "1-5": "try judge.scale: 1-5 (digits)",
    "prefill": 'try judge.prefill: "Rating: "',
    "reasoning": "turn reasoning off by judge.extra.chat_template_kwargs",
}


@dataclass(frozen=True)
class Setting:
    """The judge that is examined, and by what."""

    catalog: Catalog
    scale: Scale
    in_words: bool
    """Whether it is asked in words; the stand-in is not."""
    draws: bool
    """Whether repeated answers to one question differ."""
    wording: Wording = "full"
    """Of the personas."""
    sees: Sees = "picture"
    both_orders: bool = False
    prefill: str = ""
    min_valid_mass: float = 0.5
    pictures: int = 6
    personas: int = 12
    require: tuple[Check, ...] = ()
    """What must not fail for the examination to go on."""
    answers: np.ndarray | None = field(default=None, repr=False)
    """[people, 50] of a questionnaire without gaps, for prediction."""
    human: Mapping[tuple[str, str], float] = field(default_factory=dict, repr=False)
    """(request, provider) -> people's score, for quality."""


def examine(ask: Ask, setting: Setting) -> list[Finding]:
    """One finding for each of CHECKS, in order.

    Raises:
        InputError: questions failed (a server that is gone); what was answered is stored. Or no
            request has two pictures, and something is required.
    """
    try:
        design.exhibits(setting.catalog, setting.pictures, _described(setting))
    except InputError as error:
        if setting.require:
            raise
        return [not_applicable(check, str(error).rstrip(".")) for check in CHECKS]
    found: dict[Check, Finding] = {}
    stages = (_sight_and_scale, _wordings, _quality, _persona, _prediction)
    for stage in stages:
        found |= {finding.check: finding for finding in stage(ask, setting)}
        failed = [c for c in setting.require if c in found and found[c].outcome == "fail"]
        if failed:
            why = f"not examined, because {' and '.join(failed)} failed"
            return [found.get(check, not_applicable(check, why)) for check in CHECKS]
    return [found[check] for check in CHECKS]


def persona_checks(ask: Ask, setting: Setting) -> list[Finding]:
    """The checks of how well personas are played alone: ``persona`` and ``prediction``."""
    return _persona(ask, setting) + _prediction(ask, setting)


def most_questions(setting: Setting) -> int:
    """How many questions an examination asks at most."""
    people = 0 if setting.answers is None else len(setting.answers)
    if not setting.in_words:
        return 6 + 10 * setting.pictures * (1 + REPEATS)
    repeats = 10 * setting.pictures * REPEATS if setting.draws else 0
    quality = min(len(setting.human), MOST_QUALITY)
    return 6 + repeats + 40 * setting.pictures + quality + 50 * setting.personas + 25 * people


def _asked(ask: Ask, questions: Sequence[Question]) -> list[Answer]:
    answers = list(ask(questions))
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    if failed:
        raise InputError(
            f"examination: {len(failed)} of {len(answers)} questions were not answered "
            f"({failed[0].reason}); the others are kept, so run again to go on."
        )
    return answers


def _ratings(answers: Sequence[Answer], questions: Sequence[Question]) -> np.ndarray:
    """Ratings as parts of each question's scale, NaN where there is none."""
    return np.array(
        [
            question.scale.qoe(answer.rating) if isinstance(answer, Rated) else np.nan
            for question, answer in zip(questions, answers, strict=True)
        ]
    )


def label_mass(answer: Answer) -> float:
    """The probability on the labels, also of an answer that is invalid for having little."""
    if isinstance(answer, Rated):
        return answer.valid_mass
    parts = [sum(said["probabilities"].values()) for said in _said(answer)]
    return float(np.mean(parts)) if parts else 0.0


def other_tokens(answers: Iterable[Answer]) -> dict[str, float]:
    """The likeliest answers that are no labels: text -> mean probability, falling."""
    total: Counter[str] = Counter()
    count = 0
    for answer in answers:
        parts = _said(answer)
        if not parts and not isinstance(answer, Failed):  # only text is known
            parts = [{"others": {answer.raw[:40]: 1.0}}] if not isinstance(answer, Rated) else [{}]
        for said in parts:
            count += 1
            for token, p in said.get("others", {}).items():
                total[token] += p
    return {token: p / count for token, p in total.most_common(8)}


def _said(answer: Answer) -> list[dict]:
    if isinstance(answer, Failed):
        return []
    try:
        parts = [json.loads(line) for line in answer.raw.splitlines()]
    except ValueError:
        return []
    return [part for part in parts if isinstance(part, dict) and "probabilities" in part]


def _sight_and_scale(ask: Ask, setting: Setting) -> list[Finding]:
    """Six questions: two people, two plainly different pictures and a blank one."""
    shown = design.exhibits(setting.catalog, setting.pictures, _described(setting))
    one, other = design.most_different(shown)
    three = [shown[one], shown[other], design.blank(shown[one])]
    two = design.poles(setting.wording)[4:6]
    asked = [design.rating(p, e, setting.scale) for p in two for e in three]
    answers = _asked(ask, asked)
    scale = (
        checks.scale(
            np.array([label_mass(answer) for answer in answers]),
            other_tokens(answers),
            min_valid_mass=setting.min_valid_mass,
            helps=_advice(setting),
        )
        if setting.in_words
        else not_applicable("scale", IN_WORDS)
    )
    ratings = _ratings(answers, asked).reshape(2, 3)
    if np.isnan(ratings).any():
        why = f"{int(np.isnan(ratings).sum())} of the 6 first answers are invalid"
        return [not_applicable("sight", why), scale]
    finding = checks.sight(ratings[None], requests=[0, 0, 0])
    # Known when it was just asked; a store keeps them, but gives answers without them.
    tokens = [a.usage.prompt_tokens for a in answers if a.usage and a.usage.prompt_tokens]
    if finding.outcome != "fail" and setting.draws:  # is it more than chance?
        finding = _sight_beside_chance(ask, setting, shown)
    if finding.outcome == "fail" and len(tokens) == len(asked) and len(set(tokens[:3])) == 1:
        says = f"{finding.says}; all three prompts have {tokens[0]} tokens"
        finding = replace(finding, says=says)
    return [finding, scale]


def _sight_beside_chance(ask: Ask, setting: Setting, shown: Sequence[design.Exhibit]) -> Finding:
    """The grid of poles and pictures, asked repeatedly."""
    requests = [exhibit.request for exhibit in shown]
    asked = [
        design.rating(persona, exhibit, setting.scale, sample=sample)
        for sample in range(REPEATS)
        for persona in design.poles(setting.wording)
        for exhibit in shown
    ]
    ratings = _ratings(_asked(ask, asked), asked).reshape(REPEATS, 10, len(shown))
    valid = ~np.isnan(ratings).any((0, 1))
    if valid.sum() < LEAST_PICTURES:
        return not_applicable("sight", _too_few(valid))
    places = [requests.index(request) for request in requests]
    return checks.sight(ratings[..., valid], requests=np.array(places)[valid].tolist())


def _wordings(ask: Ask, setting: Setting) -> list[Finding]:
    """The ten poles rate all pictures, in every wording: order, and steering."""
    shown = design.exhibits(setting.catalog, setting.pictures, _described(setting))
    forms: dict[str, np.ndarray] = {}
    if not setting.in_words:
        for sample in range(REPEATS if setting.draws else 1):
            questions = [
                design.rating(persona, exhibit, setting.scale, sample=sample)
                for persona in design.poles(setting.wording)
                for exhibit in shown
            ]
            forms[f"repeat {sample + 1}"] = _grid(ask, questions)
    else:
        for name, (scale, form) in design.wordings(setting.scale).items():
            questions = [
                design.rating(persona, exhibit, scale, form)
                for persona in design.poles(setting.wording)
                for exhibit in shown
            ]
            if scale != setting.scale and np.isnan(_grid(ask, questions[: len(shown)])).any():
                continue  # it does not keep to that scale, and need not
            ratings = _grid(ask, questions)
            if np.isnan(ratings).mean() <= 1 - VALID:
                forms[name] = ratings
    kept = ~np.any([np.isnan(ratings).any(0) for ratings in forms.values()], axis=0)
    if not forms or kept.sum() < LEAST_PICTURES:
        why = _too_few(kept) if forms else "hardly an answer is valid"
        return [not_applicable("order", why), not_applicable("steering", why)]
    forms = {name: ratings[:, kept] for name, ratings in forms.items()}
    order = not_applicable("order", IN_WORDS)
    if setting.in_words:
        averaged = [ORDERS[1]] if setting.both_orders else []
        order = (
            checks.order(forms, averaged=averaged)
            if len(forms) > 1
            else not_applicable("order", "in one wording alone are answers valid")
        )
        if averaged and set(ORDERS) <= forms.keys():  # as the judge answers the table
            mean = (forms.pop(ORDERS[0]) + forms.pop(ORDERS[1])) / 2
            forms = {"both orders": mean, **forms}
    pictures = [exhibit for exhibit, keep in zip(shown, kept, strict=True) if keep]
    features = _features(pictures)
    return [order, checks.steering(forms, features, REPLICATED_SIGNS, FEATURES)]


def _grid(ask: Ask, questions: Sequence[Question]) -> np.ndarray:
    """[personas, pictures]; NaN where an answer is invalid."""
    personas = list(dict.fromkeys(question.persona for question in questions))
    return _ratings(_asked(ask, questions), questions).reshape(len(personas), -1)


def _features(shown: Sequence[design.Exhibit]) -> np.ndarray:
    """[pictures, F]; zeros, which agree with nothing, where there are captions alone."""
    nothing = np.zeros(len(FEATURES))
    return np.array([nothing if e.picture is None else picture_features(e.picture)
                     for e in shown])  # fmt: skip


def _quality(ask: Ask, setting: Setting) -> list[Finding]:
    if not setting.human:
        return [not_applicable("quality", "there are no people's scores (evaluation.human)")]
    requests = len(setting.catalog.requests)
    every = design.exhibits(setting.catalog, MOST_QUALITY, _described(setting), requests)
    scored = [e for e in every if (e.request, e.provider) in setting.human]
    if not scored:
        return [not_applicable("quality", "people scored none of the pictures")]
    average = design.average(setting.wording)
    (ratings,) = _grid(ask, [design.rating(average, e, setting.scale) for e in scored])
    human = np.array([setting.human[e.request, e.provider] for e in scored])
    valid = ~np.isnan(ratings)
    return [checks.quality(ratings[valid], human[valid])]


def _persona(ask: Ask, setting: Setting) -> list[Finding]:
    if not setting.in_words:
        return [not_applicable("persona", IN_WORDS)]
    if setting.wording == "answers":
        return [not_applicable("persona", "the answers that it would be asked for are told to it")]
    if setting.personas < LEAST_PERSONAS:
        why = f"judge.examination.personas is {setting.personas}, and {LEAST_PERSONAS} are needed"
        return [not_applicable("persona", why)]
    sample = design.sampled(setting.personas, setting.wording)
    asked = [question for persona in sample for question in design.statements(persona)]
    answers = _items(ask, asked, len(sample))
    whole = ~np.isnan(answers).any(1)
    if whole.sum() < LEAST_PERSONAS:
        missing = f"{int(np.isnan(answers).sum())} of {answers.size} statements"
        return [not_applicable("persona", f"{missing} got no valid answer")]
    traits = np.array([persona.known_traits for persona in sample])
    return [checks.persona(traits[whole], answers[whole], ipip50(), people())]


def _prediction(ask: Ask, setting: Setting) -> list[Finding]:
    if not setting.in_words:
        return [not_applicable("prediction", IN_WORDS)]
    if setting.answers is None or len(setting.answers) < LEAST_PERSONAS:
        why = "there are no people's answers to the 50 IPIP markers (population.questionnaire)"
        return [not_applicable("prediction", why)]
    key, given = ipip50(), setting.answers
    rest = np.flatnonzero(~first_half(key))
    told = design.halves(given, setting.wording)
    asked = [q for persona in told for q in design.statements(persona, rest.tolist())]
    predicted = _items(ask, asked, len(told))
    whole = ~np.isnan(predicted).any(1)
    if whole.sum() < LEAST_PERSONAS:
        return [not_applicable("prediction", "too few statements got a valid answer")]
    means = people().item_means[rest]
    return [checks.predicted_people(predicted[whole], given[whole][:, rest], means, people())]


def _items(ask: Ask, asked: Sequence[Question], persons: int) -> np.ndarray:
    """[persons, items] from 1 to 5; NaN where an answer is invalid."""
    ratings = _ratings(_asked(ask, asked), asked)
    low, high = design.ITEM_SCALE.low, design.ITEM_SCALE.high
    return (low + (high - low) * ratings).reshape(persons, -1)


def _described(setting: Setting) -> bool:
    return setting.sees == "description"


def _too_few(valid: np.ndarray) -> str:
    return f"only {int(valid.sum())} of {valid.size} pictures have valid answers of all personas"


def _advice(setting: Setting) -> str:
    numbers = design.other_scale(setting.scale).name == "adjectives"
    advice = [] if numbers else [ADVICE["1-5"]]
    advice += [] if setting.prefill else [ADVICE["prefill"]]
    return ", ".join([*advice, ADVICE["reasoning"]])
