"""GoToRedBall against minigrid, the reference texts and the exact values."""

import csv
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs import go_to_red_ball as rb
from rlli_jax.envs.go_to_red_ball import GoToRedBall, Layout, best_policy, exact_return

REFERENCE = Path(__file__).parents[3] / "shared/data/babyai_text/go_to_red_ball_no_dists.csv"


@pytest.fixture(scope="module")
def tables() -> rb.Tables:
    return rb.load_tables()


def uniform(actions: int) -> jax.Array:
    return jnp.full((rb.NUM_POLICY_TEXTS, actions), 1 / actions)


def test_the_sizes_are_those_of_the_reference(tables):
    assert tables.next_state.shape == (rb.NUM_STATES, 7)
    assert int(tables.success.sum()) == 120
    assert len(rb.texts()) == len(set(rb.texts())) == rb.NUM_TEXTS
    going_on = np.unique(tables.text[~tables.success])
    assert going_on.tolist() == list(range(rb.NUM_POLICY_TEXTS))
    assert len(np.unique(tables.text[tables.start_probability > 0])) == 502
    assert float(tables.start_probability.sum()) == pytest.approx(1, abs=1e-5)


def test_every_text_equals_the_reference_file():
    if not REFERENCE.exists():
        pytest.skip(f"the reference texts are not at {REFERENCE}")
    with REFERENCE.open() as file:
        rows = list(csv.DictReader(file))
    keys = ("ball_x", "ball_y", "agent_x", "agent_y", "agent_dir")
    assert [tuple(int(row[k]) for k in keys) for row in rows] == [
        (*s.ball, *s.agent, s.direction) for s in rb.layouts()
    ]
    assert [row["descriptions"] for row in rows] == [
        rb.texts()[i] for i in np.asarray(rb.load_tables().text)
    ]


@pytest.mark.parametrize(
    ("layout", "lines"),
    [
        (
            Layout(ball=(5, 2), agent=(2, 3), direction=0),
            (
                "You see a wall 5 steps forward",
                "You see a wall 3 steps left",
                "You see a red ball 1 step left and 3 steps forward",
            ),
        ),
        # The ball hides the wall behind it, and what is behind the agent is not seen.
        (
            Layout(ball=(1, 1), agent=(1, 2), direction=3),
            ("You see a wall 1 step left", "You see a red ball 1 step forward"),
        ),
        (
            Layout(ball=(1, 1), agent=(6, 6), direction=1),
            ("You see a wall 1 step forward", "You see a wall 1 step left"),
        ),
    ],
)
def test_descriptions(layout, lines):
    assert rb.describe(layout) == lines


