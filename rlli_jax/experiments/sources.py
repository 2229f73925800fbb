"""From people, pictures and a judge to the table of QoE, for every kind of study."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator
from rich.console import Console

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError, listed
from rlli_jax.experiments.asking import AskBlock, Rate, ask_some
from rlli_jax.experiments.catalog_block import CatalogBlock
from rlli_jax.experiments.examination import examine_judge
from rlli_jax.experiments.judge_blocks import (
    AnyJudge,
    RecordedScores,
)
from rlli_jax.experiments.yaml_blocks import Block, Positive, Whole, beside_file, exactly_one
from rlli_jax.judges import Answer, Judge, Question, Scale, scale_of
from rlli_jax.oracle import Asker, Budget, Questions, build_questions
from rlli_jax.oracle.asking_less import Asked, Round
from rlli_jax.personas import Population, Wording
from rlli_jax.personas.examples import refuse_known, with_examples
from rlli_jax.personas.population import trait_range
from rlli_jax.personas.questionnaire import population_from_answers
from rlli_jax.qoe import OnMissing, QoETable
from rlli_jax.qoe.predicted import predicted_table
from rlli_jax.qoe.table import split_places


class Sample(Block):
    """Personas drawn from published norms."""

    size: Positive
    """Number of users."""
    group: str = "women 21-40"
    """Sex and age of the norms."""
    correlations: str = "davies_2015_r_observed"
    """Between the traits."""
    seed: Whole = 0
    """Of the draw."""
    fresh: bool = False
    """Learners meet new people of this group in every episode; what they think is predicted by a
    model of QoE, from the answers of the size users who are asked."""

    def draw(self, more: int = 0) -> Population:
        """The users, and ``more`` people behind them."""
        given = self.model_dump(exclude={"size", "fresh"})
        return Population.sample(self.size + more, **given)


class PopulationBlock(Block):
    """Who the users are. With a recorded judge leave it out: the users are those of the file,
    whose personalities are then unknown; or give it, and users are joined by name."""

    sample: Sample | None = None
    """Users drawn from published norms."""
    csv: Path | None = None
    """A table: name, O, C, E, A, N."""
    range: str = "1-5"
    """Of the traits in csv: a-b, or T for T-scores."""
    questionnaire: Path | None = None
    """A table of answers to the 50 IPIP markers."""
    max_missing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of a trait's items that may be missing."""
    bigfive_test: Path | None = None
    """Results of a Big Five test as JSON."""
    wording: Wording = "full"
    """Of the personas, for language models: 52 adjectives; "brief": 5; "biography": five sentences
    of what such a person does; "answers": the answers to the questionnaire themselves. rlli examine
    --wordings compares them."""
    examples: Path | None = None
    """A table of what people said of other pictures (name, picture in words, rating), which
    language models are told in every wording."""

    _paths = field_validator("csv", "questionnaire", "bigfive_test", "examples")(beside_file)

    @field_validator("range")
    @classmethod
    def _ends(cls, scale: str) -> str:
        try:
            trait_range(scale)
        except InputError as error:
            raise ValueError(str(error)) from None
        return scale

    @model_validator(mode="after")
    def _one_source(self) -> "PopulationBlock":
        exactly_one(self, ("sample", "csv", "questionnaire", "bigfive_test"))
        if self.wording == "answers" and self.questionnaire is None:
            raise ValueError(
                "the wording is answers, which only population.questionnaire has; choose another"
            )
        return self

    def load(self, more: int = 0) -> Population:
        """Read or draw the users; ``more`` people are drawn behind those of a sample.

        Raises InputError for a mistake in a file."""
        if self.sample is not None:
            people = self.sample.draw(more)
        elif self.csv is not None:
            people = Population.from_csv(self.csv, scale=self.range)
        elif self.questionnaire is not None:
            people = population_from_answers(self.questionnaire, max_missing=self.max_missing)
        else:
            assert self.bigfive_test is not None  # one of the four is given
            people = Population.from_bigfive_test(self.bigfive_test)
        if self.examples is not None:
            people = with_examples(people, self.examples)
        return people.worded(self.wording)


class JudgedBlock(Block):
    """What every study has whose pictures are rated by a judge."""

    population: PopulationBlock | None = None
    """Who the users are; a judge of recorded scores knows its own."""
    catalog: CatalogBlock
    """What they are shown."""
    judge: AnyJudge
    """Who rates a picture as a persona."""

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.population is None and not self.judge.own_users:
            raise ValueError(
                f"population: this key is missing; a {self.judge.kind} judge needs users"
            )
        return self


