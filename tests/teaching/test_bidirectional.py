"""Language policy, stand-in teachers and bi-directional feedback, on a world of two texts."""

import re
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from rlli_jax.errors import InputError
from rlli_jax.language import init_lora, merge_lora, t5
from rlli_jax.language.llama import tiny_llama
from rlli_jax.learners.ppo import PPOHyperparams
from rlli_jax.teaching.bidirectional import FeedbackSum, Utterance, remember, student_loop
from rlli_jax.teaching.distinct import over_distinct
from rlli_jax.teaching.language_policy import (
    LAMOREL,
    LanguagePolicyConfig,
    language_policy,
    model_params,
    policy_table,
)
from rlli_jax.teaching.methods import Method, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.objective import draw
from rlli_jax.teaching.tasks import TextTask, references
from rlli_jax.teaching.teacher_update import (
    advice_table,
    evaluate_teacher,
    teacher_loss,
    teacher_update,
)
from rlli_jax.teaching.teachers import stand_in_teachers, teacher

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
    return TextTask(
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


def test_a_decoder_learns_as_a_policy_by_its_lora_alone(task):
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    model = tiny_llama(jax.random.key(0), words, width=8, num_heads=2)
    state, metrics = learn(task, model, adapt="lora", lora_rank=4)
    assert [float(m["first_ratio_error"]) for m in metrics] == [0.0] * len(metrics)
    before, after = (
        float(task.value(policy_table(task, model, params))["return"])
        for params in (model.params, model_params(state))
    )
    assert after > before + 0.2
    jax.tree.map(np.testing.assert_array_equal, state.loaded, model.params)
    assert set(state.params["model"]["layers"]["self_attn"]) == {"q_proj", "v_proj"}


def test_what_needs_no_learning_is_chance_and_the_best_constant(task):
    legal = task.legal.at[1, 1].set(False).at[3, 0].set(False)  # only left, only right
    found = references(replace(task, legal=legal))
    assert found["chance"]["accuracy"] == pytest.approx((0.5 + 0 + 0.5 + 1) / 4)
    # Left, and right where there is no left.
    assert found["always “left”"] == pytest.approx({"accuracy": 3 / 4, "return": 2 * 3 / 4})


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
        said = jax.nn.softmax(stand_ins.teacher.scores(params, jnp.arange(4)))
        right = (said * task.expert).sum(1)
        assert float(right[stand_ins.taught[seed]].min()) > 0.9
        # Whatever it hears before.
        scores = stand_ins.teacher.scores(params, jnp.arange(12), remarked=True)
        remarked = jax.nn.softmax(scores).reshape(3, 4, 2)
        assert float((remarked * task.expert).sum(-1)[:, stand_ins.taught[seed]].min()) > 0.9
    with pytest.raises(InputError, match=r"ability is 1.5"):
        stand_in_teachers(jax.random.split(jax.random.key(0), 1), task, 1.5)


@pytest.mark.parametrize("adapt", ["full", "lora"])
def test_a_gradient_step_says_more_of_what_was_better_and_less_of_what_was_worse(
    task, model, adapt
):
    asked_model = teacher(task, model)
    base = model.params
    adapted = init_lora(jax.random.key(2), base, rank=2) if adapt == "lora" else base

    def log_m(adapted):
        weights = merge_lora(base, adapted) if adapt == "lora" else adapted
        return jax.nn.log_softmax(asked_model.scores(weights, jnp.arange(4)))

    @jax.jit
    def step(adapted, sign):
        old = log_m(adapted)
        asked = jnp.zeros((4, 2)).at[2, 1].set(sign)
        slope = jax.grad(lambda a: teacher_loss(log_m(a), old, asked, 1.0))(adapted)
        after = log_m(jax.tree.map(lambda x, g: x - 0.01 * g, adapted, slope))
        return (after - old)[2, 1]

    assert float(step(adapted, 1.0)) > 1e-5
    assert float(step(adapted, -1.0)) < -1e-5


def test_the_loss_of_a_teacher_is_what_is_asked_and_the_divergence():
    old = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    new = jnp.log(jnp.array([[0.8, 0.2], [0.25, 0.75]]))
    asked = jnp.array([[1.0, 0.0], [0.0, -2.0]])
    divergence = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    expected = (-np.log(0.8) + 2 * np.log(0.75) + 3 * divergence) / 2
    assert float(teacher_loss(new, old, asked, 3.0)) == pytest.approx(expected, abs=1e-6)


def test_each_distinct_text_is_read_once_whatever_the_batch():
    """Groups of 4 of 10 texts: values and gradients equal those of reading text by text."""

    def read(params, texts):
        return params["a"][texts] ** 2, jnp.sin(params["b"]) * texts

    grouped = jax.jit(over_distinct(read, 10, group=4))
    key_a, key_b, key_w = jax.random.split(jax.random.key(0), 3)
    params = {"a": jax.random.normal(key_a, 10), "b": jax.random.normal(key_b)}
    weight = jax.random.normal(key_w, (2, 12))

    def total(function):
        def weighed(params, text):
            return sum((w * x).sum() for w, x in zip(weight, function(params, text), strict=True))

        return jax.jit(jax.value_and_grad(weighed))

    plain, by_groups = total(read), total(grouped)
    for text in (np.full(12, 7), np.arange(12) % 10, np.arange(12) // 3 * 3 % 10):
        text = jnp.asarray(text)
        chex.assert_trees_all_close(grouped(params, text), read(params, text), rtol=1e-6)
        expected, found = plain(params, text), by_groups(params, text)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_64_bit_mode_of_jax_is_refused_in_one_sentence(task):
    with jax.enable_x64(True), pytest.raises(InputError, match="teaching computes in 32 bits"):
        student_loop(task)


def test_untyped_keys_start_a_student_and_a_policy_as_typed_ones_do(task, model):
    student, choices = student_loop(task, TeachingConfig(num_envs=2, num_steps=2)), Method().choices
    policy = language_policy(task, model, LanguagePolicyConfig(num_envs=2, value_width=4))
    for start in (
        lambda key: student.init(key, choices, TeachingHyperparams(), task.env_params),
        lambda key: policy.init(key, LAMOREL, task.env_params),
    ):
        untyped, typed = start(jax.random.PRNGKey(0)), start(jax.random.key(0))
        assert untyped.key == typed.key
        chex.assert_trees_all_equal(untyped.envs.observation, typed.envs.observation)


def test_a_choice_is_drawn_by_its_probability_and_never_at_0():
    probs = jnp.array([0.0, 0.25, 0.0, 0.75, 0.0])
    drawn = draw(jnp.tile(probs, (8, 1)), jnp.arange(8) / 8)
    assert drawn.tolist() == [1, 1, 3, 3, 3, 3, 3, 3]
    assert int(draw(probs, jnp.float32(1 - 2**-23))) == 3


@pytest.mark.parametrize("rounding", [1e-6, -1e-6])
def test_a_choice_at_0_is_not_drawn_though_sums_over_zeros_are_rounded_apart(monkeypatch, rounding):
    """As of a parallel prefix sum, whose entries are summed in different orders."""
    ripple = rounding * jnp.array([1, 0, 1, 0, 1])
    monkeypatch.setattr(jnp, "cumsum", lambda x, axis: jax.lax.cumsum(x, x.ndim - 1) + ripple)
    probs = jnp.array([0.0, 0.25, 0.0, 0.75, 0.0])
    chance = jnp.concatenate([jnp.linspace(0.2499, 0.2501, 4001), jnp.array([0.0, 1 - 2**-24])])
    drawn = draw(jnp.tile(probs, (4003, 1)), chance)
    assert set(drawn.tolist()) == {1, 3}


def test_of_tokens_about_one_text_the_last_is_remembered_whole():
    """Three environments at once; two of them about text 1."""
    memory = Utterance(jnp.zeros(4), jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32))
    text = jnp.array([1, 3, 1])
    now = Utterance(jnp.array([0.1, 0.3, 0.5]), text, jnp.array([2, 4, 6]))
    kept = jax.jit(remember)(memory, now)
    np.testing.assert_allclose(kept.advantage, [0, 0.5, 0, 0.3])
    assert kept.text.tolist() == [0, 1, 0, 3]
    assert kept.advice.tolist() == [0, 6, 0, 4]
    # No scatter has equal indices and an order that matters: the only one takes a maximum.
    scatters = re.findall(r"(scatter[\w-]*)\[", str(jax.make_jaxpr(remember)(memory, now)))
    assert set(scatters) == {"scatter-max"}


def test_what_is_asked_is_a_mean_over_visits_of_standardised_verdicts():
    """Verdicts 3 and 1 on one token of text 0, -1 and 1 on those of text 1: mean 1, variance 2."""
    asked = FeedbackSum(
        log=jnp.array([[4.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]),
        times=jnp.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
        squares=jnp.float32(12.0),
        standardise=jnp.array(True),
    )
    expected = np.array([[2 / 2, 0], [-2 / 2, 0], [0, 0]]) / np.sqrt(2)
    np.testing.assert_allclose(asked.of_visit(), expected, rtol=1e-3)
    threes = jnp.full((2, 2), 3.0)
    alike = FeedbackSum(threes, threes, jnp.float32(12.0), standardise=jnp.array(True))
    np.testing.assert_allclose(alike.of_visit(), 0, atol=1e-3)
    # Constant feedback asks for each token as often as it was credited.
    times = jnp.array([[3.0, 1.0], [0.0, 0.0]])
    constant = FeedbackSum(times, times, jnp.float32(4.0), standardise=jnp.array(False))
    np.testing.assert_allclose(constant.of_visit(), [[0.75, 0.25], [0, 0]])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"advantage": "gae"}, "cannot be compared with previous"),
        ({"feedback": "pairs", "comparison": "expected"}, "needs a token to compare with"),
        ({"feedback": "prompt", "comparison": "expected", "advantage": "gae"}, "too late"),
    ],
)
def test_readings_that_make_no_sense_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        Method(**changes)


