"""What every learner promises: types, keys, platforms, and one sentence on a bad environment."""

import re
from functools import cache

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces
from probe_envs import ConstantReward
from small_learners import small_config

from rlli_jax.envs import policy
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners import LEARNERS

VARIANTS = {  # name -> registered learner, what differs from its small config
    **{name: (name, {}) for name in LEARNERS},
    "ppo with memory": ("ppo", {"memory": 3}),
    "prioritized dqn": (
        "dqn", {"prioritized": True, "n_step": 2, "quantiles": 3, "dueling": True},
    ),
    "sac that learns its temperature": ("sac", {"learn_temperature": True}),
}  # fmt: skip
every_learner = pytest.mark.parametrize("name", VARIANTS)
# XLA's own, for every backend or for the one whose branch it is in; none calls back to the host.
HARMLESS = {"cu_threefry2x32_ffi", "Sharding", "annotate_device_placement", "mhlo.topk"}


@cache
def environment():
    return ProviderSelection(observation=("persona", "action"))


def parts(name):
    """-> what makes a learner, its config and its hyperparameters."""
    learner, changes = VARIANTS[name]
    kind = LEARNERS[learner]
    return kind.make, small_config(kind, **changes), kind.hyperparams()


def made(name):
    """-> the learner, and its functions of arrays alone: init and evaluation."""
    make, config, hyperparams = parts(name)
    env = environment()
    learner = make(env, config)

    def init(words, params):
        return learner.init(jax.random.wrap_key_data(words), hyperparams, params)

    def evaluate(state, params):
        return policy.evaluate(env, learner.policy(state), jax.random.key(1), params, 3)

    return learner, init, evaluate


WORDS = np.array([0, 7], np.uint32)  # of jax.random.key(7)


@pytest.mark.parametrize("name", LEARNERS)
def test_training_does_not_end_by_itself_after_the_default_number_of_iterations(name):
    learner, init, _ = made(name)

    def late_iteration(words, params):
        before = init(words, params)
        total = getattr(before.hyperparams, "total_iterations", 0)
        before = before.replace(iteration=jnp.int32(total + 1))
        return before.params, learner.step(before, params)[0].params

    before, after = jax.jit(late_iteration)(WORDS, environment().default_params)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert any(jax.tree.leaves(changed))


@every_learner
def test_every_program_lowers_for_cpu_cuda_and_tpu_without_the_host(name):
    """Until it is run there; a callback, or LAPACK on the CPU, would show here."""
    learner, init, evaluate = made(name)
    params = environment().default_params
    state = jax.eval_shape(init, WORDS, params)
    for function, arguments in (
        (init, (WORDS, params)), (learner.step, (state, params)), (evaluate, (state, params)),
    ):  # fmt: skip
        lowered = (
            jax.jit(function).trace(*arguments).lower(lowering_platforms=("cpu", "cuda", "tpu"))
        )
        text = lowered.as_text()
        called = set(re.findall(r"custom_call @([\w.]+)", text))
        assert called <= HARMLESS
        assert "callback" not in text


@every_learner
def test_learners_keep_their_types_where_numbers_have_64_bits(name):
    learner, init, evaluate = made(name)
    with jax.enable_x64(True):
        params = environment().default_params
        state = jax.eval_shape(init, WORDS, params)
        after, _ = jax.eval_shape(learner.step, state, params)
        types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
        assert types[0] == types[1]
        assert jax.eval_shape(evaluate, state, params).returns.dtype == jnp.float32


@every_learner
def test_untyped_keys_start_the_same_state(name):
    make, config, hyperparams = parts(name)
    env = environment()
    learner = make(env, config)

    def first_words(key):
        return jax.random.key_data(learner.init(key, hyperparams, env.default_params).key)

    # Of the state only the key is asked for, so that nothing else is compiled.
    typed = jax.jit(jax.vmap(first_words))(jax.random.split(jax.random.key(3), 2))
    untyped = jax.jit(jax.vmap(first_words))(jax.random.split(jax.random.PRNGKey(3), 2))
    assert (typed == untyped).all()
    with pytest.raises(InputError, match=r"a random key is needed, such as jax.random.key\(0\)"):
        learner.init(3, hyperparams, env.default_params)


