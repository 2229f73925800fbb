"""Every run of a sweep reaches TensorBoard and Weights & Biases, with its settings and curve."""

import json
import struct
import sys

import numpy as np
import pytest
import xarray as xr

from rlli_jax.errors import InputError
from rlli_jax.experiments.sweeps.results import write_dataset
from rlli_jax.experiments.sweeps.tracking import track

LEARNING_RATE = "policies.PPO.hyperparams.learning_rate"


@pytest.fixture
def sweep(tmp_path):
    """Two points, two seeds, three iterations of 128 steps; no episode ended in the first."""
    rng = np.random.default_rng(0)
    dims = ("policy", "point", "seed")
    curve = rng.uniform(1, 2, (1, 2, 2, 3)).astype(np.float32)
    curve[..., 0] = np.nan
    dataset = xr.Dataset(
        {
            "objective": (dims, rng.uniform(1, 2, (1, 2, 2)).astype(np.float32)),
            "ratio": (dims, rng.uniform(0, 1, (1, 2, 2)).astype(np.float32)),
            "env_steps": (dims[:2], np.full((1, 2), 128, np.int32)),
            "curve": ((*dims, "iteration"), curve),
        },
        {"policy": ["PPO"], "seed": np.arange(2), LEARNING_RATE: ("point", [1e-3, 1e-2])},
        {"title": "tiny", "swept": json.dumps([LEARNING_RATE])},
    )
    write_dataset(dataset, tmp_path / "sweep.nc")
    return tmp_path / "sweep.nc", dataset


def events(folder):
    """What TensorBoard's files in a folder hold."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def kept(file):
    """What a small file of an offline run of Weights & Biases holds: one block of a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()[7:]
    assert len(data) < 2**15
    while data:
        _, length, kind = struct.unpack("<IHB", data[:7])
        assert kind == 1  # a whole record
        yield Record.FromString(data[7 : 7 + length])
        data = data[7 + length :]


def test_tensorboard(sweep):
    path, dataset = sweep
    for _ in range(2):  # the second time replaces the first
        assert str(path.parent / "tensorboard") in track("tensorboard", path)
    for point in range(2):
        for seed in range(2):
            folder = path.parent / f"tensorboard/PPO/point {point}/seed {seed}"
            scalars = [(e.step, v.simple_value) for e in events(folder) for v in e.summary.value]
            expected = dataset["curve"].values[0, point, seed, 1:]
            assert [step for step, _ in scalars] == [256, 384]
            np.testing.assert_allclose([value for _, value in scalars], expected, rtol=1e-6)
            told = {v.tag: v for e in events(folder / "settings") for v in e.summary.value}
            start = told["_hparams_/session_start_info"].metadata.plugin_data.content
            assert LEARNING_RATE.encode() in start
            ratio = dataset["ratio"].values[0, point, seed]
            assert told["ratio"].simple_value == pytest.approx(ratio)


def test_weights_and_biases(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    path, dataset = sweep
    assert "group tiny" in track("wandb", path)
    found = {}
    for file in path.parent.glob("wandb/offline-run-*/*.wandb"):
        records = list(kept(file))
        run = next(r.run for r in records if r.HasField("run"))
        found[run.display_name] = run, [r.history for r in records if r.HasField("history")]
    assert set(found) == {f"PPO/point {p}/seed {s}" for p in range(2) for s in range(2)}
    run, history = found["PPO/point 1/seed 0"]
    assert (run.project, run.run_group) == ("rlli_jax", "tiny")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config[LEARNING_RATE] == 1e-2
    values = [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in row.item}
        for row in history
    ]
    expected = dataset["curve"].values[0, 1, 0, 1:]
    np.testing.assert_allclose([row["episode_return"] for row in values], expected, rtol=1e-6)
    assert [row["_step"] for row in values] == [256, 384]


def test_a_tracker_that_is_not_installed(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"needs the package wandb.*pip install 'rlli_jax\[wandb"):
        track("wandb", sweep[0])