@pytest.fixture(scope="module")
def train(task, stand_ins):
    """Train a method; all share the student's program, and those that learn alike the teacher's."""
    config = TeachingConfig(num_envs=8, num_steps=4, teacher_steps=2, teacher_texts=4)
    chex.clear_trace_counter()  # it counts by name, over all tests
    student = student_loop(task, config)
    practise = jax.jit(jax.vmap(chex.assert_max_traces(student.run, n=1), (0, 0, None, None)))
    tables = jax.jit(jax.vmap(partial(advice_table, stand_ins.teacher), (0, None)))
    taught = {}

    def run(method, rounds, iterations, weights=stand_ins.params, **hyper):
        keys = jax.random.split(jax.random.key(3), SEEDS)
        hyper = TeachingHyperparams(**hyper)
        state = jax.vmap(student.init, (0, None, None, None))(
            keys, method.choices, hyper, task.env_params
        )
        table = tables(weights, hyper)
        if method.trains:
            if method.trains not in taught:
                one = teacher_update(task, stand_ins.teacher, config, adapt=method.trains)
                taught[method.trains] = (
                    jax.jit(jax.vmap(one.init, (0, 0, 0, None))), jax.jit(jax.vmap(one.run)),
                )  # fmt: skip
            init, teach = taught[method.trains]
            teachers = init(keys, weights, table, hyper)
        results = []
        for _ in range(rounds):
            state, asked, result = practise(state, table, task.env_params, iterations)
            if method.trains:
                teachers = teach(teachers, weights, asked)
                table = teachers.table
            results.append(result)
        return state, table, results

    return run


