"""Judges whose faults are known get the right verdicts, draw after draw."""

from collections.abc import Callable

import numpy as np
import pytest

from rlli_jax.catalog.features import FEATURES
from rlli_jax.judges.examination import checks
from rlli_jax.judges.examination.verdicts import Finding
from rlli_jax.judges.psychometric import REPLICATED_SIGNS
from rlli_jax.personas import Population
from rlli_jax.personas.norms import pooled_norm
from rlli_jax.personas.psychometrics import people
from rlli_jax.personas.questionnaire import ipip50

DRAWS = 50
WORDINGS = ("worst first", "best first", "paraphrase")
PEOPLE, PICTURES = 12, 6
KEY = ipip50()


class World:
    """One draw: personas, pictures, and what a judge would say of them, noise included."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.features = self.random.standard_normal((PICTURES, len(FEATURES)))
        self.quality = self.random.standard_normal(PICTURES)
        self.weights = self.random.standard_normal((5, len(FEATURES))) / 5
        self.poles = np.zeros((10, 5))  # low O, high O, low C, ...
        self.poles[np.arange(10), np.arange(10) // 2] = np.tile([-2.0, 2.0], 5)
        self.people = np.array(
            Population.sample(PEOPLE, group="women 21-40", seed=seed).traits, np.float64
        )

    def _scaled(self, latent: np.ndarray, noise: float) -> np.ndarray:
        latent = latent + noise * self.random.standard_normal(latent.shape)
        return np.clip(0.5 + latent / 6, 0, 1)

    def perfect(self, wording: str) -> np.ndarray:
        """[10, pictures] of the stand-in's model with its default noise."""
        return self._scaled(self.quality + self.poles @ self.weights @ self.features.T, 0.3)

    def ignoring(self, wording: str) -> np.ndarray:
        """The same without the persona."""
        return self._scaled(np.tile(self.quality, (10, 1)), 0.3)

    def blind(self, wording: str) -> np.ndarray:
        """The persona alone counts, and some noise."""
        return self._scaled(np.tile(self.poles.sum(1)[:, None] / 2, (1, PICTURES)), 0.3)

    def constant(self, wording: str) -> np.ndarray:
        return np.full((10, PICTURES), 0.75)

    def first_label(self, wording: str) -> np.ndarray:
        """Says what stands first in the list, nearly always."""
        return self._scaled(np.full((10, PICTURES), 2.4 if wording == "best first" else -2.4), 0.3)

    def questionnaire(self, loading: float = 1.0) -> np.ndarray:
        """[people, 50] answers 1 to 5; a person's own with the noise of one item."""
        z = (self.people - pooled_norm().mean) / pooled_norm().sd
        level = np.where(KEY.reverse, -1, 1) * z[:, KEY.traits] * loading * 0.7
        answers = people().item_means + level + self.random.normal(size=level.shape)
        return np.clip(answers.round(), 1, 5)


def persona(world: World, answers: np.ndarray) -> Finding:
    return checks.persona(world.people, answers, KEY, people())


def sight(world: World, judge: Callable[[str], np.ndarray]) -> Finding:
    repeats = np.stack([judge("worst first") for _ in range(2)])
    return checks.sight(repeats, requests=[0, 0, 0, 1, 1, 1])


def order(world: World, judge: Callable[[str], np.ndarray]) -> Finding:
    return checks.order({wording: judge(wording) for wording in WORDINGS})


def steering(world: World, judge: Callable[[str], np.ndarray]) -> Finding:
    forms = {wording: judge(wording) for wording in WORDINGS}
    return checks.steering(forms, world.features, REPLICATED_SIGNS, FEATURES)


@pytest.fixture
def worlds():
    return [World(seed) for seed in range(DRAWS)]


@pytest.mark.parametrize(
    ("judge", "check", "right"),
    [
        ("perfect", sight, "pass"),
        ("perfect", order, "pass"),
        ("perfect", steering, "pass"),
        ("ignoring", sight, "pass"),
        ("ignoring", order, "pass"),
        ("ignoring", steering, "fail"),
        ("blind", sight, "fail"),
        ("blind", steering, "fail"),
        ("constant", sight, "fail"),
        ("constant", order, "fail"),
        ("constant", steering, "fail"),
        ("first_label", sight, "fail"),
        ("first_label", order, "fail"),
        ("first_label", steering, "fail"),
    ],
)
def test_verdicts_on_ratings_are_right_in_95_of_100_draws(worlds, judge, check, right):
    found = [check(world, getattr(world, judge)).outcome for world in worlds]
    assert sum(outcome != right for outcome in found) <= 0.05 * DRAWS, found


@pytest.mark.parametrize(
    ("loading", "right"), [(1.0, "pass"), (0.0, "fail")], ids=["perfect", "ignores the persona"]
)
def test_verdicts_on_the_questionnaire_are_right_in_95_of_100_draws(worlds, loading, right):
    found = [persona(world, world.questionnaire(loading)).outcome for world in worlds]
    assert sum(outcome != right for outcome in found) <= 0.05 * DRAWS, found


