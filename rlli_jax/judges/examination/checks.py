"""What an examination concludes from answers: pure functions from arrays to findings.

Ratings are given as parts of the scale, 0 for its worst end and 1 for its best (QoE), so that
shifts and spreads read alike on every scale. Arrays are float64 without NaN; whoever asks leaves
out what was not answered. Thresholds are ours, set beside what is known of people and of trained
models (docs/measured.md), and stand in every finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from rlli_jax.judges.examination.verdicts import (
    Correlation,
    Finding,
    Outcome,
    correlation,
    graded,
    mean_interval,
    not_applicable,
    worst,
)
from rlli_jax.personas import TRAITS
from rlli_jax.personas.psychometrics import (
    People,
    acquiescence,
    alpha,
    prediction,
)
from rlli_jax.personas.questionnaire import Key, score

SEEN, SEEN_WELL = 0.001, 0.01  # change of an answer, as a part of the scale
SIGHT_SAYS = {
    "pass": "other pictures, other answers",
    "weak": "pictures change answers {}",
    "fail": "plainly different pictures and a blank one get the same answer: the judge does not "
    "see them (does the model take pictures, and does the server pass them on?)",
}
MASS_WEAK, MASS_PASS = 0.5, 0.8  # probability on the labels
SHIFT_PASS, SHIFT_WEAK = 0.1, 0.25  # of the mean rating between label orders, part of the scale
PICTURES_AGREE = 0.7  # correlation of pictures between wordings
QUALITY = 0.5  # rank correlation with people
CONVERGENT = 0.5  # mean correlation of traits given and traits answered
APART = 0.15  # by how much that is above the correlations with other traits
SPREAD = 0.25  # of trait scores, as a part of people's
STEERED = 0.5  # correlation of the taste that traits make between wordings


def sight(ratings: np.ndarray, *, requests: Sequence[int]) -> Finding:
    """Do the pictures change the answer?

    Args:
        ratings: [repeats, personas, pictures], as parts of the scale; one repeat of a judge that
            answers equal questions alike, at least two of one that draws its answers.
        requests: of each picture the number of its request: only pictures of one request are
            compared, because the request changes the prompt as well.

    Of a judge that draws, a change counts only beside what differs between repeats: F test of
    pictures within personas and requests, with the exact interval of the ratio of variances
    (Searle 1971, *Linear Models*, section 9.7).
    """
    groups = np.asarray(requests)
    within = [ratings[..., groups == group] for group in np.unique(groups)]
    change = max(float(np.ptp(part, axis=-1).max()) for part in within)
    measures = {"largest change": change, "rating of each picture": ratings.mean((0, 1))}
    repeats = len(ratings)
    left = float(((ratings - ratings.mean(0)) ** 2).sum())
    if repeats == 1 or change < SEEN or left < 1e-12:
        outcome = graded(change, SEEN_WELL, SEEN)
        says = SIGHT_SAYS[outcome].format(f"by {change:.2%} of the scale at most")
        return Finding(
            "sight", outcome, says, what="largest change of an answer by the picture",
            estimate=change, over="no interval: equal questions get equal answers",
            threshold=f"pass from {SEEN_WELL:g} of the scale, weak from {SEEN:g}",
            questions=ratings.size, measures=measures,
        )  # fmt: skip
    between, freedom = 0.0, 0
    for part in within:
        means = part.mean(0)  # [personas, pictures]
        between += repeats * float(((means - means.mean(1, keepdims=True)) ** 2).sum())
        freedom += means.shape[0] * (means.shape[1] - 1)
    error = (repeats - 1) * ratings[0].size
    f = (between / freedom) / (left / error)
    low, high = (f / stats.f.ppf(q, freedom, error) for q in (0.975, 0.025))
    p = float(stats.f.sf(f, freedom, error))
    outcome = graded(-p, -0.001, -0.01)
    return Finding(
        "sight", outcome, SIGHT_SAYS[outcome].format("little beside chance"),
        what="variance by the picture / variance between repeats",
        estimate=(f - 1) / repeats, low=float(low - 1) / repeats, high=float(high - 1) / repeats,
        over="repeats", threshold="pass at p <= .001, weak at p <= .01 (F test)",
        questions=ratings.size, measures=measures | {"F": f, "p": p},
    )  # fmt: skip


def scale(
    masses: np.ndarray, others: Mapping[str, float], *, min_valid_mass: float, helps: str
) -> Finding:
    """Does the judge answer with the labels?

    Args:
        masses: [questions], the probability on the labels; 1 or 0 where only text is known.
        others: the likeliest answers that are no labels, with their mean probability.
        min_valid_mass: what the judge asks for.
        helps: what to try, for the sentence.
    """
    mass, low, high = mean_interval(masses)
    weak = max(MASS_WEAK, min_valid_mass)
    outcome = graded(mass, max(MASS_PASS, weak), weak)
    said = ", ".join(f"{text!r} ({p:.2g})" for text, p in list(others.items())[:5])
    instead = f", likeliest instead: {said}" if said else ""
    says = f"{mass:.2g} of the probability is on the labels"
    if outcome != "pass":
        says += f"{instead}; {helps}"
    return Finding(
        "scale", outcome, says, what="mean probability on the labels",
        estimate=mass, low=max(low, 0.0), high=min(high, 1.0), over="questions",
        threshold=f"pass from {max(MASS_PASS, weak):g}, weak from {weak:g}",
        questions=masses.size,
        measures={
            "valid answers": float((masses >= min_valid_mass).mean()),
            "likeliest other answers": dict(others),
        },
    )  # fmt: skip


def variance_shares(ratings: np.ndarray) -> dict[str, float]:
    """Shares of the sum of squares of [personas, pictures]: personas, pictures, interaction."""
    whole = ratings - ratings.mean()
    persons, pictures = whole.mean(1, keepdims=True), whole.mean(0, keepdims=True)
    parts = {
        "persona": np.broadcast_to(persons, whole.shape),
        "picture": np.broadcast_to(pictures, whole.shape),
        "interaction": whole - persons - pictures,
    }
    total = float((whole**2).sum())
    return {
        name: float((p**2).sum()) / total if total > 1e-12 else 0.0 for name, p in parts.items()
    }


def compare_forms(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """How alike two wordings of the same questions are answered: [personas, pictures] both."""
    return {
        "shift": float(other.mean() - one.mean()),
        "pictures": correlation(one.mean(0), other.mean(0)),
        "personas": correlation(one.mean(1), other.mean(1)),
        "interaction": correlation(_interaction(one), _interaction(other)),
    }


def _interaction(ratings: np.ndarray) -> np.ndarray:
    rows, columns = ratings.mean(1, keepdims=True), ratings.mean(0, keepdims=True)
    return ratings - rows - columns + ratings.mean()


def order(forms: Mapping[str, np.ndarray], *, averaged: Sequence[str] = ()) -> Finding:
    """Is the answer the same however it is asked for?

    Args:
        forms: wording -> ratings [personas, pictures]; the first is what others are compared to.
        averaged: wordings over which the judge averages anyhow (both label orders), so that a
            shift of the mean between them is no fault of its answers.

    The interval is that of the largest shift, over pictures. Interactions are compared as well;
    what they say of personas is judged by :func:`steering`.
    """
    (name, first), *rest = forms.items()
    compared = {other: compare_forms(first, ratings) for other, ratings in rest}
    # A constant judge is the same in every wording and says nothing.
    varies = bool(max(np.ptp(ratings) for ratings in forms.values()) > SEEN)
    counted = [other for other, _ in rest if other not in averaged]
    shifts = {
        other: forms[other].mean(0) - first.mean(0) for other in counted or [o for o, _ in rest]
    }
    largest = max(shifts, key=lambda other: abs(shifts[other].mean()))
    shift, low, high = mean_interval(shifts[largest])
    size = abs(shift) if counted else 0.0
    moved = graded(-size, -SHIFT_PASS, -SHIFT_WEAK)
    worst_r = min(compared, key=lambda other: compared[other]["pictures"])
    agree = Correlation(compared[worst_r]["pictures"], first.shape[1])
    outcome = worst(moved, agree.outcome(PICTURES_AGREE))
    says = (
        f"{largest} moves the mean by {shift:+.2f} of the scale; pictures keep their order by "
        f"r = {agree.value:.2f} at least ({worst_r})"
    )
    if moved != "pass":
        says += "; judge.both_orders averages a liking for a place in the list out"
    if not varies:
        outcome, says = "fail", "every question gets the same answer"
    return Finding(
        "order", outcome, says, what="largest shift of the mean rating between wordings",
        estimate=shift, low=low, high=high, over="pictures",
        threshold=f"pass up to {SHIFT_PASS:g} of the scale and r of pictures from "
        f"{PICTURES_AGREE:g}, weak up to {SHIFT_WEAK:g} and r above 0",
        questions=sum(ratings.size for ratings in forms.values()),
        measures={
            "compared with": name,
            "wordings": compared,
            "averaged": list(averaged),
            "mean rating": {other: float(r.mean()) for other, r in forms.items()},
            "variance shares": {other: variance_shares(r) for other, r in forms.items()},
        },
    )  # fmt: skip


def quality(judged: np.ndarray, human: np.ndarray) -> Finding:
    """Does the judge like what people like? Both [pictures]; Spearman's rank correlation."""
    if len(judged) < 4:
        return not_applicable(
            "quality", f"people scored {len(judged)} of the pictures; 4 are needed"
        )
    r = Correlation.of(stats.rankdata(judged), stats.rankdata(human))
    outcome = r.outcome(QUALITY)
    says = f"the judge's ranks of pictures and people's correlate by {r.value:.2f}"
    return Finding(
        "quality", outcome, says, what="rank correlation with people's scores",
        estimate=r.value, low=r.low, high=r.high, over="pictures",
        threshold=f"pass from {QUALITY:g}, weak where the interval is above 0",
        questions=len(judged),
    )  # fmt: skip


