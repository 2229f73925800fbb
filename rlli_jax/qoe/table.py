"""The table of QoE that every environment looks up, with its exact reference values.

Host side and NumPy only; the environment puts ``qoe`` and ``valid`` on the device.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import scipy
from numpy.typing import ArrayLike

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError, why
from rlli_jax.files import whole
from rlli_jax.judges import Answer, JudgeIdentity, Scale
from rlli_jax.personas import Population
from rlli_jax.qoe.laying_down import OnMissing, given_scores, laid_down

ARRAYS = ("qoe", "valid", "valid_mass", "missing", "asked", "sd")


class References(TypedDict):
    """Exact values of simple policies, each the sum over users of mean QoE (Eq. 2, one round).

    Each user's mean is over the requests for which the user has a provider.
    """

    optimum: float  # each user keeps the provider that is best on average over the requests
    optimum_per_request: float  # each user gets the best provider for each request
    best_single: tuple[str, float]  # the one provider that is best for all users together
    random: float  # uniform over the providers that have a picture
    providers: dict[str, float]  # each provider alone, for all users


@dataclass(frozen=True, eq=False)
class QoETable:
    """Quality of experience of every user, request, provider and sample, holes masked out.

    Arrays are read-only. K users, R requests, L providers, S samples. A user without a valid
    provider for a request never asks for it.

    Raises:
        InputError: shapes do not fit the names, a name is there twice, QoE is NaN or outside
            [0, 1], or a user has no valid provider for any request.
    """

    qoe: np.ndarray
    """[K, R, L, S] float32 in [0, 1]; 0 where not valid."""
    valid: np.ndarray
    """[K, R, L, S] bool; False is a hole."""
    users: tuple[str, ...]
    """K names."""
    requests: tuple[str, ...]
    """R texts."""
    providers: tuple[str, ...]
    """L names."""
    judge: str
    """``JudgeIdentity.describe()`` of the judge that rated, and what was done since."""
    stand_in: bool
    """Whether that judge takes the place of a language model without being one."""
    valid_mass: np.ndarray = None  # type: ignore[assignment]
    """[K, R, L] float32: mean probability that the judge put on the scale's labels, over its
    ratings of the cell; 0 without a rating. Not given: 1."""
    missing: np.ndarray = None  # type: ignore[assignment]
    """[K, R, L] int32: samples without a rating though there is a picture. Not given: 0."""
    asked: np.ndarray = None  # type: ignore[assignment]
    """[K, R, L] bool: the judge was asked; else a valid cell is predicted. Not given: True."""
    sd: np.ndarray = None  # type: ignore[assignment]
    """[K, R, L] float32: standard deviation of what is believed of the cell's mean, where a model
    says so. Not given: 0."""

    def __post_init__(self) -> None:
        valid = np.array(self.valid, dtype=bool)
        names = {"user": self.users, "request": self.requests, "provider": self.providers}
        shape = tuple(len(axis) for axis in names.values())
        if valid.ndim != 4 or valid.shape[:3] != shape or valid.shape != np.shape(self.qoe):
            raise InputError(
                f"a table of {shape[0]} users, {shape[1]} requests and {shape[2]} providers needs "
                f"qoe and valid of shape {(*shape, 'samples')}, not {np.shape(self.qoe)} and "
                f"{valid.shape}."
            )
        for kind, axis in names.items():
            for name in (name for name, count in Counter(axis).items() if count > 1):
                raise InputError(f"{kind} {name!r} is in the table twice; give unique names.")
        qoe = np.where(valid, self.qoe, 0).astype(np.float32)
        for cell in np.argwhere(~((qoe >= 0) & (qoe <= 1)))[:1]:
            raise InputError(f"{self._cell(*cell)}: QoE {qoe[tuple(cell)]} is not in [0, 1].")
        cells = valid.any(-1)
        mass = cells if self.valid_mass is None else self.valid_mass
        missing = np.zeros_like(cells) if self.missing is None else self.missing
        asked = np.ones_like(cells) if self.asked is None else self.asked
        sd = np.zeros_like(cells) if self.sd is None else self.sd
        for name, array in {
            "qoe": qoe,
            "valid": valid,
            "valid_mass": np.array(mass, np.float32),
            "missing": np.array(missing, np.int32),
            "asked": np.array(asked, bool),
            "sd": np.array(sd, np.float32),
        }.items():
            if array.shape[:3] != shape:
                raise InputError(f"{name} has the shape {array.shape}, not {shape}.")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for user in np.flatnonzero(~self.served.any(-1)):
            raise InputError(
                f"user {self.users[user]!r} has no valid provider for any request; "
                "remove the user or give scores."
            )

    def _cell(self, user: int, request: int, provider: int, sample: int) -> str:
        return (
            f"user {self.users[user]!r}, request {self.requests[request]!r}, "
            f"provider {self.providers[provider]!r}, sample {sample}"
        )

    def require_served(self) -> None:
        """Raise InputError if a user has no valid provider for some request."""
        for user, request in np.argwhere(~self.served):
            raise InputError(
                f"user {self.users[user]!r} has no valid provider for request "
                f"{self.requests[request]!r}; remove the request or give a score."
            )

    def __repr__(self) -> str:
        users, requests, providers, samples = self.qoe.shape
        return (
            f"QoETable({users} users x {requests} requests x {providers} providers x "
            f"{samples} samples, {int((~self.legal).sum())} holes, "
            f"{int(self.predicted.sum())} predicted, judge={self.judge!r})"
        )

    @classmethod
    def from_array(
        cls,
        qoe: ArrayLike,
        *,
        users: Sequence[str] | None = None,
        requests: Sequence[str] | None = None,
        providers: Sequence[str] | None = None,
        valid: ArrayLike | None = None,
        judge: str = "given",
    ) -> QoETable:
        """A table of scores that are there already::

            table = QoETable.from_array(np.random.default_rng(0).random((5, 40, 4)))

        Args:
            qoe: [K, R, L] or [K, R, L, S] in [0, 1]; NaN is a hole.
            users, requests, providers: names [K], [R], [L]; ``user 1`` and so on if not given.
            valid: bool, as ``qoe``; False is a hole, whatever ``qoe`` holds there. If given, NaN
                elsewhere is an error.
            judge: who rated, for reports.

        Raises:
            InputError: as for the class; ``qoe`` is no array of numbers of these shapes.
        """
        axes = {"user": users, "request": requests, "provider": providers}
        return cls(**given_scores(qoe, axes, valid), judge=judge, stand_in=False)

    @classmethod
    def from_answers(
        cls,
        answers: Sequence[Answer],
        *,
        population: Population,
        catalog: Catalog,
        scale: Scale,
        judge: JudgeIdentity,
        samples: int = 1,
        on_missing: OnMissing = "mask",
    ) -> QoETable:
        """Lay down the answers to ``build_questions(population, catalog, scale, samples)``.

        A rating becomes QoE by ``scale.qoe``; every other answer becomes a hole. Where the
        catalog offers a picture, a hole is a missing answer, and ``on_missing`` says what to do:
        ``raise`` an error, ``mask`` it (leave the hole), or ``impute`` (see :meth:`imputed`). The
        table's ``judge`` states how many are missing and what was done.

        Where all repeats of every question are equal, the judge does not draw: the repeats say no
        more than one answer, and the table keeps one sample.

        Raises:
            InputError: a rating is not on the scale; a user has no valid provider for any request;
                answers are missing and ``on_missing`` is ``raise``.
            ValueError: the number of answers is not K * R * L * S.
        """
        table = cls(
            users=tuple(population.names),
            requests=tuple(catalog.requests),
            providers=tuple(catalog.providers),
            stand_in=judge.stand_in,
            **laid_down(answers, population, catalog, scale, judge, samples, on_missing),
        )
        return table.imputed() if on_missing == "impute" else table

    @property
    def mean(self) -> np.ndarray:
        """Mean QoE over the valid samples: float64 [K, R, L], 0 where there is none."""
        count = self.valid.sum(-1)
        return self.qoe.sum(-1, dtype=np.float64) / np.maximum(count, 1)

    @property
    def legal(self) -> np.ndarray:
        """Which providers can be chosen (have a valid sample): bool [K, R, L]."""
        return np.asarray(self.valid.any(-1))

    @property
    def predicted(self) -> np.ndarray:
        """Which cells nobody was asked about, but a model filled: bool [K, R, L]."""
        return np.asarray(self.legal & ~self.asked)

    @property
    def served(self) -> np.ndarray:
        """Which requests a user may ask for (some provider can be chosen): bool [K, R]."""
        return np.asarray(self.legal.any(-1))

    def imputed(self) -> QoETable:
        """The table with the provider's mean over all ratings in every cell that lacks an answer.

        Holes beside other samples of the same cell stay, as do those without a picture and those
        of a provider without any rating.
        """
        ratings = self.valid.sum((0, 1, 3))
        mean = self.qoe.sum((0, 1, 3), dtype=np.float64) / np.maximum(ratings, 1)  # 0 in holes
        filled = ((self.missing > 0) & ~self.legal & (ratings > 0))[..., None]
        if not filled.any():
            return self
        return replace(
            self,
            qoe=np.where(filled, mean[:, None], self.qoe),
            valid=self.valid | filled,
            judge=f"{self.judge}; cells without any rating imputed by the provider's mean",
        )

    def standardised(self, by: QoETable | None = None) -> QoETable:
        """The table with every user's level and spread removed, as they are in ``by`` (or here).

        Each user's valid QoE is z-scored and mapped back into [0, 1] by the normal distribution
        function, so that a generous user and a strict one weigh alike. A user whose answers in
        ``by`` are all equal gets 1/2 everywhere.
        """
        by = self if by is None else by
        mean, spread = level_and_spread(by.qoe, by.valid)
        # Below float32 resolution a spread is rounding, not opinion.
        z = np.where(spread > 1e-6, (self.qoe - mean) / np.maximum(spread, 1e-6), 0)
        return replace(
            self,
            qoe=scipy.special.ndtr(np.where(self.valid, z, 0)),
            judge=f"{self.judge}, standardised for each user",
        )

    def select(
        self, *, users: Sequence[str] | None = None, requests: Sequence[str] | None = None
    ) -> QoETable:
        """The table of these users and requests, in the order given; None keeps all.

        Raises:
            InputError: a name is unknown or there twice, or a list is empty.
        """
        return self._take(
            _positions("users", users, self.users), _positions("requests", requests, self.requests)
        )

    def split_requests(self, fraction: float, seed: int) -> tuple[QoETable, QoETable]:
        """Split the requests at random into two tables; the first has about ``fraction`` of them.

        The parts are disjoint and complete, keep the table's order, and have at least one request
        each.

        Raises:
            InputError: ``fraction`` is not between 0 and 1, or there is only one request.
        """
        first, second = self.request_places(fraction, seed)
        everyone = np.arange(len(self.users))
        return self._take(everyone, first), self._take(everyone, second)

    def request_places(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of the requests of each part of :meth:`split_requests`, in order."""
        return split_places("requests", len(self.requests), fraction, seed)

    def split_users(self, fraction: float, seed: int) -> tuple[QoETable, QoETable]:
        """As :meth:`split_requests`, for users."""
        first, second = split_places("users", len(self.users), fraction, seed)
        everything = np.arange(len(self.requests))
        return self._take(first, everything), self._take(second, everything)

    def join(self, other: QoETable, order: Sequence[str]) -> QoETable:
        """The requests of both tables of the same users in ``order``; all else as in this one."""
        samples = max(self.qoe.shape[-1], other.qoe.shape[-1])
        position = {name: i for i, name in enumerate(self.requests + other.requests)}
        places = [position[name] for name in order]

        def joined(name: str) -> np.ndarray:
            arrays = [getattr(self, name), getattr(other, name)]
            if name in ("qoe", "valid"):  # what has fewer samples has the last ones invalid
                arrays = [np.pad(x, ((0, 0),) * 3 + ((0, samples - x.shape[-1]),)) for x in arrays]
            return np.concatenate(arrays, 1)[:, places]

        columns: dict[str, Any] = {name: joined(name) for name in ARRAYS}
        return replace(
            self,
            requests=tuple(order),
            **columns,
        )

    def _take(self, users: np.ndarray, requests: np.ndarray) -> QoETable:
        cells = np.ix_(users, requests)
        columns: dict[str, Any] = {name: getattr(self, name)[cells] for name in ARRAYS}
        return replace(
            self,
            **columns,
            users=tuple(self.users[i] for i in users),
            requests=tuple(self.requests[i] for i in requests),
        )

    @property
    def provider_values(self) -> np.ndarray:
        """Mean QoE over the requests of each user who always asks one provider: float64 [K, L].

        At a hole of that provider the choice falls back to uniform over the others. So every
        provider is judged on all requests that the user may ask for, a provider gains nothing by
        leaving hard requests out, and the average over providers is exactly the random policy.
        The policies of :mod:`rlli_jax.envs.provider_selection.policies` choose by these values and
        fall back in the same way.
        """
        mean, legal, served = self.mean, self.legal, self.served
        # The mean is 0 in holes.
        fallback = mean.sum(-1, keepdims=True) / np.maximum(legal.sum(-1, keepdims=True), 1)
        values = np.where(legal, mean, fallback).sum(1)  # 0 for a request that is not served
        return np.asarray(values / served.sum(1, keepdims=True))

    def references(self) -> References:
        """Exact values of the reference policies.

        Always ``random <= best_single <= optimum <= optimum_per_request``. For what a single
        provider does at a hole see :attr:`provider_values`; ties go to the first provider.
        """
        values = self.provider_values
        alone = values.sum(0)
        best = int(alone.argmax())
        per_request = np.where(self.legal, self.mean, 0).max(-1)  # 0 where not served
        return References(
            optimum=float(values.max(-1).sum()),
            optimum_per_request=float((per_request.sum(-1) / self.served.sum(-1)).sum()),
            best_single=(self.providers[best], float(alone[best])),
            random=float(alone.mean()),
            providers={
                name: float(value) for name, value in zip(self.providers, alone, strict=True)
            },
        )

    def save(self, path: str | Path) -> None:
        """Write the table as a compressed NumPy archive without pickled objects.

        The file appears whole or not at all.

        Raises:
            InputError: it cannot be written there.
        """
        columns = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with whole(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> QoETable:
        """Read a table written by :meth:`save`.

        Raises:
            InputError: there is no such file, it is damaged, or it is not a table.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                # Tables of before models of QoE do not say what was asked: everything was.
                later = {"asked", "sd"} - set(archive.files)
                content: dict[str, Any] = {
                    field.name: archive[field.name]
                    for field in fields(cls)
                    if field.name not in later
                }
            names = ("users", "requests", "providers")
            content |= {name: tuple(content[name].tolist()) for name in names}
            content |= {"judge": str(content["judge"]), "stand_in": bool(content["stand_in"])}
            return cls(**content)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such table; make one first.") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ) as error:
            raise InputError(
                f"{path}: this is not a table of QoE, or it is damaged ({why(error)}); make it "
                "again."
            ) from error


def level_and_spread(qoe: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each user's valid QoE [K, R, L, S]: float64 [K, 1, 1, 1]."""
    axes = (1, 2, 3)
    count = valid.sum(axes, keepdims=True)
    mean = np.where(valid, qoe, 0).sum(axes, dtype=np.float64, keepdims=True) / count
    centred = np.where(valid, qoe - mean, 0)
    return mean, np.sqrt((centred**2).sum(axes, keepdims=True) / count)


def _positions(kind: str, names: Sequence[str] | None, known: tuple[str, ...]) -> np.ndarray:
    if names is None:
        return np.arange(len(known))
    if not names:
        raise InputError(f"select {kind}: the list is empty; name at least one.")
    for name in names:
        if name not in known:
            raise InputError(f"select {kind}: {name!r} is not in the table.")
    return np.array([known.index(name) for name in names])


def split_places(kind: str, size: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the two parts of ``size`` requests or users (``kind``), each in order.

    Raises:
        InputError: as :meth:`QoETable.split_requests`.
    """
    if not 0 < fraction < 1:
        raise InputError(f"split {kind}: the fraction is {fraction}; give one between 0 and 1.")
    if size < 2:
        raise InputError(f"split {kind}: the table has only {size}; a split needs at least two.")
    first = min(max(round(fraction * size), 1), size - 1)
    order = np.random.default_rng(seed).permutation(size)
    return np.sort(order[:first]), np.sort(order[first:])
