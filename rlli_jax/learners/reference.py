"""Policies that do not learn: what a learned one is compared with."""

import jax
import jax.numpy as jnp

from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection
from rlli_jax.learners.core import Key, Policy, Situation


def random() -> Policy:
    """Uniform over the legal actions, in any environment."""

    def act(key: Key, seen: Situation, carry: tuple) -> tuple[jax.Array, tuple]:
        return jax.random.categorical(key, jnp.where(seen.legal, 0.0, -jnp.inf)), carry

    return Policy((), act)


def round_robin() -> Policy:
    """The actions in turn, skipping illegal ones, in any environment.

    With several choices at once each next one starts where the one before it stopped.
    """

    def act(key: Key, seen: Situation, turn: jax.Array) -> tuple[jax.Array, jax.Array]:
        def choose(turn: jax.Array, legal: jax.Array) -> tuple[jax.Array, jax.Array]:
            n = legal.shape[-1]
            waiting = jnp.where(legal, (jnp.arange(n) - turn) % n, n)
            action = jnp.argmin(waiting).astype(jnp.int32)
            return (action + 1) % n, action

        heads = seen.legal.shape[:-1]
        turn, actions = jax.lax.scan(choose, turn, seen.legal.reshape(-1, seen.legal.shape[-1]))
        return actions.reshape(heads), turn

    return Policy(jnp.int32(0), act)


def by_score(env: ProviderSelection, score: jax.Array) -> Policy:
    """The legal provider with the highest score [K, R, L] for who is served and what is asked.

    R may be 1: the score then holds for every request. In ``shared`` the users' scores are added.
    """

    def act(key: Key, seen: Situation, carry: tuple) -> tuple[jax.Array, tuple]:
        request = jnp.minimum(seen.state.request, score.shape[1] - 1)
        value = score[env.users(seen.state, seen.params), request]
        value = value.sum(0) if env.assignment == "shared" else value
        return jnp.argmax(jnp.where(seen.legal, value, -jnp.inf), -1), carry

    return Policy((), act)


def greedy(env: ProviderSelection, params: EnvParams) -> Policy:
    """For each user and request the provider with the highest mean QoE in the table."""
    return by_score(env, params.mean)


def optimal(env: ProviderSelection, params: EnvParams) -> Policy:
    """The optimum of Eq. (2): for each user the provider that is best on average over requests."""
    return by_score(env, _over_requests(params))


def best_single(env: ProviderSelection, params: EnvParams) -> Policy:
    """The one provider that is best on average over users and requests."""
    average = _over_requests(params).mean(0, keepdims=True)
    return by_score(env, jnp.broadcast_to(average, (len(params.count), *average.shape[1:])))


def _over_requests(params: EnvParams) -> jax.Array:
    """Mean over the requests that have a rating, [K, 1, L]; 0 where there is none."""
    rated = (params.count > 0).sum(1, keepdims=True)
    return params.mean.sum(1, keepdims=True) / jnp.maximum(rated, 1)
