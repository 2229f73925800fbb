from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_log import made_log

from rlli_jax.errors import InputError
from rlli_jax.feedback import gain_of_personalising, interaction_test, log_from_frame

PEOPLE = Path(__file__).parents[3] / "shared" / "data" / "personality2018" / "logged.csv"


def test_without_an_interaction_alarms_come_at_the_announced_rate():
    alarms = [
        interaction_test(made_log(n=150, seed=s)[0], permutations=59, simulations=0).p <= 0.05
        for s in range(80)
    ]
    # 5 % of 80 are 4; 10 or more have a chance below 1 %.
    assert sum(alarms) <= 9


def test_an_interaction_is_found_with_the_power_that_was_announced_whatever_its_direction():
    found, announced = 0, []
    for seed in range(60):
        log, _ = made_log(n=150, seed=seed)
        context = log.context - log.context.mean(0)
        # The provider that is best already pleases those who have the trait: gains next to nothing.
        effect = context[:, :1] * np.array([[0.0, 0.0, 1.0]])
        effect -= effect.mean(1, keepdims=True)
        effect *= 0.025 / effect.std()
        reward = log.reward + effect[np.arange(150), log.action]
        changed = replace(log, reward=np.clip(reward, 0, 1))
        test = interaction_test(changed, size=0.025, permutations=59, simulations=25, seed=seed)
        found += test.p <= 0.05
        announced.append(test.power)
    assert 0.3 < np.mean(announced) < 0.8
    error = np.sqrt(0.25 / 60)
    assert abs(found / 60 - np.mean(announced)) < 3 * error


def test_what_an_interaction_gains_is_less_where_one_provider_is_far_better():
    log, _ = made_log(n=300)
    far = replace(log, reward=np.clip(log.reward + 0.3 * (log.action == 2), 0, 1))
    near, apart = (
        interaction_test(x, size=0.05, permutations=1, simulations=20) for x in (log, far)
    )
    assert near.gain > 2 * apart.gain
    assert near.power == pytest.approx(apart.power, abs=0.2)


def test_a_true_interaction_is_found_and_choosing_by_it_pays():
    log, mean = made_log(n=900, slope=0.2)
    assert interaction_test(log, permutations=99, simulations=0).p <= 0.01
    gain = gain_of_personalising(log)
    best = mean.max(1).mean() - mean.mean(0).max()
    assert gain.low > 0
    assert gain.low <= best <= gain.high + 0.02
    assert gain.advice.startswith("Choosing by persona pays")


def test_without_an_interaction_choosing_by_persona_gets_no_credit():
    gains = [gain_of_personalising(made_log(n=200, seed=s)[0]) for s in range(20)]
    assert np.mean([g.value for g in gains]) < 0.005
    assert sum(g.low > 0 for g in gains) <= 2


@pytest.mark.skipif(not PEOPLE.exists(), reason="the data of people are not beside the checkout")
@pytest.mark.parametrize(
    ("qoe", "f", "p"), [("enjoy_watching", 1.13, 0.26), ("is_personalized", 0.75, 0.89)]
)
def test_of_910_people_traits_do_not_decide_which_list_pleases(qoe, f, p):
    log = log_from_frame(
        pd.read_csv(PEOPLE), qoe=qoe, scale=(1, 5), context=list("OCEAN"), propensities="shares"
    )
    test = interaction_test(log, permutations=199, simulations=20)
    assert test.f == pytest.approx(f, abs=0.006)
    assert test.p == pytest.approx(p, abs=0.08)
    gain = gain_of_personalising(log)
    assert gain.low <= 0
    assert "best single provider" in gain.advice


def test_too_few_users_are_refused_in_one_sentence():
    log, _ = made_log(n=8)
    with pytest.raises(InputError, match="9 coefficients, but the log has 8 rounds of 8 users"):
        interaction_test(log)


def with_requests(n, taste, seed=0):
    """What pleases depends on the request and, by ``taste``, on the user's trait."""
    rng = np.random.default_rng(seed)
    trait = rng.standard_normal(n)
    request = rng.choice(["cat", "dog"], n)
    provider = rng.choice(["A", "B"], n)
    right = (request == "cat") == (provider == "A")
    liked = np.where(provider == "A", trait, -trait)
    qoe = 0.5 + np.where(right, 0.2, -0.2) + taste * liked + 0.05 * rng.standard_normal(n)
    frame = pd.DataFrame({"provider": provider, "request": request, "x": trait})
    frame["qoe"] = qoe.clip(0, 1)
    return log_from_frame(frame, qoe="qoe", scale=(0, 1), context=["x"], propensities="shares")


def test_what_depends_on_the_request_alone_is_no_gain_of_knowing_the_persona():
    log = with_requests(400, taste=0.0)
    assert interaction_test(log, permutations=99, simulations=0).p > 0.05
    gain = gain_of_personalising(log)
    assert gain.over == "best provider for each request"
    assert gain.low <= 0 <= gain.high + 1e-9
    assert gain.single > 0.65  # it does choose by request


def test_a_taste_is_found_beside_what_depends_on_the_request():
    log = with_requests(400, taste=0.15)
    assert interaction_test(log, permutations=99, simulations=0).p <= 0.01
    assert interaction_test(log, permutations=1, simulations=30, size=0.05).power > 0.9
