"""Language policy, stand-in teachers and bi-directional feedback, on a world of two texts."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from rlli_jax.errors import InputError
from rlli_jax.learners.ppo import PPOHyperparams
from rlli_jax.teaching import t5
from rlli_jax.teaching.bidirectional import Method, TeachingConfig, TeachingHyperparams, teaching
from rlli_jax.teaching.language_policy import (
    LAMOREL,
    LanguagePolicyConfig,
    language_policy,
    policy_table,
)
from rlli_jax.teaching.tasks import Task
from rlli_jax.teaching.teachers import stand_in_teachers

SEEDS = 2


class Signs(environment.Environment):
    """Each step shows one of four texts; the action named in it earns 1. Two steps an episode."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=1_000)

    @property
    def name(self):
        return "Signs"

    @property
    def num_actions(self):
        return 2

    def reset_env(self, key, params):
        text = jax.random.randint(key, (), 0, 4)
        return text, (jnp.int32(0), text)

    def step_env(self, key, state, action, params):
        time, text = state
        after = jax.random.randint(key, (), 0, 4)
        reward = jnp.float32(action == text % 2)
        return after, (time + 1, after), reward, time + 1 >= 2, {}

    def is_truncated(self, state, params):
        return jnp.array(False)

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Discrete(4)


@pytest.fixture(scope="module")
def task():
    env = Signs()
    right = jax.nn.one_hot(jnp.arange(4) % 2, 2)
    return Task(
        name="Signs",
        goal="do as the sign says",
        env=env,
        env_params=env.default_params,
        texts=("a red sign", "a blue sign", "one more red sign", "one more blue sign"),
        advice=("left", "right"),
        legal=jnp.ones((4, 2), bool),
        expert=right,
        acted_on=jnp.ones(4, bool),
        value=lambda policy: {"return": 2 * (policy * right).sum(1).mean()},
    )


@pytest.fixture(scope="module")
def model(task):
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    return t5.tiny_t5(jax.random.key(0), words, d_model=8, num_heads=1)


@pytest.fixture(scope="module")
def stand_ins(task):
    keys = jax.random.split(jax.random.key(0), SEEDS)
    return stand_in_teachers(keys, task, 0.5, d_model=8, steps=60, batch=8)


def learn(task, model, scale=1.0, iterations=28, **changes):
    config = LanguagePolicyConfig(
        num_envs=8, num_steps=8, num_minibatches=2, num_epochs=2, reward_scale=scale,
        value_width=8, **changes,
    )  # fmt: skip
    learner = language_policy(task, model, config)
    hyper = LAMOREL.replace(learning_rate=1e-2)
    state = learner.init(jax.random.key(1), hyper, task.env_params)
    step = jax.jit(chex.assert_max_traces(learner.step, n=1))
    metrics = []
    for _ in range(iterations):
        state, new = step(state, task.env_params)
        metrics.append(new)
    return state, metrics


def test_a_language_policy_learns_and_its_first_ratio_is_one(task, model):
    state, metrics = learn(task, model)
    assert [float(m["first_ratio_error"]) for m in metrics] == [0.0] * len(metrics)
    # What the rollout looked up is what the update computes, to float32 rounding.
    assert max(float(m["rollout_error"]) for m in metrics) < 1e-5
    table = policy_table(task, model, state.params["model"])
    before = float(task.value(policy_table(task, model, model.params))["return"])
    assert float(task.value(table)["return"]) > max(1.9, before + 0.2)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-5)


def test_actions_without_advice_are_refused(task, model):
    with pytest.raises(InputError, match="there are 1 phrases of advice"):
        language_policy(replace(task, advice=("left",)), model)
    with pytest.raises(InputError, match=r"num_envs x num_steps = 1280 does not divide"):
        LanguagePolicyConfig(num_minibatches=7)


def test_a_stand_in_knows_what_it_was_taught_and_says_what_it_is(task, stand_ins):
    assert stand_ins.teacher.model.name.startswith("tiny stand-in teacher")
    assert stand_ins.taught.sum(1).tolist() == [2, 2]
    for seed in range(SEEDS):
        params = jax.tree.map(lambda x, s=seed: x[s], stand_ins.params)
        said = jnp.exp(stand_ins.teacher.table(params))
        right = (said * task.expert).sum(1)
        assert float(right[stand_ins.taught[seed]].min()) > 0.9
        # Whatever it hears before.
        remarked = jnp.exp(stand_ins.teacher.table(params, remarks=True)).reshape(3, 4, 2)
        assert float((remarked * task.expert).sum(-1)[:, stand_ins.taught[seed]].min()) > 0.9
    with pytest.raises(InputError, match=r"ability is 1.5"):
        stand_in_teachers(jax.random.split(jax.random.key(0), 1), task, 1.5)


