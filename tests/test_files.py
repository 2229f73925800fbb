"""A file appears whole or not at all, and a disk that refuses is one sentence."""

import errno
import os

import numpy as np
import pytest

from rlli_jax.catalog import Catalog
from rlli_jax.envs.edge_market import load_fleet, load_recording, sample_fleet
from rlli_jax.errors import InputError
from rlli_jax.experiments.run_directory import read_config
from rlli_jax.files import clear_partial, refused, whole, write_bytes, write_text
from rlli_jax.personas import Population
from rlli_jax.personas.questionnaire import read_answers
from rlli_jax.qoe import QoETable
from rlli_jax.report.people import render_findings
from rlli_jax.run_files import write_npz
from rlli_jax.studies import load_study, render


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "one\r\n\N{EURO SIGN}")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"one\r\n\xe2\x82\xac"
    write_bytes(tmp_path / "new" / "a.txt", b"two")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_writer_that_fails_leaves_the_file_before_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.json.gz", "before")

    def fail():
        with whole(tmp_path / "a.json.gz") as partial:
            assert partial.suffix == ".gz"  # by which writers choose a format
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a.json.gz").read_text() == "before"
    assert names(tmp_path) == ["a.json.gz"]


def test_what_a_killed_writer_left_can_be_cleared(tmp_path):
    (tmp_path / "policies").mkdir()
    for name in ("partial-1-a.npz", "policies/partial-2-b.json", "policies/b.json"):
        (tmp_path / name).touch()
    clear_partial(tmp_path)
    assert names(tmp_path) == ["policies"]
    assert names(tmp_path / "policies") == ["b.json"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, bytes(100_000)),
        lambda path: write_npz(path, {"x": np.random.default_rng(0).random(20_000)}),
        lambda path: sample_fleet(0, 3000).save(path.with_suffix(".json")),
        lambda path: Population.sample(2000, group="men 21-40", seed=0).to_csv(path),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(small_disk, write):
    disk, enlarge = small_disk("32k")
    with pytest.raises(InputError, match=r"/a\.\w+ cannot be written: the disk .* full; make spac"):
        write(disk / "a.npz")
    assert names(disk) == []
    enlarge("4m")
    write(disk / "a.npz")
    assert len(names(disk)) == 1


def test_a_read_only_disk_is_one_sentence(tmp_path, read_only):
    folder = tmp_path / "folder"
    write_text(folder / "a.txt", "before")
    read_only(folder)
    for path in (folder / "a.txt", folder / "b" / "c.txt"):
        with pytest.raises(InputError, match=r"\.txt cannot be written: .* read-only; make it wri"):
            write_text(path, "after")
    assert (folder / "a.txt").read_text() == "before"


def test_a_path_through_a_file_or_onto_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot be written: a .*file.* folder; remove that, or"):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(InputError, match="cannot be written: it is a folder, or choose another"):
        write_text(tmp_path / "folder", "")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EDQUOT, "the disk or the quota is full"),
        (errno.EACCES, "permission is denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_other_refusals_name_their_cause(number, cause):
    assert cause in str(refused("a.txt", OSError(number, os.strerror(number))))
    assert "somehow" in str(refused("a.txt", OSError("somehow")))


READERS = {
    "table.npz": QoETable.load,
    "catalog.csv": Catalog.from_manifest,
    "people.csv": Population.from_csv,
    "answers.csv": read_answers,
    "fleet.json": load_fleet,
    "recording.npz": load_recording,
    "study.yaml": load_study,
    "run": read_config,
    "report": render,
    "findings.json": lambda path: render_findings(path, "found"),
}


@pytest.mark.parametrize("place", ["nothing", "a folder", "below a file"])
@pytest.mark.parametrize("name", READERS)
def test_a_path_that_holds_no_such_file_is_told_in_plain_words(tmp_path, name, place):
    path = tmp_path / name
    if place == "a folder":
        path.mkdir()
    if place == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / name
    with pytest.raises(InputError) as error:
        READERS[name](path)
    said = str(error.value)
    assert str(path) in said
    assert "Errno" not in said
    assert "\n" not in said
