"""The service as others meet it: what it answers, what it refuses, what it has kept."""

import dataclasses
import json
import threading
import time
from collections import Counter

import numpy as np
import pytest
from made_service import PERSONA, made_app, policy
from scipy import stats
from starlette.testclient import TestClient

from rlli_jax.errors import InputError
from rlli_jax.service import (
    Arm,
    Epsilon,
    Softmax,
    Thompson,
    open_decisions,
    parse_rule,
    read_decisions,
)
from rlli_jax.service.exploration import Preferred
from rlli_jax.service.limits import Buckets
from rlli_jax.service.selecting import Selector, Wish


def service(folder, **options):
    return TestClient(made_app(folder / "log.sqlite", **options))


@pytest.fixture
def client(tmp_path):
    with service(tmp_path) as client:
        yield client


def test_a_decision_is_answered_logged_rated_and_read_back(client, tmp_path):
    body = {"persona": PERSONA, "user": "zoe", "request": "a cat", "offered": ["oil", "wax"]}
    answer = client.post("/v1/select", json=body)
    assert answer.status_code == 200
    decision = answer.json()
    assert decision["provider"] in ("oil", "wax")
    assert decision["propensity"] == pytest.approx(0.85 if decision["provider"] == "oil" else 0.15)
    rated = {"id": decision["id"], "qoe": 4}
    assert client.post("/v1/feedback", json=rated).json() == {"status": "kept"}
    assert client.post("/v1/feedback", json=rated).status_code == 200  # sent again: no change
    frame, _ = read_decisions(f"sqlite:///{tmp_path / 'log.sqlite'}")
    (row,) = frame.to_dict("records")
    expected = body | {"provider": decision["provider"], "qoe": 4, "offered": "oil;wax"}
    assert {name: row[name] for name in ("user", "request", "provider", "qoe", "offered")} == {
        name: expected[name] for name in ("user", "request", "provider", "qoe", "offered")
    }
    assert [row[trait] for trait in "OCEAN"] == PERSONA
    assert row["propensity"] == decision["propensity"]
    summary = client.get("/v1/summary").json()
    assert (summary["decisions"], summary["ratings"]) == (1, 1)
    assert 'rlli_ratings_total{policy="open"' in client.get("/metrics").text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/select", "/v1/feedback", "/v1/policies"} <= paths.keys()
    select = paths["/v1/select"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(select["properties"]) == {"persona", "user", "request", "offered"}


def bad(path="/v1/select", status=422, says="", method="POST", **body):
    return pytest.param(method, path, body.pop("raw", body), status, says, id=says)


FEEDBACK = "/v1/feedback"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        bad(raw=b"persona=1", status=400, says="the body must be a JSON object"),
        bad(raw=b"", status=400, says="the body must be a JSON object in UTF-8."),
        bad(raw=b"[1, 2]", status=400, says="must be a JSON object in"),
        bad(raw=b'{"user": "\xff"}', status=400, says="in UTF-8"),
        bad(says="give persona (five numbers from 1 to 5), user, or both."),
        bad(persona=[1, 2, 3, 4], says="persona: list should have at least 5 items"),
        bad(persona=[1, 2, 3, 4, 5, 1], says="persona: list should have at most 5 items"),
        bad(persona=[1, 2, 3, 4, 5.1], says="persona.4: must be less than or equal to 5"),
        bad(persona=[1, 2, 3, 4, "5"], says="persona.4: must be a valid number"),
        bad(persona=[1, 2, 3, 4, None], says="persona.4: must be a valid number (given: null)"),
        bad(raw=b'{"persona": [1, 2, 3, 4, NaN]}', says="persona.4: must be a finite number"),
        bad(persona="open", says="persona: must be a valid array"),
        bad(user="zoe", says="nothing is known of user 'zoe'"),
        bad(user="", says="user: string should have at least 1 character"),
        bad(user="x" * 501, says="user: string should have at most 500 characters"),
        bad(user="ann", request=7, says="request: must be a valid string"),
        bad(user="ann", offered=[], says="offered: list should have at least 1 item"),
        bad(user="ann", offered=["gold"], says="offered: 'gold' is no provider; there are ink"),
        bad(user="ann", offered=["ink", "ink"], says="offered: 'ink' stands there twice"),
        bad(user="ann", usr="x", says="usr: unknown key"),
        bad(user="ann", request="x" * 20_000, status=413, says="the body is larger than 16,384"),
        bad(FEEDBACK, id="0" * 32, qoe=3, status=404, says="there is no decision 000"),
        bad(FEEDBACK, id="1; DROP TABLE", qoe=3, says="id: string should match pattern"),
        bad(FEEDBACK, id="0" * 32, qoe=6, says="qoe: must be on the scale from 1 to 5"),
        bad(FEEDBACK, id="0" * 32, qoe=True, says="qoe: must be a valid number (given: true)"),
        bad(FEEDBACK, id="0" * 32, says="qoe: this key is missing"),
        bad("/v1/chose", status=404, says="there is no /v1/chose"),
        bad(method="GET", status=405, says="/v1/select does not take GET"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_one_sentence(client, method, path, body, status, says):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.request(method, path, content=content)
    assert answer.status_code == status, answer.text
    (sentence,) = answer.json().values()
    assert says in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert client.get("/v1/summary").json()["decisions"] == 0


def test_a_second_other_rating_is_refused_and_the_first_stays(client):
    made = client.post("/v1/select", json={"user": "ann"}).json()["id"]
    assert client.post(FEEDBACK, json={"id": made, "qoe": 4}).status_code == 200
    answer = client.post(FEEDBACK, json={"id": made, "qoe": 2})
    assert answer.status_code == 409
    assert "was rated 4 already" in answer.json()["detail"]
    assert client.get("/v1/summary").json()["policies"][0]["qoe"] == 4


def test_without_the_key_nothing_is_decided_or_shown(tmp_path):
    with service(tmp_path, key="sesame") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}):
            answer = client.post("/v1/select", json={"user": "ann"}, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["detail"].startswith("the key is missing or wrong")
            assert client.get("/v1/summary", headers=headers).status_code == 401
        good = {"Authorization": "Bearer sesame"}
        assert client.post("/v1/select", json={"user": "ann"}, headers=good).status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}
        assert "sesame" not in client.get("/").text + client.get("/metrics").text


