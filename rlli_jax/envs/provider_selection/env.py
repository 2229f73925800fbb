"""The provider-selection environment of the RLLI paper, driven by a table of QoE.

K users ask for pictures, L providers (ASPs) could serve them, and the reward is the QoE that the
judge gave. The table lives in :class:`EnvParams`, so one environment serves every table of a shape
and tables can be vmapped.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs import parts
from rlli_jax.envs.chance import index_below
from rlli_jax.envs.provider_selection.fresh_people import FreshPeople
from rlli_jax.envs.provider_selection.parts import PARTS, Assignment, ObservationPart
from rlli_jax.envs.qoe_samples import QoESamples, on_device, text_vectors
from rlli_jax.envs.spaces import MultiDiscrete
from rlli_jax.errors import InputError
from rlli_jax.qoe import QoETable
from rlli_jax.tally import Tally

LACKING = {  # what a part needs -> how to help oneself where it is not there
    "turns": "assignment sequential, not {assignment}, which serves all users in one step",
    "personas": "personas, but those of the users are unknown; give them to make_params, or "
    "observe user instead",
    "texts": "vectors of what is asked for; give request_text to make_params",
}


@struct.dataclass
class EnvState(environment.EnvState):
    """What changes from step to step."""

    time: jax.Array  # [] int32, steps since the reset
    request: jax.Array  # [] int32, what the users ask for in this round, if they may
    action: jax.Array  # [] or [K] int32, the last provider(s), -1 before the first step
    reward: jax.Array  # [] float32, the last reward
    # [] float32 in [0, 1), by which users who may not ask for the round's request choose another;
    # None if every user may ask for every request.
    instead: jax.Array | None = None
    # [] float32 in [0, 1), from which the people of this episode follow; None if they are always
    # those of the table.
    people: jax.Array | None = None


@struct.dataclass(kw_only=True)
class EnvParams(QoESamples, environment.EnvParams):
    """The table, the users and the length of an episode; all traced."""

    rounds: int | jax.Array  # [] int32, how often every user is served before the episode ends
    # [K, R] int32, the requests that a user may ask for (has a provider for), -1 behind them; None
    # if every user may ask for every request.
    asked: jax.Array | None = None
    # [R, D] float32, what is asked for as the vector of a sentence encoder; None: unknown.
    request_text: jax.Array | None = None
    # The users are new people in each episode; None: they are those of the table.
    fresh: FreshPeople | None = None
    # A step limit that truncates; the default is never reached.
    max_steps_in_episode: int | jax.Array = np.iinfo(np.int32).max


def make_params(
    table: QoETable,
    personas: np.ndarray | None = None,
    request_features: np.ndarray | None = None,
    rounds: int = 1,
    worth: QoETable | None = None,
    fresh: FreshPeople | None = None,
    request_text: np.ndarray | None = None,
) -> EnvParams:
    """Put a table and its users on the device.

    Args:
        table: QoE [K, R, L, S] with its validity mask.
        personas: Big Five [K, 5] on the 1-5 scale; None if they are unknown.
        request_features: [R, F], what the observation tells of a request; one-hot if absent.
        rounds: how often every user is served in an episode, at least 1.
        worth: the table by whose mean QoE choices are valued, with the names and holes of
            ``table``; ``table`` itself if absent.
        fresh: people who are drawn anew in each episode, as many as the table has users, in their
            place; every provider that some user may choose for a request is open to them. What the
            table says of its users plays no part.
        request_text: [R, D], a vector of each request's words (:mod:`rlli_jax.sentences`).

    Raises:
        InputError: if the shapes or holes disagree.
    """
    if rounds < 1:
        raise InputError(f"rounds is {rounds}; an episode needs at least 1 round.")
    if fresh is not None:
        table = _open_to_all(table, fresh)
    served = table.served
    # Stable: the requests stay in their order, those that are not served go last.
    asked = np.argsort(~served, axis=-1, kind="stable")
    asked = np.where(np.take_along_axis(served, asked, -1), asked, -1)
    return EnvParams(
        **on_device(table, personas, request_features, worth),
        rounds=rounds,
        asked=None if served.all() else jnp.asarray(asked, jnp.int32),
        fresh=fresh,
        request_text=text_vectors(table, request_text),
    )


def _open_to_all(table: QoETable, fresh: FreshPeople) -> QoETable:
    """The table with a valid sample wherever somebody has one.

    Raises:
        InputError: ``fresh`` is about other requests or providers.
    """
    if fresh.coefficients.shape[:2] != table.legal.shape[1:]:
        raise InputError(
            f"fresh people have QoE of {fresh.coefficients.shape[:2]} requests and providers, but "
            f"the table has {table.legal.shape[1:]}; fit the model to this table's answers."
        )
    offered = np.broadcast_to(table.legal.any(0), table.legal.shape)
    return replace(table, qoe=table.mean[..., None], valid=offered[..., None])


def demonstration_table() -> QoETable:
    """A small made-up table (5 users, 1 request, 4 providers) for examples and smoke tests."""
    user, provider = np.arange(5)[:, None], np.arange(4)[None, :]
    qoe = 0.55 + 0.3 * np.cos(2 * np.pi * (user - provider) / 4) + 0.05 * (provider == 1)
    return QoETable(
        qoe=qoe[:, None, :, None].astype(np.float32),
        valid=np.ones((5, 1, 4, 1), bool),
        users=tuple(f"user {k + 1}" for k in range(5)),
        requests=("anything",),
        providers=tuple(f"provider {chr(65 + i)}" for i in range(4)),
        judge="made-up numbers for demonstration",
        stand_in=True,
    )


def demonstration_personas() -> np.ndarray:
    """Made-up Big Five vectors [5, 5] of the users of :func:`demonstration_table`."""
    user, trait = np.arange(5)[:, None], np.arange(5)[None, :]
    return 3 + 1.5 * np.cos(2 * np.pi * (user - trait) / 5)


class ProviderSelection(environment.Environment[EnvState, EnvParams]):
    """Choose which of L providers serves which of K users (RLLI, Section III).

    Assignment:
        ``sequential``: users are served in turn, one a step. Action: a provider. Reward: the QoE
        of that user. ``shared``: one provider for all users at once (Algorithm 1, line 6, read
        literally). Reward: the sum over users. ``joint``: one provider for each user at once,
        action [K]. Reward: the sum over users. In each of them the undiscounted return of an
        episode is rounds x the sum over users of QoE, the objective of Eq. (2).

    Observation: the chosen parts, in this order, as one vector of float32:
        ``action`` one-hot of the last action, [L] (joint: [K * L]); ``reward`` the last reward,
        [1]; ``user`` one-hot of the user to be served, [K]; ``persona`` the Big Five of that
        user, scaled to [-1, 1], [5] (shared and joint: of all users, [K * 5]); ``request`` the
        features of what is asked for, [F]; ``request_text`` its words as the vector of a sentence
        encoder, [D]. The paper's, Eq. (3), is ``("action", "reward")``.
        ``user`` exists in ``sequential`` only: the other two serve all users at once.

    Reward: one of the valid samples of the cell (user, request, provider), drawn uniformly.
    Termination: when every user has been served ``rounds`` times. Truncation: only if
    ``max_steps_in_episode`` is set lower. A request is drawn uniformly for each round; a user who
    has no provider for it asks for another, uniform over those for which there is one.

    People: those of the table, or, with ``fresh`` in the parameters, people drawn from published
    norms, who stay for an episode; their QoE is drawn from what a model believes of them.

    Holes: :meth:`legal_actions` says who can be chosen. A choice that ignores it is served by the
    next provider, in cyclic order, that is legal: a hole never becomes a number.
    """

    def __init__(
        self,
        params: EnvParams | None = None,
        *,
        assignment: Assignment = "sequential",
        observation: Sequence[ObservationPart] = ("action", "reward"),
    ) -> None:
        """Fix what decides shapes; ``params`` become the default ones.

        Raises:
            InputError: for an unknown assignment or observation part, a part twice, or the part
                ``persona`` where the personas are unknown, or users with gaps who are to share a
                provider or (in ``joint``) an observed request.
        """
        super().__init__()
        if assignment not in get_args(Assignment):
            raise InputError(
                f"assignment is {assignment!r}; choose one of {', '.join(get_args(Assignment))}."
            )
        self.observation = parts.chosen(PARTS, observation)
        self.assignment = assignment
        if params is None:
            params = make_params(demonstration_table(), demonstration_personas())
        self._params = params
        self._require(params)
        if assignment == "shared":
            self.check_shared(self._params)
        observed = {"request", "request_text"} & set(self.observation)
        if assignment == "joint" and observed and params.asked is not None:
            raise InputError(
                "assignment joint: some users have no provider for some requests, so they do not "
                "all ask for the same; use assignment sequential, or observe no request."
            )

    def _require(self, params: EnvParams) -> None:
        """Raise InputError if a part of the observation cannot be read from ``params``."""
        known = {
            "turns": self.assignment == "sequential",
            "personas": params.personas is not None or params.fresh is not None,
            "texts": params.request_text is not None,
        }
        for name in self.observation:
            needs = PARTS[name].needs
            if needs and not known[needs]:
                lacking = LACKING[needs].format(assignment=self.assignment)
                raise InputError(f"The observation part {name} needs {lacking}.")
        if params.fresh is not None and "user" in self.observation:
            raise InputError(
                "The observation part user tells who comes again, but in each episode there are "
                "new people; observe persona instead."
            )

    @staticmethod
    def check_shared(params: EnvParams) -> None:
        """Raise InputError if some request has no provider that every user has rated."""
        if params.asked is not None:
            raise InputError(
                "assignment shared: some users have no provider for some requests, so they do not "
                "all ask for the same; use assignment sequential or joint."
            )
        everybody = np.all(np.asarray(params.count) > 0, axis=0)  # [R, L]
        nobody = np.flatnonzero(~everybody.any(-1))
        if nobody.size:
            raise InputError(
                f"assignment shared: for request number {nobody[0] + 1} of {len(everybody)} no "
                "provider is rated by every user; use assignment sequential "
                "or joint, or fill the holes of the table."
            )

    @property
    def default_params(self) -> EnvParams:
        """The parameters given at construction, else those of a small made-up table."""
        return self._params

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return "ProviderSelection-v0"

    @property
    def num_actions(self) -> int:
        """Number of providers L of the default parameters."""
        return self._params.qoe.shape[2]

    def users(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Indices of the users served in this step: [] in ``sequential``, else [K]."""
        num_users = params.qoe.shape[0]
        if self.assignment == "sequential":
            return state.time % num_users
        return jnp.arange(num_users)

    def personas(self, state: EnvState, params: EnvParams) -> jax.Array:
        """The Big Five of the users served in this step: [5] in ``sequential``, else [K, 5]."""
        users = self.users(state, params)
        if params.fresh is not None and state.people is not None:
            return params.fresh.traits(state.people, users)
        assert params.personas is not None  # checked when the environment was made
        return params.personas[users]

    def requests(self, state: EnvState, params: EnvParams) -> jax.Array:
        """What each of the users served in this step asks for: [] in ``sequential``, else [K]."""
        users = self.users(state, params)
        if params.asked is None or state.instead is None:
            return jnp.broadcast_to(state.request, users.shape)
        own = params.asked[users]  # [R] or [K, R]
        place = index_below((own >= 0).sum(-1), state.instead)
        other = jnp.take_along_axis(own, place[..., None], -1)[..., 0]
        served = (params.count[users, state.request] > 0).any(-1)
        return jnp.where(served, state.request, other)

    def legal_actions(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Which providers can be chosen, bool: [L], in ``joint`` [K, L]."""
        legal = params.count[self.users(state, params), self.requests(state, params)] > 0
        return legal.all(0) if self.assignment == "shared" else legal

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """Serve the user(s) by the chosen provider(s)."""
        state, reward, _ = self._serve(key, state, action, params)
        terminated = self.is_terminated(state, params)
        return self.observe(key, state, action, params), state, reward, terminated, {}

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self,
        key: jax.Array,
        state: EnvState,
        action: jax.Array,
        params: EnvParams | None = None,
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """:meth:`step_env`, and the next episode where this one ends, as gymnax's own.

        The next episode's request comes from the draw of the step. Keys for both, as gymnax takes
        them, would cost as much as all the rest.
        """
        params = self.default_params if params is None else params
        served, reward, drawn = self._serve(key, state, action, params)
        terminated = self.is_terminated(served, params)
        truncated = self.is_truncated(served, params)
        final = self.observe(key, served, action, params)
        going_on = jax.tree.map(
            partial(jnp.where, terminated | truncated), self._start(drawn, params), served
        )
        info = {"terminated": terminated, "truncated": truncated, "final_observation": final}
        observation = self.observe(key, going_on, action, params)
        return observation, going_on, reward, terminated, truncated, info

    def _serve(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[EnvState, jax.Array, jax.Array]:
        """The state after the step, the reward, and the draw for a round that begins next."""
        users, requests = self.users(state, params), self.requests(state, params)
        # One draw for all that is random: a key for each costs half of the speed (2.1 against
        # 4.6 M steps in a CPU second).
        draw = jax.random.uniform(key, (users.size + self._chances(params),))
        request, instead = self._ask(draw[users.size :], params)
        provider = self._serving(state, action, params)
        chance = draw[: users.size].reshape(users.shape)
        if params.fresh is None:
            reward = params.drawn((users, requests, provider), chance).sum()
        else:
            traits = self.personas(state, params)
            reward = params.fresh.drawn(traits, requests, provider, chance).sum()
        time = state.time + 1
        new_round = time % self._steps_per_round(params) == 0
        state = EnvState(
            time=time,
            request=jnp.where(new_round, request, state.request),
            action=provider,
            reward=reward,
            instead=jax.tree.map(partial(jnp.where, new_round), instead, state.instead),
            people=state.people,
        )
        return state, reward, draw[users.size :]

    @staticmethod
    def _chances(params: EnvParams) -> int:
        """How many uniform numbers decide what a round asks for, and who comes to an episode."""
        return 1 + (params.asked is not None) + (params.fresh is not None)

    @staticmethod
    def _ask(draw: jax.Array, params: EnvParams) -> tuple[jax.Array, jax.Array | None]:
        """The request of a round, and the chance by which users who may not ask for it choose."""
        request = index_below(params.qoe.shape[1], draw[0])
        return request, None if params.asked is None else draw[1]

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Start an episode with the first user and a fresh request."""
        # The shape () gives the numbers that it always gave.
        chances = self._chances(params)
        shape = () if chances == 1 else (chances,)
        state = self._start(jnp.atleast_1d(jax.random.uniform(key, shape)), params)
        return self.observe(key, state, None, params), state

    def _start(self, draw: jax.Array, params: EnvParams) -> EnvState:
        """The state before the first user is served, with a request by :meth:`_ask`."""
        request, instead = self._ask(draw, params)
        shape = (params.qoe.shape[0],) if self.assignment == "joint" else ()
        return EnvState(
            time=jnp.int32(0),
            request=request,
            action=jnp.full(shape, -1, jnp.int32),
            reward=jnp.float32(0),
            instead=instead,
            people=None if params.fresh is None else draw[-1],
        )

    def observe(
        self, key: jax.Array, state: EnvState, action: jax.Array | None, params: EnvParams
    ) -> jax.Array:
        """The observation vector, [sum of the parts] float32."""
        del key, action
        self._require(params)
        return parts.observe(PARTS, self.observation, self, state, params)

    def by_action(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An observation [..., size] as what it tells of each provider [..., L, F], and the rest.

        Raises:
            InputError: in ``joint``, where it is about several choices.
        """
        if self.assignment == "joint":
            raise InputError(
                "by_action: an observation of assignment joint is about several choices; use "
                "assignment sequential"
            )
        return parts.by_action(PARTS, self.observation, self, self._params, observation)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether every user has been served ``rounds`` times."""
        return state.time >= params.rounds * self._steps_per_round(params)

    def statistics(self, state: EnvState, action: jax.Array, params: EnvParams) -> dict[str, Tally]:
        """Who is served by whom in this step: ``choices`` [K, R, L], ones and zeros."""
        provider = self._serving(state, action, params)
        users, requests, provider = jnp.broadcast_arrays(
            self.users(state, params), self.requests(state, params), provider
        )
        return {"choices": Tally((users, requests, provider), params.count.shape)}

    def action_space(self, params: EnvParams) -> spaces.Space:
        """``Discrete(L)``; in ``joint`` one choice of L for each of K users."""
        num_users, _, num_providers, _ = params.qoe.shape
        if self.assignment == "joint":
            return MultiDiscrete(num_users, num_providers)
        return spaces.Discrete(num_providers)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """A box of float32 that holds every part."""
        return spaces.Box(*parts.bounds(PARTS, self.observation, self, params))

    def _steps_per_round(self, params: EnvParams) -> int:
        return params.qoe.shape[0] if self.assignment == "sequential" else 1

    def _serving(self, state: EnvState, action: jax.Array, params: EnvParams) -> jax.Array:
        """The provider(s) that serve: the chosen one, or the next that is legal, [] or [K]."""
        legal = self.legal_actions(state, params)
        num_providers = legal.shape[-1]
        action = jnp.asarray(action, jnp.int32)
        distance = (jnp.arange(num_providers) - action[..., None]) % num_providers
        provider = jnp.argmin(jnp.where(legal, distance, num_providers), -1).astype(jnp.int32)
        return provider
