"""A trained policy serves without this package, and names a provider for a persona."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_study import LEARNED, PROVIDERS, carry_out, write_config, write_persona_config

from rlli_jax.envs.policy import policy_input
from rlli_jax.errors import InputError
from rlli_jax.experiments import serving
from rlli_jax.experiments.serving import export_policy, load_policy, select
from rlli_jax.qoe import QoETable

PERSONA = (4.2, 3.1, 2.5, 3.9, 2.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished study of five users with personas, and two policies, one of which knows them."""
    folder = tmp_path_factory.mktemp("serving")
    config = write_persona_config(folder, iterations=20)
    carry_out(config, folder / "run")
    return folder / "run"


# Blocks every other import, so that a dependence on the project's code would show.
SERVE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] not in ("rlli_jax", "flax", "optax", "gymnax", "distrax"), name
sys.meta_path.insert(0, Only())
import jax, numpy as np
import jax.export
policy = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
inputs = np.load(sys.argv[2])
for size in (1, len(inputs["observation"])):
    action = policy.call(inputs["observation"][:size], inputs["legal"][:size])
np.save(sys.argv[3], action)
"""


def test_an_exported_policy_serves_with_jax_and_numpy_alone(run, tmp_path):
    trained = load_policy(run, "knowing")
    file = export_policy(trained, tmp_path / "policy.bin")
    meaning = json.loads((tmp_path / "policy.bin.json").read_text())
    assert meaning["observation"] == [
        *(f"last provider was {p}" for p in PROVIDERS),
        "last reward",
        *(f"({t} - 3) / 2" for t in ("Openness", "Conscientiousness", "Extraversion",
                                     "Agreeableness", "Neuroticism")),
    ]  # fmt: skip
    assert meaning["stand_in"]
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(40, len(meaning["observation"]))).astype(np.float32)
    legal = generator.random((40, 3)) < 0.7
    legal[:, 0] |= ~legal.any(1)
    np.savez(tmp_path / "inputs.npz", observation=observation, legal=legal)
    subprocess.run(
        [sys.executable, "-c", SERVE, file, tmp_path / "inputs.npz", tmp_path / "actions.npy"],
        check=True,
    )
    actions = np.load(tmp_path / "actions.npy")
    state = trained.env.reset_env(jax.random.key(0), trained.params)[1]

    def act(observation, legal):
        seen = policy_input(trained.env, observation, state, trained.params)._replace(legal=legal)
        return trained.policy.act(jax.random.key(1), seen, ())[0]

    np.testing.assert_array_equal(actions, jax.vmap(act)(observation, legal))
    assert legal[np.arange(40), actions].all()
    assert len(set(actions)) > 1


def test_the_best_seed_of_the_best_policy_is_taken(run):
    trained = load_policy(run)
    assert trained.name == "knowing"  # the only one that observes the persona
    with np.load(run / "policies" / "knowing" / "evaluation.npz") as evaluation:
        assert evaluation["objective"][trained.seed] == evaluation["objective"].max()


def test_select_asks_the_policy_at_the_start_of_an_episode(run):
    selection = select(run, PERSONA)
    trained = load_policy(run)
    state = trained.env.reset_env(jax.random.key(0), trained.params)[1]
    observation = np.concatenate([np.zeros(4), (np.array(PERSONA) - 3) / 2]).astype(np.float32)
    seen = policy_input(trained.env, observation, state, trained.params)
    action = int(trained.policy.act(jax.random.key(0), seen, ())[0])
    assert selection.provider == PROVIDERS[action]
    assert selection.qoe == selection.predictions[selection.provider]
    assert selection.policy == "knowing"


def test_every_provider_is_predicted_with_an_interval(run):
    selection = select(run, PERSONA)
    assert set(selection.predictions) == set(PROVIDERS)
    for predicted in selection.predictions.values():
        assert 0 <= predicted.low < predicted.mean < predicted.high <= 1
    assert "90 % interval" in str(selection.qoe)


def test_ratings_of_a_users_own_move_what_is_believed(run, tmp_path):
    table = QoETable.load(run / "table.npz")
    file = tmp_path / "ratings.csv"
    lines = [f"{request},{PROVIDERS[1]},5" for request in table.requests]
    file.write_text("\n".join(["request,provider,rating", *lines]))
    before = select(run, PERSONA).predictions[PROVIDERS[1]]
    chosen = serving.select_by_ratings(run, file, PERSONA)
    assert chosen.predictions[PROVIDERS[1]].mean > before.mean
    alone = serving.select_by_ratings(run, file)
    assert "4 ratings" in alone.policy


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a cat,nobody,3", "row 1.*provider 'nobody' is not in the run"),
        ("a cat,ink,7", "row 1.*not on the scale"),
        ("a cat,ink,", "row 1.*not on the scale"),
        ("", "no row|empty|no data"),
    ],
)
def test_mistakes_in_ratings_are_one_sentence(run, tmp_path, row, message):
    file = tmp_path / "ratings.csv"
    file.write_text(f"request,provider,rating\n{row}\n")
    with pytest.raises(InputError, match=message):
        serving.select_by_ratings(run, file)


@pytest.mark.parametrize(
    ("traits", "name", "message"),
    [
        ((4.2, 3.1), None, "give five numbers from 1 to 5"),
        ((4.2, 3.1, 2.5, 3.9, 6.0), None, "give five numbers from 1 to 5"),
        (PERSONA, "blind", "'blind' .* cannot choose by persona"),
        (PERSONA, "none", "no policy 'none' that learned; it has blind, knowing"),
    ],
)
def test_a_mistake_is_one_sentence(run, traits, name, message):
    with pytest.raises(InputError, match=message):
        select(run, traits, name)


def test_an_unfinished_run_says_so(run, tmp_path):
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(InputError, match=r"evaluation.npz cannot be read: the run is not finished"):
        load_policy(tmp_path)


def test_no_provider_is_named_for_a_persona_where_users_are_known_by_name_only(tmp_path):
    config = write_config(tmp_path, policies={"PPO": LEARNED["PPO"] | {"iterations": 2}})
    carry_out(config, tmp_path / "run")
    assert (tmp_path / "run" / "population.csv").read_text() == "name\nann\nben\n"
    with pytest.raises(InputError, match="known by name only"):
        select(tmp_path / "run", PERSONA)
    # A run of before, which called everybody average.
    (tmp_path / "run" / "population.csv").write_text(
        "name,O,C,E,A,N\nann,3,3,3,3,3\nben,3,3,3,3,3\n"
    )
    with pytest.raises(InputError, match="known by name only"):
        select(tmp_path / "run", PERSONA)


def test_an_unfinished_run_names_the_whole_command_that_goes_on(run, tmp_path):
    copy = tmp_path / "a run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "knowing" / "20")
    command = f"rlli run '{copy}/config.yaml' --output '{copy}' --resume"
    with pytest.raises(InputError, match=re.escape(f"to its end with: {command}.")):
        load_policy(copy, "knowing")
    (copy / "policies" / "knowing" / "evaluation.npz").unlink()
    with pytest.raises(InputError, match=re.escape(f"go on with: {command}.")):
        load_policy(copy, "knowing")