@dataclass(frozen=True)
class Inquiry:
    """Who is to be asked what, before anybody is asked."""

    judge: Judge
    population: Population
    catalog: Catalog
    scale: Scale
    samples: int
    described: bool = False  # the judge reads

    def of(
        self, *, users: Sequence[str] | None = None, requests: Sequence[str] | None = None
    ) -> "Inquiry":
        """The same judge about these people and requests alone; None keeps all."""
        population, catalog = self.population, self.catalog
        if users is not None:
            population = population.select(users)
        if requests is not None:
            catalog = replace(catalog, requests=tuple(requests))
        return replace(self, population=population, catalog=catalog)

    def questions(self) -> Questions:
        """All questions, in the order of the table [K, R, L, S]."""
        return build_questions(
            self.population, self.catalog, self.scale, self.samples, described=self.described
        )

    def offered(self) -> np.ndarray:
        """The cells that have a picture, be it only the name of one: bool [K, R, L]."""
        catalog = self.catalog
        pairs = [
            [catalog.offers(r, p) for p in range(len(catalog.providers))]
            for r in range(len(catalog.requests))
        ]
        return np.tile(np.array(pairs, bool), (len(self.population), 1, 1))

    def rehearsal(self) -> QoETable:
        """A table as if every answer were the same: by it mistakes show before anybody is asked."""
        offered = self.offered()[..., None]
        return QoETable(
            qoe=np.where(offered, 0.5, 0.0),
            valid=offered,
            users=self.population.names,
            requests=self.catalog.requests,
            providers=self.catalog.providers,
            judge=self.judge.identity.describe(),
            stand_in=True,
        )

    def table(self, answers: Sequence[Answer], on_missing: OnMissing = "mask") -> QoETable:
        """Lay down the answers to :meth:`questions`."""
        return QoETable.from_answers(
            answers,
            population=self.population,
            catalog=self.catalog,
            scale=self.scale,
            judge=self.judge.identity,
            samples=self.samples,
            on_missing=on_missing,
        )


def recorded(block: RecordedScores, catalog: Catalog) -> Inquiry:
    """A file of scores, which knows its users and its number of samples."""
    judge = block.make(catalog)
    return Inquiry(judge, judge.population(), catalog, scale_of(block.scale), judge.samples)


def join(judged: Population, known: Population) -> Population:
    """The people in both, in the order of ``judged``; warns of those who are in one only.

    Raises:
        InputError: nobody is in both.
    """
    there = set(known.names)
    both = [name for name in judged.names if name in there]
    unmatched = [
        f"{len(names)} with {what} only ({listed(names)})"
        for what, names in (
            ("scores", [name for name in judged.names if name not in there]),
            ("a personality", [name for name in known.names if name not in set(both)]),
        )
        if names
    ]
    if not both:
        raise InputError(
            f"population: no name is in both files, {' and '.join(unmatched)}; people are joined "
            "by name, so spell them alike."
        )
    if unmatched:
        warnings.warn(f"left out people who are in one file: {'; '.join(unmatched)}.", stacklevel=2)
    return known.select(both)


def inquire(
    population: PopulationBlock | None,
    catalog: CatalogBlock,
    judge: AnyJudge,
    more: int = 0,
    console: Console | None = None,
) -> Inquiry:
    """Who is to be asked what; ``more`` people are drawn behind those of a sample, and
    ``console`` is told how far the generating of pictures is.

    Raises:
        InputError: anything that is wrong with the files that the blocks name.
    """
    pictures = catalog.load(console)
    made = judge.make(pictures)
    people = judge.users(made)
    if people is None:
        assert population is not None  # checked by the config
        people = population.load(more)
        refuse_known(people, _descriptions(pictures, judge.described) if people.examples else ())
    elif population is not None:
        people = join(people, population.load())
    scale = scale_of(judge.scale)
    return Inquiry(made, people, pictures, scale, judge.asked(made), judge.described)


def _descriptions(catalog: Catalog, described: bool) -> Iterable[str]:
    """What is said of the catalog's pictures: captions, and all that a judge that reads is told."""
    yield from catalog.captions.values()
    if described:
        for request, provider in np.ndindex(len(catalog.requests), len(catalog.providers)):
            yield catalog.description(request, provider) or ""


@dataclass(frozen=True)
class SetAside:
    """What is kept from learners and from whatever is fitted, and asked in full."""

    users: int = 0
    requests: float = 0.0  # part of them
    seed: int = 0  # of the draw of requests, and of users from a file


class Parts(NamedTuple):
    """An inquiry with what is set aside."""

    users: Inquiry  # the users whom learners may meet, about all requests
    seen: Inquiry  # these users about the requests that learners see
    unseen: Inquiry | None  # these users about the other requests
    others: Inquiry | None  # the other people about the requests of evaluation

    def in_full(self, block: AskBlock | None) -> list[Inquiry]:
        """What is asked in full: all of it, or with ``judge.ask`` what is set aside."""
        wanted = (self.users, self.others) if block is None else (self.unseen, self.others)
        return [part for part in wanted if part is not None]

    def questions(self, block: AskBlock | None = None) -> Sequence[Question]:
        """All questions of :meth:`in_full`."""
        every = [part.questions() for part in self.in_full(block)]
        return every[0] if len(every) == 1 else [question for part in every for question in part]


