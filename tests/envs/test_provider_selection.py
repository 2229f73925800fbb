"""ProviderSelection: rewards, turns, masks, observations, and its views through other libraries."""

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from gymnax.wrappers.gym import GymnaxToGymWrapper

import rlli_jax.envs  # noqa: F401  (registers the environments)
from rlli_jax.envs.policy import evaluate, random, round_robin
from rlli_jax.envs.provider_selection import ProviderSelection, make_params, policies
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable

K, R, L, S = 3, 2, 4, 5


def random_table(holes=False, seed=0):
    rng = np.random.default_rng(seed)
    valid = np.ones((K, R, L, S), bool)
    if holes:
        valid = rng.random((K, R, L, S)) < 0.5
        valid[0, 0, 1] = False  # a hole through all samples
        valid[:, :, 3, 0] = True  # somebody can always serve
    return QoETable(
        qoe=rng.random((K, R, L, S)).astype(np.float32) * valid,
        valid=valid,
        users=tuple(f"u{k}" for k in range(K)),
        requests=tuple(f"r{r}" for r in range(R)),
        providers=tuple(f"p{i}" for i in range(L)),
        judge="random numbers",
        stand_in=True,
    )


PERSONAS = np.linspace(1, 5, K * 5).reshape(K, 5)


def make(holes=False, rounds=2, **kwargs):
    return ProviderSelection(make_params(random_table(holes), PERSONAS, rounds=rounds), **kwargs)


def play(env, actions, key=0):
    """-> states before each step, rewards, terminated flags, observations after each step."""
    params = env.default_params
    _, state = env.reset_env(jax.random.key(key), params)
    steps = []
    for i, action in enumerate(actions):
        before = state
        key_step = jax.random.fold_in(jax.random.key(key + 1), i)
        observation, state, reward, terminated, _ = env.step_env(
            key_step, state, jnp.asarray(action), params
        )
        steps.append((before, float(reward), bool(terminated), observation))
    return steps


def test_sequential_serves_the_users_in_turn_and_ends_after_the_last_round():
    env, table = make(), random_table()
    steps = play(env, [i % L for i in range(2 * K)])
    assert [int(env.users(state, env.default_params)) for state, *_ in steps] == [
        0,
        1,
        2,
    ] * 2
    assert [ended for _, _, ended, _ in steps] == [False] * 5 + [True]
    for i, (state, reward, _, _) in enumerate(steps):
        cell = table.qoe[i % K, int(state.request), i % L]
        assert np.isclose(cell, reward).any()  # one of the samples of that cell
    first, second = {int(s[0].request) for s in steps[:K]}, {int(s[0].request) for s in steps[K:]}
    assert len(first) == len(second) == 1  # a request lasts a round


@pytest.mark.parametrize("assignment", ["shared", "joint"])
def test_all_users_at_once(assignment):
    env, table = make(assignment=assignment), random_table()
    action = 2 if assignment == "shared" else [2, 0, 3]
    (state, reward, ended, _), (_, _, last, _) = play(env, [action, action])
    cells = table.qoe[np.arange(K), int(state.request), np.broadcast_to(action, K)]  # [K, S]
    sums = cells[0][:, None, None] + cells[1][None, :, None] + cells[2][None, None, :]
    assert np.isclose(sums, reward, atol=1e-6).any()
    assert (ended, last) == (False, True)


def test_rewards_draw_the_valid_samples_uniformly():
    env, table = make(holes=True), random_table(holes=True)
    params = env.default_params
    _, state = env.reset_env(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), 4000)
    rewards = jax.vmap(lambda key: env.step_env(key, state, jnp.int32(3), params)[2])(keys)
    cell = table.qoe[0, int(state.request), 3][table.valid[0, int(state.request), 3]]
    values, counts = np.unique(np.asarray(rewards), return_counts=True)
    assert np.allclose(values, np.sort(cell))
    share = 1 / len(cell)
    assert (abs(counts / 4000 - share) < 5 * np.sqrt(share * (1 - share) / 4000)).all()


def test_a_hole_is_never_served_and_never_becomes_a_number():
    env, table = make(holes=True), random_table(holes=True)
    params = env.default_params
    _, state = env.reset_env(jax.random.key(0), params)
    state = state.replace(request=jnp.int32(0))
    legal = np.asarray(env.legal_actions(state, params))
    assert legal.tolist() == table.legal[0, 0].tolist()
    assert not legal[1]
    served = 1 + int(np.argmax(np.roll(legal, -1)))  # the next legal one
    _, after, reward, _, _ = env.step_env(jax.random.key(2), state, jnp.int32(1), params)
    assert int(after.action) == served
    assert np.isclose(table.qoe[0, 0, served][table.valid[0, 0, served]], float(reward)).any()
    choices = env.statistics(state, jnp.int32(1), params)["choices"].dense()
    assert choices[0, 0, served] == 1 == choices.sum()