def persona(traits: np.ndarray, answers: np.ndarray, key: Key, people: People) -> Finding:
    """Does the judge answer a questionnaire as the personas that it was given?

    Args:
        traits: [personas, 5], as given.
        answers: [personas, items], from 1 to 5, as answered (not turned).
        key: of the items.
        people: what people's answers look like.

    The correlation that is judged is the mean over traits of that between a trait given and the
    score of the answers (convergent), by Fisher's z; it must be above those with the scores of
    other traits (discriminant), and scores must spread.
    """
    scores = score(answers, key)
    table = np.array(
        [[correlation(traits[:, i], scores[:, j]) for j in range(5)] for i in range(5)]
    )
    convergent = Correlation(np.diag(table), len(traits))
    others = float(np.abs(table[~np.eye(5, dtype=bool)]).mean())
    spread = scores.std(0, ddof=1)
    ratio = float((spread / people.sd).mean())
    outcome = convergent.outcome(CONVERGENT)
    apart = convergent.value - others
    if outcome == "pass" and (apart < APART or ratio < SPREAD):
        outcome = "weak"
    by_trait = ", ".join(f"{t} {r:.2f}" for t, r in zip(TRAITS, np.diag(table), strict=True))
    says = f"traits given and traits answered correlate by {convergent.value:.2f} ({by_trait})"
    if apart < APART:
        says += f", with other traits' answers by {others:.2f}"
    if ratio < SPREAD:
        says += f"; the answers spread {ratio:.2g} times as much as people's"
    agreeing = acquiescence(answers, key)
    return Finding(
        "persona", outcome, says, what="mean convergent correlation",
        estimate=convergent.value, low=convergent.low, high=convergent.high, over="personas",
        threshold=f"pass from {CONVERGENT:g} with {APART:g} above other traits and a spread from "
        f"{SPREAD:g} of people's, weak where the interval is above 0",
        questions=answers.size,
        measures={
            "personas": len(traits),
            "traits": list(TRAITS),
            "given x answered": table,
            "convergent": np.diag(table),
            "discriminant": others,
            "mean": scores.mean(0),
            "mean of people": people.mean,
            "sd": spread,
            "sd of people": people.sd,
            "sd of the personas": traits.std(0, ddof=1),
            "alpha": alpha(answers, key),
            "alpha of people": people.alpha,
            "acquiescence": float(agreeing.mean()),
            "acquiescence of people": people.acquiescence,
            "correlations": np.array(
                [[correlation(scores[:, i], scores[:, j]) for j in range(5)] for i in range(5)]
            ),
            "correlations of people": people.correlations,
        },
    )  # fmt: skip


