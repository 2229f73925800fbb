"""Planning in GoTo: what is asked, what is refused, and what the right plan is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.go_to import GoTo
from rlli_jax.envs.policy import Policy, evaluate
from rlli_jax.errors import InputError
from rlli_jax.language.tiny import tiny_model
from rlli_jax.learners.options import follow
from rlli_jax.teaching.planner import planning

TWO = ("go to the red key, then go to the blue box", "go to the blue box, then go to the red key")


def walk(key, seen, carry):
    """Toward what is most like the instruction: as a trained low level, but by a rule."""
    stray, any_way = jax.random.split(key)
    _, likeness = jnp.split(seen.observation, [49])
    place = jnp.argmax(likeness)
    found, right = likeness[place] > 2, place % 7 - 3
    turn = jnp.where(right < 0, 0, 1)
    ahead = place // 7 > 0
    toward = jnp.where(~found, 1, jnp.where(ahead, 2, turn))
    # Now and then any step, as the other thing may stand in the way.
    lost = jax.random.uniform(stray) < 0.15
    return jnp.where(lost, jax.random.randint(any_way, (), 0, 3), toward), carry


@pytest.fixture(scope="module")
def room():
    env, walker = GoTo(objects=2, instructions=TWO), GoTo(objects=2, instructions="all")
    return env, planning(env, walker, lambda params: Policy((), walk))


def test_situations_are_told_in_words_and_have_a_right_answer(room):
    _, todo = room
    assert todo.options == ("red key", "blue box")
    assert len(todo.prompts) == todo.hierarchy.situations == 4
    assert todo.prompts[0] == f"Task: {TWO[0]}.\nDone: nothing.\nNext: go to the"
    assert todo.prompts[1] == f"Task: {TWO[0]}.\nDone: red key.\nNext: go to the"
    assert todo.right.tolist() == [0, 1, 1, 0]
    assert (todo.given(["red key", "blue box", "blue box", "red key"]) == todo.oracle()).all()


def test_the_right_plan_is_worth_more_than_chance_and_a_wrong_one_less():
    env, walker = GoTo(objects=2, instructions="then"), GoTo(objects=2, instructions="all")
    todo = planning(env, walker, lambda params: Policy((), walk))
    assert len(todo.options) == 6

    def success(plan):
        policy = follow(todo.hierarchy, plan)
        found = jax.jit(lambda k: evaluate(env, policy, k, env.default_params, 256))
        return float((found(jax.random.key(0)).returns > 0).mean())

    # Chance sends the agent after things that are not there, too.
    right, chance = success(todo.oracle()), success(todo.chance())
    wrong = success(jnp.roll(todo.oracle(), 1, -1))
    assert right > 0.8
    assert right > chance + 0.2
    assert chance > wrong + 0.05


def test_a_language_model_is_asked_once_for_each_situation(room):
    _, todo = room
    words = [*todo.prompts, *todo.options]
    model = tiny_model("llama", jax.random.key(0), words, width=16, heads=2)
    plan = np.asarray(todo.asked(model))
    scores = model.score(model.params, model.prompts(todo.prompts), model.candidates(todo.options))
    np.testing.assert_array_equal(plan.argmax(-1), np.asarray(scores.candidates).argmax(-1))
    np.testing.assert_array_equal(plan.sum(-1), 1)


def test_a_plan_outside_of_the_goals_is_refused(room):
    env, todo = room
    with pytest.raises(InputError, match="names 'red door', which is no goal here; the goals are"):
        todo.given(["red key", "blue box", "red door", "red key"])
    with pytest.raises(InputError, match="has 1 goals for 4 situations; give one for each"):
        todo.given(["red key"])
    walker = GoTo(objects=2, instructions=["go to the red key"])
    with pytest.raises(InputError, match="no instruction for the blue box; train it on all kinds"):
        planning(env, walker, lambda params: Policy((), walk))
