"""Loading a run directory: what is read, and one sentence for everything that can be wrong."""

import json
import shutil

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.report import load_run


def test_loads_what_was_written(run_dir):
    run = load_run(run_dir)
    assert run.name == "synthetic"
    assert run.table.users == ("Ada", "Bruno")
    assert run.table.stand_in
    assert run.traits.shape == (2, 5)
    names = [policy.name for policy in run.policies]
    assert names == [
        "PPO",
        "DQN",
        "PPO knowing the persona",
        "DQN knowing the persona",
        "Random",
        "Optimal",
    ]
    ppo = run.policies[0]
    assert ppo.learned
    assert ppo.observation == ("action", "reward")
    assert ppo.curve.episode_return.shape == (5, 30)
    assert run.policies[4].train_seconds is None
    assert run.reference.optimum == pytest.approx(run.table.provider_values.max(1).sum())
    assert run.thumbnail(0, 0).width == 128
    assert run.thumbnail(1, 2) is None
    assert run.human.requests == 40


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "versions.json",
        "population.csv",
        "table.npz",
        "references.json",
        "policies/PPO/summary.json",
        "policies/PPO/evaluation.npz",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named(run_dir, name, damage):
    path = run_dir / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\xff{")
    with pytest.raises(InputError) as error:
        load_run(run_dir)
    message = str(error.value)
    assert name in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["human.json", "policies/PPO/curve.npz"])
def test_a_damaged_optional_file_is_named(run_dir, name):
    (run_dir / name).write_bytes(b"PK\x03\x04 not a file")
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        load_run(run_dir)


def test_a_truncated_picture_is_named(run_dir):
    path = run_dir / "pictures" / "0-1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"0-1\.jpg cannot be read"):
        load_run(run_dir).thumbnail(0, 1)


def test_a_key_left_out_is_named(run_dir):
    path = run_dir / "policies" / "PPO" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["rounds"]
    path.write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"summary\.json has no entry 'rounds'"):
        load_run(run_dir)


def test_an_evaluation_of_another_table_is_refused(run_dir):
    path = run_dir / "policies" / "PPO" / "evaluation.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"choices": arrays["choices"][..., :-1]})
    with pytest.raises(InputError, match=r"choices has shape \(5, 2, 2, 2\) where \(5, 2, 2, 3\)"):
        load_run(run_dir)


def test_users_of_population_and_table_must_agree(run_dir):
    path = run_dir / "population.csv"
    path.write_text(path.read_text().replace("Ada", "Zoe"))
    with pytest.raises(InputError, match="lists other users"):
        load_run(run_dir)


def test_opinions_of_an_unknown_policy_are_refused(run_dir):
    path = run_dir / "human.json"
    path.write_text(path.read_text().replace('"PPO knowing the persona"', '"sarsa"'))
    with pytest.raises(InputError, match="no policy sarsa"):
        load_run(run_dir)


def test_an_optimum_of_zero_is_refused(run_dir):
    path = run_dir / "references.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"optimum": 0.0}))
    with pytest.raises(InputError, match="optimum is not positive"):
        load_run(run_dir)


def test_a_directory_without_policies_or_none_at_all(run_dir, tmp_path):
    shutil.rmtree(run_dir / "policies")
    with pytest.raises(InputError, match="holds no policy"):
        load_run(run_dir)
    with pytest.raises(InputError, match="not a run directory"):
        load_run(tmp_path / "nowhere")
