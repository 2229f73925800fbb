"""Is personalising worth it by a table in which everybody was served by every provider?"""

import numpy as np
import pytest

from rlli_jax.feedback.of_table import log_of_table, personalising
from rlli_jax.qoe import QoETable


def table(seed, slope, users=60):
    rng = np.random.default_rng(seed)
    traits = rng.uniform(1, 5, (users, 5))
    qoe = (
        0.5
        + slope * np.outer(traits[:, 0] - 3, [1, 0, -1])
        + 0.02 * rng.standard_normal((users, 3))
    )
    return QoETable.from_array(qoe.clip(0, 1)[:, None]), traits


def test_weighted_means_are_the_values_of_the_table():
    made, traits = table(0, 0.1)
    log = log_of_table(made, traits)
    assert (len(log), log.users) == (180, 60)
    for place in range(3):
        always = (log.action == place) / log.propensity
        expected = made.provider_values[:, place].mean()
        assert (always * log.reward).mean() == pytest.approx(expected)


def test_tastes_are_found_and_their_gain_is_that_of_the_table():
    made, traits = table(1, 0.1)
    found = personalising(made, traits)
    values = made.provider_values
    possible = values.max(1).mean() - values.mean(0).max()
    assert found.gain.value == pytest.approx(possible, abs=0.02)
    assert found.interaction.p <= 0.01
    assert found.advice.startswith("Choosing by persona pays")


def test_without_tastes_none_are_found_and_few_users_are_told():
    found = personalising(*table(2, 0.0))
    assert abs(found.gain.value) < 0.01
    assert not found.advice.startswith("Choosing by persona pays")
    few = personalising(*table(3, 0.1, users=4))
    assert few.gain is None
    assert few.why == "4 users are too few; at least 5 are needed"
    some = personalising(*table(3, 0.1, users=5))
    assert some.gain.users == 5
    assert some.interaction is None
    assert "the test has" in some.why