def test_every_step_equals_minigrid(tables):
    gymnasium = pytest.importorskip("gymnasium", reason="minigrid's peer, gymnasium, is absent")
    pytest.importorskip("minigrid", reason="the minigrid package is absent")
    from minigrid.core.world_object import Ball

    peer = gymnasium.make("BabyAI-GoToRedBallNoDists-v0").unwrapped
    peer.reset(seed=0)
    assert peer.max_steps == rb.MAX_STEPS
    assert peer.mission == rb.MISSION
    peer.gen_obs = dict  # drawing the view costs most of the time and changes no state
    peer.grid.set(*next(iter(peer.instrs.desc.obj_poss)), None)

    env = GoToRedBall(actions=7)
    params = env.default_params
    step = jax.jit(jax.vmap(lambda s, a: env.step_env(None, s, a, params)))
    index = jnp.arange(rb.NUM_STATES * 7)
    state, action = index // 7, index % 7
    before = rb.EnvState(time=(state * 11 + action) % rb.MAX_STEPS, state=state)
    _, after, reward, terminated, _ = step(before, action)
    truncated = env.is_truncated(after, params)
    ours = np.stack([after.state, reward, terminated, truncated], axis=1).tolist()

    layouts, success = rb.layouts(), np.asarray(tables.success)
    times = before.time.tolist()
    for i, (next_state, reward_, terminated_, truncated_) in enumerate(ours):
        s, a = layouts[i // 7], i % 7
        ball = Ball("red")
        peer.grid.set(*s.ball, ball)
        peer.carrying = None
        peer.agent_pos, peer.agent_dir = s.agent, s.direction
        peer.step_count = times[i]
        peer.instrs.reset_verifier(peer)
        _, peer_reward, peer_terminated, peer_truncated, _ = peer.step(a)
        result = layouts[int(next_state)]
        assert (tuple(map(int, peer.agent_pos)), peer.agent_dir) == (
            result.agent,
            result.direction,
        ), (s, a)
        assert result.ball == s.ball
        # Only from a terminal state, where no episode goes on, can minigrid pick the ball up.
        assert (peer.grid.get(*s.ball) is ball) == (not (success[i // 7] and a == 3)), (s, a)
        assert (peer_terminated, peer_truncated) == (terminated_, truncated_), (s, a)
        assert peer_reward == pytest.approx(reward_, abs=1e-6), (s, a)
        peer.grid.set(*s.ball, None)


@pytest.mark.parametrize(
    ("actions", "success", "mean_return", "length"),
    [(6, 0.2646, 0.1550, 54.9), (3, 0.4342, 0.2652, 48.2), (7, 0.2351, 0.1364, 56.0)],
)
def test_exact_values_of_uniform_policies(tables, actions, success, mean_return, length):
    value = exact_return(uniform(actions), tables)
    assert float(value.success) == pytest.approx(success, abs=5e-5)
    assert float(value.mean_return) == pytest.approx(mean_return, abs=5e-5)
    assert float(value.mean_length) == pytest.approx(length, abs=0.05)


def test_best_memoryless_policy_is_at_least_the_one_of_the_reference(tables):
    policy = best_policy(jax.random.key(0), tables, iterations=200)
    value = exact_return(policy, tables)
    np.testing.assert_allclose(policy.sum(axis=1), 1, atol=1e-5)
    assert float(value.success) == pytest.approx(1, abs=5e-5)
    assert 0.9292 <= float(value.mean_return) < 0.9339
    assert float(value.mean_length) < 5.03


def test_the_optimum_with_the_full_state(tables):
    next_state, steps = np.asarray(tables.next_state), np.where(tables.success, 0, np.inf)
    for _ in range(20):
        steps = np.minimum(steps, 1 + steps[next_state].min(axis=1))
    start = np.asarray(tables.start_probability)
    assert start @ steps == pytest.approx(4.70, abs=5e-3)
    assert start @ (1 - 0.9 * steps / rb.MAX_STEPS) == pytest.approx(0.9339, abs=5e-5)


def test_sampled_episodes_agree_with_the_exact_values(tables):
    env, episodes = GoToRedBall(actions=3), 4_000
    params = env.default_params

    def episode(key):
        _, state = env.reset(key, params)

        def step(carry, key):
            state, over = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (), 0, 3)
            _, state, reward, terminated, truncated, _ = env.step(step_key, state, action, params)
            reward, alive = jnp.where(over, 0.0, reward), ~over
            return (state, over | terminated | truncated), (reward, alive)

        keys = jax.random.split(key, rb.MAX_STEPS)
        _, (reward, alive) = jax.lax.scan(step, (state, jnp.array(False)), keys)
        return reward.sum(), alive.sum()

    returns, lengths = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(3), episodes))
    exact = exact_return(uniform(3), tables)
    for sample, value in (
        (returns, exact.mean_return),
        (returns > 0, exact.success),
        (lengths, exact.mean_length),
    ):
        sample = np.asarray(sample, float)
        assert abs(sample.mean() - float(value)) < 4 * sample.std() / np.sqrt(episodes)


def test_resets_follow_the_start_distribution(tables):
    env, n = GoToRedBall(), 40_000
    params = env.default_params
    obs, state = jax.vmap(lambda key: env.reset(key, params))(
        jax.random.split(jax.random.key(0), n)
    )
    np.testing.assert_array_equal(obs, tables.text[state.state])
    probability = np.asarray(tables.start_probability, float)
    assert (probability[np.asarray(state.state)] > 0).all()
    count = np.bincount(np.asarray(state.state), minlength=rb.NUM_STATES)
    # Pearson's statistic over ball cells: 35 degrees of freedom, 99.99th percentile 76.
    ball = np.array([s.ball[0] * 10 + s.ball[1] for s in rb.layouts()])
    for cell_of in (ball, np.array([s.agent[0] * 10 + s.agent[1] for s in rb.layouts()])):
        cells = np.unique(cell_of)
        expected = np.array([probability[cell_of == c].sum() for c in cells]) * n
        observed = np.array([count[cell_of == c].sum() for c in cells])
        assert ((observed - expected) ** 2 / expected).sum() < 76


def test_the_gradient_is_that_of_the_exact_return(tables):
    policy = jax.random.dirichlet(jax.random.key(1), jnp.ones(6), (rb.NUM_POLICY_TEXTS,))
    other = jax.random.dirichlet(jax.random.key(2), jnp.ones(6), (rb.NUM_POLICY_TEXTS,))

    def along(t):
        return exact_return(policy + t * (other - policy), tables).mean_return

    slope = float(jax.grad(along)(0.5))
    assert slope == pytest.approx(float(along(0.55) - along(0.45)) / 0.1, rel=0.02)


def test_a_success_on_the_last_step_terminates_and_truncates(tables):
    env = GoToRedBall()
    params = env.default_params
    before = rb.layouts().index(Layout(ball=(3, 3), agent=(3, 5), direction=3))
    state = rb.EnvState(time=jnp.int32(rb.MAX_STEPS - 1), state=jnp.int32(before))
    key = jax.random.key(0)
    _, _, reward, terminated, truncated, info = env.step(key, state, 2, params)
    assert bool(terminated)
    assert bool(truncated)
    assert float(reward) == pytest.approx(0.1, abs=1e-6)
    assert rb.texts()[int(info["final_observation"])] == (
        "You see a wall 3 steps left, You see a red ball 1 step forward"
    )
    _, after, reward, terminated, truncated, _ = env.step(key, state, 3, params)
    assert not bool(terminated)
    assert bool(truncated)
    assert float(reward) == 0
    assert int(after.time) == 0


def test_one_hot_observation():
    env = GoToRedBall(one_hot=True)
    obs, state = env.reset(jax.random.key(0))
    assert obs.shape == env.observation_space().shape == (rb.NUM_TEXTS,)
    assert int(obs.argmax()) == int(env.default_params.tables.text[state.state])
    assert env.action_space().n == env.num_actions == 6
    assert GoToRedBall().observation_space().n == rb.NUM_TEXTS


def test_new_policies_and_time_limits_do_not_retrace(tables):
    env = GoToRedBall()
    value = jax.jit(chex.assert_max_traces(lambda p, t: exact_return(p, t), n=1))
    step = jax.jit(chex.assert_max_traces(lambda s, a, p: env.step_env(None, s, a, p), n=1))
    for i in range(3):
        value(jax.random.dirichlet(jax.random.key(i), jnp.ones(6), (550,)), tables)
        params = env.default_params.replace(max_steps_in_episode=jnp.int32(32 + i))
        step(rb.EnvState(time=jnp.int32(i), state=jnp.int32(i)), jnp.int32(i), params)
