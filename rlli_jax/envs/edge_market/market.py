"""The edge market: tasks arrive, providers have limited capacity and crash where it is exceeded.

Without a QoE table the rules are those of AGOD (Du et al., "Diffusion-based reinforcement learning
for edge-enabled AI-generated content services", IEEE TMC 23(9), 2024, and its public simulator):
``tests/envs/edge_market`` replays its recorded episodes. What goes beyond it (personal QoE, drift
of tastes, the wireless link, the queue) is off unless its parameters are given.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs.chance import index_below
from rlli_jax.envs.edge_market.communication import (
    NEVER,
    Link,
    airtime,
    check_link,
    earliest_start,
)
from rlli_jax.envs.edge_market.fleet import Fleet, sample_fleet
from rlli_jax.envs.edge_market.tasks import Task
from rlli_jax.envs.edge_market.users import (
    Tastes,
    Users,
    felt,
    move_tastes,
    sampled_qoe,
    start_tastes,
)
from rlli_jax.errors import InputError
from rlli_jax.names import MarketObservationPart

_MIDPOINT, _HALF_RANGE = 3.0, 2.0  # of the 1-5 trait scale
_AHEAD = np.array([0, 0.1, 0.2, 0.4, 0.7], np.float32)  # of the longest runtime, for ``forecast``
# Observation parts that tell of each provider, and how many numbers they tell.
_OF_EACH = {
    "providers": 2, "room": 1, "utility": 1, "latency": 1, "forecast": len(_AHEAD), "tastes": 2,
}  # fmt: skip


@struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """The fleet and how tasks arrive; all traced. Time is in whole seconds."""

    capacity: jax.Array  # [L] int32, denoising steps that run at once
    utility: jax.Array  # [L, 4] float32, (ax, ay, bx, by) of Fleet
    demands: jax.Array  # [D] int32, denoising steps t of a task, drawn uniformly
    runtime: jax.Array  # [3] float32, a, b, c: a task runs a t^2 + b t + c seconds
    arrival_rate: float | jax.Array  # tasks per second, on average
    rate_amplitude: float | jax.Array  # in [0, 1), swing of the rate around its average
    rate_period: float | jax.Array  # seconds, of that swing
    horizon: int | jax.Array  # seconds, tasks arrive before it
    crash_penalty: float | jax.Array  # for the dropped task and for each task that is killed
    capacity_scale: float | jax.Array  # what the observation divides capacities by
    patience: float | jax.Array  # seconds, the reward falls by exp(-latency / patience)
    users: Users | None = None  # personal QoE; without it a picture is worth its utility
    link: Link | None = None  # the wireless leg and energy; without it neither counts
    # A step limit that truncates; the default is never reached.
    max_steps_in_episode: int | jax.Array = np.iinfo(np.int32).max


@struct.dataclass
class EnvState(environment.EnvState):
    """Who runs what, and the task that waits for the decision."""

    time: jax.Array  # [] int32, decisions since the reset
    task: Task  # the task to assign now; its arrival is the clock
    next_arrival: jax.Array  # [] int32, seconds, when the next task comes
    fraction: jax.Array  # [] float32, what was cut off next_arrival to make it whole
    begin: jax.Array | None  # [L, C] int32, when the task in this slot starts; None: no queue
    until: jax.Array  # [L, C] int32, when the task in this slot is finished; <= the clock: free
    demand: jax.Array  # [L, C] int32, denoising steps of that task
    previous: jax.Array  # [] int32, seconds, when the task before this one came; 0 at first
    tastes: Tastes | None = None  # of the users, where they drift


def make_params(
    fleet: Fleet,
    *,
    demands: Sequence[int] = tuple(range(100, 260, 10)),
    runtime: Sequence[float] = (0.06, 150.0, -840.0),
    arrival_rate: float = 1e-3,
    rate_amplitude: float = 0.0,
    rate_period: float = 86_400.0,
    horizon: int = 1_000_000,
    crash_penalty: float = 2.0,
    capacity_scale: float = 900.0,
    patience: float = float("inf"),
    users: Users | None = None,
    link: Link | None = None,
) -> EnvParams:
    """Put a fleet and its arrivals on the device; the defaults are those of AGOD.

    Args:
        fleet: the L providers.
        demands: denoising steps that a task may ask for, each equally likely.
        runtime: (a, b, c), seconds that a task of t steps runs: a t^2 + b t + c.
        arrival_rate: tasks per second.
        rate_amplitude, rate_period: the rate at time s is
            arrival_rate (1 + rate_amplitude sin(2 pi s / rate_period)); see ``_gap``.
        horizon: seconds, tasks arrive in [0, horizon).
        crash_penalty: paid for the dropped task, and for each killed task times what it still
            had to run.
        capacity_scale: the observation divides capacities by it.
        patience: seconds; what is paid falls by exp(-latency / patience). Latency is the wait in
            the queue, the runtime and, with a link, the transmissions.
        users: those of :func:`.users.make_users`, for personal QoE; AGOD has none.
        link: the wireless leg of each task; AGOD has none.

    Raises:
        InputError: a number outside the range that makes sense.
    """
    steps = np.asarray(demands)
    if steps.ndim != 1 or not steps.size or (steps < 1).any() or (steps != steps.round()).any():
        raise InputError(
            f"demands is {list(np.ravel(steps))}: give at least one whole number of denoising "
            "steps, all positive"
        )
    if len(runtime) != 3:
        raise InputError(f"runtime has {len(runtime)} numbers: give the three of a t^2 + b t + c")
    seconds = np.polyval(np.asarray(runtime, float), steps)
    if not (seconds >= 1).all() or not np.isfinite(seconds).all():
        raise InputError(
            f"runtime gives {seconds.min():g} s for a demand of {steps[seconds.argmin()]} steps: "
            "every task must run for at least one second"
        )
    for name, value, valid, need in (
        ("arrival_rate", arrival_rate, arrival_rate > 0, "positive, in tasks per second"),
        ("rate_amplitude", rate_amplitude, 0 <= rate_amplitude < 1, "in [0, 1)"),
        ("rate_period", rate_period, rate_period > 0, "positive, in seconds"),
        ("horizon", horizon, 1 <= horizon <= 5 * 10**8, "from 1 to 5e8 whole seconds"),
        ("crash_penalty", crash_penalty, crash_penalty >= 0, "at least 0"),
        ("capacity_scale", capacity_scale, capacity_scale > 0, "positive"),
        ("patience", patience, patience > 0, "positive, in seconds"),
    ):
        if not valid or not (np.isfinite(value) or name == "patience"):
            raise InputError(f"{name} is {value}: it must be {need}")
    if users is not None and users.qoe.shape[2] != len(fleet):
        raise InputError(
            f"the fleet has {len(fleet)} providers but the QoE table knows {users.qoe.shape[2]}: "
            "give a fleet with one provider for each of the table"
        )
    if link is not None:
        check_link(link, 1 if users is None else users.qoe.shape[0], len(fleet))
        link = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), link)
    return EnvParams(
        capacity=jnp.asarray(fleet.capacity),
        utility=jnp.asarray(fleet.utility),
        demands=jnp.asarray(steps, jnp.int32),
        runtime=jnp.asarray(runtime, jnp.float32),
        arrival_rate=arrival_rate,
        rate_amplitude=rate_amplitude,
        rate_period=rate_period,
        horizon=horizon,
        crash_penalty=crash_penalty,
        capacity_scale=capacity_scale,
        patience=patience,
        users=users,
        link=link,
    )


class EdgeMarket(environment.Environment[EnvState, EnvParams]):
    """Assign each arriving task to one of L providers.

    Action: a provider, ``Discrete(L)``.

    Reward: the utility of the picture, paid at assignment; with users, times the QoE of this user
    for this request at this provider (one of the judge's samples). If the task asks for more
    denoising steps than the provider has left, the provider crashes: all that it runs dies, the
    task is dropped, and the reward is -penalty (1 + sum over the killed tasks of the share of
    their runtime that was still to come). What is paid falls by exp(-latency / patience), and with
    a link by the price of the energy; both are off in AGOD.

    Queue: with ``queue`` > 0 a task that finds no room waits, first come first served, and only a
    task that finds ``queue`` others waiting (or that no idle provider could run) is a crash. A
    provider that waits has committed more steps than its capacity: available is then negative.

    Observation: the chosen parts, in this order, as one vector of float32:
        ``providers`` capacity / scale and available / capacity of each provider in turn, [2 L];
        ``task`` demand and runtime over their largest values, [2]; ``room`` whether the task fits,
        [L]; ``utility`` what each provider would pay for it, [L]; ``latency`` until its picture is
        there, over the longest runtime, [L]; ``forecast`` the steps that each provider in turn
        would have left if it took the task and nothing else came, over the scale, now and after
        0.1, 0.2, 0.4 and 0.7 of the longest runtime, [5 L]; ``remaining`` the time until the
        horizon over the longest runtime, at most 1, [1]. With users also: ``persona`` the
        Big Five of the task's user, scaled to [-1, 1], [5]; ``request`` the features of what is
        asked for, [F]; ``tastes`` interest and satiation of that user, where they drift, [2 L].
        AGOD's is ``("providers", "task")``.

    Termination: when the last task before the horizon has come; that one is not served, as in
    AGOD. Truncation: only if ``max_steps_in_episode`` is set lower.

    Holes of the table: :meth:`legal_actions` rules them out. A choice that ignores it goes to the
    next provider, in cyclic order, that has a rating: a hole never becomes a number.

    Arrivals are drawn on the fly, as exponential gaps. AGOD draws N ~ Poisson(rate x horizon) and
    N sorted uniform times: both are the same Poisson process.

    A provider runs at most max(capacity) // min(demand) tasks at once, and ``queue`` more can wait:
    C slots. C is fixed when the environment is made, from its default parameters, and
    :meth:`check` tells whether it is enough for others.
    """

    def __init__(
        self,
        params: EnvParams | None = None,
        *,
        mask: bool = False,
        queue: int = 0,
        observation: Sequence[MarketObservationPart] = ("providers", "task"),
    ) -> None:
        """Fix what decides shapes; ``params`` become the default ones.

        Args:
            params: those of :func:`make_params`; without them the fleet of seed 0.
            mask: whether :meth:`legal_actions` rules out the providers without room.
            queue: tasks that may wait at a provider; 0 as in AGOD.
            observation: parts of the observation.

        Raises:
            InputError: for an unknown observation part, a part twice, one that ``params`` lack, or
                a negative queue.
        """
        super().__init__()
        known = get_args(MarketObservationPart)
        unknown = [part for part in observation if part not in known]
        if unknown or len(set(observation)) != len(observation) or not observation:
            raise InputError(
                f"observation is {list(observation)}; choose some of {', '.join(known)}, each once."
            )
        if queue < 0:
            raise InputError(f"queue is {queue}: the number of tasks that may wait is at least 0")
        self.mask = mask
        self.queue = queue
        self.observation = tuple(part for part in known if part in observation)
        self._params = make_params(sample_fleet(0)) if params is None else params
        self.slots = most_running(self._params) + queue
        users = self._params.users
        lacking = {
            "users": users is None and {"persona", "request"} & set(self.observation),
            "users whose personas are known": (users is None or users.personas is None)
            and {"persona"} & set(self.observation),
            "users whose tastes drift": (users is None or users.drift is None)
            and {"tastes"} & set(self.observation),
        }
        for need, parts in lacking.items():
            if parts:
                raise InputError(
                    f"the observation part {min(parts)} needs {need}: give them to make_params"
                )

    @property
    def default_params(self) -> EnvParams:
        """The parameters given at construction, else those of a fleet sampled with seed 0."""
        return self._params

    @property
    def name(self) -> str:
        """Name under which it is registered."""
        return "EdgeMarket-v0"

    @property
    def num_actions(self) -> int:
        """Number of providers L of the default parameters."""
        return self._params.capacity.shape[-1]

    def check(self, params: EnvParams) -> None:
        """Raise InputError if a provider of ``params`` can run more tasks than there are slots."""
        needed, has = most_running(params), self.slots - self.queue
        if needed > has:
            raise InputError(
                f"a provider of these parameters can run {needed} tasks at once, but this "
                f"environment was made for {has}: make it with these parameters"
            )

    def step_env(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, Any]]:
        """Serve the waiting task and let the next one arrive."""
        chance = _chance(key, params)
        task = draw_task(chance[1:], state.next_arrival, params)
        state, reward, info = self.serve(state, action, params)
        state = self.arrive(state, task)
        next_arrival, fraction = _next(chance[0], state.next_arrival, state.fraction, params)
        terminated = next_arrival >= params.horizon
        state = state.replace(next_arrival=next_arrival, fraction=fraction)
        return self.observe(key, state, action, params), state, reward, terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Start with idle providers and a task at time 0."""
        chance = _chance(key, params)
        next_arrival, fraction = _next(chance[0], jnp.int32(0), jnp.float32(0), params)
        state = self.start(draw_task(chance[1:], jnp.int32(0), params), params)
        state = state.replace(next_arrival=next_arrival, fraction=fraction)
        return self.observe(key, state, None, params), state

    def start(self, task: Task, params: EnvParams) -> EnvState:
        """The state with idle providers in which ``task`` waits."""
        slots = (params.capacity.shape[0], self.slots)
        return EnvState(
            time=jnp.int32(0),
            task=task,
            next_arrival=jnp.int32(0),
            fraction=jnp.float32(0),
            begin=jnp.zeros(slots, jnp.int32) if self.queue else None,
            until=jnp.zeros(slots, jnp.int32),
            demand=jnp.zeros(slots, jnp.int32),
            previous=jnp.int32(0),
            tastes=start_tastes(params.users),
        )

    def serve(
        self, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[EnvState, jax.Array, dict[str, Any]]:
        """Assign the waiting task: the state before the next arrival, the reward, the info.

        Deterministic: all chance is in the task.
        """
        outcome = self.outcome(state, action, params)
        task = state.task
        provider = outcome["provider"]
        until, demand = state.until[provider], state.demand[provider]  # [C]
        # What runs or waits ends after now, so the slot that ends first is free if any is.
        slot = jnp.arange(self.slots) == jnp.argmin(until)
        end = outcome["start"] + _whole(seconds(task.demand, params))
        until = jnp.where(outcome["crashed"], 0, jnp.where(slot, end, until))
        demand = jnp.where(slot, task.demand, demand)
        if params.users is not None and state.tastes is not None:
            served = ~outcome["crashed"]
            qoe = sampled_qoe(params.users, task, provider)
            tastes = move_tastes(params.users, state.tastes, task, provider, qoe, served)
            state = state.replace(tastes=tastes)
        if state.begin is not None:
            begin = jnp.where(slot, outcome["start"], state.begin[provider])
            state = state.replace(begin=state.begin.at[provider].set(begin))
        state = state.replace(
            time=state.time + 1,
            until=state.until.at[provider].set(until),
            demand=state.demand.at[provider].set(demand),
        )
        return state, outcome["reward"], {"crashed": outcome["crashed"]}

    def arrive(self, state: EnvState, task: Task) -> EnvState:
        """Let the next task come; what has finished by then frees its steps."""
        return state.replace(task=task, previous=state.task.arrival)

    def outcome(self, state: EnvState, action: jax.Array, params: EnvParams) -> dict[str, Any]:
        """What assigning the waiting task to ``action`` brings; the state is not changed.

        Returns scalars: ``provider`` (int32, who serves), ``start`` (int32, seconds, when it would
        run), ``crashed`` (bool), ``killed`` (int32, tasks that die), and float32 ``utility``,
        ``qoe`` (1 without users), ``latency`` and ``energy``, all 0 in a crash, and ``reward``.
        """
        task = state.task
        provider = self._serving(state, action, params)
        until, demand = state.until[provider], state.demand[provider]  # [C]
        running = until > task.arrival
        begin = task.arrival if state.begin is None else state.begin[provider]
        start, accepted = self._offer(task, params.capacity[provider], begin, until, demand)
        to_come = (until - jnp.maximum(begin, task.arrival)) / seconds(demand, params)
        penalty = params.crash_penalty * (1 + jnp.where(running, to_come, 0.0).sum())
        utility = worth(params.utility[provider], task.demand)
        qoe = self._qoe(state, provider, params)
        latency, energy = self._cost(task, provider, start, params)
        paid = self._paid(utility * qoe, latency, energy, params)
        brought = {"utility": utility, "qoe": qoe, "latency": latency, "energy": energy}
        return {
            "provider": provider,
            "start": start,
            "crashed": ~accepted,
            "killed": jnp.where(accepted, 0, running.sum(dtype=jnp.int32)),
            **{name: jnp.where(accepted, value, 0.0) for name, value in brought.items()},
            "reward": jnp.where(accepted, paid, -penalty),
        }

    def _offer(
        self,
        task: Task,
        capacity: jax.Array,
        begin: jax.Array,
        until: jax.Array,
        demand: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """When a provider with these slots [C] would start ``task``, and whether it takes it."""
        now = task.arrival
        if not self.queue:
            used = jnp.where(until > now, demand, 0).sum(dtype=jnp.int32)
            return now, task.demand <= capacity - used
        start = earliest_start(now, task.demand, capacity, begin, until, demand)
        waiting = ((until > now) & (begin > now)).sum(dtype=jnp.int32)
        return start, (start <= now) | ((waiting < self.queue) & (start < NEVER))

    def _cost(
        self, task: Task, provider: jax.Array, start: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, jax.Array]:
        """Latency in seconds and energy in joules of ``task`` at ``provider``, of its shape."""
        runtime = seconds(task.demand, params)
        latency = (start - task.arrival) + runtime
        if params.link is None or task.fading is None:
            return latency, jnp.zeros_like(latency)
        up, down = airtime(params.link, task.user, provider, task.fading[provider])
        sent = params.link.user_power * up + params.link.provider_power * down
        return latency + up + down, sent + params.link.compute_power * runtime

    def _paid(
        self, value: jax.Array, latency: jax.Array, energy: jax.Array, params: EnvParams
    ) -> jax.Array:
        paid = value * jnp.exp(-latency / params.patience)
        return paid if params.link is None else paid - params.link.energy_price * energy

    def available(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Denoising steps that each provider has left, int32 [L]."""
        running = state.until > state.task.arrival
        return params.capacity - jnp.where(running, state.demand, 0).sum(-1, dtype=jnp.int32)

    def room(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether each provider can take the waiting task without a crash, bool [L]."""
        return self._offers(state, params)[1]

    def _offers(self, state: EnvState, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """When each provider would start the waiting task, and whether it takes it, [L]."""
        begin = jnp.zeros_like(state.until) if state.begin is None else state.begin
        return jax.vmap(self._offer, (None, 0, 0, 0, 0))(
            state.task, params.capacity, begin, state.until, state.demand
        )

    def value(self, state: EnvState, params: EnvParams) -> jax.Array:
        """What each provider would pay for the waiting task if it has room, float32 [L].

        With users, the mean over the judge's samples; 0 in a hole.
        """
        task, everyone = state.task, jnp.arange(params.capacity.shape[0])
        value = worth(params.utility, task.demand)
        if params.users is not None:
            mean = params.users.mean[task.user, task.request]
            value *= felt(params.users, state.tastes, task, mean, everyone)
        latency, energy = self._cost(task, everyone, self._offers(state, params)[0], params)
        paid = self._paid(value, latency, energy, params)
        return jnp.where(self._rated(state, params), paid, 0.0)

    def legal_actions(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Which providers can be chosen, bool [L]: those with a rating and, with ``mask``, room.

        Where none of them has room, all with a rating.
        """
        rated = self._rated(state, params)
        if not self.mask:
            return rated
        fits = rated & self.room(state, params)
        return jnp.where(fits.any(), fits, rated)

    def _rated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Which providers have a rating of this user for this request, bool [L]."""
        if params.users is None:
            return jnp.ones(params.capacity.shape, bool)
        return params.users.count[state.task.user, state.task.request] > 0

    def _serving(self, state: EnvState, action: jax.Array, params: EnvParams) -> jax.Array:
        """Who serves: the chosen provider, or the next in cyclic order that has a rating."""
        provider = jnp.asarray(action, jnp.int32)
        if params.users is None:
            return provider
        count = params.capacity.shape[0]
        distance = (jnp.arange(count) - provider) % count
        distance = jnp.where(self._rated(state, params), distance, count)
        return jnp.argmin(distance).astype(jnp.int32)

    def _qoe(self, state: EnvState, provider: jax.Array, params: EnvParams) -> jax.Array:
        """QoE of the waiting task at ``provider``, float32 []."""
        if params.users is None:
            return jnp.float32(1)
        qoe = sampled_qoe(params.users, state.task, provider)
        return felt(params.users, state.tastes, state.task, qoe, provider)

    def observe(
        self, key: jax.Array, state: EnvState, action: jax.Array | None, params: EnvParams
    ) -> jax.Array:
        """The observation vector, [sum of the parts] float32."""
        del key, action
        capacity = params.capacity.astype(jnp.float32)
        longest = params.demands.max()
        task = state.task
        parts = {
            "providers": jnp.stack(
                [capacity / params.capacity_scale, self.available(state, params) / capacity], -1
            ),
            "task": jnp.stack(
                [task.demand / longest, seconds(task.demand, params) / seconds(longest, params)]
            ),
            "room": self.room(state, params),
            "utility": self.value(state, params),
        }
        everyone = jnp.arange(capacity.shape[0])
        latency, _ = self._cost(task, everyone, self._offers(state, params)[0], params)
        parts["latency"] = jnp.broadcast_to(latency / seconds(longest, params), capacity.shape)
        ahead = (_AHEAD * seconds(longest, params)).astype(jnp.int32)  # [5]
        still = (state.until - task.arrival)[..., None] > ahead  # [L, C, 5]
        busy = jnp.where(still, state.demand[..., None], 0).sum(1)
        parts["forecast"] = (capacity[:, None] - busy - task.demand) / params.capacity_scale
        ending = (params.horizon - task.arrival) / seconds(longest, params)
        parts["remaining"] = jnp.minimum(ending, 1.0)
        if params.users is not None:
            if params.users.personas is not None:
                parts["persona"] = (params.users.personas[task.user] - _MIDPOINT) / _HALF_RANGE
            parts["request"] = params.users.request_features[task.request]
        if state.tastes is not None:
            tastes = state.tastes
            parts["tastes"] = jnp.stack([tastes.interest[task.user], tastes.satiation[task.user]])
        return jnp.concatenate(
            [parts[part].astype(jnp.float32).reshape(-1) for part in self.observation]
        )

    def redraw(self, key: jax.Array, state: EnvState, params: EnvParams) -> EnvState:
        """The state with another time of the next arrival, as likely as any given the waiting task.

        For sampling futures of a state whose own next arrival nobody may know yet.
        """
        chance = jax.random.uniform(key)
        next_arrival, fraction = _next(chance, state.task.arrival, jnp.float32(0), params)
        return state.replace(next_arrival=next_arrival, fraction=fraction)

    def by_action(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An observation [..., size] as what it tells of each provider [..., L, F], and the rest.

        For networks that score every provider alike; the rest is [..., G].
        """
        providers, users = self.num_actions, self._params.users
        wide = {"task": 2, "remaining": 1, "persona": 5}
        if users is not None:
            wide["request"] = users.request_features.shape[1]
        widths = [providers * _OF_EACH[p] if p in _OF_EACH else wide[p] for p in self.observation]
        parts = jnp.split(observation, np.cumsum(widths)[:-1], -1)
        rows, rest = [], [observation[..., :0]]
        for name, part in zip(self.observation, parts, strict=True):
            if name == "tastes":  # [2 L], one after the other
                rows.append(part.reshape(*part.shape[:-1], 2, providers).swapaxes(-1, -2))
            elif name in _OF_EACH:
                rows.append(part.reshape(*part.shape[:-1], providers, _OF_EACH[name]))
            else:
                rest.append(part)
        if not rows:
            raise InputError(
                f"the observation {', '.join(self.observation)} tells nothing of each provider: "
                f"add one of {', '.join(_OF_EACH)}"
            )
        return jnp.concatenate(rows, -1), jnp.concatenate(rest, -1)

    def statistics(
        self, state: EnvState, action: jax.Array, params: EnvParams
    ) -> dict[str, jax.Array]:
        """Counts of this decision, to be summed over an episode; scalars unless a shape is given.

        ``tasks`` 1 each decision; ``assigned``; ``lost`` dropped because the provider crashed;
        ``crashed`` tasks killed while running; ``finished`` since the last decision (what still
        runs at the last decision of an episode is not counted); ``utility`` paid; ``load`` [L]
        assigned denoising steps. With a link or a queue also ``latency`` (s) and ``energy`` (J, of
        computing and sending; 0 without a link) of what was assigned. With users also ``qoe`` and,
        of each user, ``qoe_of_user`` and ``assigned_of_user`` [K].
        """
        outcome = self.outcome(state, action, params)
        assigned = 1.0 - outcome["crashed"]
        chosen = jnp.arange(params.capacity.shape[0]) == outcome["provider"]
        finished = (state.until > state.previous) & (state.until <= state.task.arrival)
        counts = {
            "tasks": jnp.float32(1),
            "assigned": assigned,
            "lost": 1.0 - assigned,
            "crashed": outcome["killed"].astype(jnp.float32),
            "finished": finished.sum(dtype=jnp.float32),
            "utility": outcome["utility"],
            "load": chosen * assigned * state.task.demand,
        }
        if params.link is not None or self.queue:
            counts["latency"] = outcome["latency"]
            counts["energy"] = outcome["energy"]
        if params.users is not None:
            user = jnp.arange(params.users.qoe.shape[0]) == state.task.user
            counts["qoe"] = outcome["qoe"]
            counts["qoe_of_user"] = user * outcome["qoe"]
            counts["assigned_of_user"] = user * assigned
        return counts

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the waiting task is the last one before the horizon."""
        return state.next_arrival >= params.horizon

    def action_space(self, params: EnvParams) -> spaces.Discrete:
        """``Discrete(L)``."""
        return spaces.Discrete(params.capacity.shape[0])

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """A box of float32: [0, 1], with ``persona`` [-1, 1], with what has no limit any number."""
        shape = jax.eval_shape(lambda p: self.reset_env(jax.random.key(0), p)[0], params).shape
        anything = float(np.finfo(np.float32).max)
        unlimited = ("latency", "forecast", "request", "tastes")
        reach = {"persona": 1.0} | dict.fromkeys(unlimited, anything)
        if self.queue:
            reach["providers"] = anything  # what waits makes available negative
        widest = max(reach.get(part, 0.0) for part in self.observation)
        return spaces.Box(-widest, max(widest, 1.0), shape)


def sample_tasks(key: jax.Array, params: EnvParams) -> Task:
    """The tasks [T + 1] of one episode, drawn as the environment draws them. Host side.

    For playing several policies, or finding the optimum, on the same tasks.
    """
    mean = float(params.arrival_rate) * float(params.horizon)
    drawn = _draw_tasks(key, params, int(mean + 10 * np.sqrt(mean) + 10))
    count = int(np.argmax(np.asarray(drawn.arrival) >= params.horizon))
    return jax.tree.map(lambda x: x[: max(count, 2)], drawn)  # the first one is always served


@partial(jax.jit, static_argnums=2)
def _draw_tasks(key: jax.Array, params: EnvParams, length: int) -> Task:
    def body(clock: tuple, key: jax.Array) -> tuple[tuple, Task]:
        arrival, fraction = clock
        chance = _chance(key, params)
        return _next(chance[0], arrival, fraction, params), draw_task(chance[1:], arrival, params)

    start = jnp.int32(0), jnp.float32(0)
    return jax.lax.scan(body, start, jax.random.split(key, length))[1]


def draw_task(chance: jax.Array, arrival: jax.Array, params: EnvParams) -> Task:
    """The task that comes at ``arrival``, from uniform numbers in [0, 1): see ``_chance``."""
    users, link = params.users, params.link
    user = request = jnp.int32(0)
    draw = jnp.float32(0)
    if users is not None:
        user = jnp.searchsorted(users.user_mix, chance[1], side="right").astype(jnp.int32)
        request = jnp.searchsorted(users.request_mix, chance[2], side="right").astype(jnp.int32)
        draw = chance[3]
    return Task(
        arrival=arrival,
        demand=params.demands[index_below(params.demands.shape[0], chance[0])],
        user=user,
        request=request,
        draw=draw,
        # Rayleigh fading: the power gain of a channel is exponential with mean 1.
        fading=None if link is None else -jnp.log1p(-chance[4:]),
    )


def _chance(key: jax.Array, params: EnvParams) -> jax.Array:
    """Uniform numbers of a step: gap, demand; with users or a link user, request, draw, fading."""
    if params.users is None and params.link is None:
        return jax.random.uniform(key, (2,))
    channels = 0 if params.link is None else params.capacity.shape[0]
    return jax.random.uniform(key, (5 + channels,))


def worth(coefficients: jax.Array, demand: jax.Array) -> jax.Array:
    """Utility of a picture of ``demand`` steps; coefficients [..., 4] give float32 [...]."""
    ax, ay, bx, by = jnp.moveaxis(coefficients, -1, 0)
    return (by - ay) * jnp.clip((demand - ax) / (bx - ax), 0.0, 1.0)


def seconds(demand: jax.Array, params: EnvParams) -> jax.Array:
    """Runtime of a task of ``demand`` steps, float32, in seconds."""
    a, b, c = params.runtime
    return (a * demand + b) * demand + c


def most_running(params: EnvParams) -> int:
    """Tasks that a provider can run at once. Host side."""
    return max(1, int(np.max(params.capacity)) // int(np.min(params.demands)))


def _whole(duration: jax.Array) -> jax.Array:
    """Whole seconds: the clock is, and the runtimes of AGOD come out whole but for rounding."""
    return jnp.round(duration).astype(jnp.int32)


def _next(
    chance: jax.Array, arrival: jax.Array, fraction: jax.Array, params: EnvParams
) -> tuple[jax.Array, jax.Array]:
    """The arrival after ``arrival + fraction``, cut to whole seconds, and what was cut off.

    Exponential gaps make a Poisson process. Where the rate swings, each gap is drawn at the rate
    of the arrival before it, which is close as long as gaps are short beside the period.
    """
    swing = jnp.sin(2 * jnp.pi * arrival / params.rate_period)
    rate = params.arrival_rate * (1 + params.rate_amplitude * swing)
    gap = fraction - jnp.log1p(-chance) / rate
    # A gap past the horizon ends the episode, so its exact length is of no matter; uncut, the
    # clock could overflow.
    gap = jnp.minimum(gap, params.horizon)
    whole = jnp.floor(gap)
    return arrival + whole.astype(jnp.int32), gap - whole
