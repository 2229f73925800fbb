"""The section on calibration shows what human scores bought; without any there is none."""

import json

import pytest

from rlli_jax.errors import InputError
from rlli_jax.report.data import load_run
from rlli_jax.studies import render

FOUND = {
    "requests": 20,
    "scores": 80,
    "weights": {"judge <1>": [0.25, 0.125, 0.375]},
    "offsets": {"ink": [-0.5, -0.75, -0.25]},
    "curve": [
        {"requests": 0, "scores": 0.0, "value": [0.5, 0.4, 0.6], "without_judges": None},
        {"requests": 20, "scores": 80.0, "value": [0.7, 0.6, 0.8], "without_judges": [0.6] * 3},
    ],
}


def test_weights_offsets_and_curve_are_on_the_page(run_dir):
    assert "people's scores bought" not in render(run_dir).read_text(encoding="utf-8")
    (run_dir / "calibration.json").write_text(json.dumps(FOUND))
    page = render(run_dir).read_text(encoding="utf-8")
    assert "80 human scores of 20 requests" in page
    assert "Weight of judge &lt;1&gt;" in page
    assert "0.125 to 0.375" in page
    assert "Offset of ink" in page
    assert (run_dir / "figures" / "calibration.pdf").stat().st_size > 1000


@pytest.mark.parametrize("broken", ["{", "[]", json.dumps(FOUND | {"weights": {"judge": [1.0]}})])
def test_a_damaged_file_is_named(run_dir, broken):
    (run_dir / "calibration.json").write_text(broken)
    with pytest.raises(
        InputError, match=r"calibration.json cannot be read .*: restore it or repeat"
    ):
        load_run(run_dir)


@pytest.mark.parametrize("key", FOUND)
def test_a_missing_entry_is_named(run_dir, key):
    (run_dir / "calibration.json").write_text(json.dumps({k: FOUND[k] for k in FOUND if k != key}))
    with pytest.raises(InputError, match=f"calibration.json has no entry '{key}': repeat the run"):
        load_run(run_dir)
