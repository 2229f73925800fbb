"""Teaching on backends that this machine may not have, by reading what is compiled."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from lowering import NONE, foreign_calls

from rlli_jax.envs import go_to_red_ball
from rlli_jax.language import init_lora, merge_lora, t5
from rlli_jax.learners.ppo import PPOHyperparams
from rlli_jax.teaching.bidirectional import FeedbackSum, student_loop
from rlli_jax.teaching.language_policy import (
    LanguagePolicyConfig,
    language_policy,
    policy_table,
)
from rlli_jax.teaching.methods import Method, TeachingConfig, TeachingHyperparams
from rlli_jax.teaching.quick import over_seeds
from rlli_jax.teaching.tasks import go_to_red_ball as red_ball
from rlli_jax.teaching.teacher_update import advice_table, teacher_update
from rlli_jax.teaching.teachers import teacher


@pytest.fixture(scope="module")
def task():
    """GoToRedBall; what the expert knows is not needed."""
    return red_ball(jnp.full((go_to_red_ball.NUM_POLICY_TEXTS, 6), 1 / 6))


@pytest.fixture(scope="module")
def model(task):
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    return t5.tiny_t5(jax.random.key(0), words, d_model=8, num_heads=1)


def matrix_products(jaxpr):
    """All products of a program and of those inside it, with the precision that each asks for."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"], [x.aval.dtype for x in equation.invars]
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from matrix_products(inner)


def test_teaching_lowers_for_every_backend_without_foreign_calls(task, model):
    config = TeachingConfig(num_envs=4, num_steps=2, teacher_steps=1, teacher_texts=4)
    hyper, choices, key = TeachingHyperparams(), Method().choices, jax.random.key(0)
    student, asked = student_loop(task, config), teacher(task, model)
    taught = teacher_update(task, asked, config, adapt="lora")
    table = jax.eval_shape(partial(advice_table, asked), model.params, hyper)
    state = jax.eval_shape(student.init, key, choices, hyper, task.env_params)
    assert foreign_calls(student.run, state, table, task.env_params, jnp.int32(2)) == NONE
    state = jax.eval_shape(taught.init, key, model.params, table, hyper)
    wish = FeedbackSum.nothing(*task.legal.shape)
    assert foreign_calls(taught.run, state, model.params, wish) == NONE


def test_a_language_policy_lowers_for_every_backend_without_foreign_calls(task, model):
    config = LanguagePolicyConfig(
        num_envs=2, num_steps=2, num_minibatches=1, num_epochs=1, value_width=4
    )
    learner = language_policy(task, model, config)
    start = (jax.random.key(0), PPOHyperparams(), task.env_params)
    state = jax.eval_shape(learner.init, *start)
    assert foreign_calls(learner.step, state, task.env_params) == NONE


def test_a_foreign_call_would_be_found():
    assert foreign_calls(jnp.linalg.cholesky, jnp.eye(2))["cpu"]
    with pytest.raises(NotImplementedError, match="callbacks"):
        foreign_calls(lambda x: jax.debug.callback(print, x), jnp.zeros(2))


def test_products_of_what_is_called_exact_ask_for_all_digits(task, model):
    asked = teacher(task, model)
    lora = init_lora(jax.random.key(0), model.params, rank=2)

    def scores(lora):
        return asked.scores(merge_lora(model.params, lora), jnp.arange(4)).sum()

    policy = jnp.full(task.legal.shape, 1 / 6)
    for function, argument in (
        (jax.grad(scores), lora),  # forwards and backwards
        (jax.grad(lambda policy: task.value(policy)["return"]), policy),
    ):
        products = list(matrix_products(jax.make_jaxpr(function)(argument).jaxpr))
        assert products
        highest = (jax.lax.Precision.HIGHEST,) * 2
        assert [precision for precision, _ in products] == [highest] * len(products)


def test_bfloat16_is_for_the_products_of_the_model_alone(model):
    """Scores are float32 and near those of float32 products."""
    half = replace(model.config, compute_dtype="bfloat16")
    asked = model.prompts(["You see a wall"]), model.candidates(["turn left", "go forward"])
    program = jax.make_jaxpr(partial(t5.score, half))(model.params, *asked)
    kinds = [kinds for _, kinds in matrix_products(program.jaxpr)]
    assert kinds[:-1] == [[jnp.bfloat16] * 2] * (len(kinds) - 1)
    assert kinds[-1] == [jnp.float32] * 2  # of log-probabilities along each candidate
    exact, found = (t5.score(config, model.params, *asked) for config in (model.config, half))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, exact)
    assert 1e-6 < float(jnp.abs(found.candidates - exact.candidates).max()) < 0.1


def test_the_table_of_a_policy_is_scored_in_groups(task, model):
    """Its memory is not that of all 556 texts at once, and its rows are those of each text."""
    program = jax.jit(partial(policy_table, task, model)).lower(model.params).compile()
    prompts = model.prompts([task.prompt(text) for text in task.texts])
    candidates = model.candidates(task.advice)
    at_once = t5.score.lower(model.config, model.params, prompts, candidates).compile()
    grouped, whole = (x.memory_analysis().temp_size_in_bytes for x in (program, at_once))
    assert grouped < whole / 2
    some = jnp.array([3, 500])
    scores = t5.score(model.config, model.params, prompts.take(some), candidates).candidates
    expected = jax.nn.softmax(scores)
    np.testing.assert_allclose(program(model.params)[some], expected, rtol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_seeds_are_mapped_alike_on_every_backend(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    def weigh(params, x):
        return params["w"] * x

    x = jnp.array([1.0, 2.0])
    shared = over_seeds(weigh, own=False, tiny=True)({"w": jnp.float32(3)}, x)
    own = over_seeds(weigh, own=True, tiny=True)({"w": jnp.array([3.0, 4.0])}, x)
    assert shared.tolist() == [3, 6]
    assert own.tolist() == [3, 8]
    for tiny in (True, False):
        program = jax.make_jaxpr(over_seeds(weigh, own=False, tiny=tiny))({"w": 3.0}, x)
        assert ("scan" in str(program)) == (backend == "cpu" or not tiny)
