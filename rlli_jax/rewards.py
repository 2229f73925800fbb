"""QoE as the reward function of trainers elsewhere: TRL's GRPOTrainer and RLOOTrainer, tunix.

    reward = table_reward(table, population)
    trainer = GRPOTrainer(model, reward, train_dataset=Dataset.from_list(reward.rows()))

A prompt tells a person and a request, a completion names a provider, and the reward is the QoE of
that cell: of a table, of what a model of QoE predicts, or of a judge that is asked when a cell is
first met. Both trainers call ``reward(prompts=..., completions=..., **columns)`` and take a list of
floats. Knows no JAX and none of these libraries.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError, listed, shown
from rlli_jax.judges import Judge, Rated, Scale
from rlli_jax.oracle import Asker, build_questions
from rlli_jax.oracle.store import Store
from rlli_jax.personas import Population
from rlli_jax.personas.in_words import GOAL, advice, asks, goal_prompt
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import QoEModel

Text = str | bytes | Sequence[Mapping[str, Any]]  # plain, or a conversation of {"role", "content"}


class ProviderReward:
    """The reward of naming a provider; see the module's docstring.

    ``qoe``: numbers of cells [n, 3] (user, request, provider) -> QoE [n], NaN at holes.
    """

    def __init__(
        self,
        qoe: Callable[[np.ndarray], np.ndarray],
        population: Population,
        requests: Sequence[str],
        providers: Sequence[str],
        *,
        otherwise: float = 0.0,
        name: str = "qoe",
    ) -> None:
        """``otherwise``: the reward of what names no provider, or one without a picture."""
        self.__name__ = name  # under which trainers log it
        self.users, self.requests = population.names, tuple(requests)
        self.providers, self.otherwise = tuple(providers), otherwise
        self.prompts = tuple(
            goal_prompt(GOAL, asks(persona, request))
            for persona in population.personas
            for request in self.requests
        )
        """One for each user and request, users first, as ``kind: tuning`` tells them."""
        self.completions = tuple(map(advice, self.providers))
        """The shortest that name a provider."""
        self._qoe = qoe
        self._cell = {_squeezed(text): i for i, text in enumerate(self.prompts)}
        # The longest name first, so that "SD XL" is not read as "SD".
        names = sorted(self.providers, key=len, reverse=True)
        words = "|".join(re.escape(name) for name in names)
        self._named = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
        self._number = {name.casefold(): i for i, name in enumerate(self.providers)}

    def rows(self) -> list[dict[str, str]]:
        """A data set: ``prompt``, ``user`` and ``request`` of each prompt."""
        pairs = [(user, request) for user in self.users for request in self.requests]
        return [
            {"prompt": prompt, "user": user, "request": request}
            for prompt, (user, request) in zip(self.prompts, pairs, strict=True)
        ]

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float]:
        """QoE in [0, 1] of each completion.

        Args:
            prompts: plain or conversations, of which the last message counts. With columns
                ``user`` and ``request``, names of both, prompts may have any wording.
            completions: plain or conversations; the provider that is named first counts.
            columns: of the data set, and whatever else a trainer tells; the rest is ignored.

        Raises:
            InputError: a prompt tells of nobody who is known here, or of no known request.
        """
        if len(prompts) != len(completions):
            raise InputError(
                f"There are {len(prompts)} prompts but {len(completions)} completions; give one "
                "prompt for each completion."
            )
        found = np.full(len(completions), self.otherwise)
        named = [self.provider(completion) for completion in completions]
        places = [i for i, provider in enumerate(named) if provider is not None]
        if places:
            told = self._told(prompts, columns)
            cells = np.array([(*told[i], named[i]) for i in places])
            qoe = self._qoe(cells)
            found[places] = np.where(np.isnan(qoe), self.otherwise, qoe)
        return [float(x) for x in found]

    def provider(self, completion: Text) -> int | None:
        """Number of the provider that is named first; None if none is."""
        match = self._named.search(_plain(completion))
        return None if match is None else self._number[match[0].casefold()]

    def _told(self, prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Numbers of the user and the request of each prompt."""
        if columns.get("user") is not None and columns.get("request") is not None:
            pairs = zip(columns["user"], columns["request"], strict=True)
            return [
                (_place("user", str(u), self.users), _place("request", str(r), self.requests))
                for u, r in pairs
            ]
        cells = []
        for prompt in prompts:
            text = _plain(prompt)
            cell = self._cell.get(_squeezed(text))
            if cell is None:
                raise InputError(
                    f"The prompt {shown(text)} is none of this reward's; take them from "
                    "reward.rows(), or give the columns user and request."
                )
            cells.append(divmod(cell, len(self.requests)))
        return cells


