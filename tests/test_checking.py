"""Configs and hyperparameters made in Python are checked as those of a YAML file are."""

import pickle
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams
from rlli_jax.learners.hyperparams import Hyperparams
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams
from rlli_jax.learners.reinforce import ReinforceConfig, ReinforceHyperparams
from rlli_jax.learners.sac import D2SACConfig, SACConfig, SACHyperparams
from rlli_jax.learners.vine import VineConfig, VineHyperparams
from rlli_jax.studies import load_study
from rlli_jax.teaching.language_policy import LanguagePolicyConfig
from rlli_jax.teaching.methods import Method, TeachingConfig, TeachingHyperparams

PAPER = Path(__file__).parent.parent / "configs" / "paper.yaml"
CONFIGS = (
    PPOConfig, DQNConfig, ReinforceConfig, SACConfig, D2SACConfig, VineConfig, TeachingConfig,
    LanguagePolicyConfig,
)  # fmt: skip
HYPERPARAMS = (
    PPOHyperparams, DQNHyperparams, ReinforceHyperparams, SACHyperparams, VineHyperparams,
)  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_config_refuses_a_negative_size(kind):
    says = rf"^{kind.__name__}: num_envs: must be greater than 0 \(given: -4\)\.$"
    with pytest.raises(InputError, match=says):
        kind(num_envs=-4)
    with pytest.raises(InputError, match=says):
        replace(kind(), num_envs=-4)


@pytest.mark.parametrize("kind", HYPERPARAMS)
def test_all_hyperparameters_refuse_a_number_out_of_bounds(kind):
    says = rf"^{kind.__name__}: gamma: must be less than or equal to 1 \(given: 2.0\)\.$"
    for made in (
        lambda: kind(gamma=2.0),
        lambda: kind().replace(gamma=2.0),
        lambda: kind(gamma=np.float32(2)),
    ):
        with pytest.raises(InputError, match=says):
            made()


@pytest.mark.parametrize(
    ("key", "value", "make"),
    [
        ("config.num_envs", -4, lambda: PPOConfig(num_envs=-4)),
        ("config.hidden", "wide", lambda: PPOConfig(hidden="wide")),
        ("config.activation", "rel", lambda: PPOConfig(activation="rel")),
        ("config.num_env", 4, lambda: PPOConfig(num_env=4)),
        ("hyperparams.gamma", 2.0, lambda: PPOHyperparams(gamma=2.0)),
    ],
)
def test_a_mistake_has_the_sentence_that_it_has_in_yaml(key, value, make):
    with pytest.raises(InputError) as in_yaml:
        load_study(PAPER, [f"policies.PPO.{key}={value}"])
    with pytest.raises(InputError) as in_python:
        make()
    block, _, field = key.partition(".")
    assert (
        str(in_python.value).partition(": ")[2]
        == (str(in_yaml.value).partition(f"policies.PPO.{block}.")[2])
    )
    assert field in str(in_python.value)


def test_a_rule_between_fields_and_a_misspelt_choice_are_one_sentence():
    with pytest.raises(InputError, match=r"^PPOConfig: num_envs x num_steps = 192 does not"):
        PPOConfig(num_envs=3, num_minibatches=5)
    with pytest.raises(InputError, match=r"^Method: comparison: must be 'previous', 'same_state'"):
        Method(comparison="next")


def test_numbers_are_taken_as_in_yaml():
    assert PPOConfig(num_envs=np.int64(8), num_steps=4e1) == PPOConfig(num_envs=8, num_steps=40)
    gamma = PPOHyperparams(gamma=1).gamma
    assert isinstance(gamma, float)
    assert gamma == 1


def test_arrays_and_what_jax_puts_in_place_of_numbers_pass_untouched():
    rates = jnp.array([0.0, -1.0])
    hyper = PPOHyperparams(learning_rate=rates, gamma=np.full(2, 2.0))
    assert hyper.learning_rate is rates
    assert jax.jit(lambda h: h.replace(gamma=h.gamma + 1))(hyper).gamma.tolist() == [3, 3]
    assert jax.tree.map(lambda x: "name", hyper).gamma == "name"
    axes = jax.tree.map(lambda x: None, hyper).replace(learning_rate=0)
    assert jax.vmap(lambda h: h.learning_rate, (axes,))(hyper).tolist() == [0, -1]


def test_hyperparameters_keep_the_paths_of_their_leaves_and_can_be_pickled():
    """By which checkpoints find them."""
    leaves = dict(jax.tree_util.tree_leaves_with_path(TeachingHyperparams(trust=2.0)))
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves.items()
    }
    assert named["trust"] == 2
    assert named["student.gae_lambda"] == 0.95
    for value in (TeachingHyperparams(trust=2.0), D2SACConfig(num_envs=8)):
        assert pickle.loads(pickle.dumps(value)) == value
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x, DQNHyperparams()), DQNHyperparams())


def test_hyperparameters_of_ones_own_need_defaults():
    with pytest.raises(TypeError, match="rate needs a default"):

        class Mine(Hyperparams):
            rate: float


def test_keys_of_before_are_taken_for_what_they_are_called_now():
    older = VineConfig(spread=3, paid=True, shared=True)
    assert older == VineConfig(max_start_steps=3, known_rewards=True, per_action_network=True)
    assert PPOConfig(shared=True).per_action_network
