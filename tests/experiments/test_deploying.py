"""`rlli serve`: the policy of a run behind the service, and its log read by `rlli evaluate`."""

import json

import numpy as np
import pytest
from starlette.testclient import TestClient
from tiny_study import PROVIDERS

from rlli_jax.experiments import deploying, serving
from rlli_jax.qoe.model import fit_model
from rlli_jax.qoe.model_blocks import user_prior


@pytest.fixture
def run(persona_run):
    return persona_run


def test_a_served_policy_chooses_as_its_run_does_among_what_is_offered(run):
    served = deploying.served_policy(run, "knowing")
    trained = serving.load_policy(run, "knowing")
    personas = np.random.default_rng(0).uniform(1, 5, (16, 5)).astype(np.float32)
    unknown = np.full(16, len(served.users), np.int32)
    request = np.zeros(16, np.int32)
    choice, predicted = served.choose(personas, unknown, request, np.ones((16, 3), bool))
    np.testing.assert_array_equal(choice, serving.choices(trained, personas)[:, 0])
    assert predicted.shape == (16, 3)
    offered = np.ones((16, 3), bool)
    offered[np.arange(16), choice] = False
    others, _ = served.choose(personas, unknown, request, offered)
    assert offered[np.arange(16), others].all()
    assert served.observes == {"persona"}
    # Predictions are those of the model of QoE; an unknown request stands for the mean over all.
    known = trained.population.traits.astype(np.float32)
    table = trained.table
    model = fit_model(np.where(table.legal, table.mean, np.nan), trained.population.traits)
    expected = model.explained(model.features(known, len(known))).mean(1)
    rows = np.arange(len(known), dtype=np.int32)
    everything = np.full(len(known), len(served.requests), np.int32)
    _, predicted = served.choose(known, rows, everything, np.ones((len(known), 3), bool))
    np.testing.assert_allclose(predicted, expected.clip(0, 1), atol=1e-6)
    assert deploying.served_policy(run, "blind").observes == set()
    # How sure it is: as the model is of people who gave no answer, and of their mean over requests.
    phi = model.features(known, len(known))
    believed = model.people(phi).covariance
    for request in range(len(served.requests)):
        own = served.belief(known, rows, np.full(len(known), request, np.int32))
        np.testing.assert_allclose(own, believed[:, request], atol=1e-10)
    of_mean = served.belief(known, rows, everything)
    shared = model.variances.user_request / len(served.requests)
    expected = model.coefficient_covariance(phi, average=True)[:, 0] + shared
    expected += user_prior(model.variances, len(PROVIDERS))
    np.testing.assert_allclose(of_mean, expected, atol=1e-10)


def test_the_command_serves_a_run_and_evaluate_reads_its_log(run, tmp_path, rlli, monkeypatch):
    import uvicorn

    log = f"sqlite:///{tmp_path / 'log.sqlite'}"
    seen = []

    def serve(server, sockets):
        with TestClient(server.config.app) as client:
            generator = np.random.default_rng(0)
            for k in range(60):
                persona = generator.uniform(1, 5, 5).round(2).tolist()
                asked = {"persona": persona, "user": f"u{k}"}
                seen.append(client.post("/v1/select", json=asked).json())
                rated = {"id": seen[-1]["id"], "qoe": int(generator.integers(1, 8))}
                if k % 10:
                    assert client.post("/v1/feedback", json=rated).status_code == 200

    monkeypatch.setattr(uvicorn.Server, "run", serve)
    status, out, errors = rlli(
        "serve", run, "--log", log, "--scale", "1-7", "--explore", "softmax=0.5", "--port", "0"
    )
    assert (status, errors) == (0, "")
    assert "/docs (interface)" in out
    assert {made["provider"] for made in seen} == set(PROVIDERS)
    written = tmp_path / "findings.json"
    status, out, errors = rlli("evaluate", run, "--log", log, "--output", written)
    assert (status, errors) == (0, "")
    findings = json.loads(written.read_text())
    assert (findings["rounds"], findings["users"]) == (54, 54)
    assert findings["notes"] == ["6 of 60 rounds have no qoe and are left out"]
    assert "knowing" in {policy["name"] for policy in findings["policies"]}
    status, _, errors = rlli("serve", run, "--log", log)
    assert (status, "has ratings on the scale 1-7, not 1-5" in errors) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "set a key in the environment variable RLLI_SERVE_KEY"),
        (("--shares", "0.5", "0.5"), "--shares has 2 values for 1 runs"),
        (("--explore", "greedy"), "write epsilon=SHARE"),
        (("--policies", "nobody"), "has no policy 'nobody'"),
        (("--log", "log.csv"), "write sqlite:///FILE or postgresql://"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(run, rlli, monkeypatch, options, says):
    monkeypatch.delenv("RLLI_SERVE_KEY", raising=False)
    status, _, errors = rlli("serve", run, *options)
    assert (status, errors.count("\n")) == (2, 1)
    assert says in errors
