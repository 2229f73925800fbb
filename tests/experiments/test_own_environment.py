"""An environment outside of the package, from YAML to run, resume, report and sweep."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_study
import xarray as xr
import yaml
from rich.console import Console

from rlli_jax.envs.go_to import GoTo
from rlli_jax.errors import InputError
from rlli_jax.experiments import checkpoints
from rlli_jax.studies import StudyKind, carry_out, load_study, render, study_kind

GO_TO = Path(__file__).parents[2] / "configs" / "go_to.yaml"
STUDY = {
    "name": "queues",
    "kind": "environment",
    "seeds": 2,
    "checkpoint_every": 2,
    "environment": {"make": "queues:Queues", "params": {"arrivals": 0.7}},
    "policies": {
        "PG": {
            "learner": "reinforce",  # which compiles fastest
            "iterations": 4,
            "config": {"num_envs": 4, "num_steps": 50, "lookahead": 4, "hidden": [8]},
        },
        "Random": {"learner": "random"},
    },
    "evaluation": {"episodes": 8},
}


def written(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return load_study(path)


def run(study, path, existing="refuse"):
    carry_out(study, path, existing, Console(quiet=True))
    return path


@pytest.fixture(scope="module", autouse=True)
def fast_compilations(compilations):
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queues")
    return run(written(folder), folder / "run")


def test_it_is_trained_and_reported(finished):
    page = render(finished).read_text()
    assert "queues:Queues" in page
    assert "Return while training" in page or "Learning" in page
    with np.load(finished / "policies" / "Random" / "evaluation.npz") as found:
        assert found["returns"].shape == (2, 8)
        # A random policy serves each queue one step in three, and two customers at most.
        assert 50 < found["returns"].mean() < 100
        np.testing.assert_allclose(found["objective"], found["returns"].mean(1), rtol=1e-6)


def test_a_run_that_stopped_ends_as_if_it_had_not(finished, tmp_path, monkeypatch):
    study, save = written(tmp_path), checkpoints.Checkpoints.save

    def stop_after_first(self, iteration, kept):
        save(self, iteration, kept)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoints, "save", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "policies").exists()
    tiny_study.assert_same_results(run(study, tmp_path / "run", "resume"), finished)


def test_it_is_swept_with_its_parameters_traced(tmp_path):
    key = "environment.params.arrivals"
    sweep = written(tmp_path, sweep={"grid": {key: [0.2, 0.7]}, "chunk": 4})
    run(sweep, tmp_path / "sweep")
    data = xr.load_dataset(tmp_path / "sweep" / "sweep.nc", engine="scipy")
    assert data.attrs["compared"] == "objective"
    assert len(list((tmp_path / "sweep" / "chunks").iterdir())) == 1  # one program for both
    few, many = data["objective"].values[0].mean(-1)
    assert few < 0.2 * 3 * 50 < many  # no more can be served than join
    page = render(tmp_path / "sweep").read_text()
    assert "PG returns" in page
    assert "optimum of Eq." not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "environmint"},
            "there is no kind of study 'environmint'; write one of sel",
        ),
        ({"kind": "queues:Queues"}, r"is a .*; it must be a rlli_jax.studies.StudyKind"),
        ({"kind": "nowhere:kind"}, "'nowhere:kind' cannot be imported"),
        ({"environment": {"make": "queues:Q"}}, "environment.make: 'queues:Q' cannot be imported"),
        ({"environment": {"make": "queues:jnp"}}, "is no gymnax environment|cannot be imported"),
        (
            {"environment": {"make": "queues:Queues", "params": {"arrival": 1}}},
            "environment.params.arrival: unknown key; the keys here are",
        ),
        (
            {"environment": {"make": "rlli_jax.envs.go_to:GoTo", "arguments": {"objects": 99}}},
            "environment.arguments: objects is 99; a room takes 1 to 16",
        ),
        (
            {"environment": {"make": "queues:Queues", "arguments": {"doors": 2}}},
            "environment.arguments: .*takes no arguments",
        ),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        run(written(tmp_path, **changes), tmp_path / "run")
    assert "\n" not in str(error.value)


def make_queues(rates: np.ndarray, doors: int = None, open=True):  # noqa: RUF013 - users write so
    assert isinstance(rates, list)
    return GoTo(objects=2)


def test_arguments_of_types_that_are_not_of_yaml_are_left_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("queues.make", make_queues, raising=False)
    environment = {"make": "queues:make", "arguments": {"rates": [1, 2], "doors": None, "open": 3}}
    env, _ = written(tmp_path, environment=environment).environment.load()
    assert env.name == "GoTo-v0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("arguments.instructions=[5]", r"arguments: instructions.0: must be a valid string"),
        ("arguments.instructions=5", r"arguments: instructions: must be a list \(given: 5\)"),
        ("arguments.instructions=[go]", "arguments: the instruction 'go' names no one goal"),
        ("arguments.instructions=[go to the door]", "has the word 'door', which is unknown"),
        ("arguments.observation=blocked", "observation: must be a list"),
        ("arguments.observation=[sight]", "observation.0: must be 'blocked', 'likeness'"),
        ("arguments.objects=many", "objects: must be a valid integer"),
        ("arguments.objects=0", "objects is 0; a room takes 1 to 16"),
        ("arguments.actions=3.5", "actions: must be a valid integer"),
        ("arguments.things=3", "things is unknown; the keys here are objects, instructions"),
        ("arguments.encoder=", "encoder: must be a valid string"),
        ("params.max_steps_in_episode=x", "max_steps_in_episode: must be a number"),
    ],
)
def test_what_a_room_cannot_be_made_with_is_refused(change, message):
    study = load_study(GO_TO, [f"environment.{change}"])
    with pytest.raises(InputError, match=message) as error:
        study.environment.load()
    assert str(error.value).startswith("environment.")
    assert "\n" not in str(error.value)


def test_a_kind_of_study_of_ones_own_is_named_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from rlli_jax.experiments.yaml_blocks import StudyBlock\n"
        "from rlli_jax.studies import StudyKind\n"
        "class Config(StudyBlock):\n"
        "    word: str\n"
        "class Mine:\n"
        "    def carry_out(self, config, path, console, *, train=True):\n"
        "        (path / 'word.txt').write_text(config.word)\n"
        "def render(path):\n"
        "    (path / 'report.html').write_text((path / 'word.txt').read_text())\n"
        "    return path / 'report.html'\n"
        "kind = StudyKind(Config, Mine(), render)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text("{name: mine, kind: 'mine:kind', word: hello}")
    path = run(load_study(file), tmp_path / "run")
    assert render(path).read_text() == "hello"
    assert isinstance(study_kind("mine:kind"), StudyKind)
    with pytest.raises(InputError, match=r"study\.yaml: wort: unknown key, did you mean word"):
        load_study(file, ["wort=x"])
