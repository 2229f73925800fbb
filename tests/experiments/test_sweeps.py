"""Sweeps are compiled once, do not depend on devices, and survive a kill."""

import shutil
import signal
import socket
import time

import chex
import jax
import numpy as np
import pytest
import xarray as xr
from experiments.sweep_study import DQN, PPO, start_sweep, wait, write_sweep
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.sweeps import engine
from rlli_jax.experiments.sweeps.plan import make_plan
from rlli_jax.experiments.sweeps.run import run_sweep
from rlli_jax.experiments.training import train
from rlli_jax.learners import LEARNERS
from rlli_jax.studies import load_study, render

CHUNKS = {"grid": {f"{PPO}.gamma": [0.5, 0.9], f"{PPO}.learning_rate": [1e-3, 1e-2]}, "chunk": 2}


def both_policies(folder, **changes):
    """A sweep of PPO (4 chunks) and DQN (1 chunk), with a cache of compilations beside it."""
    plain = write_sweep(folder, CHUNKS)
    ppo = load_study(plain).study.policies["PPO"].model_dump(mode="json")
    ppo["hyperparams"].pop("total_iterations")
    policies = {"PPO": ppo, "DQN": DQN}
    for policy in policies.values():
        policy |= changes
    return write_sweep(folder, CHUNKS, policies=policies)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that ran through on one device."""
    folder = tmp_path_factory.mktemp("sweep")
    config = both_policies(folder, iterations=12)
    wait(start_sweep(config, folder / "one"))
    return config, folder / "one"


def same(first, second):
    """Whether two sweeps hold the same bits."""
    a, b = (xr.load_dataset(path / "sweep.nc", engine="scipy") for path in (first, second))
    assert len(list((first / "chunks").iterdir())) == len(list((second / "chunks").iterdir())) == 5
    return a.identical(b)


def test_two_devices_give_the_results_of_one(finished, tmp_path):
    config, one = finished
    wait(start_sweep(config, tmp_path / "two", devices=2))
    assert same(one, tmp_path / "two")


def test_a_killed_sweep_goes_on_where_it_was(finished, tmp_path):
    config, whole = finished
    killed = tmp_path / "killed"
    process = start_sweep(config, killed)
    deadline = time.monotonic() + 200
    # In the middle of the second chunk: the first is a file, the second has a checkpoint.
    while not (list(killed.glob("checkpoints/wave-0-1/[0-9]*"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first = killed / "chunks" / "0-0.npz"
    written = first.stat().st_mtime_ns
    assert not (killed / "sweep.nc").exists()
    assert len(list((killed / "chunks").glob("*.npz"))) < 5
    iteration = Checkpoints(killed / "checkpoints" / "wave-0-1").latest()
    assert iteration is None or 0 < iteration < 12
    wait(start_sweep(config, killed))
    assert first.stat().st_mtime_ns == written
    assert same(whole, killed)
    assert not (killed / "checkpoints").exists()


def test_two_processes_work_as_one_program(finished, tmp_path):
    config, one = finished
    shared = {"address": f"localhost:{free_port()}", "devices": 1}
    processes = [start_sweep(config, tmp_path / "hosts", process=i, **shared) for i in range(2)]
    for process in processes:
        wait(process)
    assert same(one, tmp_path / "hosts")


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_a_point_is_the_study_of_its_overrides(finished, tmp_path):
    """Run through the trainer of `rlli run`, a point gives the same curve to float32 tolerance."""
    config, one = finished
    dataset = xr.load_dataset(one / "sweep.nc", engine="scipy")
    sweep = load_study(config)
    plan = make_plan(sweep)
    for p, policy in enumerate(sweep.policies):
        index, first = plan.place[p, 3, 0]
        group = plan.groups[index]
        keys = np.stack([group.keys[first + s] for s in range(2)])
        trained = train(
            group.learner(),
            sweep.studies[3].policies[policy].hyperparams,
            jax.tree.map(jax.numpy.asarray, group.train[first]),
            jax.random.wrap_key_data(jax.numpy.asarray(keys)),
            12,
            12,
            Checkpoints(tmp_path / policy),
        )
        curve = dataset["curve"].sel(policy=policy).isel(point=3)
        np.testing.assert_allclose(curve, trained.metrics["episode_return"], rtol=1e-4)
        assert np.isfinite(curve).any()


def test_a_thousand_runs_compile_once(tmp_path, monkeypatch):
    chex.clear_trace_counter()
    made = LEARNERS["ppo"].make

    def traced_once(env, config):
        learner = made(env, config)
        return learner._replace(step=chex.assert_max_traces(learner.step, n=1))

    monkeypatch.setitem(LEARNERS, "ppo", LEARNERS["ppo"]._replace(make=traced_once))
    draw = {"log_uniform": [1e-3, 0.5]}
    names = ("learning_rate", "entropy_coefficient", "gamma", "clip")
    keys = {f"{PPO}.{name}": draw for name in names}
    config = write_sweep(tmp_path, {"random": {"count": 250, "keys": keys}, "chunk": 64})
    sweep = load_study(config, ["seeds=4", "policies.PPO.iterations=4"])
    dataset = xr.load_dataset(
        run_sweep(sweep, tmp_path / "runs", "refuse", Console(quiet=True)), engine="scipy"
    )
    assert dataset["objective"].shape == (1, 250, 4)
    assert np.isfinite(dataset["objective"]).all()
    first, last = (len(np.unique(dataset["curve"][..., i])) for i in (0, -1))
    assert first <= 4 < last  # at first only seeds tell the runs apart, then hyperparameters do
    np.testing.assert_allclose(dataset[f"{PPO}.gamma"], [p[f"{PPO}.gamma"] for p in sweep.points])


def test_runs_whose_parameters_are_no_numbers_are_told(tmp_path):
    config = write_sweep(tmp_path, {"grid": {f"{PPO}.learning_rate": [1e-3, 1e38]}})
    run_sweep(load_study(config), tmp_path / "runs", "refuse", Console(quiet=True))
    dataset = xr.load_dataset(tmp_path / "runs" / "sweep.nc", engine="scipy")
    np.testing.assert_array_equal(dataset["diverged"], [[[0, 0], [1, 1]]])
    page = render(tmp_path / "runs").read_text()
    assert "parameters are no numbers at the end of some runs" in page
    assert "(learning_rate 1e+38: 2)" in page


def test_seeds_wider_than_32_bits_keep_their_digits(tmp_path):
    config = write_sweep(tmp_path, {"grid": {"seed": [1, 3_000_000_000]}})
    run_sweep(load_study(config), tmp_path / "runs", "refuse", Console(quiet=True))
    dataset = xr.load_dataset(tmp_path / "runs" / "sweep.nc", engine="scipy")
    assert dataset["study.seed"].values.tolist() == ["1", "3000000000"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"groups": [{"runs": []}]}', "no json"])
def test_a_damaged_plan_is_one_sentence(finished, tmp_path, content):
    config, one = finished
    shutil.copytree(one, tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_text(content)
    with pytest.raises(InputError, match=r"plan\.json cannot be read .*--overwrite"):
        run_sweep(load_study(config), tmp_path / "run", "resume", Console(quiet=True))


def test_chunks_keep_to_the_memory_bound(tmp_path):
    config = write_sweep(tmp_path, {"grid": {"seed": list(range(32))}, "chunk": 64})
    group = make_plan(load_study(config)).groups[0]
    ready = engine.prepare(group, jax.devices()[:1], 64, 1e9)
    assert (group.chunk, ready.compilations) == (64, 1)
    bound = 0.3 * ready.bytes
    group.chunk = 0
    ready = engine.prepare(group, jax.devices()[:1], 64, bound)
    assert ready.bytes <= bound
    assert 5 < group.chunk < 64
    assert [i for span in group.chunks() for i in span] == list(range(64))
    with pytest.raises(InputError, match=r"one run .* raise sweep.memory_gb"):
        engine.prepare(group, jax.devices()[:1], 1, 100.0)


def test_points_with_other_users_or_iterations_leave_nan(tmp_path):
    config = write_sweep(
        tmp_path, {"grid": {"policies.PPO.iterations": [1, 3], "environment.rounds": [1, 2]}}
    )
    sweep = load_study(config, ["seeds=1"])
    path = run_sweep(sweep, tmp_path / "runs", "refuse", Console(quiet=True))
    dataset = xr.load_dataset(path, engine="scipy")
    assert dataset["curve"].shape == (1, 4, 1, 3)
    np.testing.assert_array_equal(
        np.isnan(dataset["curve"][0, :, 0, 2]), [True, True, False, False]
    )
    np.testing.assert_allclose(dataset["ratio"], dataset["objective"] / dataset["optimum"])


def test_a_directory_keeps_to_its_sweep(finished, tmp_path):
    config, one = finished
    quiet = Console(quiet=True)
    with pytest.raises(InputError, match="exists; continue it with --resume"):
        run_sweep(load_study(config), one, "refuse", quiet)
    other = load_study(config, ["sweep.chunk=3"])
    with pytest.raises(InputError, match="holds another sweep"):
        run_sweep(other, one, "resume", quiet)


def test_a_damaged_chunk_is_named(finished, tmp_path):
    config, one = finished
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    (copy / "chunks" / "0-1.npz").write_bytes(b"not a file of arrays")
    with pytest.raises(InputError, match=r"0-1.npz cannot be read .* go on with --resume"):
        run_sweep(load_study(config), copy, "resume", Console(quiet=True))


def test_the_time_of_training_is_told_without_that_of_starting(monkeypatch):
    """A program whose first call takes a second, each call 50 ms, and an iteration 10 ms."""

    class Clock:
        now, calls = 0.0, 0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(engine, "time", clock)

    def train(iterations):
        clock.now += 0.05 + 0.01 * iterations + (clock.calls == 0)
        clock.calls += 1

    assert engine.seconds_an_iteration(train, 1000) == pytest.approx(0.21 / 16)  # 16 at once
    assert clock.now < 3
    assert engine.seconds_an_iteration(train, 4) == pytest.approx(0.0225)  # no more are to come


def test_a_run_and_a_sweep_of_one_study_are_not_mixed(finished, tmp_path, rlli):
    config, one = finished
    shutil.copytree(one, tmp_path / "sweep")
    before = sorted(p.name for p in (tmp_path / "sweep").iterdir())
    plain = one / "config.yaml"
    status, _, errors = rlli("run", plain, "--output", tmp_path / "sweep", "--resume")
    assert status == 2
    assert "holds a sweep (its block sweep differs)" in errors
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == before
    (tmp_path / "sweep" / "sweep.yaml").unlink()
    with pytest.raises(InputError, match=r"holds a run \(its block sweep differs\)"):
        run_sweep(load_study(config), tmp_path / "sweep", "resume", Console(quiet=True))
