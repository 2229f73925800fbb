"""The edge market: tasks arrive, providers have limited capacity and crash where it is exceeded.

Without a QoE table the rules are those of AGOD (Du et al., "Diffusion-based reinforcement learning
for edge-enabled AI-generated content services", IEEE TMC 23(9), 2024, and its public simulator):
``tests/envs/edge_market`` replays its recorded episodes. What goes beyond it (personal QoE, drift
of tastes, the wireless link, the queue) is off unless its parameters are given.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from rlli_jax.envs import parts
from rlli_jax.envs.edge_market import arrivals
from rlli_jax.envs.edge_market.communication import NEVER, airtime, earliest_start
from rlli_jax.envs.edge_market.fleet import sample_fleet
from rlli_jax.envs.edge_market.observation import PARTS, MarketObservationPart
from rlli_jax.envs.edge_market.params import EnvParams, make_params, most_running
from rlli_jax.envs.edge_market.tasks import Task, own_steps, runtime_at, worth
from rlli_jax.envs.edge_market.users import (
    Tastes,
    felt,
    move_tastes,
    sampled_qoe,
    start_tastes,
)
from rlli_jax.errors import InputError


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
        if queue < 0:
            raise InputError(f"queue is {queue}: the number of tasks that may wait is at least 0")
        self.mask = mask
        self.queue = queue
        self.observation = parts.chosen(PARTS, observation)
        self._params = make_params(sample_fleet(0)) if params is None else params
        self.slots = most_running(self._params) + queue
        users = self._params.users
        known = {
            "users": users is not None,
            "users whose personas are known": users is not None and users.personas is not None,
            "users whose tastes drift": users is not None and users.drift is not None,
        }
        for name in self.observation:
            needs = PARTS[name].needs
            if needs and not known[needs]:
                raise InputError(
                    f"the observation part {name} needs {needs}: give them to make_params"
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
        chance = arrivals.chances(key, params)
        task = arrivals.draw_task(chance[1:], state.next_arrival, params)
        state, reward, info = self.serve(state, action, params)
        state = self.arrive(state, task)
        state = self._await(chance[0], state.next_arrival, state, params)
        terminated = self.is_terminated(state, params)
        return self.observe(key, state, action, params), state, reward, terminated, info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Start with idle providers and a task at time 0."""
        chance = arrivals.chances(key, params)
        state = self.start(arrivals.draw_task(chance[1:], jnp.int32(0), params), params)
        state = self._await(chance[0], jnp.int32(0), state, params)
        return self.observe(key, state, None, params), state

    @staticmethod
    def _await(
        chance: jax.Array, arrival: jax.Array, state: EnvState, params: EnvParams
    ) -> EnvState:
        """The state with the time of the task that comes after ``arrival``."""
        following, fraction = arrivals.next_arrival(chance, arrival, state.fraction, params)
        return state.replace(next_arrival=following, fraction=fraction)

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
        own = own_steps(task, provider, params)
        end = outcome["start"] + _whole(runtime_at(own, provider, params))
        until = jnp.where(outcome["crashed"], 0, jnp.where(slot, end, until))
        demand = jnp.where(slot, own, demand)
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
        provider = self.serving(state, action, params)
        until, demand = state.until[provider], state.demand[provider]  # [C]
        running = until > task.arrival
        begin = task.arrival if state.begin is None else state.begin[provider]
        own = own_steps(task, provider, params)
        start, accepted = self._offer(task, own, params.capacity[provider], begin, until, demand)
        whole = runtime_at(demand, provider, params)
        to_come = (until - jnp.maximum(begin, task.arrival)) / whole
        penalty = params.crash_penalty * (1 + jnp.where(running, to_come, 0.0).sum())
        utility = worth(params.utility[provider], task.demand)
        qoe = self._qoe(state, provider, params)
        latency, energy = self.cost(task, provider, start, params)
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
        own: jax.Array,
        capacity: jax.Array,
        begin: jax.Array,
        until: jax.Array,
        demand: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """When a provider with these slots [C] would start ``task``, of which ``own`` steps remain
        for it, and whether it takes it."""
        now = task.arrival
        if not self.queue:
            used = jnp.where(until > now, demand, 0).sum(dtype=jnp.int32)
            return now, own <= capacity - used
        start = earliest_start(now, own, capacity, begin, until, demand)
        waiting = ((until > now) & (begin > now)).sum(dtype=jnp.int32)
        return start, (start <= now) | ((waiting < self.queue) & (start < NEVER))

    def cost(
        self, task: Task, provider: jax.Array, start: jax.Array, params: EnvParams
    ) -> tuple[jax.Array, jax.Array]:
        """Latency in seconds and energy in joules of ``task`` at ``provider``, of its shape."""
        runtime = runtime_at(own_steps(task, provider, params), provider, params)
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
        return self.offers(state, params)[1]

    def offers(self, state: EnvState, params: EnvParams) -> tuple[jax.Array, jax.Array]:
        """When each provider would start the waiting task, and whether it takes it, [L]."""
        begin = jnp.zeros_like(state.until) if state.begin is None else state.begin
        own = own_steps(state.task, jnp.arange(params.capacity.shape[0]), params)
        return jax.vmap(self._offer, (None, 0, 0, 0, 0, 0))(
            state.task, own, params.capacity, begin, state.until, state.demand
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
        latency, energy = self.cost(task, everyone, self.offers(state, params)[0], params)
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

    def serving(self, state: EnvState, action: jax.Array, params: EnvParams) -> jax.Array:
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
        return parts.observe(PARTS, self.observation, self, state, params)

    def redraw(self, key: jax.Array, state: EnvState, params: EnvParams) -> EnvState:
        """The state with another time of the next arrival, as likely as any given the waiting task.

        For sampling futures of a state whose own next arrival nobody may know yet.
        """
        state = state.replace(fraction=jnp.float32(0))
        return self._await(jax.random.uniform(key), state.task.arrival, state, params)

    def by_action(self, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """An observation [..., size] as what it tells of each provider [..., L, F], and the rest.

        For networks that score every provider alike; the rest is [..., G].
        """
        return parts.by_action(PARTS, self.observation, self, self._params, observation)

    def statistics(
        self, state: EnvState, action: jax.Array, params: EnvParams
    ) -> dict[str, jax.Array]:
        """Counts of this decision, to be summed over an episode; scalars unless a shape is given.

        ``tasks`` 1 each decision; ``assigned``; ``lost`` dropped because the provider crashed;
        ``crashed`` tasks killed while running; ``finished`` since the last decision (what still
        runs at the last decision of an episode is not counted); ``utility`` paid; ``load`` [L]
        assigned denoising steps; where steps are shared ``saved``, how many more they would have
        been. With a link or a queue also ``latency`` (s) and ``energy`` (J, of
        computing and sending; 0 without a link) of what was assigned. With users also ``qoe`` and,
        of each user, ``qoe_of_user`` and ``assigned_of_user`` [K].
        """
        outcome = self.outcome(state, action, params)
        assigned = 1.0 - outcome["crashed"]
        own = own_steps(state.task, outcome["provider"], params)
        chosen = jnp.arange(params.capacity.shape[0]) == outcome["provider"]
        finished = (state.until > state.previous) & (state.until <= state.task.arrival)
        counts = {
            "tasks": jnp.float32(1),
            "assigned": assigned,
            "lost": 1.0 - assigned,
            "crashed": outcome["killed"].astype(jnp.float32),
            "finished": finished.sum(dtype=jnp.float32),
            "utility": outcome["utility"],
            "load": chosen * assigned * own,
        }
        if params.shared is not None:
            counts["saved"] = assigned * (state.task.demand - own)
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
        return spaces.Box(*parts.bounds(PARTS, self.observation, self, params))


def _whole(duration: jax.Array) -> jax.Array:
    """Whole seconds: the clock is, and the runtimes of AGOD come out whole but for rounding."""
    return jnp.round(duration).astype(jnp.int32)
