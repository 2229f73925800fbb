"""A study of planners, from YAML to plans, low level, resume and report; and what is refused."""

import html
import json
import re
import shutil
from contextlib import closing
from itertools import product

import jax
import numpy as np
import pytest
import yaml
from chat_server import LocalServer, completion
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.plan_blocks import JudgePlan
from rlli_jax.experiments.planner.study import STUDY
from rlli_jax.experiments.plans import make_plan
from rlli_jax.experiments.training import Program
from rlli_jax.run_files.planner import PlannerReferences
from rlli_jax.studies import carry_out, load_study, render
from rlli_jax.teaching.planner import Situations

QUIET = Console(quiet=True)
PPO = {
    "learner": "ppo",
    "iterations": 3,
    "config": {"num_envs": 4, "num_steps": 8, "num_minibatches": 1, "num_epochs": 1, "hidden": [8]},
}
MARKET = {
    "name": "planner",
    "kind": "planner",
    "seeds": 2,
    "environment": {
        "kind": "market",
        "market": {"fleet": {"sample": {"providers": 2}}, "horizon": 20_000},
        "catalog": {"manifest": "manifest.csv", "pictures": False},
        "judge": {"kind": "recorded", "path": "scores.csv", "scale": "1-5"},
        "period": 4,
        "samples": 256,
    },
    "low_level": PPO,
    "policies": {
        "Best plan": {"learner": "oracle"},
        "Tiny": {"learner": "tiny_model"},
        "Q": {"learner": "smdp_q", "iterations": 2, "config": {"num_envs": 4, "num_steps": 8}},
    },
    "evaluation": {"episodes": 4},
}
ROOM = MARKET | {
    "environment": {"kind": "go_to", "objects": 2, "instructions": ["go to the red key"]},
    "policies": {"Right": {"learner": "oracle"}},
}


def written(folder, study, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compilations):
    folder = tmp_path_factory.mktemp("planner")
    cells = list(product(("ann", "bob"), ("cat", "dog"), ("ink", "oil")))
    pairs = [f"{provider},{request},{request}-{provider}.png" for _, request, provider in cells[:4]]
    (folder / "manifest.csv").write_text("\n".join(["provider,request,image", *pairs]))
    scores = [f"{user},{r},{p},{1 + i % 5}" for i, (user, r, p) in enumerate(cells)]
    (folder / "scores.csv").write_text("\n".join(["user,request,provider,score", *scores]))
    study = load_study(written(folder, MARKET))
    carry_out(study, folder / "run", "refuse", QUIET)
    return study, folder / "run"


def evaluation(run, name):
    with np.load(run / "policies" / name / "evaluation.npz") as file:
        return dict(file)


def test_planners_share_the_low_level_of_their_seed_and_keep_their_plans(finished):
    _, run = finished
    known = PlannerReferences.read(run / "references.json")
    assert known.estimated
    assert known.options == ["save capacity", "serve quality", "keep VIP users happy"]
    assert known.low_steps == 3 * 4 * 8
    best, tiny, q = (evaluation(run, name) for name in ("Best plan", "Tiny", "Q"))
    np.testing.assert_array_equal(best["plan"].argmax(-1), known.oracle)
    assert np.shape(known.oracle) == (2, 24)
    assert q["plan"].shape == tiny["plan"].shape == (2, 24, 3)
    np.testing.assert_array_equal(q["plan"].sum(-1), 1)
    made = json.loads((run / "plans" / "Tiny.json").read_text())
    np.testing.assert_array_equal(tiny["plan"], [made["plan"]] * 2)
    np.testing.assert_allclose(q["objective"], q["returns"].mean(1), rtol=1e-5)
    assert (q["total_qoe"] > 0).all()
    summary = json.loads((run / "policies" / "Q" / "summary.json").read_text())
    assert (summary["env_steps"], summary["low_steps"]) == (64, 96)


def test_what_goes_on_trains_no_low_level_and_asks_no_model_again(finished, monkeypatch):
    study, run = finished

    def refuse(*args, **kwargs):
        raise AssertionError("this was done already")

    monkeypatch.setattr(Program, "advance", refuse)
    monkeypatch.setattr("rlli_jax.experiments.plans.tiny_model", refuse)
    problem = STUDY.prepare(study, run, QUIET)
    assert problem.references == PlannerReferences.read(run / "references.json")
    # What each seed of a sweep gets are its own parts of the whole.
    job = STUDY.job(study, problem, "Q")
    train, _ = job.of_seeds(2)
    for whole, *parts in zip(
        *map(jax.tree.leaves, (problem.low, train[0].low, train[1].low)), strict=True
    ):
        np.testing.assert_array_equal(parts, whole)
    kernels = [max(jax.tree.leaves(part.low.params), key=np.size) for part in train]
    assert (kernels[0] != kernels[1]).any()
    assert train[0].env.vip is job.train.env.vip