def predicted_people(
    predicted: np.ndarray, given: np.ndarray, means: np.ndarray, people: People
) -> Finding:
    """Does the judge, told half of a person's answers as traits, know the other half?

    ``predicted`` and ``given``: [people, items] from 1 to 5; ``means`` [items] of many people,
    which is what always answering the mean would give. The interval is a bootstrap over people.
    """
    found = prediction(predicted, given, means)
    generator = np.random.default_rng(0)
    rows = generator.integers(len(given), size=(500, len(given)))
    skills, rs = np.array([prediction(predicted[row], given[row], means) for row in rows]).T
    low, high = np.quantile(rs, (0.025, 0.975))
    skill_low, skill_high = np.quantile(skills, (0.025, 0.975))
    outcome: Outcome = "fail" if not low > 0 else "pass" if skill_low > 0 else "weak"
    says = (
        f"predicted and given answers correlate by {found.r:.2f} beyond the items' means (people "
        f"from people: {people.prediction.r:.2f}); squared error {1 - found.skill:.2f} of always "
        "answering the mean"
    )
    return Finding(
        "prediction", outcome, says, what="correlation of answers predicted and given",
        estimate=found.r, low=float(low), high=float(high), over="people",
        threshold="pass where the error is below that of the mean, weak where the correlation is "
        "above 0",
        questions=predicted.size,
        measures={
            "people": len(given),
            "skill": found.skill,
            "skill interval": [float(skill_low), float(skill_high)],
            "skill of people from people": people.prediction.skill,
            "r of people from people": people.prediction.r,
        },
    )  # fmt: skip


