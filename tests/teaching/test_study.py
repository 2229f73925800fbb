"""``rlli teach``: a tiny study of provider selection, from the config to the page."""

import fcntl
import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_study
import xarray as xr
import yaml
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.sweeps import engine
from rlli_jax.experiments.sweeps.plan import make_plan
from rlli_jax.experiments.sweeps.run import run_sweep
from rlli_jax.language import t5
from rlli_jax.report.teaching import findings
from rlli_jax.report.teaching_run import Result, TeachingRun, load_teaching_run
from rlli_jax.run_files.teaching import TeachingTask
from rlli_jax.statistics import Estimate
from rlli_jax.studies import load_study, render


def content(**changes):
    return {
        "name": "tiny",
        "seeds": 2,
        "task": {"kind": "provider_selection", "study": "study.yaml"},
        "teacher": {"kind": "stand_in", "ability": 0, "d_model": 8},
        "cases": {
            "a": {"iterations": 4, "teacher_every": 2},
            "b": {"iterations": 9, "teacher_every": 3, "num_envs": 4},
        },
        "methods": {
            "alone": {"teacher": False},
            "silent": {"feedback": "nothing"},
            "sign": {"comparison": "expected"},
            "by coin": {"comparison": "expected", "verdicts": "random"},
        },
        "alone": "alone",
        "silent": "silent",
        "tested": "sign",
        "config": {
            "num_envs": 4, "num_steps": 4, "num_epochs": 1, "teacher_steps": 1, "teacher_texts": 4,
        },
    } | changes  # fmt: skip


def write(folder, **changes):
    tiny_study.write_config(folder)
    path = folder / "teach.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teaching")


@pytest.fixture
def taught(folder, rlli):
    """Config and run directory of the study, carried out once."""
    config, path = folder / "teach.yaml", folder / "run"
    if not path.exists():
        status, output, errors = rlli("teach", write(folder), "--output", path)
        assert (status, errors) == (0, "")
        assert output.rstrip().endswith(f"report: {path / 'report.html'}")
    return config, path


def test_every_method_of_every_case_is_kept(taught):
    run = load_teaching_run(taught[1])
    assert run.task.name == "ProviderSelection"
    assert len(run.task.texts) == 4  # two users, two requests for training
    assert run.task.advice == ["choose ink", "choose oil", "choose wax"]
    # Nobody has measured these users' personalities, so they are told by name.
    assert run.task.texts[0].startswith("The user is ")
    assert {case: list(results) for case, results in run.cases.items()} == {
        case: ["alone", "silent", "sign", "by coin"] for case in ("a", "b")
    }
    for case, rounds in (("a", 2), ("b", 3)):
        for name, result in run.cases[case].items():
            assert result.arrays["return"].shape == (2, rounds)
            assert np.isfinite(result.arrays["return"]).all()
            assert np.isnan(result.arrays["followed"]).all() == (name == "alone")
    arrays = {name: result.arrays for name, result in run.cases["b"].items()}
    for when in ("before", "after"):
        np.testing.assert_allclose(arrays["sign"][f"teacher_advice_{when}"].sum(-1), 1, atol=1e-5)
    changed = {
        name: not np.array_equal(a["teacher_advice_before"], a["teacher_advice_after"])
        for name, a in arrays.items()
        if name != "alone"
    }
    assert changed == {"silent": False, "sign": True, "by coin": True}


def test_the_page_names_the_stand_in_and_every_method(taught, rlli):
    page = (taught[1] / "report.html").read_text()
    assert "tiny stand-in teacher (a T5 taught the expert" in page
    assert "The teacher is a tiny stand-in." in page
    for name in [*content()["methods"], "chance"]:
        assert f'<th scope="row">{name}</th>' in page
    assert "Without any learning, chance is right in" in page
    assert "Case a (4 iterations, 64 environment steps)" in page
    assert (taught[1] / "figures" / "fig2-return.pdf").exists()
    (taught[1] / "report.html").unlink()
    status, output, _ = rlli("report", taught[1])
    assert (status, output.strip()) == (0, f"report: {taught[1] / 'report.html'}")
    assert (taught[1] / "report.html").read_text() == page