def set_aside(
    population: PopulationBlock | None,
    catalog: CatalogBlock,
    judge: AnyJudge,
    aside: SetAside,
    console: Console | None = None,
) -> Parts:
    """Who is to be asked what, and who and what of it is set aside.

    Held-out users of a sample are drawn behind it; those of a file are some of its people.

    Raises:
        InputError: as :func:`inquire`; or nobody would be left.
    """
    whole = inquire(population, catalog, judge, aside.users, console)
    names, requests = whole.population.names, whole.catalog.requests
    if aside.users >= len(names):
        raise InputError(
            f"evaluation.held_out_users is {aside.users}, but there are {len(names)} people in "
            "all; hold out fewer, or give more."
        )
    users, others, unseen = whole, None, None
    tested, trained = list(requests), list(requests)
    if aside.requests:
        first, second = split_places("requests", len(requests), aside.requests, aside.seed)
        tested, trained = ([requests[i] for i in part] for part in (first, second))
    if aside.users:
        order = np.arange(len(names))
        if population is None or population.sample is None:
            order = np.random.default_rng(aside.seed).permutation(len(names))
        kept, held = (np.sort(part) for part in np.split(order, [len(names) - aside.users]))
        users = whole.of(users=[names[i] for i in kept])
        others = whole.of(users=[names[i] for i in held], requests=tested)
    seen = users.of(requests=trained)
    if aside.requests:
        unseen = users.of(requests=tested)
    return Parts(users, seen, unseen, others)


Check = Callable[[Parts], None]  # raises InputError


class Judged(NamedTuple):
    """A judge's answers as tables."""

    inquiry: Inquiry
    table: QoETable  # of all requests
    others: QoETable | None = None  # of held-out users, on the requests of evaluation
    asked: Asked | None = None  # with judge.ask: of the requests that learners see; these cells of
    # the table are predicted
    people: Population | None = None  # the held-out users
    left: Budget | None = None  # what of the judge's budget is left


def judged(
    population: PopulationBlock | None,
    catalog: CatalogBlock,
    judge: AnyJudge,
    console: Console | None = None,
    *,
    path: Path | None = None,
    human: RecordedScores | None = None,
    aside: SetAside = SetAside(),
    check: Check = lambda parts: None,
) -> Judged:
    """Examine the judge, ask it and lay the answers down as a table.

    With ``on_missing: impute`` holes stay holes: imputing is learning from other answers, and
    waits until some are set aside.

    Args:
        path: of the run directory, where the examination is kept; without one the stand-in, of
            which nothing is required, is not examined.
        human: people's scores of the pictures, if there are any.
        aside: who and what is kept from learners.
        check: what else can be wrong with a study, before anybody is asked.

    Raises:
        InputError: anything that is wrong with the files that the blocks name; or the judge fails
            what ``judge.require`` names.
    """
    console = console or Console(stderr=True)
    parts = set_aside(population, catalog, judge, aside, console)
    inquiry = parts.users
    on_missing: OnMissing = "mask" if judge.on_missing == "impute" else judge.on_missing
    tell = partial(console.print, highlight=False, markup=False)
    if judge.ask is not None:  # before an examination is paid for
        judge.ask.plan(inquiry.judge, parts.seen.questions(), parts.seen.offered())
    inquiry.questions()  # refuses what cannot be asked before anything is
    check(parts)
    if judge.note:
        tell(judge.note)
    with judge.asker(inquiry.judge, console) as asker:
        if judge.examined(path is not None):
            examine_judge(
                inquiry, judge, population, human, asker, console, path, require=judge.required
            )
        return _tables(parts, judge.ask, asker, on_missing, tell)


def _tables(
    parts: Parts,
    block: AskBlock | None,
    asker: Asker,
    on_missing: OnMissing,
    tell: Callable[[str], None],
) -> Judged:
    """Ask, in full or in part, and lay down the tables."""
    inquiry, asked, others = parts.users, None, None

    def in_full(part: Inquiry) -> QoETable:
        return part.table(asker(part.questions()), on_missing)

    if block is None:
        table = in_full(inquiry)
    else:
        asked, table = _ask_some(parts.seen, block, partial(asker, quiet=True), tell)
        if parts.unseen is not None:
            table = table.join(in_full(parts.unseen), inquiry.catalog.requests)
    if parts.others is not None:
        others = in_full(parts.others)
    people = None if parts.others is None else parts.others.population
    return Judged(inquiry, table, others, asked, people, asker.left)


def _ask_some(
    inquiry: Inquiry, block: AskBlock, rate: Rate, tell: Callable[[str], None]
) -> tuple[Asked, QoETable]:
    """Ask part of the questions, tell of every round, and predict the table."""
    offered = inquiry.offered()

    def tell_round(done: Round) -> None:
        regret = f"{done.expected.regret:.4f} QoE"
        tell(
            f"asked {done.asked:,} of {int(offered.sum()):,} cells "
            f"({done.asked / offered.sum():.1%}); choices are expected to lose {regret}"
        )

    population = inquiry.population
    asked = ask_some(
        block, inquiry.judge, inquiry.questions(), offered, population.traits, rate, tell_round
    )
    table = predicted_table(
        asked.model,
        asked.asked,
        offered,
        users=population.names,
        requests=inquiry.catalog.requests,
        providers=inquiry.catalog.providers,
        judge=inquiry.judge.identity.describe(),
        stand_in=inquiry.judge.identity.stand_in,
    )
    return asked, table
