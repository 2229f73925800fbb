"""GRPO, RLOO and PPO on a language model: their losses, and what they reach on a small table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.provider_selection import make_params
from rlli_jax.envs.provider_selection.env import demonstration_personas, demonstration_table
from rlli_jax.errors import InputError
from rlli_jax.language.tiny import tiny_model
from rlli_jax.personas import Persona, Population
from rlli_jax.teaching import tuning
from rlli_jax.teaching.tasks import provider_selection


@pytest.fixture(scope="module")
def worded():
    """Five users, one request, four providers; a provider of one's own is best for each."""
    table = demonstration_table()
    traits = map(tuple, demonstration_personas().tolist())
    people = Population(tuple(map(Persona, table.users, traits)))
    params = make_params(table, people.traits)
    task = provider_selection(params, people, table.requests, table.providers)
    words = [*(task.prompt(text) for text in task.texts), *task.advice]
    return tuning.Worded(task, tiny_model("llama", jax.random.key(0), words, width=32, heads=4))


def test_advantages_are_above_the_group_and_above_the_others():
    reward = jnp.array([[1.0, 0.0, 0.0, 3.0], [0.5, 0.5, 0.5, 0.5]])
    found = tuning.group_advantage(reward)
    np.testing.assert_allclose(found[0], (reward[0] - 1) / (np.std([1, 0, 0, 3]) + 1e-4), rtol=1e-5)
    np.testing.assert_array_equal(found[1], 0)
    by_hand = [[r - (sum(row) - r) / 3 for r in row] for row in reward.tolist()]
    np.testing.assert_allclose(tuning.leave_one_out(reward), by_hand, atol=1e-6)


def test_the_estimate_of_divergence_is_right_on_average():
    log_policy, start = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (2, 5)))
    exact = tuning.kl_to(start, log_policy)
    estimate = tuning.kl_estimate(log_policy, start)
    assert (estimate >= 0).all()
    assert float(exact) > 0.1
    np.testing.assert_allclose((jnp.exp(log_policy) * estimate).sum(), exact, rtol=1e-5)


def test_the_clipped_loss_stops_at_the_clip_and_not_before():
    def slope(ratio, advantage):
        log = jnp.log(ratio)
        return float(jax.grad(tuning.clipped_loss)(log, 0.0, advantage, 0.2))

    assert slope(1.0, 2.0) == pytest.approx(-2)
    assert slope(1.3, 2.0) == slope(0.7, -2.0) == 0
    assert slope(1.3, -2.0) == pytest.approx(2.6)


@pytest.mark.parametrize("name", tuning.TUNERS)
def test_a_tuned_model_names_the_best_provider(worded, name):
    kind = tuning.TUNERS[name]
    learner = kind.make(worded, kind.config(prompts=5, group=16, adapt="full"))
    params = tuning.TuningParams(worded.task.env_params, worded.model.params)
    hyper = kind.hyperparams(learning_rate=3e-3, kl=3e-2)
    state = learner.init(jax.random.key(1), hyper, params)
    np.testing.assert_allclose(tuning.kl_to(state.start, state.log_policy), 0, atol=1e-6)
    before = tuning.expected_return(jnp.exp(state.start), params.table)
    state, curve = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: learner.step(s, params), state, length=60)
    )(state)
    last = {name: float(x[-1]) for name, x in curve.items()}
    best = params.table.mean.max(-1).mean(-1).sum()
    assert before < 0.8 * best
    assert last["episode_return"] > 0.95 * best
    exact = (jnp.exp(state.log_policy) * params.table.mean[:, 0]).sum()
    assert last["episode_return"] == pytest.approx(float(exact), rel=1e-5)
    kl = tuning.kl_to(state.start, state.log_policy).mean()
    assert last["kl"] == pytest.approx(float(kl), rel=1e-5)
    assert last["kl"] > 0.1


def test_a_lora_alone_is_a_runs_own(worded):
    learner = tuning.grpo(worded, tuning.TuningConfig(prompts=5, lora_rank=2))
    params = tuning.TuningParams(worded.task.env_params, worded.model.params)
    state = jax.eval_shape(learner.init, jax.random.key(1), tuning.TuningHyperparams(), params)
    assert state.params["model"]["layers"].keys() == {"self_attn"}
    own, whole = (
        sum(x.size for x in jax.tree.leaves(tree))
        for tree in (state.params["model"], worded.model.params)
    )
    assert own == 2 * (32 + 32) + 2 * (32 + 16)  # q and v, of half as many heads
    assert own < whole / 10


def test_more_prompts_than_there_are_is_one_sentence(worded):
    with pytest.raises(
        InputError, match=r"config\.prompts is 6, but there are 5 different prompts"
    ):
        tuning.grpo(worded, tuning.TuningConfig(prompts=6))
