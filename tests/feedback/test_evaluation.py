"""Logs whose truth is known: made ones, digits turned into a log, and a shop's two policies."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_log import made_log
from sklearn.datasets import load_digits

from rlli_jax.errors import InputError
from rlli_jax.feedback import Log, baselines, cross_fitted, log_from_frame, value_policies
from rlli_jax.feedback.evaluation import greedy
from rlli_jax.feedback.overlap import choose_estimator

BANDIT = Path(__file__).parents[3] / "shared" / "data" / "open_bandit"


def test_the_value_of_a_policy_that_never_served_is_found_and_its_interval_covers_it():
    covered, errors = 0, []
    for seed in range(24):
        log, mean = made_log(seed=seed, logging=[0.6, 0.3, 0.1])
        always_c = np.tile([0.0, 0.0, 1.0], (len(log), 1))
        (valued,) = value_policies(log, {"C": always_c}, draws=200)
        truth = float(mean[:, 2].mean())
        errors.append(valued.estimates["doubly robust"].value - truth)
        covered += valued.best.low <= truth <= valued.best.high
        assert valued.safe.low <= truth <= valued.safe.high
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(24)
    assert covered >= 20  # of 24; 23 are expected


def test_a_policy_whose_choices_the_log_never_made_is_flagged():
    log, _ = made_log(logging=[0.5, 0.5, 0.0])
    always_c = np.tile([0.0, 0.0, 1.0], (len(log), 1))
    (valued,) = value_policies(log, {"C": always_c}, draws=50)
    assert valued.overlap.support == 0
    assert "0% of this policy's choices" in valued.warning


def test_the_rules_that_choose_an_estimator():
    assert choose_estimator(500, 1_000) == "doubly robust"
    assert choose_estimator(60, 1_000) == "self-normalised doubly robust"


def test_the_best_single_provider_gets_no_credit_for_having_been_chosen_on_the_same_rounds():
    # All providers are equal: the winner of the same rounds would look better than it is.
    gains = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = 120
        log = Log(
            providers=tuple("ABCDEFGH"), action=rng.integers(8, size=n),
            reward=rng.uniform(size=n), propensity=np.full(n, 1 / 8),
            context=rng.standard_normal((n, 1)), context_names=("x",), user=np.arange(n),
            offered=np.ones((n, 8), bool),
        )  # fmt: skip
        policies = baselines(log)
        weight = policies["best single provider"][np.arange(n), log.action] * 8
        gains.append((weight * log.reward).sum() / max(weight.sum(), 1) - 0.5)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(30)


def test_digits_turned_into_a_log_give_the_accuracy_of_a_classifier():
    """Dudik, Langford & Li 2011, Section 4: the label is the only action that pays."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    n, actions = len(digits.target), 10
    context = digits.data[:, rng.permutation(64)[:12]]
    guess = np.where(rng.uniform(size=n) < 0.7, digits.target, rng.integers(actions, size=n))
    truth = float((guess == digits.target).mean())
    action = rng.integers(actions, size=n)
    log = Log(
        providers=tuple(map(str, range(actions))), action=action,
        reward=(action == digits.target).astype(float), propensity=np.full(n, 1 / actions),
        context=context, context_names=tuple(map(str, range(12))), user=np.arange(n),
        offered=np.ones((n, actions), bool),
    )  # fmt: skip
    (valued,) = value_policies(log, {"classifier": np.eye(actions)[guess]}, draws=200)
    for name in ("IPS", "self-normalised IPS", "doubly robust", "self-normalised doubly robust"):
        estimate = valued.estimates[name]
        assert abs(estimate.value - truth) < 0.08, name
        assert estimate.low <= truth <= estimate.high, name


def bandit_log(name):
    frame = pd.read_csv(BANDIT / name)
    # What a policy shows depends on the place on the page; the shop's items are the providers.
    action = frame.item_id.to_numpy()
    return frame, Log(
        providers=tuple(map(str, range(34))), action=action, reward=frame.click.to_numpy(float),
        propensity=frame.propensity_score.to_numpy(),
        context=np.eye(3)[frame.position.to_numpy() - 1], context_names=("1", "2", "3"),
        user=np.arange(len(frame)), offered=np.ones((len(frame), 34), bool),
    )  # fmt: skip


@pytest.mark.skipif(not BANDIT.exists(), reason="the Open Bandit data are not beside the checkout")
def test_open_bandit_each_policy_valued_by_the_log_of_the_other():
    uniform_frame, uniform = bandit_log("random_men.csv")
    sampling_frame, sampling = bandit_log("bts_men.csv")
    share = np.zeros((3, 34))
    np.add.at(share, (sampling_frame.position - 1, sampling_frame.item_id), 1)
    share /= share.sum(1, keepdims=True)
    thompson = share[uniform_frame.position.to_numpy() - 1]
    (valued,) = value_policies(uniform, {"Thompson sampling": thompson}, draws=100)
    assert valued.estimates["IPS"].value == pytest.approx(0.0057, abs=5e-5)
    assert valued.estimates["self-normalised IPS"].value == pytest.approx(0.0057, abs=1e-4)
    assert valued.overlap.effective_sample == pytest.approx(2_869, abs=30)
    assert valued.best.low <= 0.0069 <= valued.best.high  # on its own log
    (other,) = value_policies(sampling, {"uniform": np.full((10_000, 34), 1 / 34)}, draws=100)
    assert other.estimates["IPS"].value == pytest.approx(0.0030, abs=5e-5)
    assert other.overlap.effective_sample == pytest.approx(656, abs=10)
    assert other.chosen == "self-normalised doubly robust"
    # Only the second direction has poor overlap, and is flagged for it.
    assert valued.warning == ""
    assert other.warning.startswith("poor overlap: 47% of this policy's choices")
    assert "a uniformly random log would need 6.6% of the rounds" in other.warning


