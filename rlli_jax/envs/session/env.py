"""A session of recommendations: one unknown person asks several times and says how it felt.

The person is drawn from a table of QoE. Tastes move from turn to turn as an AR(1), as the rewards
of Chen, Golrezaei and Bouneffouf (NeurIPS 2023, "Non-Stationary Bandits with Auto-Regressive
Temporal Dependency"); what was seen lately satiates, a linear system as in Leqi, Kilinc-Karzan,
Lipton and Montgomery (NeurIPS 2021, "Rebounding Bandits for Modeling Satiation Effects"). A
session of many turns with one person is the setting of RecSim (Ie et al., arXiv 1909.04847).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jax.scipy.special import erfinv

from rlli_jax.envs import parts
from rlli_jax.envs.chance import index_below
from rlli_jax.envs.qoe_samples import QoESamples, on_device
from rlli_jax.envs.session.belief import Belief, Prior, learned_prior, start, update
from rlli_jax.envs.session.parts import PARTS, SessionObservationPart
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable


@struct.dataclass
class EnvState(environment.EnvState):
    """What changes from turn to turn."""

    time: jax.Array  # [] int32, turns since the session began
    user: jax.Array  # [] int32, the person; no policy that learns sees it
    request: jax.Array  # [] int32, what the person asks for
    taste: jax.Array  # [L] float32, what the moment adds to the QoE of each provider
    recent: jax.Array  # [window] int32, the last providers, the latest first; -1 before
    reward: jax.Array  # [] float32, what was felt last
    # [2, L] float32, how often each provider was seen and the sum of what was felt; None if it is
    # not observed.
    history: jax.Array | None
    belief: Belief | None  # None if it is not observed


@struct.dataclass(kw_only=True)
class EnvParams(QoESamples, environment.EnvParams):
    """The table, the people and how they change; all traced."""

    prior: Prior  # what is known of people before a session
    taste_spread: float | jax.Array = 0.1  # [] standard deviation of a taste
    taste_memory: float | jax.Array = 0.9  # [] in [0, 1], correlation from turn to turn
    satiation_weight: float | jax.Array = 0.1  # [] QoE that satiation of 1 takes away
    satiation_memory: float | jax.Array = 0.7  # [] in [0, 1], what is left after a turn
    # A step limit that truncates; the default is never reached.
    max_steps_in_episode: int | jax.Array = np.iinfo(np.int32).max


def make_params(
    table: QoETable,
    personas: np.ndarray | None = None,
    *,
    known: QoETable | None = None,
    request_features: np.ndarray | None = None,
    taste_spread: float = 0.1,
    taste_memory: float = 0.9,
    satiation_weight: float = 0.1,
    satiation_memory: float = 0.7,
) -> EnvParams:
    """Put a table and its people on the device.

    Args:
        table: QoE [K, R, L, S] of the people who come; it has no holes.
        personas: Big Five [K, 5] on the 1-5 scale; None if they are unknown.
        known: the table from which beliefs about people are learned, with the requests and
            providers of ``table``; ``table`` itself if absent.
        request_features: [R, F], what the observation tells of a request; one-hot if absent.
        taste_spread, taste_memory, satiation_weight, satiation_memory: of :class:`EnvParams`.

    Raises:
        InputError: shapes disagree, there are holes, or a number is out of range.
    """
    known = table if known is None else known
    for each in (table, known):
        if not each.legal.all():
            user, request, provider = np.argwhere(~each.legal)[0]
            raise InputError(
                f"user {each.users[user]!r} has not rated {each.providers[provider]!r} for "
                f"{each.requests[request]!r}; a session may offer anything, so fill the holes "
                "(judge.on_missing: impute)."
            )
    if (known.requests, known.providers) != (table.requests, table.providers):
        raise InputError("Beliefs are learned from a table of other requests or providers.")
    for name, value, most in (
        ("taste_spread", taste_spread, np.inf),
        ("taste_memory", taste_memory, 1.0),
        ("satiation_weight", satiation_weight, np.inf),
        ("satiation_memory", satiation_memory, 1.0),
    ):
        if not 0 <= value <= most:
            raise InputError(f"{name} is {value}; it must lie in [0, {most:g}].")
    return EnvParams(
        **on_device(table, personas, request_features),
        prior=learned_prior(known),
        taste_spread=taste_spread,
        taste_memory=taste_memory,
        satiation_weight=satiation_weight,
        satiation_memory=satiation_memory,
    )


class Session(environment.Environment[EnvState, EnvParams]):
    """Recommend one of L providers in each of ``turns`` turns to one person.

    Start: a person, uniform over K; tastes from their stationary law; nothing was seen.
    Each turn: the person asks for one of R requests, uniform; the action is a provider l; felt,
    and paid as reward, is::

        sample of the table (person, request, l) + taste_l - satiation_weight satiation_l

    with satiation_l = sum over the last ``window`` turns j = 1, 2, ... in which l was seen of
    satiation_memory^(j-1). It is not clipped to [0, 1]: so the value of any policy that ignores
    what is felt is a finite sum (:mod:`rlli_jax.envs.session.references`). Then every taste moves:
    taste <- taste_memory taste + sqrt(1 - taste_memory^2) taste_spread normal.

    Observation: the chosen parts, as one vector of float32; see
    :data:`rlli_jax.envs.session.parts.PARTS`. Who the person is, nobody says, unless ``persona``
    is observed.
    Termination: after ``turns`` turns. Truncation: only if ``max_steps_in_episode`` is lower.
    """

    def __init__(
        self,
        params: EnvParams | None = None,
        *,
        turns: int = 20,
        window: int = 3,
        observation: Sequence[SessionObservationPart] = ("action", "reward"),
    ) -> None:
        """Fix what decides shapes; ``params`` become the default ones.

        Raises:
            InputError: an unknown part, or ``persona`` where personalities are unknown; no turn.
        """
        super().__init__()
        if turns < 1 or window < 1:
            raise InputError(f"turns is {turns} and window {window}; both must be at least 1.")
        self.observation = parts.chosen(PARTS, observation)
        self.turns, self.window = turns, window
        if params is None:
            from rlli_jax.envs.provider_selection.env import (
                demonstration_personas,
                demonstration_table,
            )

            params = make_params(demonstration_table(), demonstration_personas())
        if "persona" in self.observation and params.personas is None:
            raise InputError(
                "The observation part persona needs personas, but those of the users are unknown."
            )
        self._params = params

    @property
    def default_params(self) -> EnvParams:
        """The parameters given at construction, else those of a small made-up table."""
        return self._params

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return "Session-v0"

    @property
    def num_actions(self) -> int:
        """Number of providers L of the default parameters."""
        return int(self._params.qoe.shape[2])

    def satiation(self, state: EnvState, params: EnvParams) -> jax.Array:
        """How weary the person is of each provider, [L]."""
        weights = params.satiation_memory ** jnp.arange(self.window)
        seen = state.recent[:, None] == jnp.arange(params.count.shape[2])
        return jnp.where(seen, weights[:, None], 0.0).sum(0)

    def value(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Expected reward of each provider now, [L], by all that nobody knows."""
        mean = params.mean[state.user, state.request]
        return mean + state.taste - params.satiation_weight * self.satiation(state, params)

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """One turn."""
        state, reward, _ = self._serve(key, state, action, params)
        observation = self.observe(state, params)
        return observation, state, reward, self.is_terminated(state, params), {}

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: EnvState,
        action: jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """:meth:`step_env`, and the next session where this one ends, from one draw."""
        params = self.default_params if params is None else params
        served, reward, draw = self._serve(key, state, action, params)
        terminated = self.is_terminated(served, params)
        truncated = self.is_truncated(served, params)
        going_on = jax.tree.map(
            partial(jnp.where, terminated | truncated), self._start(draw, params), served
        )
        final = self.observe(served, params)
        info = {"terminated": terminated, "truncated": truncated, "final_observation": final}
        return self.observe(going_on, params), going_on, reward, terminated, truncated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """A new person."""
        state = self._start(self._draw(key, params), params)
        return self.observe(state, params), state

    @staticmethod
    def _draw(key: jax.Array, params: EnvParams) -> jax.Array:
        """All that is random in a step: [3 + L] uniform numbers. A key for each costs more."""
        return jax.random.uniform(key, (3 + params.count.shape[2],))

    def _start(self, draw: jax.Array, params: EnvParams) -> EnvState:
        observed = self.observation
        providers = params.count.shape[2]
        return EnvState(
            time=jnp.int32(0),
            user=index_below(params.count.shape[0], draw[2]),
            request=index_below(params.count.shape[1], draw[1]),
            taste=params.taste_spread * _normal(draw[3:]),
            recent=jnp.full(self.window, -1, jnp.int32),
            reward=jnp.float32(0),
            history=jnp.zeros((2, providers)) if "history" in observed else None,
            belief=start(params.prior, params.taste_spread) if "belief" in observed else None,
        )

    def _serve(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[EnvState, jax.Array, jax.Array]:
        """The state after a turn, the reward, and the draw, for a session that begins next."""
        draw = self._draw(key, params)
        action = jnp.asarray(action, jnp.int32)
        weary = params.satiation_weight * self.satiation(state, params)[action]
        sample = params.drawn((state.user, state.request, action), draw[0])
        reward = (sample + state.taste[action] - weary).astype(jnp.float32)
        fresh = jnp.sqrt(1 - jnp.square(params.taste_memory)) * params.taste_spread
        history, belief = state.history, state.belief
        if history is not None:
            history = history.at[:, action].add(jnp.stack([jnp.float32(1), reward]))
        if belief is not None:
            surprise = reward + weary - params.prior.crowd[state.request, action]
            belief = update(
                belief, params.prior, action, surprise, params.taste_memory, params.taste_spread
            )
        state = EnvState(
            time=state.time + 1,
            user=state.user,
            request=index_below(params.count.shape[1], draw[1]),
            taste=params.taste_memory * state.taste + fresh * _normal(draw[3:]),
            recent=jnp.concatenate([action[None], state.recent[:-1]]),
            reward=reward,
            history=history,
            belief=belief,
        )
        return state, reward, draw

    def observe(self, state: EnvState, params: EnvParams) -> jax.Array:
        """The observation vector, [sum of the parts] float32."""
        return parts.observe(PARTS, self.observation, self, state, params)

    def by_action(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An observation [..., size] as what it tells of each provider, and the rest."""
        return parts.by_action(PARTS, self.observation, self, self._params, observation)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the session is over."""
        return state.time >= self.turns

    def statistics(
        self, state: EnvState, action: jax.Array, params: EnvParams
    ) -> dict[str, jax.Array]:
        """Expected reward by turn, ``felt`` [turns]."""
        value = self.value(state, params)[action]
        return {"felt": jnp.where(jnp.arange(self.turns) == state.time, value, 0.0)}

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """``Discrete(L)``."""
        params = self.default_params if params is None else params
        return spaces.Discrete(params.count.shape[2])

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """A box of float32 that holds every part."""
        return spaces.Box(*parts.bounds(PARTS, self.observation, self, params))


def _normal(chance: jax.Array) -> jax.Array:
    """Standard normal numbers from uniform ones in [0, 1)."""
    least = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(np.sqrt(2)) * erfinv(jnp.maximum(2 * chance - 1, least))