def test_a_damaged_run_is_told_in_one_sentence(taught, tmp_path):
    path = shutil.copytree(taught[1], tmp_path / "run")
    (path / "methods" / "a" / "sign.npz").unlink()
    with pytest.raises(InputError, match=r"sign\.npz"):
        render(path)


def test_a_study_goes_on_where_it_stopped(taught, rlli, tmp_path):
    config, done = taught
    path = shutil.copytree(done, tmp_path / "run")
    lost = path / "methods" / "b" / "sign.npz"
    lost.unlink()
    kept = path / "methods" / "b" / "silent.npz"
    before = kept.stat().st_mtime_ns
    status, output, errors = rlli("teach", config, "--output", path, "--resume")
    assert (status, errors) == (0, "")
    assert "case b, sign" in output
    assert "silent" not in output
    assert kept.stat().st_mtime_ns == before
    with np.load(lost) as again, np.load(done / "methods" / "b" / "sign.npz") as first:
        for name in set(first.files) - {"seconds"}:
            np.testing.assert_array_equal(again[name], first[name])


def test_a_run_directory_is_not_taken_twice(taught, rlli):
    config, path = taught
    assert rlli("teach", config, "--output", path)[0] == 2
    status, _, errors = rlli("teach", config, "seeds=3", "--output", path, "--resume")
    assert status == 2
    assert "holds a run with another config (seeds differs)" in errors
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, errors = rlli("teach", config, "--output", path, "--resume")
    assert status == 2
    assert "is in use by another process" in errors
    assert rlli("run", config, "--output", path, "--resume")[0] == 0  # it takes every kind


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("teacher.kind=oracle", "teacher.kind: must be one of stand_in, loaded, t5"),
        ("task.kind=chess", "task.kind: must be one of go_to_red_ball, provider_selection"),
        ("teacher.ability=1.5", "teacher.ability: must be less than or equal to 1"),
        ("cases.a.teacher_every=3", "iterations 4 is no multiple of teacher_every 3"),
        ("alone=nobody", "alone: 'nobody' is none of the methods"),
        ("alone=silent", "alone: the method 'silent' has a teacher"),
        ("silent=alone", "silent: the method 'alone' needs a teacher and feedback: nothing"),
        ("tested=by coin", "tested: the method 'by coin' is a control"),
        ("methods.sign.feedback=shouting", "methods.sign.feedback: must be"),
        ("methods.sign={advantage: gae}", "cannot be compared with previous"),
        ("methods.a/b={}", "'a/b' cannot be the name of a file"),
        ("seeds=1", "seeds: must be greater than 1"),
        ("config.num_minibatches=3", "does not divide into num_minibatches = 3"),
        ("color=red", "color: unknown key"),
    ],
)
def test_a_mistake_in_the_config_is_told_in_one_sentence(folder, rlli, override, says):
    config = write(folder)
    status, output, errors = rlli("teach", config, override, "--output", folder / "none")
    assert (status, output) == (2, "")
    assert says in errors
    assert errors.count("\n") == 1
    assert not (folder / "none").exists()


