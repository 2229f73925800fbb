"""What a session is worth without adapting, exactly, and with foresight; and rules that adapt.

A policy that does not adapt ignores what was felt. It may know the request, the turn and what it
has shown, hence satiation. Tastes have mean 0 to it, so its best value follows by backward
induction over the last ``window`` providers, (L + 1)^window situations: :func:`plan`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.contract import Key
from rlli_jax.envs.policy import Policy, PolicyInput
from rlli_jax.envs.session.belief import expected
from rlli_jax.envs.session.env import EnvParams, Session
from rlli_jax.errors import InputError

MOST_SITUATIONS = 200_000
AT_ONCE = 4_000_000  # numbers of one array in a backward induction


class Plan(NamedTuple):
    """The best policy that does not adapt."""

    value: float  # expected sum of rewards of a session
    choice: np.ndarray  # [turns, situations, R] int32, the provider


class _Situations(NamedTuple):
    """All that may have been shown lately, by number: digits of base L + 1, the latest first."""

    satiation: np.ndarray  # [N, L] float64
    following: np.ndarray  # [N, L] int, the situation after showing provider l


def _situations(providers: int, window: int, memory: float) -> _Situations:
    count = (providers + 1) ** window
    if count > MOST_SITUATIONS:
        raise InputError(
            f"session.satiation.turns is {window} and there are {providers} providers: "
            f"{count:,} situations are too many for an exact reference; take fewer turns."
        )
    powers = (providers + 1) ** np.arange(window - 1, -1, -1)
    shown = np.arange(count)[:, None] // powers % (providers + 1) - 1  # [N, window]
    weights = memory ** np.arange(window)
    satiation = ((shown[..., None] == np.arange(providers)) * weights[:, None]).sum(1)
    older = np.arange(count) // (providers + 1)
    following = (np.arange(providers) + 1) * powers[0] + older[:, None]
    return _Situations(satiation, following)


def situation(recent: jax.Array, providers: int) -> jax.Array:
    """The number of what was shown lately, [window] -> []."""
    powers = (providers + 1) ** np.arange(recent.shape[-1] - 1, -1, -1)
    return ((recent + 1) * powers).sum(-1)


def _numbers(env: Session, params: EnvParams) -> tuple[np.ndarray, _Situations, float]:
    mean = np.asarray(params.mean, np.float64)  # [K, R, L]
    situations = _situations(mean.shape[2], env.window, float(params.satiation_memory))
    return mean, situations, float(params.satiation_weight)


def plan(env: Session, params: EnvParams, mean: np.ndarray | None = None) -> Plan:
    """The best that does not adapt, for QoE ``mean`` [R, L]; of all people together if absent."""
    means, situations, weight = _numbers(env, params)
    mean = means.mean(0) if mean is None else mean
    now = mean - weight * situations.satiation[:, None]  # [N, R, L]
    later = np.zeros(len(now))
    choice = np.zeros((env.turns, *now.shape[:2]), np.int32)
    for turn in reversed(range(env.turns)):
        total = now + later[situations.following][:, None]
        choice[turn], later = total.argmax(-1), total.max(-1).mean(-1)
    return Plan(float(later[0]), choice)


def uniform(env: Session, params: EnvParams) -> float:
    """Expected sum of rewards of uniformly random choices."""
    means, situations, weight = _numbers(env, params)
    now = (means.mean((0, 1)) - weight * situations.satiation).mean(-1)  # [N]
    later = np.zeros(len(now))
    for _ in range(env.turns):
        later = now + later[situations.following].mean(-1)
    return float(later[0])


def known_person(env: Session, params: EnvParams) -> float:
    """Expected sum of rewards if each person's row of the table is known, but no taste."""
    means, *_ = _numbers(env, params)
    return float(np.mean([plan(env, params, mean).value for mean in means]))


def hindsight(env: Session, params: EnvParams, key: Key, episodes: int) -> np.ndarray:
    """What each of ``episodes`` sessions is worth if person, requests and tastes to come are known.

    No policy is worth more on average: [episodes] float64.
    """

    def world(key: Key) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, key_start = jax.random.split(key)
        _, state = env.reset_env(key_start, params)

        def step(state: Any, key: Key) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            after = env.step_env(key, state, jnp.int32(0), params)[1]
            return after, (state.request, state.taste)

        _, (requests, tastes) = jax.lax.scan(step, state, jax.random.split(key, env.turns))
        return state.user, requests, tastes

    means, situations, weight = _numbers(env, params)
    worlds = jax.jit(jax.vmap(world))(jax.random.split(key, episodes))
    users, requests, tastes = (np.asarray(x) for x in worlds)
    found = []
    part = max(1, AT_ONCE // situations.satiation.size)
    for first in range(0, episodes, part):
        own = slice(first, first + part)
        later = np.zeros((len(users[own]), len(situations.satiation)))
        for turn in reversed(range(env.turns)):
            now = means[users[own], requests[own, turn]] + tastes[own, turn]  # [E, L]
            total = now[:, None] - weight * situations.satiation + later[:, situations.following]
            later = total.max(-1)
        found.append(later[:, 0])
    return np.concatenate(found)


# ---- policies


def fixed(chosen: Plan) -> Policy:
    """Follow a plan, whatever is felt."""
    choice = jnp.asarray(chosen.choice)

    def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        providers = seen.params.count.shape[2]
        place = situation(seen.state.recent, providers)
        return choice[seen.state.time, place, seen.state.request], carry

    return Policy((), act)


def by_belief(env: Session, *, sampling: bool = False) -> Policy:
    """The provider of which most is expected now; with ``sampling`` of a draw from the belief.

    The latter is Thompson sampling (Thompson 1933, Biometrika 25) with independent draws a
    provider. ``env`` observes ``belief``.
    """

    def act(key: Key, seen: PolicyInput, carry: tuple) -> tuple[jax.Array, tuple]:
        state, params = seen.state, seen.params
        mean, spread = expected(state.belief)
        if sampling:
            mean = mean + spread * jax.random.normal(key, mean.shape)
        weary = params.satiation_weight * env.satiation(state, params)
        score = params.prior.crowd[state.request] + mean - weary
        return jnp.argmax(score).astype(jnp.int32), carry

    return Policy((), act)
