"""A sweep on a real local Ray cluster, one of whose workers is killed half way."""

import os
import signal

import pytest
import xarray as xr
from experiments.sweep_study import PPO, write_sweep

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

SWEEP = {"grid": {f"{PPO}.gamma": [0.1, 0.5, 0.9]}, "chunk": 1}


def test_a_killed_worker_loses_nothing(tmp_path, monkeypatch):
    import jax
    from rich.console import Console

    from rlli_jax.experiments.sweeps import ray_engine
    from rlli_jax.experiments.sweeps.run import run_sweep
    from rlli_jax.studies import load_study

    config = write_sweep(tmp_path, SWEEP)
    run_sweep(load_study(config), tmp_path / "local", "refuse", Console(quiet=True), "local")
    # The third chunk kills its worker, the first time: after its work, before it is handed over.
    marks = tmp_path / "marks"
    marks.mkdir()
    real = ray_engine.run_chunk

    def mortal(group, name, chunk, cache):
        results = real(group, name, chunk, cache)
        if chunk == 2 and not (marks / "killed").exists():
            (marks / "killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return results

    monkeypatch.setattr(ray_engine, "run_chunk", mortal)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    environment = {"env_vars": {"JAX_PLATFORMS": "cpu"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        run_sweep(load_study(config), tmp_path / "ray", "refuse", Console(quiet=True), "ray")
    finally:
        ray.shutdown()
        jax.config.update("jax_compilation_cache_dir", None)
    assert int((marks / "killed").read_text()) != os.getpid()
    local, cluster = (
        xr.load_dataset(tmp_path / name / "sweep.nc", engine="scipy") for name in ("local", "ray")
    )
    assert local.identical(cluster)