@every_learner
def test_a_learner_of_a_name_says_how_to_make_the_environment(name):
    make, config, _ = parts(name)
    with pytest.raises(InputError, match=r"gymnax.make\('CartPole-v1'\)"):
        make("CartPole-v1", config)
    with pytest.raises(InputError, match="a tuple is no gymnax environment, as it has no reset"):
        make(gymnax.make("CartPole-v1"), config)


class Own(ConstantReward):
    """An environment of one's own, with one thing wrong in each class below."""


class SixValues(Own):
    def step_env(self, *arguments):
        return *super().step_env(*arguments), {}


class DictObservation(Own):
    def observe(self, key, state, action, params):
        return {"a": jnp.array([state.sign])}


class GrowingObservation(Own):
    def step_env(self, *arguments):
        observation, *rest = super().step_env(*arguments)
        return jnp.append(observation, 1.0), *rest


class OtherType(Own):
    def step_env(self, *arguments):
        observation, state, *rest = super().step_env(*arguments)
        return observation, state.replace(time=state.time * 1.0), *rest


class RewardOfEachUser(Own):
    def reward(self, state, action):
        return jnp.ones(3)


class WholeNumberAsEnd(Own):
    def is_terminated(self, state, params):
        return state.time // self.length


class Continuous(Own):
    def action_space(self, params):
        return spaces.Box(-1, 1, (2,))


class WrongMask(Own):
    def legal_actions(self, state, params):
        return jnp.ones(3, bool)


@struct.dataclass
class Timeless:
    sign: jax.Array


class NoTime(Own):
    def reset_env(self, key, params):
        return jnp.ones(2), Timeless(jnp.float32(1))

    def step_env(self, key, state, action, params):
        return jnp.ones(2), state, jnp.float32(1), jnp.bool_(False), {}


FAULTS = {
    SixValues: r"SixValues.step_env returns 6 values; it must return 5: observation, state, reward",
    DictObservation: "DictObservation.reset_env: the observation is a dict; learners need one arr",
    GrowingObservation: r"observation is float32\[2\] after reset_env and float32\[3\] after step_",
    OtherType: r"state.time is int32\[\] after reset_env and float32\[\] after step_env",
    RewardOfEachUser: r"step_env: the reward is float32\[3\]; it must be one number",
    WholeNumberAsEnd: r"step_env: terminated is int32\[\]; it must be one bool",
    Continuous: "the learners need discrete actions",
    WrongMask: r"WrongMask.legal_actions returns bool\[3\]; it must be bool\[2\]",
    NoTime: "'Timeless' object has no attribute 'time'.*; give the state a field time",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_environment_that_cannot_be_learned_on_is_one_sentence(fault):
    env, (make, config, hyperparams) = fault(), parts("ppo")
    with pytest.raises(InputError, match=FAULTS[fault]) as error:
        make(env, config).init(jax.random.key(0), hyperparams, env.default_params)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=FAULTS[fault]):
        policy.evaluate(env, policy.random(), jax.random.key(0), env.default_params, 2)


@every_learner
def test_every_learner_looks_at_its_environment_first(name):
    make, config, hyperparams = parts(name)
    env = DictObservation()
    with pytest.raises(InputError, match="the observation is a dict"):
        make(env, config).init(jax.random.key(0), hyperparams, env.default_params)


@pytest.mark.parametrize("name", LEARNERS)
def test_several_choices_a_step_are_made_by_those_that_say_so(name):
    make, config, hyperparams = parts(name)
    env = ProviderSelection(assignment="joint")
    learner, params = make(env, config), env.default_params

    def evaluated(words):
        state = learner.init(jax.random.wrap_key_data(words), hyperparams, params)
        state, _ = learner.step(state, params)
        return policy.evaluate(env, learner.policy(state), jax.random.key(1), params, 3).returns

    if LEARNERS[name].joint:
        assert jax.eval_shape(evaluated, WORDS).shape == (3,)
    else:
        with pytest.raises(InputError, match="needs a single discrete action"):
            jax.eval_shape(evaluated, WORDS)
