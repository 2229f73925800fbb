"""What a study would still have to ask a language model: plans, and files for batch services."""

from contextlib import closing
from pathlib import Path
from typing import Literal

from rlli_jax.errors import InputError
from rlli_jax.experiments.asking import AskBlock, SoFar, prospect, so_far
from rlli_jax.experiments.examination import setting_of
from rlli_jax.experiments.judge_blocks import LanguageModelJudge, OpenAI, Recorded
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.selection.tables import aside
from rlli_jax.experiments.sources import Inquiry, Parts, asked_once, set_aside
from rlli_jax.generation.making import PicturePlan
from rlli_jax.judges import Judge
from rlli_jax.judges.batch_files import too_large
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.oracle import open_store, plan
from rlli_jax.oracle.asking import Plan
from rlli_jax.oracle.batches import export_batch, import_batch
from rlli_jax.oracle.store import Store

SCORINGS: tuple[Literal["logprobs", "text"], ...] = ("logprobs", "text")  # what "auto" may be


def plan_questions(config: StudyConfig) -> str:
    """What asking the judge would mean now, as lines for people; of pictures that are still to be
    generated, what making them would mean, as nobody knows what will be asked about them."""
    generate = config.catalog.generate
    if generate is not None and (making := generate.plan()).to_make:
        return f"{making.describe()}\n{_about_pictures(config, making)}"
    parts, block = _parts(config), config.judge
    inquiry, questions = parts.users, parts.questions()
    if not isinstance(block, LanguageModelJudge):
        some = ""
        if block.ask is not None:
            seen = parts.seen
            cells = block.ask.plan(seen.judge, seen.questions(), seen.offered())
            most = cells.questions * seen.samples + len(parts.questions(block.ask))
            some = f", of which at most {most:,} are asked"
        return f"{len(questions):,} questions{some}; the {block.kind} judge costs nothing"
    judge = inquiry.judge
    notes = [] if inquiry.samples == block.samples else [asked_once(block)]
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

        setting = setting_of(inquiry, block, config.population, config.evaluation.human)
        notes.append(f"before them an examination of up to {most_questions(setting):,} questions")
    return "\n".join([planned.describe(), *notes])


def _about_pictures(config: StudyConfig, making: PicturePlan) -> str:
    """What there will be to ask when the pictures are made."""
    if config.population is None or isinstance(config.judge, Recorded):
        return "what the judge is asked is told when the pictures are made"
    people = len(config.population.load(config.evaluation.held_out_users))
    most = people * (making.pictures - making.refused) * config.judge.times
    return f"then at most {most:,} questions about them"


def export_missing(config: StudyConfig, path: Path) -> str:
    """Write the questions without an answer as lines for a batch service.

    Raises:
        InputError: the judge is no server's model, or the file cannot be written.
    """
    parts, judge, block = _asked_of_server(config)
    with closing(open_store(block.store, read_only=True)) as store:
        questions = parts.questions(block.ask)
        if block.ask is not None:  # what comes after depends on the answers
            questions = [*_so_far(parts.seen, judge, block.ask, store).missing, *questions]
        lines = export_batch(judge, questions, store, path)
    note = too_large(lines, path.stat().st_size)
    return f"{lines:,} requests in {path}" + (f"\n{note}" if note else "")


def import_answers(config: StudyConfig, path: Path) -> str:
    """Take the answers of a batch service's file into the store.

    Raises:
        InputError: the judge is no server's model, or the file cannot be read.
    """
    parts, judge, block = _asked_of_server(config)
    with closing(open_store(block.store)) as store:
        return str(import_batch(judge, parts.questions(), store, path))


def _parts(config: StudyConfig) -> Parts:
    return set_aside(config.population, config.catalog, config.judge, aside(config))


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


def _asked_of_server(config: StudyConfig) -> tuple[Parts, OpenAIJudge, OpenAI]:
    """What a study asks, and its judge with its block. Raises InputError if that is no server."""
    parts, block = _parts(config), config.judge
    judge = parts.users.judge
    if not isinstance(judge, OpenAIJudge):
        raise InputError(
            "judge.kind: files for batch services are for judges of kind openai; the others are "
            "asked by rlli judge itself."
        )
    assert isinstance(block, OpenAI)  # the only block that makes such a judge
    return parts, judge, block