@pytest.mark.parametrize(
    ("assignment", "parts", "size"),
    [
        ("sequential", ("action", "reward"), L + 1),  # Eq. (3) of the paper
        ("shared", ("action", "reward"), L + 1),
        ("joint", ("action", "reward"), K * L + 1),
        ("sequential", ("user", "persona", "request"), K + 5 + R),
        ("joint", ("persona", "request"), K * 5 + R),
    ],
)
def test_observation_has_the_chosen_parts(assignment, parts, size):
    env = make(assignment=assignment, observation=parts)
    observation, _ = env.reset(jax.random.key(0), env.default_params)
    space = env.observation_space(env.default_params)
    assert observation.shape == space.shape == (size,)
    assert space.contains(observation)
    assert observation.dtype == jnp.float32


def test_observation_tells_last_action_last_reward_and_who_is_next():
    env = make(observation=("action", "reward", "user", "persona", "request"))
    start, _ = env.reset_env(jax.random.key(0), env.default_params)
    assert (start[: L + 1] == 0).all()
    ((_, reward, _, observation),) = play(env, [2])
    action, last, user, persona, _ = np.split(observation, np.cumsum([L, 1, K, 5]))
    assert action.tolist() == [0, 0, 1, 0]
    assert last == np.float32(reward)
    assert user.tolist() == [0, 1, 0]
    assert np.allclose(persona, (PERSONAS[1] - 3) / 2)


@pytest.mark.parametrize("assignment", ["sequential", "shared", "joint"])
def test_reference_policies_reach_the_exact_values_of_the_table(assignment):
    """The references of a table come from NumPy, these from playing; noise is averaged out."""
    env, params = make(assignment=assignment), make().default_params
    references = random_table().references()

    def value(policy):
        choices = evaluate(env, policy, jax.random.key(0), params, 64).statistics["choices"]
        share = choices / choices.sum(-1, keepdims=True)
        return float((share * params.mean).sum(-1).mean(1).sum())

    best_single = references["best_single"][1]
    per_user = best_single if assignment == "shared" else references["optimum"]
    assert np.isclose(value(policies.optimal(env, params)), per_user, atol=1e-5)
    assert np.isclose(value(policies.best_single(env, params)), best_single, atol=1e-5)
    if assignment != "shared":
        greedy = value(policies.greedy(env, params))
        assert np.isclose(greedy, references["optimum_per_request"], atol=1e-5)
    assert abs(value(random()) - references["random"]) < 0.15


def test_round_robin_takes_the_legal_actions_in_turn():
    env = make(holes=True)
    result = evaluate(env, round_robin(), jax.random.key(0), env.default_params, 8)
    choices = np.asarray(result.statistics["choices"])
    assert choices.sum() == 8 * 2 * K
    assert (choices[~random_table(holes=True).legal] == 0).all()


def test_return_is_rounds_times_the_sum_over_users():
    table = random_table()
    single = QoETable(**{**table.__dict__, "qoe": np.full_like(table.qoe, 0.25)})
    for assignment in ("sequential", "shared", "joint"):
        env = ProviderSelection(make_params(single, rounds=3), assignment=assignment)
        result = evaluate(env, random(), jax.random.key(0), env.default_params, 2)
        assert np.allclose(result.returns, 3 * K * 0.25)


def test_tables_of_one_shape_share_a_compilation_and_vmap():
    env = make()
    tables = [make_params(random_table(seed=s), PERSONAS) for s in range(3)]
    tables = [jax.tree.map(jnp.asarray, params) for params in tables]
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(env.step_env, n=1))
    rewards = []
    for params in tables:
        _, state = env.reset_env(jax.random.key(0), params)
        rewards.append(step(jax.random.key(1), state, jnp.int32(0), params)[2])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *tables)
    together = jax.vmap(env.step_env, (None, None, None, 0))(
        jax.random.key(1), state, jnp.int32(0), stacked
    )
    assert np.allclose(together[2], rewards)


