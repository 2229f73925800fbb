"""The last turns of a session in words: which situation is met, and what is named there."""

import jax
import numpy as np
import pytest

from rlli_jax.envs.policy import policy_input
from rlli_jax.envs.provider_selection import demonstration_table
from rlli_jax.envs.session import Session, make_params
from rlli_jax.errors import InputError
from rlli_jax.teaching.session_words import GRADES, by_plan, grade_bounds, session_situations

TURNS = 2


def test_the_policy_names_what_stands_beside_the_text_of_each_turn():
    table = demonstration_table()
    todo, bounds = session_situations(table, TURNS), grade_bounds(table.mean)
    places = {text: i for i, text in enumerate(todo.situations)}
    assert len(places) == len(todo.situations)  # no two are alike
    providers = len(table.providers)
    named = np.random.default_rng(0).integers(0, providers, len(places))
    policy = by_plan(np.eye(providers)[named], bounds, TURNS)
    env = Session(make_params(table, taste_spread=0.5), turns=5)
    params, told, carry = env.default_params, [], policy.initial
    act, step = jax.jit(policy.act), jax.jit(env.step_env)
    observation, state = env.reset(jax.random.key(1), params)
    for turn in range(5):
        seen = policy_input(env, observation, state, params)
        action, carry = act(jax.random.key(0), seen, carry)
        before = " ".join(told[-TURNS:]) or "Nothing was shown to the person yet."
        text = f"{before}\nNow the person asks for: {table.requests[int(state.request)]}."
        assert int(action) == named[places[text]]
        observation, state, reward, *_ = step(jax.random.key(turn), state, action, params)
        grade = GRADES[int((float(reward) > bounds).sum())]
        told.append(f"The person was shown a picture by {table.providers[action]} and {grade}.")


def test_more_situations_than_anybody_wants_to_ask_are_refused():
    with pytest.raises(InputError, match=r"are [0-9,]+ situations to ask about, more than 5,000"):
        session_situations(demonstration_table(), 6)