def test_intervals_of_the_convergent_correlation_cover_it():
    """Over many draws of personas and answers, as often as they claim."""
    found = [persona(world, world.questionnaire(0.3)) for world in map(World, range(100))]
    truth = np.tanh(np.mean([np.arctanh(f.estimate) for f in found]))
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.87 <= covered <= 1.0


def test_a_judge_that_agrees_with_everything_is_no_persona():
    """Like a small model: plus and minus items get the same answer, which hardly moves."""
    world = World(1)
    z = world.people[:, :1] - 3
    answers = 3.7 + 0.01 * z * np.ones(50)
    found = persona(world, answers)
    assert found.outcome != "pass"
    assert found.measures["acquiescence"] == pytest.approx(0.7, abs=0.05)


def test_a_general_liking_for_high_traits_is_told_from_a_persona():
    """One factor moves all answers: convergent correlations without discriminant ones."""
    world = World(2)
    z = (world.people - world.people.mean(0)) / world.people.std(0)
    halo = z.mean(1)[:, None] * np.where(KEY.reverse, -1, 1)
    found = persona(world, np.clip(3 + halo, 1, 5))
    assert found.outcome != "pass"
    assert "other traits" in found.says


def test_equal_answers_to_six_questions_are_blindness():
    found = checks.sight(np.full((1, 2, 3), 0.4), requests=[0, 0, 0])
    assert (found.outcome, found.questions) == ("fail", 6)
    ratings = np.array([[0.4, 0.5, 0.2], [0.4, 0.4, 0.2]])
    assert checks.sight(ratings[None], requests=[0, 0, 0]).outcome == "pass"
    rounding = 0.4 + 1e-4 * np.arange(6).reshape(2, 3)  # a server's kernels
    assert checks.sight(rounding[None], requests=[0, 0, 0]).outcome == "fail"


def test_mass_beside_the_labels_names_what_is_said_instead():
    masses = np.full(6, 0.016)
    others = {"As": 0.4, "The": 0.3}
    found = checks.scale(masses, others, min_valid_mass=0.5, helps="try digits")
    assert found.outcome == "fail"
    assert "'As' (0.4), 'The' (0.3)" in found.says
    assert found.says.endswith("try digits")
    assert checks.scale(np.full(6, 0.96), {}, min_valid_mass=0.5, helps="").outcome == "pass"
    assert checks.scale(np.full(6, 0.6), {}, min_valid_mass=0.5, helps="x").outcome == "weak"
    assert checks.scale(np.full(6, 0.6), {}, min_valid_mass=0.7, helps="x").outcome == "fail"


def test_healthy_variance_shares_do_not_hide_an_order_that_turns_the_rating():
    """As a small model did: the mean goes from 2.0 to 4.9 of 5, the interaction is another one."""
    random = np.random.default_rng(0)

    def ratings(mean: float) -> np.ndarray:
        persons, pictures = random.normal(0, 0.05, (10, 1)), random.normal(0, 0.05, (1, 6))
        return mean + persons + pictures + random.normal(0, 0.04, (10, 6))

    found = checks.order({"worst first": ratings(0.255), "best first": ratings(0.9)})
    assert found.outcome == "fail"
    assert found.measures["variance shares"]["worst first"]["interaction"] > 0.1
    averaged = checks.order(
        {"worst first": ratings(0.255), "best first": ratings(0.9)}, averaged=["best first"]
    )
    assert averaged.estimate == pytest.approx(0.645, abs=0.1)


def test_quality_is_agreement_with_people_beyond_chance():
    random = np.random.default_rng(0)
    human = random.normal(size=40)
    assert checks.quality(human + 0.5 * random.normal(size=40), human).outcome == "pass"
    assert checks.quality(random.normal(size=40), human).outcome == "fail"
    assert checks.quality(human[:3], human[:3]).outcome == "not applicable"


def test_prediction_is_held_against_always_answering_the_mean():
    random = np.random.default_rng(0)
    means = np.full(25, 3.0)
    persons = random.normal(size=(20, 25))
    knowing = checks.predicted_people(means + 0.3 * persons, means + persons, means, people())
    assert knowing.outcome == "pass"
    chance = checks.predicted_people(
        means + random.normal(size=(20, 25)), means + persons, means, people()
    )
    assert chance.outcome == "fail"
    assert chance.measures["skill"] < 0
    loud = checks.predicted_people(means + 3 * persons, means + persons, means, people())
    assert loud.outcome == "weak"  # right in direction, worse than the mean in size


def test_a_finding_is_plain_json():
    import json

    from rlli_jax.run_files.examination import Examination

    world = World(0)
    findings = (steering(world, world.perfect), persona(world, world.questionnaire()))
    kept = Examination(judge="made up", stand_in=True, wording="full", findings=findings)
    json.dumps(kept.model_dump(mode="json"), allow_nan=False)