def test_greedy_shares_ties_and_chooses_only_what_was_offered():
    offered = np.array([[True, True, True], [False, True, True]])
    score = np.array([[1.0, 1.0, 0.0], [9.0, 0.0, 1.0]])
    assert greedy(score, offered).tolist() == [[0.5, 0.5, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": [0.5, 0.0, 0.5]}, "row 2 of the log: propensity is 0.0"),
        ({"qoe": [1, 9, 3]}, "row 2 of the log: QoE is 2.0"),
        ({"provider": ["A", "B", "Z"]}, "provider 'Z', which is none of A, B"),
        ({"offered": ["A;B", "A", "A;B"]}, "the chosen provider is 1, it must be one of those"),
    ],
)
def test_a_log_that_cannot_be_right_is_refused_in_one_sentence(change, message):
    columns = {"user": [1, 2, 3], "provider": ["A", "B", "A"], "p": [0.5] * 3, "qoe": [1, 2, 3]}
    frame = pd.DataFrame(columns | change)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        log_from_frame(
            frame, qoe="qoe", scale=(1, 5), context=[], columns={"propensity": "p"},
            providers=("A", "B"),
        )  # fmt: skip


def test_rounds_without_an_answer_are_left_out_and_counted_not_zero():
    frame = pd.DataFrame(
        {"user": [1, 2, 3, 4], "provider": list("ABAB"), "qoe": [1, None, 5, "n/a"]}
    )
    log = log_from_frame(frame, qoe="qoe", scale=(1, 5), context=[], propensities="shares")
    assert log.reward.tolist() == [0, 1]
    assert log.notes == ("2 of 4 rounds have no qoe and are left out",)


def test_propensities_are_asked_for_where_the_log_has_none():
    frame = pd.DataFrame({"provider": list("ABAB"), "qoe": [1, 2, 3, 4]})
    with pytest.raises(InputError, match="say where probabilities come from"):
        log_from_frame(frame, qoe="qoe", scale=(1, 5), context=[])


def test_estimated_propensities_follow_what_the_log_did():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(2_000)
    p = 1 / (1 + np.exp(-x))
    frame = pd.DataFrame(
        {"provider": np.where(rng.uniform(size=2_000) < p, "A", "B"), "x": x, "qoe": 3}
    )
    log = log_from_frame(frame, qoe="qoe", scale=(1, 5), context=["x"], propensities="estimate")
    chosen = np.where(frame.provider == "A", p, 1 - p)
    assert np.abs(log.propensity - chosen).mean() < 0.02
    assert "estimated" in log.propensities


def test_models_of_the_reward_never_see_the_user_they_are_used_on():
    log, _ = made_log(n=200, users=20)
    q = cross_fitted(log)
    changed = np.where(log.user == 3, 1.0, log.reward)
    other = cross_fitted(Log(**{**log.__dict__, "reward": changed}))
    assert np.array_equal(q[log.user == 3], other[log.user == 3])
    assert not np.array_equal(q, other)


def test_a_log_of_too_few_users_is_refused_in_one_sentence():
    log, _ = made_log(n=60, users=1)
    with pytest.raises(InputError, match="the log is of 1 user; values of policies need at least"):
        cross_fitted(log)
    log, _ = made_log(n=60, users=4)
    with pytest.raises(InputError, match="the log is of 4 users"):
        value_policies(log, {"random": log.offered / 3}, q=np.zeros((60, 3)))


def test_cells_without_a_name_are_refused_with_their_row():
    frame = pd.DataFrame({"user": [1, 2, 3], "provider": ["A", None, "B"], "qoe": [1, 2, 3]})
    with pytest.raises(InputError, match="row 2 of the log: column 'provider' is empty"):
        log_from_frame(frame, qoe="qoe", scale=(1, 5), context=[], propensities="shares")


def test_rows_are_named_as_the_file_has_them_where_others_are_left_out():
    frame = pd.DataFrame(
        {"provider": list("ABAB"), "propensity": [0.5, 0.5, 0.5, 0], "qoe": [None, 2, 3, 4]}
    )
    with pytest.raises(InputError, match=r"row 4 of the log: propensity is 0\.0"):
        log_from_frame(frame, qoe="qoe", scale=(1, 5), context=[])


def test_equal_rows_are_copies_only_where_the_time_tells():
    row = {"user": 1, "provider": "A", "qoe": 3}
    frame = pd.DataFrame([row, row, row | {"provider": "B"}])
    read = {"qoe": "qoe", "scale": (1, 5), "context": [], "propensities": "shares"}
    assert len(log_from_frame(frame, **read)) == 3
    assert len(log_from_frame(frame.assign(time="noon"), **read)) == 2