@pytest.mark.parametrize("limit", [10**6, 4], ids=["terminated", "truncated"])
@pytest.mark.parametrize("assignment", ["sequential", "joint"])
def test_step_is_step_env_and_the_next_episode(assignment, limit):
    env = make(assignment=assignment)
    params = env.default_params.replace(max_steps_in_episode=limit)
    last = min(2 * K if assignment == "sequential" else 2, limit)
    both = jax.jit(lambda *args: (env.step(*args), env.step_env(*args)))
    _, state = env.reset_env(jax.random.key(0), params)
    for i in range(last):
        action = jnp.zeros_like(state.action) + i % L
        arguments = jax.random.key(i), state, action, params
        (seen, state, reward, terminated, truncated, info), alone = both(*arguments)
        chex.assert_trees_all_equal(
            (info["final_observation"], reward, terminated), (alone[0], alone[2], alone[3])
        )
        assert bool(info["terminated"]) == bool(terminated)
        assert bool(truncated) == bool(info["truncated"]) == (i + 1 == limit)
        if i + 1 < last:
            chex.assert_trees_all_equal((seen, state), alone[:2])
    assert bool(terminated | truncated)
    keys = jax.random.split(jax.random.key(1), 1000)
    step = jax.vmap(lambda key: env.step(key, *arguments[1:])[:2])
    seen, state = step(keys)
    assert abs(state.request.mean() - 0.5) < 0.06  # of R = 2 requests; sd 0.016
    begun = jax.vmap(lambda request: env._start((request[None] + 0.5) / R, params))(state.request)
    chex.assert_trees_all_equal(state, begun)
    observed = jax.vmap(env.observe, (None, 0, None, None))(keys[0], begun, None, params)
    chex.assert_trees_all_equal(seen, observed)


def test_is_registered_with_gymnax():
    env, params = gymnax.make("ProviderSelection-v0", assignment="joint")
    observation, state = env.reset(jax.random.key(0), params)
    action = env.action_space(params).sample(jax.random.key(1))
    assert env.action_space(params).contains(action)
    result = env.step(jax.random.key(2), state, action, params)
    assert result[0].shape == observation.shape
    assert isinstance(gymnax.make("ProviderSelection-v0")[0].action_space(params), spaces.Discrete)


def test_gymnasium_sees_it_through_the_bridge():
    env = GymnaxToGymWrapper(make(rounds=1, observation=("action", "reward", "persona")))
    observation, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    assert np.array_equal(observation, again)
    for step in range(K):
        assert env.observation_space.contains(np.asarray(observation))
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert 0 <= float(reward) <= 1
        assert (bool(terminated), bool(truncated)) == (step == K - 1, False)


@pytest.mark.slow
def test_stable_baselines3_trains_on_it():
    """PPO of stable-baselines3 finds the best provider of each user of the demonstration table."""
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    import torch

    torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other
    env = ProviderSelection(observation=("user",))
    model = stable_baselines3.PPO(
        "MlpPolicy",
        GymnaxToGymWrapper(env),
        n_steps=100,
        batch_size=50,
        gamma=0.0,
        learning_rate=5e-3,
        seed=0,
    )
    model.learn(1500)
    best = np.asarray(env.default_params.mean[:, 0]).argmax(-1)
    chosen, _ = model.predict(np.eye(5, dtype=np.float32), deterministic=True)
    assert chosen.tolist() == best.tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"assignment": "parallel"}, "choose one of shared, sequential, joint"),
        ({"observation": ("action", "mood")}, "choose some of"),
        ({"observation": ("action", "action")}, "each once"),
        ({"observation": ()}, "choose some of"),
        ({"assignment": "joint", "observation": ("user",)}, "needs assignment sequential"),
    ],
)
def test_bad_construction_is_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        ProviderSelection(**kwargs)


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="one Big Five vector for each user"):
        make_params(random_table(), PERSONAS[:2])
    with pytest.raises(InputError, match="one row for each request"):
        make_params(random_table(), PERSONAS, request_features=np.eye(R + 1))
    with pytest.raises(InputError, match="at least 1 round"):
        make_params(random_table(), rounds=0)


def test_shared_needs_a_provider_that_everybody_rated():
    table = random_table()
    valid = np.zeros_like(table.valid)
    for user in range(K):
        valid[user, :, user] = True
    apart = QoETable(**{**table.__dict__, "valid": valid, "qoe": table.qoe * valid})
    with pytest.raises(InputError, match="request number 1 of 2 no provider is rated by every"):
        ProviderSelection(make_params(apart), assignment="shared")


def test_a_persona_that_is_unknown_is_not_observed():
    params = make_params(random_table())
    assert params.personas is None
    with pytest.raises(InputError, match="part persona needs personas, but those of the users are"):
        ProviderSelection(params, observation=("persona",))
    env = make(observation=("persona",))  # nor later, with other parameters
    with pytest.raises(InputError, match="part persona needs personas"):
        env.reset_env(jax.random.key(0), params)
    assert ProviderSelection(params, observation=("user",)).reset_env(jax.random.key(0), params)


