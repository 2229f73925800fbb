"""What pictures take, by a clock that is made up."""

import json
import types

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.generation import measuring, meters
from rlli_jax.generation.measuring import fitted, measure


class Clock:
    """A provider whose pictures take ``level + slope x steps`` seconds, and 5 J each second."""

    def __init__(self, monkeypatch, slope, level):
        self.name, self.slope, self.level = f"slope {slope}", slope, level
        self.now, self.made = 0.0, []
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(measuring, "time", clock)

    def denoise(self, prompt, steps):
        self.made.append(steps)
        self.now += self.level + self.slope * steps + 100 * (len(self.made) == 1)  # loads first


def profile(monkeypatch, slope, level=2.0):
    clock = Clock(monkeypatch, slope, level)
    return clock, measure(clock, "a cat", (10, 20), repeats=2, counter=lambda: 5 * clock.now)


def test_steps_are_timed_without_the_first_picture(monkeypatch):
    clock, found = profile(monkeypatch, 0.5)
    assert clock.made == [10, 10, 20, 10, 20]
    np.testing.assert_allclose(found.seconds, [[7, 7], [12, 12]])
    np.testing.assert_allclose(found.joules, [[35, 35], [60, 60]])


def test_a_fleet_has_the_mean_runtime_and_each_providers_pace(monkeypatch):
    profiles = [profile(monkeypatch, slope, 0.0)[1] for slope in (0.5, 1.5)]
    found = fitted(profiles, clock=10)
    np.testing.assert_allclose(found.runtime, [0, 10, 0], atol=1e-9)
    np.testing.assert_allclose(found.pace, [0.5, 1.5])
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.watts == pytest.approx(5)


def test_more_steps_that_take_no_longer_are_no_measurement(monkeypatch):
    with pytest.raises(InputError, match="more steps did not take longer"):
        fitted([profile(monkeypatch, 0.0)[1]])


def test_without_a_counter_power_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(meters, "COUNTERS", tmp_path)
    assert meters.energy() is None
    assert meters.Meter().read().joules is None
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (folder / "energy_uj").write_text("2500000\n")
    assert meters.energy() == 2.5
    meter = meters.Meter()
    (folder / "energy_uj").write_text("4000000\n")
    assert meter.read().joules == 1.5
    (folder / "energy_uj").write_text("100\n")  # the counter ran over
    assert meter.read().joules is None


def test_the_command_writes_a_fleet_that_a_market_takes(tmp_path, rlli):
    provider = {"kind": "diffusers", "model": "tiny:stable-diffusion-3", "width": 32, "height": 32}
    generate = {"requests": ["a cat"], "providers": [{"name": "tiny", **provider}]}
    study = {
        "name": "s", "catalog": {"generate": generate}, "judge": {"kind": "psychometric"},
        "population": {"sample": {"size": 2}}, "policies": {"Random": {"learner": "random"}},
    }  # fmt: skip
    config, fleet = tmp_path / "study.yaml", tmp_path / "fleet.json"
    config.write_text(json.dumps(study))
    status, out, err = rlli(
        "measure-providers", config, "--output", fleet, "--steps", "2,12", "--repeats", "1",
        "--clock", "10000",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "runtime: [0, " in out
    from rlli_jax.envs.edge_market import load_fleet

    found = load_fleet(fleet)
    assert found.capacity.tolist() == [12]
    assert found.pace.tolist() == [1.0]