TEMPERATURE, SIGNAL = "hyperparams.temperature", "methods.sign.signal"
GRID = {
    "grid": {TEMPERATURE: [1.0, 3.0], SIGNAL: ["sign", "difference"]},
    "policies": ["a/silent", "a/sign"],
    "chunk": 2,
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    sweep = load_study(write(folder, sweep=GRID))
    run_sweep(sweep, folder / "sweep", "refuse", Console(quiet=True))
    return sweep, folder / "sweep"


def test_methods_of_a_sweep_share_programs_and_teachers(swept):
    plan = make_plan(swept[0])
    # A teacher that learns is another program; its signal is traced.
    assert [len(group) for group in plan.groups] == [2 * 2, 4 * 2]
    assert len({id(problem) for problem in plan.problems}) == 1
    first, other, again = (jax.tree.leaves(plan.groups[1].train[i].weights)[0] for i in (0, 1, 4))
    assert not np.shares_memory(first, other)
    assert np.shares_memory(first, again)  # of a seed, at every point
    assert plan.varies(plan.groups[0]) == {}


def test_a_point_of_a_sweep_is_the_run_of_its_settings(swept, taught):
    data = xr.load_dataset(swept[1] / "sweep.nc", engine="scipy")
    assert data.attrs["compared"] == "objective"
    assert data.attrs["stand_in"] == 1
    for name in GRID["policies"]:
        with np.load(taught[1] / "methods" / f"{name}.npz") as run:
            curve = run["return"]
        here = data.sel(policy=name).isel(point=0)
        np.testing.assert_allclose(here["objective"], curve.mean(1), rtol=1e-3)
        np.testing.assert_allclose(here["returns"][:, 0], curve[:, -1], rtol=1e-3)
    assert len(np.unique(data["objective"].sel(policy="a/sign"))) == 4 * 2
    page = render(swept[1]).read_text()
    assert "The teacher is a tiny stand-in." in page
    assert "over seeds of the exact expected return, mean over the rounds of training" in page
    assert "a/silent, methods.sign.signal" not in page  # which is another method's


def test_a_sweep_of_teaching_that_stopped_ends_bit_for_bit(swept, tmp_path, monkeypatch):
    save, (sweep, whole) = Checkpoints.save, swept

    def stop(self, iteration, content):
        save(self, iteration, content)
        if self.name.startswith("wave-1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop)
    path, quiet = tmp_path / "sweep", Console(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, path, "refuse", quiet, checkpoint_seconds=0.0)
    monkeypatch.undo()
    assert len(list((path / "checkpoints").iterdir())) == 1
    run_sweep(sweep, path, "resume", quiet)
    ended, data = (xr.load_dataset(p / "sweep.nc", engine="scipy") for p in (path, whole))
    assert ended.identical(data)


def test_a_group_of_teaching_reaches_the_workers_of_a_cluster(swept):
    pickle = pytest.importorskip("ray", reason="the extra ray is not installed").cloudpickle
    group = make_plan(swept[0]).groups[1]
    again = pickle.loads(pickle.dumps(group))
    assert engine.first_chunk(again, 2, 1e9) == 2  # its learner begins


def test_a_loaded_teacher_is_in_memory_once_for_all_runs_of_a_sweep(tmp_path):
    words = "The user asks for an old cat on a boat tree: choose ink oil wax next, better worse ."
    model = tmp_path / "model"
    t5.tiny_t5(jax.random.key(0), words.split(), d_model=8, num_heads=1).save(model)
    loaded = {"kind": "loaded", "model": str(model)}
    sweep = load_study(write(tmp_path, sweep=GRID, teacher=loaded))
    shared = engine.shared(make_plan(sweep).groups[1])
    assert all(jax.tree.leaves(shared.train.weights))


@pytest.mark.parametrize("key", ["language_policy.seeds", "tested"])
def test_what_no_run_of_a_sweep_depends_on_is_refused(tmp_path, key):
    path = write(tmp_path, sweep={"grid": {key: [1, 2]}})
    with pytest.raises(InputError, match=rf"sweep: {key} cannot be swept"):
        load_study(path)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A complete T5 that knows no word of the task."""
    path = tmp_path_factory.mktemp("t5")
    t5.tiny_t5(jax.random.key(0), ["a word"], d_model=8, num_heads=1).save(path)
    return path


def without_weights(path):
    (path / "model.safetensors").unlink()


def of_another_kind(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))


def short(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_positions": 3}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_weights, "has no weights (model.safetensors is missing)"),
        (of_another_kind, "describes a model of type 'gpt2'; known are t5, llama, mistral, qwen2"),
        (short, "tokens but the model takes at most 3; shorten it"),
        (lambda path: None, "have the same tokens"),  # <unk> for all providers
        (shutil.rmtree, "does not exist; give the folder of a model"),
    ],
    ids=["no weights", "no T5", "short", "unknown words", "no folder"],
)
def test_a_model_that_cannot_teach_is_told_in_one_sentence(
    folder, model_folder, rlli, tmp_path, spoil, says
):
    config = write(folder)
    path = shutil.copytree(model_folder, tmp_path / "model")
    spoil(path)
    teacher = f"teacher={{kind: t5, model: '{path}'}}"
    status, _, errors = rlli("teach", config, teacher, "--output", tmp_path / "run")
    assert status == 2
    assert says in errors
    assert errors.count("\n") == 1


def test_the_shipped_study_is_sound():
    study = load_study("configs/bidirectional.yaml")
    assert study.seeds >= 10
    assert sorted(case.iterations for case in study.cases.values()) == [40, 2100]


def test_every_reading_by_advantage_has_controls_that_differ_in_the_verdicts_only():
    methods = load_study("configs/bidirectional.yaml").methods
    readings = {"advantage, expected": "said", "advantage, action taken": "taken"}
    for name, credit in readings.items():
        assert methods[name].credit == credit
        alike = [m for m in methods.values() if replace(m, verdicts="true") == methods[name]]
        assert {m.verdicts for m in alike} == {"true", "random", "shuffled", "constant"}


READING = {
    "teacher": True, "feedback": "policy_gradient", "comparison": "expected", "credit": "taken",
    "verdicts": "true",
}  # fmt: skip


def verdict(seeds=5, **returns):
    """What a page says first, of methods whose mean return over ``seeds`` is given."""
    methods = {
        "tested": READING,
        "silent": READING | {"feedback": "nothing"},
        "alone": READING | {"teacher": False},
        "matched": READING | {"verdicts": "random"},
        "unmatched": READING | {"verdicts": "random", "credit": "said"},
    }
    noise = np.linspace(-0.01, 0.01, seeds)[:, None]
    results = {
        name: Result(name, methods[name], {"return": value + noise * (name != "tested")})
        for name, value in returns.items()
    }
    run = TeachingRun(
        path=None, text="", versions={}, cases={"a": results}, language_policy=None,
        config={"tested": "tested", "silent": "silent", "alone": "alone",
                "cases": {"a": {"iterations": 1}}},
        task=TeachingTask.model_construct(metric="return", env_steps_per_iteration={"a": 1}),
    )  # fmt: skip
    return findings(run)[0]


def test_feedback_helps_only_if_made_up_feedback_credited_alike_does_not():
    assert ": feedback helps. Read as “tested”" in verdict(
        tested=0.5, silent=0.4, alone=0.1, matched=0.4, unmatched=0.4
    )
    said = verdict(tested=0.5, silent=0.4, alone=0.1, matched=0.495, unmatched=0.4)
    assert (
        "it is not shown that it matters what the teacher hears: “matched” may do as well" in said
    )
    assert "unmatched" not in said
    said = verdict(tested=0.5, silent=0.4, alone=0.1, unmatched=0.4)
    assert "no control credits made-up feedback as this reading does" in said
    assert "no effect of feedback is shown" in verdict(
        tested=0.5, silent=0.5, alone=0.1, matched=0.4
    )


def test_a_gain_without_an_interval_is_no_verdict(monkeypatch):
    monkeypatch.setattr(
        "rlli_jax.report.teaching_run.t_interval",
        lambda values: Estimate(np.mean(values, 0), np.float64("nan"), np.float64("nan")),
    )
    said = verdict(seeds=2, tested=0.5, silent=0.4, alone=0.1, matched=0.4)
    assert "too few seeds to tell whether feedback helps" in said
    assert "it gains, in mean exact return over the training, 0.100 (no interval: too few" in said