@pytest.mark.parametrize("feedback", ["nothing", "prompt"])
def test_a_student_learns_from_a_teacher_that_is_not_trained(train, feedback):
    state, _, results = train(Method(feedback=feedback), 1, 60)
    assert float(results[-1].value["return"].min()) > 1.8
    assert set(np.unique(state.remark)) <= {1, 2}
    assert int(state.heard.sum()) == SEEDS * 60 * 32


def test_a_student_alone_is_advised_nothing(train):
    _, _, results = train(Method(teacher=False), 1, 60)
    assert np.isnan(results[0].followed).all()
    assert float(results[0].value["return"].min()) > 1.8


@pytest.fixture(scope="module")
def obeyed(task, train):
    """What a teacher who knew nothing says at the end; its student obeys and does not learn."""
    keys = jax.random.split(jax.random.key(5), SEEDS)
    untaught = stand_in_teachers(keys, task, 0.0, d_model=8).params
    frozen = PPOHyperparams(learning_rate=jnp.zeros(()), anneal=0.0, gamma=0.0)

    def run(method):
        _, table, _ = train(
            method, 40, 8, untaught, student=frozen, trust=8.0, teacher_learning_rate=1e-2
        )
        return jax.vmap(partial(evaluate_teacher, task))(table)

    return run


@pytest.mark.parametrize(
    "method",
    [
        Method(signal="difference"),
        Method(comparison="same_state", feedback="pairs"),
        Method(comparison="expected", signal="difference", advantage="gae", credit="taken"),
        Method(signal="difference", adapt="lora"),
    ],
    ids=["difference, previous", "pairs, same state", "difference, expected", "LoRA"],
)
def test_true_feedback_teaches_a_teacher_who_is_obeyed(obeyed, method):
    examined = obeyed(method)
    assert float(examined["return"].min()) > 1.8
    assert examined["accuracy"].tolist() == [1, 1]


@pytest.mark.parametrize("credit", ["said", "taken"])
@pytest.mark.parametrize("verdicts", ["random", "shuffled", "constant"])
def test_made_up_feedback_teaches_nothing(obeyed, verdicts, credit):
    method = Method(verdicts=verdicts, signal="difference", credit=credit)
    assert float(obeyed(method)["return"].mean()) < 1.8


def test_a_verdict_compares_with_the_last_one_and_a_tie_is_better(train):
    """Algorithm 1, lines 6 to 11, with values that stay 0: the TD error is the reward."""
    state, _, results = train(
        Method(feedback="nothing"), 1, 60, student=PPOHyperparams(learning_rate=jnp.zeros(()))
    )
    last = np.asarray(state.last.advantage)
    assert set(np.unique(last.round(4))) <= {0.0, 1.0}
    # Whoever earned the reward cannot have been worse than the last one.
    assert (np.asarray(state.remark) == 1)[last > 0.5].all()
    # Worse only after an earned reward that is followed by none.
    assert 0.5 < float(results[0].positive.mean()) < 1


def test_with_the_critic_s_expectation_nothing_earned_is_never_worse(train):
    """Values that stay 0 expect nothing, so that every verdict is positive."""
    _, _, results = train(
        Method(feedback="nothing", comparison="expected"), 1, 60,
        student=PPOHyperparams(learning_rate=jnp.zeros(())),
    )  # fmt: skip
    assert results[0].positive.tolist() == [1, 1]
