"""What a sweep varies, and which runs share a compilation. Nothing is compiled here."""

import numpy as np
import pytest
from experiments.sweep_study import DQN, PPO, write_sweep

from rlli_jax.errors import InputError, shown
from rlli_jax.experiments.sweeps.plan import make_plan, shared_leaves
from rlli_jax.studies import load_study


def load(tmp_path, sweep, overrides=(), **changes):
    return load_study(write_sweep(tmp_path, sweep, **changes), overrides)


def test_a_grid_holds_every_combination(tmp_path):
    sweep = load(tmp_path, {"grid": {f"{PPO}.gamma": [0.5, 0.9], "environment.rounds": [1, 2, 3]}})
    assert sweep.points == [
        {f"{PPO}.gamma": gamma, "environment.rounds": rounds}
        for gamma in (0.5, 0.9)
        for rounds in (1, 2, 3)
    ]
    last = sweep.studies[-1]
    assert (last.policies["PPO"].hyperparams.gamma, last.environment.rounds) == (0.9, 3)


def test_points_are_taken_as_they_are_and_tiny_numbers_stay_numbers(tmp_path):
    points = [{f"{PPO}.learning_rate": 1e-5, "seed": 7}, {f"{PPO}.learning_rate": 2, "seed": 8}]
    sweep = load(tmp_path, {"points": points})
    assert sweep.points == points
    assert [s.policies["PPO"].hyperparams.learning_rate for s in sweep.studies] == [1e-5, 2]
    assert [s.seed for s in sweep.studies] == [7, 8]


def test_a_random_draw_keeps_to_its_ranges_and_repeats(tmp_path):
    keys = {
        f"{PPO}.learning_rate": {"log_uniform": [1e-4, 1e-1]},
        f"{PPO}.gamma": {"uniform": [0.5, 0.6]},
        "environment.rounds": {"integers": [2, 3]},
        "policies.PPO.observation": {"choice": [["action"], ["action", "reward"]]},
    }
    sweep = load(tmp_path, {"random": {"count": 200, "keys": keys}})
    rate, gamma, rounds, observation = zip(*(point.values() for point in sweep.points), strict=True)
    assert min(rate) >= 1e-4
    assert max(rate) <= 1e-1
    # The logarithm is uniform on [-4, -1]: mean -2.5, standard error 0.06.
    assert abs(np.log10(rate).mean() + 2.5) < 0.25
    assert 0.5 <= min(gamma) < 0.51 < 0.59 < max(gamma) <= 0.6
    assert set(rounds) == {2, 3}
    assert {tuple(parts) for parts in observation} == {("action",), ("action", "reward")}
    again = load(tmp_path, {"random": {"count": 200, "keys": keys}})
    other = load(tmp_path, {"random": {"count": 200, "seed": 1, "keys": keys}})
    assert again.points == sweep.points != other.points


def test_overrides_reach_the_study_and_the_sweep(tmp_path):
    sweep = load(tmp_path, {"grid": {"seed": [1, 2]}}, ["seeds=5", "sweep.grid.seed=[3]"])
    assert (sweep.study.seeds, sweep.points) == (5, [{"seed": 3}])


def test_an_anchor_in_the_file_does_not_tie_policies_together(tmp_path):
    shared = {"gamma": 0.8}
    policy = {"learner": "ppo", "iterations": 1, "hyperparams": shared}
    config = write_sweep(
        tmp_path, {"grid": {f"{PPO}.gamma": [0.1]}}, policies={"PPO": policy, "Other": policy}
    )
    assert "&id" in config.read_text()
    study = load_study(config).studies[0]
    gammas = [study.policies[name].hyperparams.gamma for name in ("PPO", "Other")]
    assert gammas == [0.1, 0.8]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({}, "give exactly one of grid, points, random; here none is given"),
        ({"grid": {"seed": [1]}, "points": [{"seed": 1}]}, "grid and points are given"),
        ({"grid": {"seed": []}}, "sweep: grid.seed: "),
        ({"grid": {"seeds": [1]}}, "seeds cannot be swept"),
        ({"points": [{"seed": 1}, {"environment.rounds": 1}]}, "give every point the same keys"),
        ({"grid": {f"{PPO}.gama": [0.5]}}, r"point 1 of the sweep .*gama: unknown key, did you"),
        ({"grid": {f"{PPO}.gamma": [0.5, 2.0]}}, r"point 2 of the sweep .*less than or equal"),
        ({"random": {"count": 2, "keys": {"seed": {"integers": [3, 1]}}}}, "lower end comes first"),
        (
            {"random": {"count": 2, "keys": {f"{PPO}.clip": {"log_uniform": [0, 1]}}}},
            "ends above 0",
        ),
        ({"random": {"count": 2, "keys": {f"{PPO}.clip": {}}}}, "exactly one of uniform"),
        ({"grid": {"seed": [1]}, "policies": ["Nobody"]}, "'Nobody' is no policy that learns"),
        ({"grid": {"seed": [1]}, "chunks": 3}, "chunks: unknown key, did you mean chunk"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_key(tmp_path, sweep, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, sweep)


def test_a_file_without_the_block_says_so(tmp_path):
    with pytest.raises(InputError, match="the block sweep is missing"):
        load(tmp_path, None)


def test_traced_keys_share_a_group_and_shapes_tell_groups_apart(tmp_path):
    traced = {f"{PPO}.gamma": [0.5, 0.9], f"{PPO}.clip": [0.1, 0.2], "environment.rounds": [1, 2]}
    traced |= {"seed": [0, 1]}
    assert len(make_plan(load(tmp_path, {"grid": traced})).groups) == 1
    for key, values in {
        "policies.PPO.config.num_envs": [2, 4],
        "policies.PPO.config.hidden": [[4], [4, 4]],
        "policies.PPO.observation": [["action"], ["action", "reward"]],
        "policies.PPO.iterations": [1, 2],
        "environment.assignment": ["sequential", "joint"],
    }.items():
        plan = make_plan(load(tmp_path, {"grid": traced | {key: values}}))
        assert [len(group) for group in plan.groups] == [32, 32]
        assert plan.varies(plan.groups[1]) == {key: shown(values[1])}


def test_runs_that_a_key_does_not_touch_are_there_once(tmp_path):
    config = write_sweep(tmp_path, {"grid": {f"{PPO}.gamma": [0.5, 0.9, 0.99]}})
    study = load_study(config).study.policies["PPO"].model_dump(mode="json")
    study["hyperparams"].pop("total_iterations")
    sweep = load(
        tmp_path, {"grid": {f"{PPO}.gamma": [0.5, 0.9, 0.99]}}, policies={"PPO": study, "DQN": DQN}
    )
    plan = make_plan(sweep)
    assert [len(group) for group in plan.groups] == [6, 2]
    assert (plan.place[1] == plan.place[1, :1]).all()  # DQN's runs serve every point
    assert len(np.unique(plan.place[0].reshape(-1, 2), axis=0)) == 6


def test_only_what_differs_is_there_once_for_each_run(tmp_path):
    plan = make_plan(load(tmp_path, {"grid": {"environment.rounds": [1, 2]}}))
    shared = shared_leaves(plan.groups[0].train)
    assert not shared.rounds
    assert shared.qoe
    assert shared.mean
