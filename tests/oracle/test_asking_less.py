"""Asking in rounds: the budget, the tolerance, refusals, and the same questions again."""

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.oracle.asking_less import AskLess, ask_less
from rlli_jax.personas import Population
from rlli_jax.qoe.model import persona_features

SHAPE = (60, 3, 4)
OFFERED = np.ones(SHAPE, bool)


@pytest.fixture(scope="module")
def traits():
    return Population.sample(SHAPE[0], group="women 21-40", seed=3).traits


@pytest.fixture(scope="module")
def answers(traits):
    rng = np.random.default_rng(0)
    slopes = rng.normal(0, 0.06, (3, 4, 5))
    truth = 0.5 + np.einsum("kf,rlf->krl", persona_features(traits, 60)[:, 1:6], slopes)
    return np.clip(truth + rng.normal(0, 0.05, SHAPE), 0, 1)


class Judge:
    """Looks answers up, and remembers what it was asked."""

    def __init__(self, answers, stop_after=None):
        self.answers, self.asked, self.left = answers.reshape(-1), [], stop_after

    def __call__(self, places):
        if self.left is not None:
            self.left -= len(places)
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += places.tolist()
        return self.answers[places]


def test_no_more_than_the_budget_is_asked_and_nothing_twice(answers, traits):
    judge = Judge(answers)
    asked = ask_less(judge, OFFERED, traits, AskLess(53))
    assert len(judge.asked) == len(set(judge.asked)) == 53
    assert np.isfinite(asked.answers).sum() == 53
    assert asked.stopped == "the share is used up"


def test_asking_stops_when_choices_are_sure(answers, traits):
    rounds = []
    plan = AskLess(700, tolerance=0.004)
    asked = ask_less(Judge(answers), OFFERED, traits, plan, after=rounds.append)
    assert asked.stopped == "choices are sure enough"
    assert rounds[-1].asked < 700
    assert rounds[-1].expected.regret < 0.004 <= rounds[-2].expected.regret


def test_an_interrupted_inquiry_asks_the_same_questions_again(answers, traits):
    plan = AskLess(60)
    whole = Judge(answers)
    table = ask_less(whole, OFFERED, traits, plan).answers
    killed = Judge(answers, stop_after=40)
    with pytest.raises(KeyboardInterrupt):
        ask_less(killed, OFFERED, traits, plan)
    again = Judge(answers)
    np.testing.assert_array_equal(ask_less(again, OFFERED, traits, plan).answers, table)
    assert again.asked == whole.asked
    assert killed.asked == whole.asked[: len(killed.asked)]


def test_a_judge_that_refuses_half_is_less_sure(answers, traits):
    full, half = [], []
    for seed in range(3):
        refusing = np.where(np.random.default_rng(seed).random(SHAPE) < 0.5, answers, np.nan)
        full.append(ask_less(Judge(answers), OFFERED, traits, AskLess(60, seed=seed)))
        half.append(ask_less(Judge(refusing), OFFERED, traits, AskLess(60, seed=seed)))
        assert np.isfinite(half[-1].answers).sum() < 45
    less, more = (np.mean([a.expected.regret for a in group]) for group in (full, half))
    assert more > 1.2 * less
    less, more = (np.mean([a.model.users().sd.mean() for a in group]) for group in (full, half))
    assert more > 1.05 * less


def test_a_judge_that_refuses_everything_is_one_sentence(answers, traits):
    with pytest.raises(InputError, match="0 answers are too few"):
        ask_less(Judge(answers * np.nan), OFFERED, traits, AskLess(50))


def test_what_makes_no_sense_is_refused(traits):
    with pytest.raises(InputError, match="asking about 7 of 720 cells is too little"):
        ask_less(Judge(np.zeros(SHAPE)), OFFERED, traits, AskLess(7))
    with pytest.raises(InputError, match="one provider there is nothing to decide"):
        ask_less(Judge(np.zeros(SHAPE)), OFFERED[..., :1], traits, AskLess(20))


def test_intervals_are_checked_on_questions_drawn_at_random(answers, traits):
    asked = ask_less(Judge(answers), OFFERED, traits, AskLess(400))
    assert asked.checks == 20
    assert asked.covered >= 14
    assert asked.asked.sum() == np.isfinite(asked.answers).sum() == 400