def test_the_demonstration_has_users_of_different_personality():
    env = ProviderSelection(observation=("persona",))
    personas = np.asarray(env.default_params.personas)
    assert ((personas >= 1) & (personas <= 5)).all()
    assert len(np.unique(personas.round(3), axis=0)) == len(personas) == 5


def fixed_value(env, policy, params):
    """What a policy is worth by playing: requests and users weigh alike."""
    choices = evaluate(env, policy, jax.random.key(0), params, 256).statistics["choices"]
    met = choices.sum(-1)
    within = (choices * params.mean).sum(-1) / jnp.maximum(met, 1)
    return float((within.sum(-1) / (met > 0).sum(-1)).sum())


def small_table(qoe, valid):
    qoe = np.asarray(qoe, np.float32)
    names = [
        tuple(f"{kind}{i}" for i in range(n)) for kind, n in zip("urp", qoe.shape, strict=True)
    ]
    return QoETable(qoe[..., None], np.asarray(valid)[..., None], *names, "made up", True)


def test_a_policy_is_worth_its_reference_where_a_provider_is_not_rated_everywhere():
    """p0 has .90 on one request, p1 .95 and .50: to keep p0 would be worth .70."""
    table = small_table([[[0.9, 0.95], [0.0, 0.5]]], [[[True, True], [False, True]]])
    params = make_params(table)
    env = ProviderSelection(params, observation=("user",))
    assert table.references()["optimum"] == pytest.approx(0.725)
    for policy in (policies.optimal, policies.best_single):
        assert fixed_value(env, policy(env, params), params) == pytest.approx(0.725, abs=1e-6)


@pytest.mark.parametrize("assignment", ["sequential", "joint"])
def test_reference_policies_are_worth_the_references_of_a_table_with_holes_and_gaps(assignment):
    rng = np.random.default_rng(4)
    valid = rng.random((4, 5, 3)) < 0.6
    valid[0, 0] = valid[2, 3] = False  # who is not rated at all
    table = small_table(rng.random(valid.shape), valid)
    params = make_params(table, rounds=20)
    env = ProviderSelection(params, assignment=assignment, observation=("action", "reward"))
    references = table.references()
    names = {"optimal": "optimum", "greedy": "optimum_per_request", "best_single": "best_single"}
    for name, key in names.items():
        value = references[key][1] if key == "best_single" else references[key]
        found = fixed_value(env, getattr(policies, name)(env, params), params)
        # Only what is drawn at a hole leaves noise: 5,120 rounds.
        assert found == pytest.approx(value, abs=1e-5 if name == "greedy" else 5e-3)
    assert fixed_value(env, random(), params) == pytest.approx(references["random"], abs=0.02)


def test_a_request_without_a_rating_is_never_drawn_for_a_user_and_others_are_drawn_alike():
    valid = np.ones((2, 4, 2), bool)
    valid[1, [0, 2]] = False
    params = make_params(small_table(np.full(valid.shape, 0.5), valid), rounds=8)
    for assignment in ("sequential", "joint"):
        env = ProviderSelection(params, assignment=assignment, observation=("reward",))
        result = evaluate(env, random(), jax.random.key(1), params, 1000)
        met = np.asarray(result.statistics["choices"].sum(-1)) / 8000
        np.testing.assert_allclose(met[0], 0.25, atol=0.02)  # sd .005
        np.testing.assert_allclose(met[1], [0, 0.5, 0, 0.5], atol=0.025)
        np.testing.assert_allclose(result.returns, 8)  # every user in every round


def test_where_users_ask_for_different_requests_none_is_shared():
    valid = np.ones((2, 2, 2), bool)
    valid[1, 0] = False
    params = make_params(small_table(np.zeros(valid.shape), valid))
    with pytest.raises(InputError, match="assignment shared: some users have no provider for some"):
        ProviderSelection(params, assignment="shared")
    with pytest.raises(InputError, match="assignment joint: some users have no provider for some"):
        ProviderSelection(params, assignment="joint", observation=("request",))
    env = ProviderSelection(params, observation=("request",))
    state = env.reset_env(jax.random.key(0), params)[1].replace(time=1, request=jnp.int32(0))
    assert env.observe(None, state, None, params).tolist() == [0, 1]  # what the second user asks


def test_choices_may_be_worth_other_than_their_rewards():
    table, other = random_table(), random_table(seed=1)
    params = make_params(table, worth=other)
    np.testing.assert_allclose(params.mean, other.mean, rtol=1e-6)
    np.testing.assert_array_equal(params.qoe, make_params(table).qoe)
    with pytest.raises(InputError, match="worth has other cells"):
        make_params(table, worth=random_table(holes=True))
