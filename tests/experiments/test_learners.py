"""Every registered learner, and one of a user's own, from YAML to run, sweep, report and choice."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_study
import xarray as xr
import yaml
from experiments.sweep_study import write_sweep
from rich.console import Console
from small_learners import SIZES, known

from rlli_jax.errors import InputError
from rlli_jax.experiments import checkpoints
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.run_directory import read_config
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.serving import export_policy, load_policy, select
from rlli_jax.experiments.sweeps.plan import make_plan
from rlli_jax.experiments.sweeps.run import run_sweep
from rlli_jax.experiments.yaml_blocks import parse_as
from rlli_jax.learners import LEARNERS, learner_kind
from rlli_jax.studies import load_study, render

PAPER = Path(__file__).parents[2] / "configs" / "paper.yaml"
PERSONA = (4.2, 3.1, 2.5, 3.9, 2.0)
OWN = "q_learning:kind"  # of docs/how-to
OTHERS = [name for name in LEARNERS if name not in ("ppo", "dqn")]  # which all tests use
Q = {
    "learner": OWN,
    "iterations": 4,
    "observation": ["persona", "action"],
    "config": {"num_envs": 4, "num_steps": 8},
    "hyperparams": {"epsilon": 0.5},
}
RAINBOW = {"prioritized": True, "dueling": True, "quantiles": 3, "double": True, "n_step": 2}


def block(learner, **changes):
    sizes = known(learner_kind(learner).config, SIZES)
    return {"learner": learner, "iterations": 2, "config": json.loads(json.dumps(sizes))} | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory, compilations):
    """A finished study of five users with personas, and of the learners of no other test."""
    folder = tmp_path_factory.mktemp("learners")
    policies = {name.upper(): block(name, observation=["persona"]) for name in OTHERS}
    policies["RAINBOW"] = block("dqn", observation=["persona"])
    policies["RAINBOW"]["config"] |= RAINBOW
    config = tiny_study.write_config(
        folder,
        population={"sample": {"size": 5, "seed": 3}},
        catalog={"folder": str(tiny_study.write_pictures(folder / "pictures"))},
        judge={"kind": "psychometric", "strength": 3.0},
        policies=policies | {"Q": Q},
    )
    tiny_study.carry_out(config, folder / "run")
    return folder / "run"


@pytest.mark.parametrize("name", [*OTHERS, "q", "rainbow"])
def test_every_learner_is_trained_reported_exported_and_asked(run, tmp_path, name):
    policy = name.upper()
    summary = json.loads((run / "policies" / policy / "summary.json").read_text())
    assert summary["learner"] == {"q": OWN, "rainbow": "dqn"}.get(name, name)
    selection = select(run, PERSONA, policy)
    assert selection.policy == policy
    assert selection.provider in tiny_study.PROVIDERS
    assert export_policy(load_policy(run, policy), tmp_path / "policy.bin").stat().st_size > 0
    if not (run / "report.html").exists():
        render(run)
    assert policy in (run / "report.html").read_text()


def test_one_choice_for_every_user_at_once_goes_from_yaml_to_report(tmp_path):
    learner = block("ppo", observation=["action", "reward"])
    path = tmp_path / "run"
    config = tiny_study.write_config(
        tmp_path,
        environment={"assignment": "joint", "rounds": 2},
        policies={"Joint": learner, "Random": {"learner": "random"}},
    )
    tiny_study.carry_out(config, path)
    with np.load(path / "policies" / "Joint" / "evaluation.npz") as found:
        # Each of two users is served once a round, by a choice of its own.
        served = found["choices"].sum((2, 3))
        assert (served == served[0, 0]).all()
        assert found["choices"].shape[1] == 2
    assert "joint" in (path / "config.yaml").read_text()
    assert "Joint" in render(path).read_text()


def test_a_run_of_an_own_learner_that_stopped_ends_as_if_it_had_not(run, tmp_path, monkeypatch):
    config = tmp_path / "study.yaml"
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["policies"] = {"Q": content["policies"]["Q"]}
    config.write_text(yaml.safe_dump(content))
    save = checkpoints.Checkpoints.save

    def stop_after_first(self, iteration, kept):
        save(self, iteration, kept)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoints, "save", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        tiny_study.carry_out(config, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "policies" / "Q" / "summary.json").exists()
    tiny_study.carry_out(config, tmp_path / "run", "resume")
    for file in ("curve.npz", "evaluation.npz"):
        with (
            np.load(run / "policies" / "Q" / file) as whole,
            np.load(tmp_path / "run" / "policies" / "Q" / file) as resumed,
        ):
            assert set(whole.files) == set(resumed.files)
            for key in whole.files:
                np.testing.assert_array_equal(resumed[key], whole[key])
    assert read_config(tmp_path / "run") == load_study(config)


def test_an_own_learner_is_swept_beside_a_registered_one(tmp_path):
    key = "policies.Q.hyperparams.learning_rate"
    config = write_sweep(
        tmp_path,
        {"grid": {key: [0.0, 0.5]}},
        policies={"Q": Q | {"observation": ["user"]}, "SAC": block("sac")},
        population=None,
    )
    sweep = load_study(config)
    plan = make_plan(sweep)
    assert [(g.name, len(g)) for g in plan.groups] == [(OWN, 4), ("sac", 2)]
    path = run_sweep(sweep, tmp_path / "sweep", "refuse", Console(quiet=True))
    objective = xr.load_dataset(path, engine="scipy")["objective"]
    assert np.isfinite(objective).all()
    # Who learns nothing takes the first provider for everyone: the three users' scores of it are
    # 1, 3 and 5 of 1-5, so QoE 0, 1/2 and 1.
    assert np.allclose(objective.sel(policy="Q")[0], 1.5)
    assert (objective.sel(policy="Q")[1] > 1.5).all()
    assert "learning_rate" in render(path.parent).read_text()
    # As Ray hands it to a worker.
    assert pickle.loads(pickle.dumps(sweep.study.policies["Q"])) == sweep.study.policies["Q"]


@pytest.mark.parametrize("learner", [*OTHERS, OWN])
def test_any_learner_is_one_override_away(learner):
    study = load_study(PAPER, [f"policies.X={{learner: '{learner}', iterations: 3}}"])
    policy = study.policies["X"]
    kind = learner_kind(learner)
    assert type(policy.config) is kind.config
    assert type(policy.hyperparams) is kind.hyperparams
    assert policy.iterations == 3
    assert parse_as(StudyConfig, study.dump(), source="dump", folder=None) == study


@pytest.mark.parametrize("learner", ["sac", "reinforce", "dqn", "vine", OWN])
def test_an_override_of_the_learner_alone_leaves_out_what_was_meant_for_another(learner):
    with pytest.warns(UserWarning, match="policies.PPO learns by .*: left out what the file gives"):
        policy = load_study(PAPER, [f"policies.PPO.learner={learner}"]).policies["PPO"]
    assert type(policy.config) is learner_kind(learner).config
    assert policy.hyperparams.gamma == 0.9  # of the file, as all of them have it
    assert policy.iterations == 150
    assert load_study(PAPER).policies["PPO"].learner == "ppo"


def test_keys_that_make_no_config_together_give_way_to_defaults():
    with pytest.warns(UserWarning, match="config.num_envs, config.num_steps"):
        policy = load_study(PAPER, ["policies.PPO.learner=reinforce"]).policies["PPO"]
    assert policy.config == learner_kind("reinforce").config()  # lookahead 64 needs more steps
    assert policy.hyperparams.learning_rate == 2.5e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hyperparams.learning_rate=1e-3", "policies.PPO.hyperparams.learning_rate: unknown key"),
        ("config.lookahead=3", "policies.PPO.config.lookahead: unknown key"),
    ],
)
@pytest.mark.filterwarnings("ignore:policies.PPO learns by")
def test_keys_that_overrides_give_are_never_left_out(given, message):
    with pytest.raises(InputError) as error:
        load_study(PAPER, ["policies.PPO.learner=sac", f"policies.PPO.{given}"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:policies.PPO learns by")
def test_an_override_of_the_learner_keeps_the_keys_that_fit():
    overrides = ["policies.PPO.learner=reinforce", "policies.PPO.config.lookahead=20"]
    policy = load_study(PAPER, overrides).policies["PPO"]
    assert policy.config == learner_kind("reinforce").config(num_steps=40, lookahead=20)
    assert policy.hyperparams.learning_rate == 2.5e-3


def test_schedules_of_each_learner_span_the_training_as_its_kind_says(tmp_path):
    policies = {name: block(name) for name in LEARNERS}
    study = load_study(tiny_study.write_config(tmp_path, policies=policies))
    found = {name: policy.hyperparams for name, policy in study.policies.items()}
    for bandit in ("linucb", "thompson"):  # which have no schedule
        assert not {"total_iterations", "anneal"} & vars(found.pop(bandit)).keys()
    assert {name: h.total_iterations for name, h in found.items()} == dict.fromkeys(found, 2)
    assert {name: h.anneal for name, h in found.items()} == {
        "ppo": 1.0, "dqn": 1.0, "reinforce": 1.0, "sac": 0.0, "d2sac": 0.0, "vine": 0.95,
    }  # fmt: skip


@pytest.mark.parametrize("name", [*LEARNERS, OWN])
def test_several_choices_a_step_are_refused_where_a_learner_makes_one(tmp_path, name):
    config = tiny_study.write_config(
        tmp_path, policies={"X": block(name)}, environment={"assignment": "joint"}
    )
    if learner_kind(name).joint:
        assert load_study(config).policies["X"].learner == name
        return
    with pytest.raises(
        InputError, match=r"policies.X.learner: .* makes one choice a step.* use ppo"
    ):
        load_study(config)


FAULTY = """
from dataclasses import dataclass
from q_learning import kind as correct