def test_too_many_requests_are_refused_and_the_rate_comes_back_with_time(tmp_path):
    with service(tmp_path, rate=3) as client:
        codes = [client.post("/v1/select", json={"user": "ann"}).status_code for _ in range(6)]
        assert codes[:3] == [200] * 3
        assert codes[-1] == 429
    clock = [0.0]
    buckets = Buckets(2.0, lambda: clock[0])
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    assert buckets.take("b")
    clock[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [True, False]


def test_propensities_are_the_frequencies_of_what_is_chosen():
    """Two policies share the decisions; providers stand in another order in the second."""
    arms = [Arm(policy(), 0.7), Arm(policy("other", ("wax", "ink", "oil"), best="oil"), 0.3)]
    for rule in (Epsilon(0.2), Softmax(0.2), Thompson(200)):
        selector = Selector(arms, rule, seed=1)
        wish = Wish(None, (5.0, 3.0, 3.0, 3.0, 3.0), None, np.array([True, True, False]), "ink;oil")
        rows = [row for _ in range(120) for row in selector.decide([wish] * 100)]
        told = {row["provider"]: row["propensity"] for row in rows}
        assert sum(told.values()) == pytest.approx(1)
        for provider, count in Counter(row["provider"] for row in rows).items():
            spread = (told[provider] * (1 - told[provider]) / len(rows)) ** 0.5
            assert abs(count / len(rows) - told[provider]) < 4 * spread
        drawn = Counter(row["policy"] for row in rows)["other"] / len(rows)
        assert drawn == pytest.approx(0.3, abs=0.02)
    assert told.keys() == {"ink", "oil"}


def test_rules_of_exploration_are_exact_and_never_choose_what_is_not_offered():
    offered = np.array([[True, True, False], [True, True, True]])
    predicted = np.array([[0.5, 0.6, 0.9], [0.1, 0.1, 0.1]])
    preferred = Preferred(np.array([1, 2]), predicted)
    epsilon = Epsilon(0.3).probabilities(preferred, offered)
    np.testing.assert_allclose(epsilon, [[0.15, 0.85, 0], [0.1, 0.1, 0.8]])
    softmax = Softmax(0.1).probabilities(preferred, offered)
    likelier = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(softmax, [[1 - likelier, likelier, 0], [1 / 3] * 3])
    assert parse_rule("softmax=0.05") == Softmax(0.05)
    assert parse_rule("thompson=500") == Thompson(500)
    bad = "epsilon", "epsilon=2", "softmax=0", "greedy=1", "epsilon=nan", "thompson=2.5"
    for text in (*bad, "thompson=1", "thompson=inf"):
        with pytest.raises(InputError, match="write epsilon=SHARE"):
            parse_rule(text)


def test_thompson_gives_each_provider_the_probability_that_it_is_the_best_by_the_belief():
    covariance = np.array([[0.04, 0.03, 0], [0.03, 0.09, 0], [0, 0, 0.25]])
    predicted, offered = np.array([[0.5, 0.4, 0.1]]), np.array([[True, True, False]])
    preferred = Preferred(np.array([0]), predicted, covariance[None])
    rule = Thompson(2_000)
    told = rule.probabilities(preferred, offered)
    # The difference of the two is normal with variance .04 + .09 - 2 x .03.
    better = stats.norm.cdf(0.1 / np.sqrt(0.07))
    assert told[0] == pytest.approx([better, 1 - better, 0], abs=0.02)
    assert told.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(told, rule.probabilities(preferred, offered))  # fixed draws
    # Who is sure still gives each one offered a vote, and shares of batches are those alone.
    sure = Preferred(np.array([0]), predicted, np.zeros((1, 3, 3)))
    np.testing.assert_allclose(rule.probabilities(sure, offered)[0], [2001 / 2002, 1 / 2002, 0])
    both = Preferred(np.zeros(2, int), np.repeat(predicted, 2, 0), np.stack([covariance] * 2))
    np.testing.assert_array_equal(rule.probabilities(both, np.repeat(offered, 2, 0))[1], told[0])


def test_thompson_is_refused_where_nothing_tells_how_sure_predictions_are():
    unsure = dataclasses.replace(policy(), belief=None)
    with pytest.raises(InputError, match="no model of QoE says how sure it is"):
        Selector([Arm(unsure, 1.0)], Thompson(100))


def test_new_policies_come_into_force_while_others_serve(tmp_path):
    def load(run, name):
        if run == "gone":
            raise InputError("gone is not a run directory that can be read.")
        time.sleep(0.3)
        return policy(name, best="wax")

    with service(tmp_path, rule=Epsilon(0), load=load) as client:
        stop, seen = threading.Event(), []

        def ask():
            while not stop.is_set():
                answer = client.post("/v1/select", json={"user": "ann"})
                seen.append((answer.status_code, answer.json().get("provider")))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wanted = {"policies": [{"run": "x", "policy": "new"}]}
            answer = client.put("/v1/policies", json=wanted)
            assert answer.json()["policies"][0]["policy"] == "new"
            time.sleep(0.1)
        finally:
            stop.set()
            asking.join()
        providers = [provider for _, provider in seen]
        assert {status for status, _ in seen} == {200}
        assert providers[0] == "ink"
        assert providers[-1] == "wax"
        assert providers == sorted(providers)  # ink, ink, ..., wax, wax: one change, no gap
        refused = client.put("/v1/policies", json={"policies": [{"run": "gone"}]})
        assert (refused.status_code, refused.json()["detail"][:4]) == (422, "gone")
        half = {"policies": [{"run": "x", "policy": "new", "share": 0.5}]}
        assert "sum to 1" in client.put("/v1/policies", json=half).json()["detail"]
        assert client.post("/v1/select", json={"user": "ann"}).json()["provider"] == "wax"


def test_policies_of_other_providers_are_not_served_together():
    with pytest.raises(InputError, match="serve policies of the same providers"):
        Selector([Arm(policy(), 0.5), Arm(policy("b", ("ink", "oil")), 0.5)], Epsilon(0.1))
    with pytest.raises(InputError, match="semicolon"):
        Selector([Arm(policy("b", ("a;b", "c", "d")), 1.0)], Epsilon(0.1))


def test_a_log_that_cannot_be_written_is_said_and_the_service_goes_on(tmp_path):
    with service(tmp_path) as client:
        log = client.app._app._app.state.batches._decisions._connection.connection
        log.driver_connection.execute("PRAGMA max_page_count = 1")
        asked = {"user": "x" * 400, "persona": PERSONA}
        codes = [client.post("/v1/select", json=asked) for _ in range(60)]
        full = [answer for answer in codes if answer.status_code != 200]
        assert full
        assert {answer.status_code for answer in full} == {503}
        assert "the log cannot be written (database or disk is full)" in full[0].json()["detail"]
        log.driver_connection.execute("PRAGMA max_page_count = 100000")
        assert client.post("/v1/select", json={"user": "ann"}).status_code == 200


def test_a_log_keeps_its_scale(tmp_path):
    log = open_decisions(f"sqlite:///{tmp_path / 'log.sqlite'}")
    log.settle_scale("1-5")
    log.settle_scale("1-5")
    with pytest.raises(InputError, match="has ratings on the scale 1-5, not 1-7"):
        log.settle_scale("1-7")
    log.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://host/db", "write sqlite:///FILE or postgresql"),
        ("nonsense", "write sqlite:///FILE"),
        ("postgresql://me:secret@host/db", "the address holds a password"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be opened"),
    ],
)
def test_an_address_that_cannot_be_a_log_is_refused_and_shows_no_password(address, says):
    with pytest.raises(InputError, match=says) as told:
        open_decisions(address)
    assert "secret" not in str(told.value)
