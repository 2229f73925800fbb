import json

import numpy as np
import pytest

from rlli_jax.envs.edge_market import Fleet, load_fleet, load_recording, sample_fleet
from rlli_jax.errors import InputError

ROW = [10.0, 0.1, 200.0, 0.9]


def same(a: Fleet, b: Fleet) -> bool:
    return bool((a.capacity == b.capacity).all() and (a.utility == b.utility).all())


def test_a_seed_gives_the_same_fleet_and_other_seeds_others():
    assert same(sample_fleet(3), sample_fleet(3))
    assert not same(sample_fleet(3), sample_fleet(4))


def test_samples_lie_on_the_grids_of_agod():
    fleet = sample_fleet(0, providers=2_000)
    assert set(fleet.capacity) == set(range(400, 1000, 100))
    grids = [
        np.arange(0, 100, 10),
        np.arange(0, 0.5, 0.05),
        np.arange(150, 250, 10),
        np.arange(0.5, 0.99, 0.05),
    ]
    for column, grid in zip(fleet.utility.T, grids, strict=True):
        np.testing.assert_allclose(np.unique(column.round(3)), grid, atol=1e-6)


@pytest.mark.parametrize("name", ["fleet.json", "fleet.npz"])
def test_a_saved_fleet_loads_as_it_was(tmp_path, name):
    fleet = sample_fleet(5, providers=7)
    fleet.save(tmp_path / name)
    assert same(load_fleet(tmp_path / name), fleet)


def test_recorded_fleets_load(agod):
    fleet = load_fleet(agod / "prophet_1.npz")
    assert len(fleet) == 20
    assert same(fleet, load_recording(agod / "random_1.npz").fleet)


@pytest.mark.parametrize(
    ("capacity", "utility", "message"),
    [
        ([], np.zeros((0, 4)), "the fleet is empty"),
        ([500, -5], [ROW, ROW], "provider 1 of the fleet has capacity -5"),
        ([np.nan], [ROW], "provider 0 of the fleet has capacity nan"),
        ([450.5], [ROW], "capacity 450.5"),
        ([500], [ROW, ROW], r"capacity of shape \(1,\) and utility of shape \(2, 4\)"),
        ([500], [[200.0, 0.1, 200.0, 0.9]], "provider 0 .* ax < bx"),
        ([500], [[10.0, np.inf, 200.0, 0.9]], "must be finite"),
        (["many"], [ROW], "no array of numbers"),
    ],
)
def test_impossible_fleets_are_refused(capacity, utility, message):
    with pytest.raises(InputError, match=message):
        Fleet(capacity, utility)


def test_an_empty_sample_is_refused():
    with pytest.raises(InputError, match="0 providers is empty"):
        sample_fleet(0, providers=0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.json", None, "no such fleet file"),
        ("fleet.csv", "", "read from .json or .npz"),
        ("torn.json", "{", "cannot be read as a fleet"),
        ("torn.npz", "PK", "cannot be read as a fleet"),
        ("list.json", "[1]", "holds no object"),
        ("half.json", json.dumps({"capacity": [500]}), "the key 'utility_coefs' is missing"),
        (
            "negative.json",
            json.dumps({"capacity": [-1], "utility_coefs": [ROW]}),
            "negative.json: provider 0 of the fleet has capacity -1",
        ),
    ],
)
def test_bad_fleet_files_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_fleet(path)


def test_a_fleet_is_saved_as_json_or_npz_only(tmp_path):
    with pytest.raises(InputError, match=r"saved as \.json or \.npz"):
        sample_fleet(0).save(tmp_path / "fleet.pkl")