@pytest.fixture(scope="module")
def train(task, stand_ins):
    """Train a method; methods that differ in traced switches only share one compilation."""
    programs = {}

    def compiled(shape, iterations):
        loop = teaching(
            task, stand_ins.teacher, shape, TeachingConfig(num_envs=8, num_steps=4),
            iterations=iterations,
        )  # fmt: skip
        chex.clear_trace_counter()  # it counts by name, over all loops
        step = jax.jit(jax.vmap(chex.assert_max_traces(loop.round, n=1), (0, None)))
        return loop, step, jax.jit(jax.vmap(loop.examine))

    def run(method, rounds, iterations, weights=stand_ins.params, **hyper):
        shape = (method.teacher, method.learns, method.adapt, method.feedback == "prompt")
        if (shape, iterations) not in programs:
            programs[shape, iterations] = compiled(method, iterations)
        loop, step, examine = programs[shape, iterations]
        hyper = TeachingHyperparams(**hyper)
        keys = jax.random.split(jax.random.key(3), SEEDS)
        state = jax.vmap(lambda key, w: loop.init(key, w, method, hyper, task.env_params))(
            keys, weights
        )
        results = []
        for _ in range(rounds):
            state, result = step(state, task.env_params)
            results.append(result)
        return state, results, examine

    return run


@pytest.mark.parametrize("feedback", ["nothing", "prompt"])
def test_a_teacher_that_is_not_trained_stays_as_it_is_and_its_student_learns(
    stand_ins, train, feedback
):
    state, results, _ = train(Method(feedback=feedback), 1, 60)
    chex.assert_trees_all_equal(state.base, stand_ins.params)
    assert state.adapted is None
    assert float(results[-1].value["return"].min()) > 1.8
    assert set(np.unique(state.remark)) <= {1, 2}
    assert int(state.heard.sum()) == SEEDS * 60 * 32


def test_a_student_alone_is_advised_nothing(train):
    _, results, _ = train(Method(teacher=False), 1, 60)
    assert np.isnan(results[0].followed).all()
    assert float(results[0].value["return"].min()) > 1.8


@pytest.fixture(scope="module")
def obeyed(task, train):
    """What a teacher who knew nothing says at the end; its student obeys and does not learn."""
    keys = jax.random.split(jax.random.key(5), SEEDS)
    untaught = stand_in_teachers(keys, task, 0.0, d_model=8).params
    frozen = PPOHyperparams(learning_rate=1e-9, anneal=0.0, gamma=0.0)

    def run(method):
        state, _, examine = train(
            method, 40, 4, untaught, student=frozen, trust=8.0,
            teacher_learning_rate=2e-2, teacher_entropy=0.0,
        )  # fmt: skip
        return examine(state)

    return run


@pytest.mark.parametrize(
    "method",
    [
        Method(signal="difference"),
        Method(comparison="same_state", feedback="pairs"),
    ],
    ids=["difference, previous", "pairs, same state"],
)
def test_true_feedback_teaches_a_teacher_who_is_obeyed(obeyed, method):
    examined = obeyed(method)
    assert float(examined["return"].min()) > 1.8
    assert examined["accuracy"].tolist() == [1, 1]


@pytest.mark.parametrize("verdicts", ["random", "shuffled"])
def test_made_up_feedback_teaches_nothing(obeyed, verdicts):
    assert float(obeyed(Method(verdicts=verdicts, signal="difference"))["return"].mean()) < 1.8


def test_a_verdict_compares_with_the_last_one_and_a_tie_is_better(train):
    """Algorithm 1, lines 6 to 11, with values that stay 0: the TD error is the reward."""
    state, results, _ = train(
        Method(feedback="nothing"), 1, 60, student=PPOHyperparams(learning_rate=0.0)
    )
    last = np.asarray(state.last.advantage)
    assert set(np.unique(last.round(4))) <= {0.0, 1.0}
    # Whoever earned the reward cannot have been worse than the last one.
    assert (np.asarray(state.remark) == 1)[last > 0.5].all()
    # Worse only after an earned reward that is followed by none.
    assert 0.5 < float(results[0].positive.mean()) < 1
