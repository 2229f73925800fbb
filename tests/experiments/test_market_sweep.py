"""A sweep over a study of the edge market: bandits and learners, stopped and gone on with."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import yaml
from experiments.test_market import TINY_REINFORCE, content
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.sweeps.plan import make_plan
from rlli_jax.experiments.sweeps.run import run_sweep
from rlli_jax.learners import bandits
from rlli_jax.studies import carry_out, load_study, render

PENALTY, GAMMA = "market.crash_penalty", "policies.PG.hyperparams.gamma"
LEARNED = {
    "PG": TINY_REINFORCE | {"reward": "regret"},
    "LinUCB": {"learner": "linucb", "steps": 60},
}


def written(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content(policies=LEARNED) | changes, sort_keys=False))
    return load_study(path)


@pytest.fixture(scope="module", autouse=True)
def fast_compilations(compilations):
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market-sweep")
    sweep = written(folder, sweep={"grid": {PENALTY: [1.0, 2.0], GAMMA: [0.5, 0.9]}, "chunk": 4})
    run_sweep(sweep, folder / "sweep", "refuse", Console(quiet=True))
    return sweep, folder / "sweep"


def test_numbers_of_the_market_are_traced_and_bandits_share_what_a_learner_tries(finished):
    plan = make_plan(finished[0])
    assert [(group.name, len(group)) for group in plan.groups] == [("reinforce", 8), ("linucb", 4)]
    assert len({id(problem) for problem in plan.problems}) == 2


def test_the_dataset_holds_shares_of_the_offline_optimum(finished):
    data = xr.load_dataset(finished[1] / "sweep.nc", engine="scipy")
    assert data.attrs["compared"] == "ratio"
    assert np.isfinite(data["ratio"]).all()
    assert (data["ratio"] <= 1 + 1e-5).all()
    assert "qoe" not in data
    np.testing.assert_allclose(data["objective"], data["returns"].mean("episode"), rtol=1e-5)
    page = render(finished[1]).read_text()
    assert "of the optimum at its best point" in page
    assert "relative to the mean optimum of the same episodes" in page


def test_a_sweep_that_stopped_ends_bit_for_bit_as_if_it_had_not(finished, tmp_path, monkeypatch):
    sweep, whole = finished
    sweep = replace(sweep, block=sweep.block.model_copy(update={"policies": ("PG",)}))
    save, kept = Checkpoints.save, []

    def stop_at_second(self, iteration, content):
        save(self, iteration, content)
        kept.append(iteration)
        if len(kept) == 2:  # in the second chunk
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop_at_second)
    path, quiet = tmp_path / "sweep", Console(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, path, "refuse", quiet, checkpoint_seconds=0.0)
    monkeypatch.undo()
    assert [p.name for p in (path / "chunks").iterdir()] == ["0-0.npz"]
    run_sweep(sweep, path, "resume", quiet)
    for chunk in ("0-0.npz", "0-1.npz"):
        with np.load(path / "chunks" / chunk) as gone_on, np.load(whole / "chunks" / chunk) as one:
            for name in one.files:
                np.testing.assert_array_equal(gone_on[name], one[name])


def test_a_bandit_whose_values_are_no_numbers_is_told_and_stops_none_after_it(
    tmp_path, monkeypatch
):
    add = bandits.Regression.add

    def broken(self, *given):
        learned = add(self, *given)
        return learned.replace(weights=learned.weights * jnp.nan)

    monkeypatch.setattr(bandits.Regression, "add", broken)
    policies = {"Bad": LEARNED["LinUCB"], "Random": {"learner": "random"}}
    study = written(tmp_path, policies=policies, evaluation={"episodes": 2, "optimum": False})
    with pytest.raises(InputError, match="policy Bad: parameters are no numbers from iter"):
        carry_out(study, tmp_path / "run", "refuse", Console(quiet=True))
    assert [p.name for p in (tmp_path / "run" / "policies").iterdir()] == ["Random"]
    assert "Random returns" in render(tmp_path / "run").read_text()
