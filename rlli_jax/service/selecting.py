"""Decisions in batches: what each policy in force prefers, what is drawn, how probable it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rlli_jax.errors import InputError, listed
from rlli_jax.personas import TRAITS
from rlli_jax.service.exploration import Preferred, Rule

LARGEST = 256  # decisions that are computed together
_UNKNOWN = (None,) * len(TRAITS)
NEUTRAL = (3.0,) * len(TRAITS)  # stands in a batch for a persona that no policy looks at

# persona [b, 5], user [b], request [b], offered [b, L] -> choice [b], predicted QoE [b, L].
# An unknown user or request is the number of those that are known.
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# persona [b, 5], user [b], request [b] -> covariance of a person's QoE over the providers [b, L, L]
Belief = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that is ready to choose; b is any number up to ``LARGEST``."""

    name: str
    judge: str
    """What it was trained on, in words; a stand-in is named as one."""
    providers: tuple[str, ...]
    """L names."""
    requests: tuple[str, ...]
    users: Mapping[str, tuple[float, ...] | None]
    """The users that it was trained on, with their five traits or None where they are unknown."""
    observes: frozenset[str]
    """Of ``user``, ``persona`` and ``request``, what its choices depend on."""
    predicts_by_persona: bool
    """Whether its predictions of QoE need a persona; what else they need, they do without."""
    choose: Choose
    """Calls of one shape only are made, with ``LARGEST`` and smaller powers of 4 as b."""
    belief: Belief | None = None
    """How sure the predictions are, for exploration that asks for it; None if that is unknown."""


class Arm(NamedTuple):
    """A policy in force, and the share of decisions that it makes."""

    policy: ServedPolicy
    share: float


class Wish(NamedTuple):
    """What somebody asks for, checked."""

    user: str | None
    persona: tuple[float, ...] | None
    request: str | None
    offered: np.ndarray  # [L] bool, in the order of the first policy's providers
    names: str  # of those offered, with ; between them


