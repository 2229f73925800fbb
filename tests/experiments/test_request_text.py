"""Policies that read requests: what they do with requests that they never saw."""

import json
from itertools import product

import numpy as np
import pytest
import tiny_llama
import tiny_study

from rlli_jax.envs.provider_selection import ProviderSelection, demonstration_table, make_params
from rlli_jax.errors import InputError
from rlli_jax.experiments.selection.study import STUDY
from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.experiments.selection.texts import texts
from rlli_jax.experiments.serving import load_policy
from rlli_jax.sentences import components, encode
from rlli_jax.studies import load_study

SUBJECTS = ("a boat", "a cat", "a tree", "an owl", "a house", "a river", "a child", "a bridge")


def policy(**text):
    return {
        "learner": "ppo",
        "observation": ["request_text"],
        "text": text,
        "iterations": 40,
        "config": {"num_envs": 8, "num_steps": 16, "num_minibatches": 2, "hidden": [16]},
        "hyperparams": {"learning_rate": 0.01, "gamma": 0.0},
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Each provider is good at the style of its name, whatever is shown in it; half is held out."""
    folder = tmp_path_factory.mktemp("styles")
    manifest, scores = ["provider,request,image"], ["user,provider,request,score"]
    for provider, subject, style in product(tiny_study.PROVIDERS, SUBJECTS, tiny_study.PROVIDERS):
        request = f"{subject} in {style}"
        manifest.append(f"{provider},{request},{provider} {request}.png")
        scores.append(f"ann,{provider},{request},{5 if provider == style else 1}")
    (folder / "images.csv").write_text("\n".join(manifest))
    (folder / "scores.csv").write_text("\n".join(scores))
    policies = {
        "reading": policy(encoder="hashing", components=8),
        "number": policy(encoder="one_hot"),
    }
    return tiny_study.write_config(
        folder, policies=policies, table={"held_out_requests": 0.5}, environment={"rounds": 1}
    )


def test_text_tells_of_requests_never_seen_and_their_number_does_not(config, tmp_path):
    tiny_study.carry_out(config, tmp_path / "run")
    best = json.loads((tmp_path / "run" / "references.json").read_text())["optimum_per_request"]
    found = {}
    for name in ("reading", "number"):
        with np.load(tmp_path / "run" / "policies" / name / "evaluation.npz") as evaluation:
            found[name] = evaluation["objective"].mean() / best
        summary = json.loads((tmp_path / "run" / "policies" / name / "summary.json").read_text())
        assert ("stand-in" in summary["encoder"]) == (name == "reading")
    assert found["reading"] > 0.95
    assert found["number"] < 0.6
    # What was learned is served with the vectors of all requests, not those of training alone.
    trained = load_policy(tmp_path / "run", "reading")
    assert len(trained.texts) == len(trained.table.requests) == 24
    assert len(trained.params.request_text) == 12


def test_components_are_those_of_the_requests_that_learners_see(config):
    study = load_study(config)
    problem = build_problem(study)
    reads = study.policies["reading"].text
    found = texts(problem.table.requests, problem.train.requests, reads)
    seen = found.of(problem.train)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    assert (seen**2).mean() == pytest.approx(1, rel=1e-4)
    assert abs(found.of(problem.test).mean(0)).max() > 0.01
    job = STUDY.job(study, problem, "reading")
    np.testing.assert_array_equal(job.train.request_text, seen)
    np.testing.assert_array_equal(job.test.users.request_text, found.of(problem.test))


def test_equal_texts_have_equal_vectors_and_like_ones_are_near():
    found = encode(["a red boat", "a red boat", "a red boats", "snow over hills"])
    near = found.vectors @ found.vectors.T
    np.testing.assert_allclose(near.diagonal(), 1, rtol=1e-5)
    assert near[0, 1] == pytest.approx(1)
    assert near[0, 2] > 0.7 > 0.3 > abs(near[0, 3])
    assert found.stand_in
    np.testing.assert_array_equal(encode(["x", "y", "x"], "one_hot").vectors, np.eye(2)[[0, 1, 0]])


def test_a_model_of_transformers_encodes_by_the_mean_of_its_tokens(tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(tiny_llama.build(tmp_path))
    found = encode(["a boat", "an owl in a tree"], folder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        tokens = tokenizer("an owl in a tree", return_tensors="pt")
        mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(found.vectors[1], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    assert not found.stand_in
    with pytest.raises(InputError, match=r"tokens, more than the .* takes; shorten it"):
        encode(["boat " * 5_000], folder)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"cannot be loaded .*give the folder of a model with its "
    ):
        encode(["a boat"], folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "policies.number.observation=[request]",
            "tells nothing of the held-out ones; observe request_text, remove it",
        ),
        (
            "policies={R: {learner: random, observation: [request_text]}}",
            "request_text is for policies that learn; remove it",
        ),
        ("policies.number.text.components=0", "components: must be greater than 0"),
    ],
)
def test_what_cannot_be_read_is_refused(config, change, sentence):
    with pytest.raises(InputError, match=sentence):
        load_study(config, [change])


def test_vectors_that_are_not_there_are_missed():
    with pytest.raises(InputError, match=r"12 components are asked for, but 3 texts .* have 2"):
        components(encode(["a", "bc", "def"]).vectors, np.arange(3), 12)
    with pytest.raises(InputError, match="needs vectors of what is asked for; give request_text"):
        ProviderSelection(observation=("request_text",))
    with pytest.raises(InputError, match="one vector for each request"):
        make_params(demonstration_table(), request_text=np.zeros((3, 2)))
