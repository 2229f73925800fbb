"""The command line teaches, does what it says, and answers a mistake with one sentence."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny_study
import xarray as xr
import yaml
from PIL import Image

import rlli_jax
from rlli_jax import studies
from rlli_jax.cli.app import overrides_together
from rlli_jax.errors import InputError
from rlli_jax.experiments import yaml_blocks
from rlli_jax.experiments.sweeps import ray_engine, tracking
from rlli_jax.experiments.sweeps.config import Sweep
from rlli_jax.personas import Population


def test_help_needs_neither_jax_nor_matplotlib():
    check = (
        "import sys, rlli_jax.cli; "
        "print({'jax', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize(
    ("command", "teaches"),
    [
        ((), ["run", "judge", "train", "report", "personas", "table", "rlli run configs/paper"]),
        (("run",), ["Example: rlli run", "KEY.PATH=VALUE", "--resume", "--overwrite", "--output"]),
        (("judge",), ["Example: rlli judge", "--resume", "--overwrite"]),
        (("train",), ["Example: rlli train", "--output"]),
        (("report",), ["Example: rlli report", "RUN"]),
        (("personas",), ["Example: rlli personas", "--size", "--group", "--prompts"]),
        (("table",), ["Example: rlli table", "RUN"]),
        (("export",), ["Example: rlli export", "RUN", "FILE", "--policy"]),
    ],
)
def test_help_teaches(rlli, command, teaches):
    status, output, errors = rlli(*command, "--help")
    assert (status, errors) == (0, "")
    for text in teaches:
        assert text in output


def test_personas_can_be_drawn_kept_and_read_again(rlli, tmp_path):
    csv = tmp_path / "users.csv"
    status, output, _ = rlli("personas", "--size", 2, "--seed", 4, "--save", csv)
    people = Population.from_csv(csv)
    assert status == 0
    assert len(people) == 2
    for name in people.names:
        assert name in output
    status, again, _ = rlli("personas", "--csv", csv, "--prompts")
    assert status == 0
    assert again.startswith(output)
    assert "general set-up" in again
    assert "agreeable" in again


def test_a_study_from_the_judge_to_the_report(rlli, tmp_path, finished):
    policies = {"PPO": tiny_study.LEARNED["PPO"], "Random": {"learner": "random"}}
    config = tiny_study.write_config(tmp_path, policies=policies)
    path = tmp_path / "run"

    status, output, _ = rlli("judge", config, "--output", path)
    assert status == 0
    assert "table: 2 users x 4 requests x 3 providers, 1 holes" in output
    assert f"run directory: {path}" in output
    assert not (path / "policies").exists()

    status, output, _ = rlli("train", config, "--output", path)
    assert status == 0
    assert "24/24 iterations" in output
    assert not (path / "report.html").exists()
    np.testing.assert_equal(
        tiny_study.arrays(path),
        {k: v for k, v in tiny_study.arrays(finished[1]).items() if "DQN" not in k},
    )

    status, output, _ = rlli("run", config, "--output", path, "--resume")
    assert status == 0
    assert output.rstrip().endswith(f"report: {path / 'report.html'}")
    page = (path / "report.html").read_text()
    assert "<html" in page

    (path / "report.html").unlink()
    status, _, _ = rlli("report", path)
    assert status == 0
    assert (path / "report.html").exists()


def test_a_table_is_shown_with_its_references(rlli, finished):
    _, path = finished
    status, output, _ = rlli("table", path)
    assert status == 0
    for name in ("ann", "ben", *tiny_study.PROVIDERS, "optimum", "best single provider"):
        assert name in output
    assert rlli("table", path / "table.npz") == (0, output, "")


def test_names_with_brackets_are_shown_as_they_are(rlli, tmp_path):
    tiny_study.write_scores(tmp_path)
    for file in ("images.csv", "scores.csv"):
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(text.replace("oil", "[/oil]").replace("ann", "[bold]ann"))
    config = tiny_study.write_config(
        tmp_path, policies={"[/Random]": {"learner": "random"}}, seeds=1
    ).read_text()
    (tmp_path / "study.yaml").write_text(config)
    # A slash cannot be in the name of a policy: it is that of a folder.
    status, _, errors = rlli("judge", tmp_path / "study.yaml", "--output", tmp_path / "run")
    assert status == 2
    assert "'[/Random]' cannot be the name of a folder" in errors
    (tmp_path / "study.yaml").write_text(config.replace("[/Random]", "[bold]Random"))
    status, output, _ = rlli("train", tmp_path / "study.yaml", "--output", tmp_path / "run")
    assert status == 0
    assert "[bold]Random" in output
    status, output, _ = rlli("table", tmp_path / "run")
    assert "[/oil]" in output
    assert "[bold]ann" in output


def refused(result, *expected):
    """Exit status 2, one sentence on stderr, no traceback."""
    status, _, errors = result
    assert status == 2, errors
    (sentence,) = errors.splitlines()
    assert sentence.startswith("rlli: ")
    assert sentence.endswith(".")
    for text in expected:
        assert text in sentence


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def scores(old, new):
    return lambda folder: edit(folder / "scores.csv", old, new)


def without_rows(folder):
    (folder / "scores.csv").write_text("user,provider,request,score\n")


BAD_SCORES = {
    "unknown provider": (
        scores("ann,oil,a cat", "ann,acrylic,a cat"),
        ("scores.csv, row 6 below the header", "provider 'acrylic' is not in the catalog"),
    ),
    "duplicate score": (
        scores("ann,oil,a cat", "ann,ink,a cat"),
        ("user 'ann' has a second score for request 'a cat' by provider 'ink'", "row 6"),
    ),
    "infinite": (
        scores("ann,ink,a boat,1.0", "ann,ink,a boat,inf"),
        ("row 1 below the header", "inf"),
    ),
    "out of scale": (
        scores("ann,ink,a boat,1.0", "ann,ink,a boat,5.1"),
        ("row 1 below the header", "score 5.1 is outside the scale '1-5', 1 to 5"),
    ),
    "no scores": (without_rows, ("the file has no rows",)),
    "no file": (lambda folder: (folder / "scores.csv").unlink(), ("there is no such file",)),
    "no manifest": (
        lambda folder: (folder / "images.csv").unlink(),
        ("images.csv: there is no such file",),
    ),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_bad_scores_are_one_sentence(rlli, tmp_path, case):
    damage, expected = BAD_SCORES[case]
    config = tiny_study.write_config(tmp_path)
    damage(tmp_path)
    refused(rlli("judge", config, "--output", tmp_path / "run"), *expected)
    # Put right, the same command works: nothing stands in its way.
    tiny_study.write_scores(tmp_path)
    assert rlli("judge", config, "--output", tmp_path / "run")[0] == 0


def truncate(folder):
    path = folder / "oil" / "a_cat.png"
    path.write_bytes(path.read_bytes()[:200])


def enlarge(folder):
    Image.new("1", (20_000, 20_000)).save(folder / "oil" / "a_cat.png")


def manifest(*rows):
    def change(folder):
        (folder / "images.csv").write_text("provider,request,image\n" + "\n".join(rows) + "\n")

    return change


def escape(folder):
    Image.new("RGB", (9, 9)).save(folder.parent / "secret.png")
    manifest("ink,a cat,../secret.png")(folder)


BAD_PICTURES = {
    "missing": (
        manifest("ink,a cat,ink/a_dog.png"),
        ("images.csv, row 1 below the header", "a_dog.png is missing"),
    ),
    "escaping": (escape, ("images.csv, row 1 below the header", "'../secret.png' leads out of")),
    "truncated": (truncate, ("a_cat.png",)),
    "enormous": (enlarge, ("a_cat.png",)),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_is_one_sentence(rlli, tmp_path, case):
    damage, expected = BAD_PICTURES[case]
    folder = tiny_study.write_pictures(tmp_path / "pictures")
    damage(folder)
    listed = (folder / "images.csv").exists()
    config = tiny_study.write_config(
        tmp_path,
        catalog={"manifest": "pictures/images.csv"} if listed else {"folder": "pictures"},
        population={"sample": {"size": 2}},
        judge={"kind": "psychometric"},
    )
    refused(rlli("judge", config, "--output", tmp_path / "run"), *expected)


def test_a_persona_outside_the_scale_is_one_sentence(rlli, tmp_path):
    folder = tiny_study.write_pictures(tmp_path / "pictures")
    (tmp_path / "users.csv").write_text("name,O,C,E,A,N\nann,1,2,3,4,5\nben,5,4,3,2,5.5\n")
    config = tiny_study.write_config(
        tmp_path,
        catalog={"folder": str(folder)},
        population={"csv": "users.csv"},
        judge={"kind": "psychometric"},
    )
    sentence = ("users.csv, row 2 below the header: column 'N'", "'5.5'", "from 1 to 5")
    refused(rlli("judge", config, "--output", tmp_path / "run"), *sentence)
    refused(rlli("personas", "--csv", tmp_path / "users.csv"), *sentence)


def test_a_bad_config_is_one_sentence(rlli, tmp_path):
    config = tiny_study.write_config(tmp_path)
    output = ("--output", tmp_path / "run")
    refused(rlli("run", config, "sedes=3", *output), "sedes: unknown key, did you mean seeds?")
    refused(rlli("run", config, "seeds", *output), "write key.path=value")
    refused(rlli("run", tmp_path / "no.yaml", *output), "there is no such config file")
    (tmp_path / "bad.yaml").write_text("name: [tiny\nseeds: 3\n")
    refused(rlli("run", tmp_path / "bad.yaml", *output), "bad.yaml, line 2", "malformed YAML")
    refused(rlli("run", config, *output, "--resume", "--overwrite"), "contradict each other")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_one_sentence(rlli, tmp_path, finished):
    config, path = finished
    refused(rlli("run", config, "--output", path), "continue it with --resume")
    refused(rlli("train", config, "seeds=3", "--output", path), "(seeds differs)")
    refused(rlli("judge", config, "--output", tmp_path.parent, "--overwrite"), "holds no run")


def test_what_is_no_run_is_one_sentence(rlli, tmp_path):
    refused(rlli("table", tmp_path), "there is no such table")
    refused(rlli("table", tmp_path / "table.npz"), "there is no such table")
    refused(rlli("report", tmp_path / "nothing"))
    refused(rlli("personas", "--size", 0), "size")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            MemoryError("Unable to allocate 7 TiB"),
            "memory does not suffice (Unable to allocate 7 TiB): make",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
            "memory does not suffice (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.): make",
        ),
    ],
)
def test_too_little_memory_is_one_sentence(rlli, monkeypatch, error, said):
    def allocate(*arguments, **options):
        raise error

    monkeypatch.setattr("rlli_jax.studies.render", allocate)
    status, _, errors = rlli("report", "runs/none")
    assert status == 2
    assert said in errors
    assert errors.count("\n") == 1


def test_too_little_memory_in_a_study_names_the_whole_command_that_goes_on(
    rlli, monkeypatch, tmp_path
):
    config = tiny_study.write_config(tmp_path)

    def allocate(*arguments, **options):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(studies, "carry_out", allocate)
    status, _, errors = rlli("run", config, "seeds=3", "--output", tmp_path / "my run")
    assert (status, errors.count("\n")) == (2, 1)
    assert "memory does not suffice (Unable to allocate 7 TiB): make buffers smaller" in errors
    assert errors.endswith(f"rlli run {config} seeds=3 --output '{tmp_path}/my run' --resume\n")


def test_another_runtime_error_stays_a_traceback(rlli, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("rlli_jax.studies.render", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        rlli("report", "runs/none")


def test_devices_that_are_not_there_are_one_sentence(rlli, monkeypatch, tmp_path):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("jax.devices", devices)
    config = tiny_study.write_config(tmp_path)
    status, _, errors = rlli("run", config, "--output", tmp_path / "run")
    assert status == 2
    assert "the devices that JAX_PLATFORMS=cuda asks for (Unable to initialize back" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("action", ["stats", "verify", "prune"])
def test_the_cache_leaves_what_is_no_store_alone(rlli, tmp_path, action):
    path = tmp_path / "precious.csv"
    path.write_text("request,provider,rating\n")
    options = ("--days", "1") if action == "prune" else ()
    status, _, errors = rlli("cache", action, "--store", path, *options)
    assert status == 2
    assert "precious.csv: this is not a store of answers and never was one" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["precious.csv"]
    assert path.read_text() == "request,provider,rating\n"


def test_counting_makes_no_store(rlli, tmp_path):
    status, output, _ = rlli("cache", "stats", "--store", tmp_path / "none.sqlite")
    assert (status, output) == (0, f"store {tmp_path / 'none.sqlite'}: 0 answers\n")
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_told(rlli):
    assert rlli("--version") == (0, f"rlli {rlli_jax.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [
        "run a.yaml x=1 --output out y=2 --resume z=3",
        "run --output out --resume a.yaml x=1 y=2 z=3",
        "run a.yaml --output=out x=1 y=2 --resume z=3",
        "run a.yaml --resume x=1 y=2 --output out z=3",
    ],
)
def test_overrides_may_stand_on_both_sides_of_options(rlli, monkeypatch, tmp_path, words):
    config = tiny_study.write_config(tmp_path)
    words = words.replace("a.yaml", str(config)).replace("x=1", "seed=1").replace("y=2", "seeds=3")
    words = words.replace("z=3", "evaluation.episodes=4")
    seen = []
    monkeypatch.setattr(studies, "carry_out", lambda *given, **how: seen.append(given))
    monkeypatch.setattr(studies, "render", lambda path: path)
    assert rlli(*words.split())[0] == 0
    ((study, path, existing, _),) = seen
    assert (path, existing) == (Path("out"), "resume")
    assert (study.seed, study.seeds, study.evaluation.episodes) == (1, 3, 4)


def test_the_value_of_an_option_is_no_override():
    words = ["sweep", "a.yaml", "--track", "a=b", "--export-batch", "c=d", "x=1"]
    together = overrides_together(["judge", "a.yaml", "--export-batch", "c=d", "x=1"])
    assert together == ["judge", "a.yaml", "x=1", "--export-batch", "c=d"]
    assert overrides_together(words)[:2] == ["sweep", "a.yaml"]
    assert overrides_together(["table", "a=b"]) == ["table", "a=b"]


@pytest.mark.parametrize("config", ["paper", "edge_market", "bidirectional", "sweep"])
def test_run_carries_out_a_study_of_any_kind_and_reads_its_file_once(rlli, monkeypatch, config):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # to be as it was
    seen, read = [], []
    monkeypatch.setattr(studies, "carry_out", lambda study, *_, **how: seen.append(study))
    monkeypatch.setattr(studies, "render", lambda path: path)
    reads = yaml_blocks.read_yaml
    monkeypatch.setattr(
        yaml_blocks, "read_yaml", lambda *given: read.append(given) or reads(*given)
    )
    assert rlli("run", f"configs/{config}.yaml", "seeds=3", "--output", "x")[0] == 0
    assert read == [(Path(f"configs/{config}.yaml"), ("seeds=3",))]
    (study,) = seen
    assert getattr(study, "study", study).seeds == 3
    assert isinstance(study, Sweep) == (config == "sweep")
    kinds = {"edge_market": "market", "bidirectional": "teaching"}
    assert studies.kind_name(study) == kinds.get(config, "selection")


def test_a_study_may_come_through_a_pipe(tmp_path, compilations):
    config = tiny_study.write_config(tmp_path, policies={"Random": {"learner": "random"}})
    script = (
        f"exec {sys.executable} -m rlli_jax.cli run <(cat {config}) --output {tmp_path / 'run'}"
    )
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=compilations
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("command", "config", "kind"),
    [
        ("teach", "paper", "of provider selection"),
        ("judge", "bidirectional", "of teaching"),
        ("train", "sweep", "with a sweep"),
    ],
)
def test_a_study_of_another_kind_is_one_sentence(rlli, command, config, kind):
    refused(
        rlli(command, f"configs/{config}.yaml", "description=a b"),
        f"is a study {kind}, which rlli {command} does not take",
        f"with: rlli run configs/{config}.yaml 'description=a b'",
    )


def test_ctrl_c_names_the_whole_command_that_goes_on(rlli, monkeypatch, tmp_path):
    folder = tmp_path / "my data"
    config = tiny_study.write_config(tmp_path).rename(tmp_path / "my study.yaml")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlli_jax.experiments.selection.judging.judge", stopped)
    status, _, errors = rlli("run", config, "description=a b", "--output", folder, "seeds=3")
    assert status == 130
    line = errors.splitlines()[-1].strip()
    assert line == (f"rlli run '{config}' 'description=a b' seeds=3 --output '{folder}' --resume")
    command = json.loads((folder / "versions.json").read_text())["command"]
    assert command == f"rlli run '{config}' 'description=a b' --output '{folder}' seeds=3"


def test_a_sweep_is_run_and_reported_like_any_study(rlli, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # to be as it was
    study = tiny_study.content(tmp_path, policies={"PPO": tiny_study.LEARNED["PPO"]})
    study["policies"]["PPO"] = study["policies"]["PPO"] | {"iterations": 2}
    text = yaml.safe_dump(study) + "sweep: {grid: {seed: [1, 2], environment.rounds: [1e0, 3]}}\n"
    (tmp_path / "sweep.yaml").write_text(text)
    path = tmp_path / "out"
    status, output, errors = rlli("run", tmp_path / "sweep.yaml", "--output", path)
    assert status == 0, errors
    assert f"report: {path / 'report.html'}" in output
    data = xr.load_dataset(path / "sweep.nc", engine="scipy")
    assert data["study.seed"].dims == ("point",)
    assert data["study.seed"].values.tolist() == [1, 1, 2, 2]
    assert data["environment.rounds"].values.tolist() == [1, 3, 1, 3]
    assert data["seed"].values.tolist() == [0, 1]
    (run, *_) = tracking.tracked_runs(data)
    assert (run.settings["study.seed"], run.settings["seed"]) == (1, 0)
    (path / "report.html").unlink()
    assert rlli("report", path) == (0, f"report: {path.resolve() / 'report.html'}\n", "")


def test_a_policy_is_exported(rlli, finished, tmp_path):
    _, path = finished
    file = tmp_path / "my policies" / "dqn.bin"
    status, output, _ = rlli("export", path, file, "--policy", "DQN")
    assert status == 0
    assert output.startswith("DQN, seed ")
    assert output.endswith(f"{file}\n")
    assert file.stat().st_size > 0
    about = json.loads(file.with_name("dqn.bin.json").read_text())
    assert about["providers"] == list(tiny_study.PROVIDERS)
    refused(rlli("export", path, file, "--policy", "Random"), "no policy 'Random' that learned")


def test_a_tracker_without_a_key_is_found_before_training(rlli, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    wandb = pytest.importorskip("wandb")

    def nobody():
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "login", nobody)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    refused(
        rlli("sweep", "configs/sweep.yaml", "--track", "wandb", "--output", tmp_path / "x"),
        "Weights & Biases has no key; set WANDB_API_KEY",
    )
    monkeypatch.setattr(wandb, "login", lambda: True)
    tracking.prepare("wandb")
    monkeypatch.setattr(wandb, "login", nobody)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracking.prepare("wandb")


def test_an_engine_that_is_not_installed_is_found_before_training(rlli, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError):
        ray_engine.package()
    result = rlli("sweep", "configs/sweep.yaml", "--engine", "ray", "--output", tmp_path / "x")
    refused(result, "pip install 'rlli_jax[ray]'")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "settings", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C"}, {"LANG": "C"}]
)
def test_a_plain_terminal_gets_ascii(tmp_path, settings):
    users = tmp_path / "users.csv"
    users.write_text("name,O,C,E,A,N\nZo\u00eb \u2013 \u706b,1,2,3,4,5\n", encoding="utf-8")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))
    }
    result = subprocess.run(
        [sys.executable, "-m", "rlli_jax.cli", "personas", "--csv", users],
        capture_output=True,
        env=environment | settings,
    )
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode("ascii")
    assert "Zoe - ?" in text
    assert "+---" in text


def test_what_messages_tell_to_install_is_what_there_is():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    core = {re.split(r"[<>=\[]", name)[0] for name in project["dependencies"]}
    sources = [*root.glob("rlli_jax/**/*.py"), *root.glob("*.md"), *root.glob("docs/*.md")]
    texts = [re.sub(r'"\s+f?"', "", file.read_text(encoding="utf-8")) for file in sources]
    extras = {name for text in texts for name in re.findall(r"rlli_jax\[([a-z0-9_]+)\]", text)}
    plain = {name for text in texts for name in re.findall(r"pip install ([a-z_]+)\.", text)}
    assert {"llm", "postgresql", "ray"} <= extras <= set(project["optional-dependencies"])
    assert {"openai"} <= plain <= core


def test_a_warning_is_one_sentence_without_lines_of_code():
    script = (
        "import sys, warnings; from rlli_jax import cli; sys.argv = ['rlli', '--version']\n"
        "cli.main(); warnings.warn_explicit('a file is left out.', UserWarning, cli.__file__, 1)\n"
        "warnings.warn_explicit('old', UserWarning, 'library.py', 7)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr == ("rlli: warning: a file is left out.\nlibrary.py:7: UserWarning: old\n")


@pytest.mark.parametrize("command", [("run",), ("cache", "import")])
def test_a_folder_in_place_of_a_file_is_called_that(rlli, tmp_path, command):
    status, _, errors = rlli(*command, tmp_path)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"rlli: {tmp_path} is a folder; name a ")