class Refused(Exception):
    """A wish that cannot be met; the message is one sentence, ``status`` one of HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Selector:
    """The policies in force. Replaced as a whole by :meth:`with_arms`, never changed."""

    def __init__(self, arms: Sequence[Arm], rule: Rule, seed: int | None = None) -> None:
        """Raises InputError unless the policies know the same providers and shares sum to 1."""
        shares = np.array([arm.share for arm in arms], np.float64)
        if not len(arms) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
            raise InputError(
                f"the shares {', '.join(f'{x:g}' for x in shares)} must not be negative and must "
                "sum to 1, one for each policy."
            )
        self.arms, self.rule = tuple(arms), rule
        self.providers = arms[0].policy.providers
        for arm in arms:
            if set(arm.policy.providers) != set(self.providers):
                raise InputError(
                    f"the policy {arm.policy.name!r} knows the providers "
                    f"{listed(arm.policy.providers)}, another one {listed(self.providers)}; serve "
                    "policies of the same providers."
                )
            if rule.by_belief and arm.policy.belief is None:
                raise InputError(
                    f"--explore {rule}: of the run of the policy {arm.policy.name!r} no model of "
                    "QoE says how sure it is, as it has too few answers or users without traits; "
                    "use epsilon=SHARE."
                )
        for name in self.providers:
            if ";" in name:
                raise InputError(
                    f"the provider {name!r} has a semicolon in its name, which separates names in "
                    "the log; rename it."
                )
        self._place = {name: i for i, name in enumerate(self.providers)}
        # Where the first policy's providers stand in each one's own order.
        self._order = [
            np.array([arm.policy.providers.index(name) for name in self.providers]) for arm in arms
        ]
        self._back = [np.argsort(order) for order in self._order]
        self._rows = [
            (
                {name: i for i, name in enumerate(arm.policy.users)},
                {name: i for i, name in enumerate(arm.policy.requests)},
            )
            for arm in arms
        ]
        self._shares = shares / shares.sum()
        self._everybody = np.ones(len(self.providers), bool), ";".join(self.providers)
        self._generator = np.random.default_rng(seed)

    def warm(self) -> None:
        """Compile what batches of every size need."""
        wish = Wish(None, NEUTRAL, None, *self._everybody)
        size = 1
        while size <= LARGEST:
            self.probabilities([wish] * size)
            size *= 4

    def check(
        self,
        user: str | None,
        persona: tuple[float, ...] | None,
        request: str | None,
        offered: Sequence[str] | None,
    ) -> Wish:
        """Whether every policy in force can choose. Raises Refused."""
        if user is None and persona is None:
            raise Refused(422, "give persona (five numbers from 1 to 5), user, or both.")
        if persona is None:
            persona = next(
                (t for arm in self.arms if (t := arm.policy.users.get(user or "")) is not None),
                None,
            )
        for arm, (users, requests) in zip(self.arms, self._rows, strict=True):
            observes = arm.policy.observes
            if self.rule.by_prediction and arm.policy.predicts_by_persona:
                observes = observes | {"persona"}
            if "persona" in observes and persona is None:
                raise Refused(
                    422,
                    f"nothing is known of user {user!r}; give persona, five numbers from 1 to 5.",
                )
            if "user" in observes and user not in users:
                raise Refused(
                    422,
                    f"the policy {arm.policy.name!r} knows users by name, and not "
                    f"{user if user is None else repr(user)}; give user, one of "
                    f"{listed(tuple(users))}.",
                )
            if "request" in observes and request not in requests:
                raise Refused(
                    422,
                    f"the policy {arm.policy.name!r} does not know the request "
                    f"{request if request is None else repr(request)}; give request, one of "
                    f"{listed(tuple(requests))}.",
                )
        mask, names = self._everybody
        if offered is not None:
            mask, names = np.zeros(len(self.providers), bool), ";".join(offered)
            for name in offered:
                place = self._place.get(name)
                if place is None:
                    raise Refused(
                        422,
                        f"offered: {name!r} is no provider; there are {listed(self.providers)}.",
                    )
                if mask[place]:
                    raise Refused(422, f"offered: {name!r} stands there twice.")
                mask[place] = True
        return Wish(user, persona, request, mask, names)

    def probabilities(self, wishes: Sequence[Wish]) -> np.ndarray:
        """Of each provider, for each arm by itself: [arms, b, L]."""
        b = len(wishes)
        size = 1
        while size < b:
            size *= 4
        persona = np.full((size, len(TRAITS)), NEUTRAL[0], np.float32)
        persona[:b] = [wish.persona or NEUTRAL for wish in wishes]
        offered = np.ones((size, len(self.providers)), bool)
        offered[:b] = [wish.offered for wish in wishes]
        result = []
        for arm, (users, requests), order, back in zip(
            self.arms, self._rows, self._order, self._back, strict=True
        ):
            user, request = np.zeros((2, size), np.int32)
            user[:b] = [users.get(wish.user or "", len(users)) for wish in wishes]
            request[:b] = [requests.get(wish.request or "", len(requests)) for wish in wishes]
            choice, predicted = arm.policy.choose(persona, user, request, offered[:, back])
            covariance = None
            if self.rule.by_belief:
                assert arm.policy.belief is not None  # else it was refused
                believed = arm.policy.belief(persona[:b], user[:b], request[:b])
                covariance = believed[:, order][:, :, order]
            preferred = Preferred(back[choice[:b]], predicted[:b, order], covariance)
            result.append(self.rule.probabilities(preferred, offered[:b]))
        return np.stack(result)

    def decide(self, wishes: Sequence[Wish]) -> list[dict[str, Any]]:
        """Draw a policy and then a provider for each of up to ``LARGEST`` wishes.

        The propensity is that of the provider under all policies in force together, by their
        shares, because which of them chose is chance too.

        Returns:
            rows of ``rlli_decisions``.
        """
        b = len(wishes)
        each = self.probabilities(wishes)
        drawn = self._generator.random((2, b))
        arm = np.minimum(np.searchsorted(self._shares.cumsum(), drawn[0], "right"), len(each) - 1)
        every = np.arange(b)
        own = each[arm, every]  # [b, L]
        # Through the cumulated probabilities; those of probability 0 are never drawn.
        steps = own.cumsum(1)
        draw = drawn[1] * steps[:, -1]
        chosen = (steps <= draw[:, None]).sum(1)
        last = own.shape[1] - 1 - (own[:, ::-1] > 0).argmax(1)
        chosen = np.minimum(chosen, last)  # a product may round up to its last step
        now, noise = time.time(), os.urandom(10 * b).hex()
        millis = f"{int(1000 * now):012x}"
        propensity = (self._shares @ each[:, every, chosen]).tolist()
        names = [self.arms[k].policy.name for k in arm.tolist()]
        rows = []
        for i, (wish, a) in enumerate(zip(wishes, chosen.tolist(), strict=True)):
            traits = wish.persona or _UNKNOWN
            rows.append(
                {
                    "id": millis + noise[20 * i : 20 * i + 20],  # in order of time
                    "time": now,
                    "user": wish.user,
                    "request": wish.request,
                    **dict(zip(TRAITS, traits, strict=True)),
                    "offered": wish.names,
                    "provider": self.providers[a],
                    "propensity": propensity[i],
                    "policy": names[i],
                }
            )
        return rows