@dataclass
class Config:
    size: int

kind = correct._replace(config=Config)

def __getattr__(name):
    raise ValueError("a\\nbug")
"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": "no_such_module:kind"}, "cannot be imported (No module named 'no_such_modul"),
        ({"learner": "q_learning:kin"}, "cannot be imported (module 'q_learning' has no attribute"),
        (
            {"learner": "q_learning:q_learning"},
            "is a function; it must be a rlli_jax.learners.Ki",
        ),
        ({"learner": "faulty:raises"}, "cannot be imported (a bug)"),
        ({"learner": "faulty:kind"}, "Config needs a default for each of its fields"),
        ({"learner": OWN, "config": {"num_env": 3}}, "policies.X.config.num_env: unknown key, did"),
        ({"learner": OWN, "hyperparams": {"anneal": 1}}, "hyperparams.anneal: unknown key; the ke"),
        (
            {"learner": OWN, "config": {"num_envs": "a"}},
            "policies.X.config.num_envs: must be a",
        ),
    ],
)
def test_a_mistake_in_an_own_learner_is_one_sentence(tmp_path, monkeypatch, changes, message):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY)
    policies = {"X": {"iterations": 2} | changes}
    for kind, content in (
        (StudyConfig, tiny_study.content(tmp_path, policies=policies)),
        (
            MarketConfig,
            {"name": "m", "market": {"fleet": {"sample": {}}}, "policies": policies},
        ),
    ):
        with pytest.raises(InputError) as error:
            parse_as(kind, copy.deepcopy(content), source="study.yaml", folder=None)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("study.yaml: policies.X")
