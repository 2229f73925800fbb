"""What an observation of a session may hold: one row a part."""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from rlli_jax.envs.parts import ANYTHING, TRAITS, Part, scaled_traits
from rlli_jax.envs.session.belief import expected


def _providers(env: Any, params: Any) -> int:
    return int(params.count.shape[2])


def _believed(env: Any, state: Any, params: Any) -> jax.Array:
    mean, spread = expected(state.belief)
    weary = params.satiation_weight * env.satiation(state, params)
    return jnp.stack([params.prior.crowd[state.request] + mean - weary, spread])


PARTS = {
    # One-hot of the last provider, [L].
    "action": Part(
        lambda env, state, params: jax.nn.one_hot(state.recent[0], params.count.shape[2]),
        _providers,
        action_axis=0,
    ),
    # What was felt in the last turn.
    "reward": Part(
        lambda env, state, params: state.reward,
        lambda env, params: 1,
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # Part of the session that is over.
    "turn": Part(lambda env, state, params: state.time / env.turns, lambda env, params: 1),
    # Features of what is asked for, [F].
    "request": Part(
        lambda env, state, params: params.request_features[state.request],
        lambda env, params: params.request_features.shape[1],
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # How weary the person is of each provider, [L].
    "satiation": Part(
        lambda env, state, params: env.satiation(state, params),
        _providers,
        action_axis=0,
        high=lambda env, params: float(env.window),
    ),
    # Of each provider, how often it was seen in the session and the sum of what was felt, [2, L].
    "history": Part(
        lambda env, state, params: state.history,
        lambda env, params: 2 * _providers(env, params),
        action_axis=1,
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # What is expected of each provider now and how uncertain it is, [2, L].
    "belief": Part(
        _believed,
        lambda env, params: 2 * _providers(env, params),
        action_axis=1,
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # Big Five of the person, [5].
    "persona": Part(
        lambda env, state, params: scaled_traits(params.personas[state.user]),
        lambda env, params: TRAITS,
        low=-1.0,
        needs="personas",
    ),
}

if TYPE_CHECKING:
    SessionObservationPart = str
else:
    SessionObservationPart = Literal[tuple(PARTS)]