def steering(
    forms: Mapping[str, np.ndarray],
    features: np.ndarray,
    signs: Mapping[tuple[str, str], int],
    names: Sequence[str],
) -> Finding:
    """What does each trait do to ratings: to their level, and to which pictures are liked?

    Args:
        forms: wording (or repeat) -> ratings [10, pictures] of personas that are average but for
            one trait: low O, high O, low C, ... high N.
        features: [pictures, F], what can be measured of the pictures.
        signs: (feature, trait) -> the published sign of their correlation.
        names: of the F features.

    Taste is what a trait does to one picture more than to others. It is judged by whether it comes
    back in another wording (correlation over traits and pictures, averaged over pairs of
    wordings): noise does not.
    """
    moves = np.stack([r[1::2] - r[::2] for r in forms.values()])  # [forms, 5, pictures]
    level = moves.mean(2)  # [forms, 5]
    taste = moves - level[..., None]
    pictures = moves.shape[-1]
    pairs = list(combinations(range(len(moves)), 2))
    again = Correlation(
        np.mean([correlation(taste[a], taste[b]) for a, b in pairs]) if pairs else 1.0,
        5 * (pictures - 1),
    )
    size = float(np.sqrt((taste.mean(0) ** 2).mean()))
    outcome: Outcome = again.outcome(STEERED) if size > SEEN else "fail"
    strength = float(np.abs(level.mean(0)).mean())
    says = (
        f"a trait's ends differ by {strength:.3f} of the scale in level and {size:.3f} in taste; "
        f"the taste comes back in another wording by r = {again.value:.2f}"
    )
    if not pairs:
        says = (
            f"a trait's ends differ by {strength:.3f} of the scale in level and {size:.3f} in "
            "taste; this judge answers alike however it is asked"
        )
    if outcome == "fail":
        says += ": what is personal in these ratings is noise"
    agree, known = _directions(moves.mean(0), features, signs, names)
    one_rating = float(np.mean([np.ptp(r, axis=0) < SEEN for r in forms.values()]))
    return Finding(
        "steering", outcome, says, what="correlation of taste between wordings",
        estimate=again.value, low=again.low if pairs else None, high=again.high if pairs else None,
        over="traits and pictures",
        threshold=f"pass from {STEERED:g}, weak where the interval is above 0",
        questions=sum(r.size for r in forms.values()),
        measures={
            "traits": list(TRAITS),
            "level": level.mean(0),
            "taste": np.sqrt((taste.mean(0) ** 2).mean(1)),
            "pictures with one rating for all": one_rating,
            "directions as published": agree,
            "directions compared": known,
            "wordings": list(forms),
        },
    )  # fmt: skip


def _directions(
    moves: np.ndarray,
    features: np.ndarray,
    signs: Mapping[tuple[str, str], int],
    names: Sequence[str],
) -> tuple[int, int]:
    """How many traits move ratings along a feature as published, and of how many."""
    agree = known = 0
    for (feature, trait), sign in signs.items():
        r = correlation(moves[TRAITS.index(trait)], features[:, list(names).index(feature)])
        known += r != 0
        agree += r * sign > 0
    return agree, known
