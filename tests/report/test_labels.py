"""Numbers and settings in words."""

from types import SimpleNamespace

import numpy as np
import pytest

from rlli_jax.report import labels
from rlli_jax.report.findings import share
from rlli_jax.report.labels import Setting
from rlli_jax.statistics import Estimate, bootstrap_iqm

NBSP, MINUS = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"


def estimate(*values):
    return Estimate(*map(np.asarray, values))


def test_estimates():
    assert labels.percent_interval(estimate(0.9941, 0.992, 0.996)) == f"99.4{NBSP}% (99.2–99.6)"
    assert labels.percent_interval(estimate(0.5, np.nan, np.nan)) == f"50.0{NBSP}%"
    gap = estimate(0.006, -0.001, 0.011)
    assert labels.points_interval(gap) == f"0.6 points ({MINUS}0.1 to 1.1)"
    assert labels.plus_minus(estimate(1234.5, 1234.0, 1235.0), 1) == "1,234.5 ± 0.5"
    assert labels.plus_minus(estimate(2.0, np.nan, np.nan), 2) == "2.00"
    assert labels.number(float("nan")) == "–"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.123, "0.12 s"), (12.34, "12.3 s"), (125.4, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds, words):
    assert labels.duration(seconds).replace(NBSP, " ") == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (999, "999"), (72_700, "72.7 k"), (1_234_000, "1.23 M"), (5e9, "5.00 G")],
)
def test_quantities(value, words):
    assert labels.quantity(value) == words.replace(" ", NBSP)


def test_digits_show_four_significant_ones():
    assert [labels.digits_for(x) for x in (0.0123, 3.5, 41.2, 123.0, 56_000.0, 0.0)] == [
        4, 3, 2, 1, 0, 1,
    ]  # fmt: skip


def test_settings_say_what_differs():
    paper = Setting("sequential", ("action", "reward"), 10)
    shared = Setting("shared", ("action", "reward", "persona"), 10)
    words = "Observing last action and reward (as in the paper)"
    assert labels.setting_words(paper, [paper]) == words
    assert labels.setting_words(shared, [paper, shared]) == (
        "Observing last action, reward and persona, one choice for all users"
    )
    assert labels.setting_words(Setting("joint", (), 5), [paper]) == "Observing nothing"


def test_conjunction_and_slug():
    assert [labels.conjunction(list(words)) for words in ("", "a", "ab", "abc")] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip
    assert labels.slug("curves/a b:c") == "curves-a-b-c"


def test_an_interval_of_a_share_of_the_optimum_ends_at_what_is_best_for_each_request():
    objective = np.array([0.99, 0.97, 1.0, 1.0, 0.9, 1.0])
    for bound in (1.0, 1.01):
        known = SimpleNamespace(optimum=1.0, optimum_per_request=bound)
        found = share(SimpleNamespace(reference=known), SimpleNamespace(objective=objective))
        assert bootstrap_iqm(objective).high > 1.01
        assert found.high == bound
