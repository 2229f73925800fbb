"""A run directory survives crashes, keeps others out, and is never overwritten by itself."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_study
import yaml

from rlli_jax.errors import InputError
from rlli_jax.experiments.run_directory import open_run, read_config
from rlli_jax.run_files import write_json
from rlli_jax.studies import load_study


@pytest.fixture
def study(tmp_path):
    return load_study(tiny_study.write_config(tmp_path))


def opened(path, study, existing="refuse"):
    with open_run(path, study, existing):
        pass
    return path


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_a_new_run_holds_its_config_and_what_it_depends_on(tmp_path, study):
    path = opened(tmp_path / "runs" / "a", study)
    assert files(path) == ["config.yaml", "versions.json"]
    assert read_config(path) == study
    versions = json.loads((path / "versions.json").read_text())
    assert {"rlli_jax", "python", "jax", "numpy", "device", "platform", "command"} <= set(versions)


def test_an_empty_folder_may_be_used(tmp_path, study):
    (tmp_path / "run").mkdir()
    assert read_config(opened(tmp_path / "run", study)) == study


def test_a_run_is_refused_resumed_or_overwritten_as_asked(tmp_path, study):
    path = opened(tmp_path / "run", study)
    (path / "table.npz").write_text("precious")
    with pytest.raises(InputError, match=r"run exists; continue it with --resume"):
        opened(path, study)
    assert (path / "table.npz").read_text() == "precious"
    opened(path, study, "resume")
    assert (path / "table.npz").read_text() == "precious"
    opened(path, study, "overwrite")
    assert files(path) == ["config.yaml", "versions.json"]


def test_resuming_what_is_not_there_starts_it(tmp_path, study):
    assert read_config(opened(tmp_path / "run", study, "resume")) == study


def test_a_run_without_any_result_is_no_obstacle(tmp_path, study):
    path = opened(tmp_path / "run", study)
    other = load_study(tiny_study.write_config(tmp_path), ["seeds=1"])
    assert read_config(opened(path, other)) == other


def test_another_study_is_not_resumed(tmp_path, study):
    path = opened(tmp_path / "run", study)
    (path / "table.npz").write_text("precious")
    config = tiny_study.write_config(tmp_path)
    other = load_study(config, ["policies.PPO.hyperparams.gamma=0.5"])
    sentence = r"another config \(policies\.PPO\.hyperparams\.gamma differs\); resume it with"
    with pytest.raises(InputError, match=sentence):
        opened(path, other, "resume")
    assert read_config(path) == study


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
@pytest.mark.parametrize("name", ["notes.txt", "config.yaml"])
def test_a_folder_that_holds_no_run_is_left_alone(tmp_path, study, existing, name):
    path = tmp_path / "thesis"
    path.mkdir()
    (path / name).write_text("three years of work")
    with pytest.raises(InputError, match="thesis is not empty and holds no run; it is left as it"):
        opened(path, study, existing)
    assert files(path) == [name]
    assert (path / name).read_text() == "three years of work"


def test_a_path_that_cannot_be_a_folder_is_one_sentence(tmp_path, study):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"cannot be used \(.*give another directory"):
            opened(path, study)
    assert (tmp_path / "file").read_text() == ""


def test_the_working_directory_can_be_a_run(tmp_path, study, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    opened(Path("."), study)
    assert read_config(tmp_path / "here") == study


@pytest.mark.parametrize("text", [None, "- [", "name: tiny"])
def test_a_damaged_config_of_a_run_is_one_sentence(tmp_path, study, text):
    path = opened(tmp_path / "run", study)
    if text is None:
        shutil.rmtree(path)
        path.mkdir()
    else:
        (path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"not a run directory|this key is missing"):
        read_config(path)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": 2, "b": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def record(path, **changed):
    """Change what a run says of its beginning; None takes an entry away."""
    content = json.loads((path / "versions.json").read_text()) | changed
    content = {name: value for name, value in content.items() if value is not None}
    (path / "versions.json").write_text(json.dumps(content))


def test_other_versions_are_said_and_recorded_when_a_run_is_resumed(tmp_path, study, capsys):
    path = opened(tmp_path / "run", study)
    (path / "table.npz").write_text("precious")
    opened(path, study, "resume")
    assert capsys.readouterr().err == ""
    record(path, jax="0.1.2", numpy="1.0", device="cpu (64 x cpu)")
    for _ in range(2):
        opened(path, study, "resume")
        said = capsys.readouterr().err
        assert said.startswith(f"rlli: {path} was begun with jax 0.1.2, now ")
        assert "; numpy 1.0, now " in said
        assert "device" not in said  # on their number nothing depends
    versions = json.loads((path / "versions.json").read_text())
    assert versions["jax"] == "0.1.2"
    assert versions["resumed_with"].count("jax 0.1.2, now ") == 1


def test_another_setting_of_jax_is_refused_when_a_run_is_resumed(tmp_path, study):
    path = opened(tmp_path / "run", study)
    (path / "table.npz").write_text("precious")
    record(path, jax_enable_x64="True")
    with pytest.raises(
        InputError, match=r"begun with jax_enable_x64 True, .*set JAX_ENABLE_X64=Tru"
    ):
        opened(path, study, "resume")
    record(path, jax_enable_x64=None)  # as earlier versions left it
    opened(path, study, "resume")


def test_what_a_killed_writer_left_is_gone_after_a_resume(tmp_path, study):
    path = opened(tmp_path / "run", study)
    (path / "table.npz").write_text("precious")
    (path / "partial-1-report.html").write_text("half")
    opened(path, study, "resume")
    assert files(path) == ["config.yaml", "table.npz", "versions.json"]


def test_a_full_disk_leaves_a_directory_that_can_be_used_later(small_disk, study):
    disk, enlarge = small_disk("8k")
    (disk / "rest").write_bytes(bytes(4096))
    with pytest.raises(
        InputError, match=r"\.(json|yaml) cannot be written: the disk .* is full; make"
    ):
        opened(disk / "run", study)
    assert files(disk / "run") == []
    enlarge("1m")
    assert read_config(opened(disk / "run", study)) == study


def started(config, path, environment):
    """``rlli train`` in a process of its own."""
    command = [sys.executable, "-m", "rlli_jax.cli", "train", str(config), "--output", str(path)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_checkpoint(process, folder):
    while not any(p.name.isdigit() for p in folder.glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def test_killed_in_the_middle_it_ends_where_an_uninterrupted_run_ends(
    tmp_path, finished, compilations
):
    config, uninterrupted = finished
    path = tmp_path / "run"
    process = started(config, path, compilations)
    try:
        wait_for_checkpoint(process, path / "checkpoints" / "DQN")
        with pytest.raises(InputError, match="in use by another process; wait for it to end"):
            opened(path, load_study(config), "overwrite")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (path / "policies" / "PPO" / "summary.json").exists()
    assert not (path / "policies" / "DQN").exists()  # with its buffer only in the checkpoint
    ppo = (path / "policies" / "PPO" / "summary.json").read_bytes()

    tiny_study.carry_out(config, path, "resume")
    tiny_study.assert_same_results(path, uninterrupted)
    assert (path / "policies" / "PPO" / "summary.json").read_bytes() == ppo  # not trained again


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_one_sentence_and_loses_at_most_a_chunk(tmp_path, finished, compilations):
    config, uninterrupted = finished
    path = tmp_path / "run"
    process = started(config, path, compilations)
    try:
        wait_for_checkpoint(process, path / "checkpoints" / "PPO")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    sentences = [line for line in errors.splitlines() if line.strip()]
    assert sentences == [
        f"rlli: stopped. {path} keeps everything up to the last checkpoint; go on with:",
        f"  rlli train {config} --output {path}",  # which always resumes
    ]
    assert any((path / "checkpoints" / "PPO").iterdir())
    assert not (path / "policies" / "PPO").exists()

    tiny_study.carry_out(config, path, "resume")
    tiny_study.assert_same_results(path, uninterrupted)


def test_the_config_of_a_run_can_be_run_again(finished):
    _, path = finished
    content = yaml.safe_load((path / "config.yaml").read_text())
    assert load_study(path / "config.yaml").dump() == content == read_config(path).dump()