def table_reward(
    table: QoETable, population: Population, *, otherwise: float = 0.0
) -> ProviderReward:
    """The mean QoE of a table's cells.

    Args:
        table: K users, R requests, L providers.
        population: its users, by name.
        otherwise: the reward of what names no provider, or a hole.

    Raises:
        InputError: the population lacks a user of the table.
    """
    mean = np.where(table.legal, table.mean, np.nan)
    unknown = sorted(set(table.users) - set(population.names))
    if unknown:
        raise InputError(f"The population lacks users of the table: {listed(unknown)}; add them.")
    people = population.select(table.users)
    return ProviderReward(
        lambda cells: mean[tuple(cells.T)], people, table.requests, table.providers,
        otherwise=otherwise, name="table_qoe",
    )  # fmt: skip


def model_reward(
    model: QoEModel,
    population: Population,
    requests: Sequence[str],
    providers: Sequence[str],
    *,
    otherwise: float = 0.0,
) -> ProviderReward:
    """What a model of QoE expects of people, whether anybody asked about them or not; in [0, 1].

    Args:
        model: of answers about these requests and providers, in this order.
        population: any people whose traits are known.
        requests, providers: their names.
        otherwise: the reward of what names no provider.

    Raises:
        InputError: the traits of these people are unknown, or the model is of other shape.
    """
    if population.traits is None:
        raise InputError("The traits of these people are unknown; a model of QoE needs them.")
    if model.shape[1:] != (len(requests), len(providers)):
        raise InputError(
            f"The model is of {model.shape[1]} requests and {model.shape[2]} providers, but "
            f"{len(requests)} and {len(providers)} are named; name those of its answers."
        )
    mean = np.clip(model.people(model.features(population.traits, len(population))).mean, 0, 1)
    return ProviderReward(
        lambda cells: mean[tuple(cells.T)], population, requests, providers,
        otherwise=otherwise, name="predicted_qoe",
    )  # fmt: skip


def judge_reward(
    judge: Judge,
    population: Population,
    catalog: Catalog,
    scale: Scale,
    *,
    samples: int = 1,
    described: bool = False,
    store: Store | None = None,
    otherwise: float = 0.0,
) -> ProviderReward:
    """A judge's mean rating as QoE, asked when a cell is first named and then remembered.

    Args:
        judge, population, catalog, scale, samples, described: as of
            :func:`rlli_jax.oracle.build_questions`.
        store: keeps the answers beyond this process.
        otherwise: the reward of what names no provider, or of a question without a valid answer.

    Raises:
        InputError: as :func:`rlli_jax.oracle.build_questions`; when it is called, whatever the
            judge cannot do.
    """
    questions = build_questions(population, catalog, scale, samples, described=described)
    shape = len(population), len(catalog.requests), len(catalog.providers)
    known = np.full(shape, np.nan)
    asked = np.zeros(shape, bool)
    asker = Asker(judge, store)

    def qoe(cells: np.ndarray) -> np.ndarray:
        new = np.unique(cells[~asked[tuple(cells.T)]], axis=0)
        if len(new):
            first = np.ravel_multi_index(tuple(new.T), shape) * samples
            answers = asker([questions[i + s] for i in first.tolist() for s in range(samples)])
            given = np.array([
                scale.qoe(answer.rating) if isinstance(answer, Rated) else np.nan
                for answer in answers
            ]).reshape(-1, samples)  # fmt: skip
            valid = ~np.isnan(given)
            total, count = np.where(valid, given, 0).sum(1), valid.sum(1)
            known[tuple(new.T)] = np.where(count, total / np.maximum(count, 1), np.nan)
            asked[tuple(new.T)] = True
        return known[tuple(cells.T)]

    return ProviderReward(
        qoe, population, catalog.requests, catalog.providers, otherwise=otherwise, name="judged_qoe"
    )


def _plain(text: Text) -> str:
    """A text, or the last message of a conversation."""
    if isinstance(text, bytes):
        return text.decode()
    if isinstance(text, str):
        return text
    content = text[-1]["content"] if len(text) else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)  # parts of a message


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _place(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise InputError(
            f"The column {what} names {shown(name)}, whom nobody knows here; known are "
            f"{listed(names)}."
        )
    return names.index(name)
