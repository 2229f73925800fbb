"""Files of a run directory: as earlier versions wrote them, written again, and damaged."""

import json

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.experiments.versions import versions
from rlli_jax.run_files.examination import Examination, Finding, Wordings
from rlli_jax.run_files.people import LogFindings, Personalising, WithInterval
from rlli_jax.run_files.versions import Versions

FINDING = {
    "check": "persona", "outcome": "weak", "says": "made up", "what": "r", "estimate": 0.4,
    "low": 0.1, "high": 0.6, "over": "personas", "threshold": "0.5 passes", "questions": 50,
    "measures": {"personas": 5, "traits": ["Openness"], "convergent": [None], "alpha": [0.7]},
}  # fmt: skip
GAIN = {
    "value": 0.02, "low": 0.01, "high": 0.03, "personal": 0.6, "single": 0.58, "users": 60,
    "over": "best single provider",
}  # fmt: skip
INTERACTION = {"f": 2.0, "p": 0.01, "power": 0.8, "gain": 0.02, "users": 60}
VALUE = {"value": 0.5, "low": 0.4, "high": 0.6}
FINDINGS = {
    "rounds": 240, "users": 60, "propensities": "shares", "notes": ["made up"],
    "logging_policy": 0.5,
    "policies": [
        {
            "name": "random", "estimates": {"IPS": VALUE}, "safe": VALUE, "best": VALUE,
            "effective_sample": 80.0, "largest_weight": 3.0, "mean_weight": 1.0, "support": 1.0,
            "chosen": "IPS", "warning": "",
        }
    ],
    "interaction": INTERACTION, "gain_of_personalising": GAIN, "left_out": {"a": "made up"},
    "advice": "Choose.", "scale": [1, 7], "of_run": [],
    "judge": {
        "judge": "made up",
        "providers": {
            "A": {"with_judge": VALUE, "people_alone": VALUE, "trust": 0.0, "worth": 1.0}
        },
        "prior_gain": VALUE, "warning": "",
        "curve": [{"people": 0, "with_judge": VALUE, "without": VALUE}],
    },
}  # fmt: skip
# Of each file what the first version that had it wrote.
EARLIER = {
    "versions.json": (Versions, {"rlli_jax": "0.1.0", "python": "3.11", "jax": "0.4"}),
    "examination.json": (
        Examination,
        {"judge": "made up", "stand_in": False, "wording": "full", "findings": [FINDING]},
    ),
    "wordings.json": (Wordings, {"full": FINDING, "brief": FINDING}),
    "personalising.json": (
        Personalising,
        {"users": 60, "of": 60, "gain": GAIN, "advice": "Choose.", "interaction": INTERACTION,
         "why": ""},
    ),
    "findings.json": (LogFindings, FINDINGS),
}  # fmt: skip


@pytest.fixture(params=EARLIER)
def earlier(request, tmp_path):
    """A file of an earlier version, and its class."""
    kind, content = EARLIER[request.param]
    path = tmp_path / request.param
    path.write_text(json.dumps(content))
    return kind, path


def test_a_file_of_an_earlier_version_is_read_and_written_again(earlier):
    kind, path = earlier
    record, before = kind.read(path), json.loads(path.read_text())
    record.write(path)
    assert kind.read(path) == record
    after = json.loads(path.read_text())
    assert set(before) <= set(after)
    same = set(before) - {"interaction", "policies", "full", "brief"}  # these have got fields
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_a_damaged_file_is_told_in_one_sentence_that_names_it(earlier):
    kind, path = earlier
    whole = path.read_text()
    content = json.loads(whole)
    first = next(iter(content))
    for damaged in (whole[:-5], "[]", json.dumps(content | {first: {"no": ["such", "value"]}})):
        path.write_text(damaged)
        with pytest.raises(InputError) as error:
            kind.read(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_what_is_not_said_of_earlier_versions_is_not_made_up(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(EARLIER["personalising.json"][1]))
    assert Personalising.read(tmp_path / "a.json").interaction.size is None
    (tmp_path / "b.json").write_text(json.dumps(EARLIER["wordings.json"][1]))
    assert [f.check for f in Wordings.read(tmp_path / "b.json").findings["brief"]] == ["persona"]


def test_versions_are_told_by_name_without_the_command(tmp_path):
    now = versions("rlli run a.yaml")
    now.write(tmp_path / "versions.json")
    kept = Versions.read(tmp_path / "versions.json")
    assert kept == now
    assert kept.command == "rlli run a.yaml"
    told = kept.by_name()
    assert {"rlli_jax", "python", "jax", "scikit-image", "device", "jax_enable_x64"} <= set(told)
    assert not {"command", "resumed_with"} & set(told)


def test_a_finding_is_written_with_short_numbers_and_without_nan(tmp_path):
    measures = {"each": np.array([1 / 3, np.nan]), "n": np.int64(2)}
    finding = Finding("sight", "pass", "made up", estimate=1 / 3, low=np.nan, measures=measures)
    Wordings.checked({"full": (finding,)}).write(tmp_path / "wordings.json")
    (written,) = json.loads((tmp_path / "wordings.json").read_text())["full"]
    assert written["measures"] == {"each": [0.333333, None], "n": 2}
    assert (written["estimate"], written["low"]) == (0.333333, None)


def test_an_interval_of_qoe_is_cut_where_qoe_ends_and_the_file_keeps_it_whole():
    valued = WithInterval(value=0.9, low=-0.1, high=1.2)
    assert valued.cut() == WithInterval(value=0.9, low=0, high=1)
    beyond = WithInterval(value=1.05, low=0.9, high=1.2)  # as inverse propensities may be
    assert beyond.cut() == WithInterval(value=1.05, low=0.9, high=1.05)
    assert valued.high == 1.2
