"""What a study would still have to ask a language model: plans, and files for batch services."""

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from rlli_jax.errors import InputError
from rlli_jax.experiments.asking import AskBlock, SoFar, prospect, so_far
from rlli_jax.experiments.examination import setting_of
from rlli_jax.experiments.sources import Inquiry, Parts, SetAside, set_aside
from rlli_jax.generation.making import PicturePlan
from rlli_jax.judges import Judge
from rlli_jax.judges.batch_files import too_large
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.oracle import open_store, plan
from rlli_jax.oracle.asking import Plan
from rlli_jax.oracle.batches import export_batch, import_batch
from rlli_jax.oracle.store import Store

SCORINGS: tuple[Literal["logprobs", "text"], ...] = ("logprobs", "text")  # what "auto" may be


def plan_questions(study: Any) -> str:
    """What asking the judge would mean now, as lines for people; of pictures that are still to be
    generated, what making them would mean, as nobody knows what will be asked about them.

    ``study``: of any kind.
    """
    config = study.asks()
    if config is None:
        return "0 questions: this study has no judge"
    generate = config.catalog.generate
    if generate is not None and (making := generate.plan()).to_make:
        return f"{making.describe()}\n{_about_pictures(config, making)}"
    parts, block = _parts(config), config.judge
    inquiry, questions = parts.users, parts.questions()
    if not block.paid:
        some = ""
        if block.ask is not None:
            seen = parts.seen
            cells = block.ask.plan(seen.judge, seen.questions(), seen.offered())
            most = cells.questions * seen.samples + len(parts.questions(block.ask))
            some = f", of which at most {most:,} are asked"
        return f"{len(questions):,} questions{some}; the {block.kind} judge costs nothing"
    judge = inquiry.judge
    notes = [block.note] if block.note else []
    with closing(open_store(block.store, read_only=True)) as store:
        if not isinstance(judge, OpenAIJudge) or judge.given.scoring != "auto":
            planned = plan(judge, questions, store)
        else:
            # Which scoring "auto" is, the server would say; the stored answers say which it was.
            settled = {name: judge.settled(name) for name in SCORINGS}
            plans = {name: plan(each, questions, store) for name, each in settled.items()}
            scoring = max(SCORINGS, key=lambda name: plans[name].cached)
            planned, judge = plans[scoring], settled[scoring]
            notes.append(f"judge.scoring is auto, and no server was asked: planned as {scoring}")
        if block.ask is not None:
            found = _so_far(parts.seen, judge, block.ask, store)
            notes.append(prospect(found, block.ask))
            everything = plan(judge, parts.seen.questions(), store)
            planned = _part_of(everything, found, inquiry.samples)
            if in_full := parts.questions(block.ask):
                planned += plan(judge, in_full, store)
    if block.examination is not None:
        from rlli_jax.judges.examination.examine import most_questions

        setting = setting_of(inquiry, block, config.population, human_of(config))
        notes.append(f"before them an examination of up to {most_questions(setting):,} questions")
    if more := config.asks_more(inquiry):
        notes.append(more)
    return "\n".join([planned.describe(), *notes])


def human_of(config: Any) -> Any:
    """People's scores of the pictures, of a study that names some."""
    return getattr(getattr(config, "evaluation", None), "human", None)


def _about_pictures(config: Any, making: PicturePlan) -> str:
    """What there will be to ask when the pictures are made."""
    if config.population is None or config.judge.own_users:
        return "what the judge is asked is told when the pictures are made"
    people = len(config.population.load(_aside(config).users))
    most = people * (making.pictures - making.refused) * config.judge.times
    return f"then at most {most:,} questions about them"


def export_missing(study: Any, path: Path) -> str:
    """Write the questions without an answer as lines for a batch service.

    Raises:
        InputError: the judge is no server's model, or the file cannot be written.
    """
    parts, block, judge = _of_server(study)
    with closing(open_store(block.store, read_only=True)) as store:
        questions = parts.questions(block.ask)
        if block.ask is not None:  # what comes after depends on the answers
            questions = [*_so_far(parts.seen, judge, block.ask, store).missing, *questions]
        lines = export_batch(judge, questions, store, path)
    note = too_large(lines, path.stat().st_size)
    return f"{lines:,} requests in {path}" + (f"\n{note}" if note else "")


def import_answers(study: Any, path: Path) -> str:
    """Take the answers of a batch service's file into the store.

    Raises:
        InputError: the judge is no server's model, or the file cannot be read.
    """
    parts, block, judge = _of_server(study)
    with closing(open_store(block.store)) as store:
        return str(import_batch(judge, parts.questions(), store, path))


def _parts(config: Any) -> Parts:
    return set_aside(config.population, config.catalog, config.judge, _aside(config))


def _aside(config: Any) -> SetAside:
    """What a study of provider selection sets aside; all others ask about everything alike."""
    aside: SetAside = config.aside() if hasattr(config, "aside") else SetAside()
    return aside


def _so_far(inquiry: Inquiry, judge: Judge, block: AskBlock, store: Store) -> SoFar:
    traits = inquiry.population.traits
    return so_far(block, judge, inquiry.questions(), inquiry.offered(), traits, store)


def _part_of(planned: Plan, found: SoFar, samples: int) -> Plan:
    """The plan of asking everything, as that of asking part of it."""
    wanted = found.limit * samples
    answered = found.last.asked * samples if found.last else 0
    to_ask = wanted - answered if found.missing else 0
    part = to_ask / planned.to_ask if planned.to_ask else 0.0

    def scaled(total: float | None) -> float | None:
        return None if total is None else total * part

    return Plan(
        questions=wanted,
        no_picture=0,
        unique=wanted,
        cached=wanted - to_ask,
        to_ask=to_ask,
        tokens=scaled(planned.tokens),
        cost=scaled(planned.cost),
        seconds=scaled(planned.seconds),
    )


def _of_server(study: Any) -> tuple[Parts, Any, OpenAIJudge]:
    """What is asked, the block of the judge, and the judge."""
    config = study.asks()
    parts = None if config is None else _parts(config)
    if parts is None or not isinstance(parts.users.judge, OpenAIJudge):
        raise InputError(
            "judge.kind: files for batch services are for judges of kind openai; the others are "
            "asked by rlli judge itself."
        )
    return parts, config.judge, parts.users.judge