def test_the_report_shows_plans_beside_each_other_and_names_stand_ins(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[1], run)
    flat = run / "policies" / "Flat"
    shutil.copytree(run / "policies" / "Q", flat)
    found = evaluation(run, "Q")
    np.savez(flat / "evaluation.npz", **{name: x for name, x in found.items() if name != "plan"})
    summary = json.loads((flat / "summary.json").read_text())
    summary |= {"name": "Flat", "learner": "ppo", "low_steps": 0}
    (flat / "summary.json").write_text(json.dumps(summary))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["policies"]["Flat"] = config["low_level"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    page = re.sub(r"\s+", " ", html.unescape(render(run).read_text()))
    assert "Tiny: a stand-in for a language model." in page
    assert "Flat and Q had unequal steps." in page
    assert "64 against 160." in page
    assert "Q less Flat: 0.0" in page
    assert "the best plan of the estimated process" in page
    assert "What matters most for the next 4 pictures: to" in page
    assert "The providers are almost idle; many tasks come and more are to come." in page
    assert re.search("Tiny names the oracle's goal in [0-9.]+.% of situations", page)


TODO = Situations(("It is dark.", "It is light."), ("sleep", "work"), "Now:", "What is next?")


@pytest.mark.parametrize("scoring", ["text", "logprobs"])
def test_a_judge_is_asked_once_for_each_situation(tmp_path, monkeypatch, scoring):
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)

    def respond(body, n=0):
        dark = "It is dark." in body["messages"][0]["content"]
        said = "A" if dark else "B"
        return completion(said, [(said, {said: 0.6, "AB".strip(said): 0.35})])

    with closing(LocalServer()) as server:
        server.respond = respond
        judge = {
            "kind": "openai", "model": "m", "base_url": server.url, "scoring": scoring,
            "store": str(tmp_path / "answers.sqlite"), "both_orders": True,
        }  # fmt: skip
        block = JudgePlan(learner="judge", judge=judge)
        for _ in range(2):
            made = make_plan(block, TODO, 0, QUIET)
            assert made.plan == [[1, 0], [0, 1]]
            assert (made.model, made.asked, made.unanswered) == ("m", 2, 0)
        asked = [body["messages"][0]["content"] for body in server.requests]
    assert len(asked) == 4  # two situations in both orders
    shown = (
        "It is dark.\nWhat is next?\nA: sleep\nB: work\nAnswer with one letter and nothing else:"
    )
    assert sorted(text for text in asked if "dark" in text) == [f"{shown} A, B.", f"{shown} B, A."]


def test_where_a_judge_names_nothing_any_goal_is_taken(tmp_path):
    with closing(LocalServer()) as server:
        judge = {
            "kind": "openai", "model": "m", "base_url": server.url, "scoring": "text",
            "store": str(tmp_path / "answers.sqlite"),
        }  # fmt: skip
        block = JudgePlan(learner="judge", judge=judge)
        with pytest.raises(InputError, match="named no goal in any of 2 situations"):
            make_plan(block, TODO, 0, QUIET)
        server.respond = lambda body, n: completion("B" if "light" in str(body) else "neither")
        block = JudgePlan(learner="judge", judge=judge | {"model": "other"})
        made = make_plan(block, TODO, 0, QUIET)
    assert made.plan == [[0.5, 0.5], [0, 1]]
    assert made.unanswered == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": {"kind": "maze"}}, "environment.kind: must be one of go_to, market"),
        ({"policies": {"Flat": PPO}}, "policies: none of them is a planner; give one"),
        ({"policies": {"low_level": {"learner": "oracle"}}}, "'low_level' is the low level's"),
        ({"low_level": {"learner": "dqn", "iterations": 1}}, "low_level.learner: must be 'ppo'"),
        (
            {"low_level": PPO | {"config": {"memory": 8, "num_minibatches": 1}}},
            "what follows them has no memory",
        ),
    ],
)
def test_a_mistake_in_the_file_names_its_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_study(written(tmp_path, ROOM, **changes))


@pytest.mark.parametrize(
    ("instruction", "policy", "message"),
    [
        ("go to the red door", {}, "environment: .* has the word 'door', which is unknown"),
        ("go to the key", {}, "environment: .* names no one goal in 'go to the key'"),
        (
            None,
            {"learner": "rule", "goals": {"": "red door"}},
            "policies.P: .*'red door', which is",
        ),
        (None, {"learner": "rule", "goals": {"dusk": "red key"}}, "no situation has the words 'du"),
        (
            "go to the red key, then go to the blue box",
            {"learner": "rule", "goals": {"nothing": "red key"}},
            "policies.P: the rule names no goal for the situation: Task: go to the red key, then",
        ),
        (None, {"learner": "language_model", "model": "EMPTY"}, "policies.P: .*config.json"),
        (None, PPO | {"observation": ["sound"]}, "policies.P.observation: .*sound"),
    ],
)
def test_a_mistake_is_told_before_anything_learns(
    tmp_path, monkeypatch, instruction, policy, message
):
    monkeypatch.setattr("rlli_jax.envs.go_to.env.ROOMS", 8)
    (tmp_path / "empty").mkdir()
    policy = policy | ({"model": str(tmp_path / "empty")} if "model" in policy else {})
    policies = {"Right": {"learner": "oracle"}} | ({"P": policy} if policy else {})
    environment = ROOM["environment"] | {"instructions": [instruction or "go to the red key"]}
    study = load_study(written(tmp_path, ROOM, policies=policies, environment=environment))
    monkeypatch.setattr("rlli_jax.experiments.planner.study.program_of", None)
    with pytest.raises(InputError, match=message):
        STUDY.prepare(study, None, QUIET)
