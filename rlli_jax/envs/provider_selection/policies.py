"""Policies of provider selection that do not learn: what a learned one is compared with."""

import jax
import jax.numpy as jnp

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.envs.provider_selection.env import EnvParams, ProviderSelection


def greedy(env: ProviderSelection, params: EnvParams) -> Policy:
    """For each user and request the legal provider that is worth most in the table.

    In ``shared`` what it is worth to all users is added.
    """

    def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        users, requests = (f(seen.state, seen.params) for f in (env.users, env.requests))
        value = params.mean[users, requests]
        value = value.sum(0) if env.assignment == "shared" else value
        return jnp.argmax(jnp.where(seen.legal, value, -jnp.inf), -1), carry

    return Policy((), act)


def fixed(env: ProviderSelection, provider: jax.Array) -> Policy:
    """Always the same provider for a user, [K]; uniform over the legal ones where it is illegal."""

    def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        users = env.users(seen.state, seen.params)
        users = users[0] if env.assignment == "shared" else users  # one choice for all
        own = jax.nn.one_hot(provider[users], seen.legal.shape[-1], dtype=bool) & seen.legal
        offered = jnp.where(own.any(-1, keepdims=True), own, seen.legal)
        return jax.random.categorical(key, jnp.where(offered, 0.0, -jnp.inf)), carry

    return Policy((), act)


def optimal(env: ProviderSelection, params: EnvParams) -> Policy:
    """The optimum of Eq. (2): for each user the provider that is best on average over requests.

    It is worth ``QoETable.references()["optimum"]``; in ``shared`` it is :func:`best_single`.
    """
    if env.assignment == "shared":
        return best_single(env, params)
    return fixed(env, _provider_values(params).argmax(-1))


def best_single(env: ProviderSelection, params: EnvParams) -> Policy:
    """The one provider that is best for all users together, on average over requests.

    It is worth ``QoETable.references()["best_single"]``; a little else in ``shared`` with holes,
    where a provider must suit all users at once.
    """
    best = _provider_values(params).sum(0).argmax()
    return fixed(env, jnp.full(params.count.shape[0], best))


def _provider_values(params: EnvParams) -> jax.Array:
    """As :attr:`rlli_jax.qoe.QoETable.provider_values`, on the device: [K, L]."""
    legal = params.count > 0
    offered = legal.sum(-1, keepdims=True)  # [K, R, 1]
    fallback = params.mean.sum(-1, keepdims=True) / jnp.maximum(offered, 1)
    values = jnp.where(legal, params.mean, fallback).sum(1)
    return values / (offered > 0).sum(1)
