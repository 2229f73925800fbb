"""Options in a corridor in which every value is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs.policy import evaluate
from rlli_jax.errors import InputError
from rlli_jax.learners.options import (
    Hierarchy,
    Levels,
    SMDPConfig,
    SMDPHyperparams,
    TwoLevels,
    follow,
    follow_given,
    smdp_q,
)
from rlli_jax.learners.smdp import best_plan, estimate
from rlli_jax.learners.training import train


@struct.dataclass
class State(environment.EnvState):
    place: jax.Array  # [] int32, 0 to 8; starts at 4
    key: jax.Array  # [] int32, whether the left end was visited


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 100


class Corridor(environment.Environment[State, Params]):
    """The right end pays 1, once the left end was visited. Actions: left, right."""

    default_params = Params()

    def reset_env(self, key, params):
        state = State(time=jnp.int32(0), place=jnp.int32(4), key=jnp.int32(0))
        return jnp.zeros(1), state

    def step_env(self, key, state, action, params):
        place = jnp.clip(state.place + 2 * action - 1, 0, 8)
        found = jnp.maximum(state.key, (place == 0).astype(jnp.int32))
        won = (place == 8) & (found == 1)
        state = State(time=state.time + 1, place=place, key=found)
        return jnp.zeros(1), state, won.astype(jnp.float32), won, {}

    def action_space(self, params):
        return spaces.Discrete(2)


# Options: go to the left end, to the right end. A planner knows whether the left was visited.
HIERARCHY = Hierarchy(
    situations=2,
    situation=lambda state, params: state.key,
    options=2,
    act=lambda key, state, option, params: option,
    ended=lambda state, option, params: state.place == 8 * option,
)


def test_values_are_those_of_the_semi_markov_process():
    """An option of k steps is discounted by gamma^k, not once."""
    env, gamma = Corridor(), 0.9
    learner = smdp_q(env, HIERARCHY, SMDPConfig(num_envs=8, num_steps=64))
    hyper = SMDPHyperparams(gamma=gamma, epsilon=0.5, learning_rate=0.5)
    state, metrics = train(learner, hyper, Params(), jax.random.key(0), 40, progress=False)
    # With the key, from the left end: 8 steps to the right one pay at the last.
    assert state.values[1, 1] == pytest.approx(gamma**7, rel=1e-3)
    # From the middle to the left, 4 steps, then as before.
    assert state.values[0, 0] == pytest.approx(gamma**4 * gamma**7, rel=0.2)
    assert (jnp.argmax(state.values, -1) == jnp.array([0, 1])).all()
    assert metrics["episode_return"][-1] == 1
    result = evaluate(env, learner.policy(state), jax.random.key(1), Params(), 4)
    np.testing.assert_array_equal(result.lengths, 12)


def test_a_plan_is_followed_until_its_options_end():
    env = Corridor()

    def lengths(plan, hierarchy=HIERARCHY):
        policy = follow(hierarchy, jnp.asarray(plan, jnp.float32))
        return evaluate(env, policy, jax.random.key(0), Params(), 200).lengths

    assert (lengths([[1, 0], [0, 1]]) == 12).all()
    assert (lengths([[0, 1], [0, 1]]) == 100).all()  # never the left end: cut off
    drawn = lengths([[0.5, 0.5], [0, 1]])
    # Right first costs 4 steps to the end and 4 back, and then it is as before.
    assert set(np.unique(drawn)) >= {12}
    assert np.mean(drawn == 12) == pytest.approx(0.5, abs=0.15)
    # An option that is cut off is chosen anew: none of two steps gets anywhere in half of its time.
    assert lengths([[0.5, 0.5], [0, 1]], HIERARCHY._replace(limit=2)).mean() > drawn.mean()


def test_the_process_of_options_is_estimated_and_its_best_plan_found():
    gamma = 0.9
    found = estimate(Corridor(), HIERARCHY, jax.random.key(0), Params(), gamma, many=8, steps=200)
    # With the key, from the left end, the right one pays at the eighth step, and nothing follows.
    assert found.reward[1, 1] == pytest.approx(gamma**7, rel=1e-5)
    assert found.follows[1, 1].sum() == 0
    # To the left end from wherever: the key is found, and what follows is discounted.
    assert found.follows[0, 0, 0] == 0
    assert 0 < found.follows[0, 0, 1] < 1
    assert best_plan(found).tolist() == [0, 1]
    # An option that was never carried out is not named, and a situation that never came has any.
    never = found._replace(times=found.times.at[0, 0].set(0).at[1].set(0))
    assert best_plan(never).tolist() == [1, 0]


def test_a_plan_may_stand_in_the_parameters():
    env = TwoLevels(Corridor())
    inner = HIERARCHY._replace(
        act=lambda key, state, option, params: option + params.low,
    )
    plan = jnp.array([[1.0, 0], [0, 1]])
    play = jax.jit(lambda levels: evaluate(env, follow_given(inner), jax.random.key(0), levels, 4))
    assert (play(Levels(Params(), jnp.int32(0), plan)).lengths == 12).all()
    # One low level turns everything to the right: it never finds the key.
    assert (play(Levels(Params(), jnp.int32(1), plan)).lengths == 100).all()


def test_a_plan_outside_of_the_options_is_refused():
    with pytest.raises(InputError, match=r"a plan has shape \(2, 3\); give one probability for ea"):
        follow(HIERARCHY, jnp.ones((2, 3)))
