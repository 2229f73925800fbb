"""What an observation of provider selection may hold: one row a part."""

from typing import TYPE_CHECKING, Any, Literal

import jax

from rlli_jax.envs.parts import ANYTHING, TRAITS, Part, scaled_traits

Assignment = Literal["shared", "sequential", "joint"]


def _served(env: Any, params: Any) -> int:
    """Users whose choice one step is."""
    return 1 if env.assignment == "sequential" else params.count.shape[0]


def _requests(env: Any, state: Any, params: Any) -> jax.Array:
    """What is asked for: of the user whose turn it is, or of the round."""
    request = env.requests(state, params) if env.assignment == "sequential" else state.request
    return jax.numpy.asarray(request)


PARTS = {
    # One-hot of the last action, [L]; in joint of each user's, [K, L].
    "action": Part(
        lambda env, state, params: jax.nn.one_hot(state.action, params.count.shape[2]),
        lambda env, params: (
            params.count.shape[2] * (params.count.shape[0] if env.assignment == "joint" else 1)
        ),
        action_axis=0,
    ),
    # The last reward; of all users together it may exceed 1.
    "reward": Part(
        lambda env, state, params: state.reward,
        lambda env, params: 1,
        high=lambda env, params: float(_served(env, params)),
    ),
    # One-hot of the user to be served, [K].
    "user": Part(
        lambda env, state, params: jax.nn.one_hot(env.users(state, params), params.count.shape[0]),
        lambda env, params: params.count.shape[0],
        needs="turns",
    ),
    # Big Five of the users to be served, [5] or [K, 5].
    "persona": Part(
        lambda env, state, params: scaled_traits(env.personas(state, params)),
        lambda env, params: TRAITS * _served(env, params),
        low=-1.0,
        needs="personas",
    ),
    # Features of what is asked for, [F]; they are the user's own and have no bound.
    "request": Part(
        lambda env, state, params: params.request_features[_requests(env, state, params)],
        lambda env, params: params.request_features.shape[1],
        low=-ANYTHING,
        high=ANYTHING,
    ),
    # What is asked for, in words: the vector of a sentence encoder, [D]. It tells something of
    # requests that were never seen, too.
    "request_text": Part(
        lambda env, state, params: params.request_text[_requests(env, state, params)],
        lambda env, params: params.request_text.shape[1],
        low=-ANYTHING,
        high=ANYTHING,
        needs="texts",
    ),
}

if TYPE_CHECKING:
    ObservationPart = str
else:
    ObservationPart = Literal[tuple(PARTS)]
