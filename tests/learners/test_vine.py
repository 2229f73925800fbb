"""The vine learner: a delayed reward, masks, actions of one state told apart despite luck."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import ForbiddenJackpot, HiddenSign, MatchTheSign

from rlli_jax.envs.edge_market import EdgeMarket, make_params, sample_fleet
from rlli_jax.envs.policy import evaluate, policy_input
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.learners.vine import VineConfig, VineHyperparams, vine

SMALL = VineConfig(
    num_envs=16, num_steps=2, branches=2, length=3, updates=8, batch_size=64, buffer_size=256,
    hidden=(16,),
)  # fmt: skip
HYPER = VineHyperparams(learning_rate=1e-2, anneal=0.95, total_iterations=30, tau=0.2)


def train(env, config=SMALL, hyper=HYPER, iterations=30):
    """-> learner, state, metrics of every iteration."""
    learner, params = vine(env, config), env.default_params
    state = jax.jit(learner.init)(jax.random.key(0), hyper, params)
    run = jax.jit(
        lambda s: jax.lax.scan(lambda s, _: learner.step(s, params), s, length=iterations)
    )
    return learner, *run(state)


class LateLuck(MatchTheSign):
    """The right action pays at the second step, where a draw that hides it pays, too."""

    length = 2

    def step_env(self, key, state, action, params):
        right = super().reward(state, action)
        observation, state, _, done, info = super().step_env(key, state, action, params)
        state = state.replace(sign=jnp.where(done, state.sign, right))
        luck = 1_000 * jax.random.normal(key)
        return observation, state, jnp.where(done, state.sign + luck, 0.0), done, info

    def observe(self, key, state, action, params):
        return jnp.array([jnp.where(state.time == 0, state.sign, 0.0), state.time])


def test_shared_luck_cancels_and_a_branch_ends_with_its_episode():
    _, state, _ = train(LateLuck(), iterations=1)
    first = state.buffer.observation[:16, 1] == 0
    apart = jnp.diff(state.buffer.value[:16], axis=1)[first]
    assert len(apart)
    # Right and wrong differ by 1 - (-1), to the float32 rounding of luck around 1,000; a branch of
    # three steps that went on into another episode would add that episode's.
    assert np.allclose(np.abs(apart), 2, atol=1e-3)


def test_the_right_legal_action_is_found():
    env = ForbiddenJackpot()
    learner, state, _ = train(env)
    assert state.buffer.action[state.buffer.legal].min() > 0
    played = evaluate(env, learner.policy(state), jax.random.key(1), env.default_params, 32)
    assert played.returns.tolist() == [1.0] * 32


def test_an_iteration_counts_the_steps_of_branches_too():
    assert vine(HiddenSign(), SMALL).env_steps == 16 * (2 + 2 * 3)


@pytest.fixture(scope="module")
def market():
    return EdgeMarket(
        make_params(sample_fleet(1, 3), horizon=20_000, runtime=(0, 20, 0)),
        mask=True,
        observation=("providers", "task", "utility"),
    )


MARKET = replace(SMALL, branches=3, hidden=(8,), per_action_network=True)


def test_a_shared_network_learns_in_the_edge_market(market):
    _, _, metrics = train(market, MARKET, HYPER, 20)
    assert metrics["loss"][-1] < metrics["loss"][0] / 2


def test_what_is_known_to_be_paid_is_not_learned(market):
    """Branches of one task bring what it pays: nothing is left to learn, and who pays most acts."""
    _, state, _ = train(market, replace(MARKET, length=1, known_rewards=True), iterations=1)
    tried = jax.tree.map(lambda x: np.asarray(x[:16]), state.buffer)
    assert np.allclose(tried.value[tried.legal], 0, atol=1e-6)
    room = tried.legal.all(1)
    assert room.any()
    pays = tried.observation[room, -3:]
    assert tried.action[room, 0].tolist() == pays.argmax(1).tolist()
    with pytest.raises(InputError, match="set known_rewards to false"):
        vine(HiddenSign(), VineConfig(known_rewards=True))


def test_environments_need_not_go_in_step(market):
    def times(spread):
        learner = vine(market, replace(MARKET, max_start_steps=spread))
        state = jax.jit(learner.init)(jax.random.key(0), HYPER, market.default_params)
        return np.asarray(state.envs.state.time)

    assert times(1).tolist() == [0] * 16
    apart = times(9)
    assert set(apart.tolist()) <= set(range(9))
    assert len(set(apart.tolist())) >= 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VineConfig(num_envs=12, buffer_size=100), "no multiple of num_envs"),
        (lambda: vine(HiddenSign(), VineConfig(per_action_network=True)), "by_action"),
        (lambda: train(HiddenSign(), VineConfig(branches=3)), "has 2 actions"),
        (lambda: train(ProviderSelection(assignment="joint"), SMALL), "single discrete action"),
    ],
)
def test_impossible_configs_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_futures_hold_only_what_may_be_known_and_correct_a_wrong_score():
    env = EdgeMarket(
        make_params(sample_fleet(1, 3), horizon=20_000, runtime=(0, 20, 0)),
        observation=("task", "utility"),
    )
    config = VineConfig(num_envs=4, buffer_size=4, branches=3, length=2, futures=4, hidden=(4,))
    learner, params = vine(env, config), env.default_params
    state = learner.init(jax.random.key(0), VineHyperparams(prior=0.0), params)
    observation, market = env.reset(jax.random.key(0), params)
    act = jax.jit(learner.policy(state).act)
    seen = policy_input(env, observation, market, params)
    # Futures of two tasks among idle providers leave room for all, so the best is who pays most.
    assert act(jax.random.key(0), seen, ())[0] == jnp.argmax(env.value(market, params))
    # What the state holds of the next arrival makes no difference to them.
    other = market.replace(next_arrival=jnp.int32(9))
    redrawn = [env.redraw(jax.random.key(1), x, params).next_arrival for x in (market, other)]
    assert redrawn[0] == redrawn[1] != market.next_arrival
    with pytest.raises(InputError, match="set futures to 0"):
        vine(HiddenSign(), VineConfig(futures=2))
