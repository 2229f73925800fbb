"""What a study would still have to ask a language model: plans, and files for batch services."""

from contextlib import closing
from pathlib import Path

from rlli_jax.errors import InputError
from rlli_jax.experiments.examination import setting_of
from rlli_jax.experiments.judge_blocks import LanguageModel, OpenAI
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.sources import asked_once, inquire
from rlli_jax.judges.batch_files import too_large
from rlli_jax.judges.openai import OpenAIJudge
from rlli_jax.oracle import open_store, plan
from rlli_jax.oracle.batches import export_batch, import_batch


def plan_questions(config: StudyConfig) -> str:
    """What asking the judge would mean now, as lines for people."""
    inquiry, block = inquire(config.population, config.catalog, config.judge), config.judge
    questions = inquiry.questions()
    if not isinstance(block, LanguageModel):
        return f"{len(questions):,} questions; the {block.kind} judge costs nothing"
    judge = inquiry.judge
    notes = [] if inquiry.samples == block.samples else [asked_once(block)]
    with closing(open_store(block.store, read_only=True)) as store:
        if not isinstance(judge, OpenAIJudge) or judge.given.scoring != "auto":
            planned = plan(judge, questions, store)
        else:
            # Which scoring "auto" is, the server would say; the stored answers say which it was.
            plans = [(plan(judge.settled(s), questions, store), s) for s in ("logprobs", "text")]
            planned, scoring = max(plans, key=lambda pair: pair[0].cached)
            notes.append(f"judge.scoring is auto, and no server was asked: planned as {scoring}")
    if block.examination is not None:
        from rlli_jax.judges.examination.examine import most_questions

        setting = setting_of(inquiry, block, config.population, config.evaluation.human)
        notes.append(f"before them an examination of up to {most_questions(setting):,} questions")
    return "\n".join([planned.describe(), *notes])


def export_missing(config: StudyConfig, path: Path) -> str:
    """Write the questions without an answer as lines for a batch service.

    Raises:
        InputError: the judge is no server's model, or the file cannot be written.
    """
    inquiry, block = inquire(config.population, config.catalog, config.judge), config.judge
    judge = _server(inquiry.judge)
    assert isinstance(block, OpenAI)  # the only block that makes such a judge
    with closing(open_store(block.store, read_only=True)) as store:
        lines = export_batch(judge, inquiry.questions(), store, path)
    note = too_large(lines, path.stat().st_size)
    return f"{lines:,} requests in {path}" + (f"\n{note}" if note else "")


def import_answers(config: StudyConfig, path: Path) -> str:
    """Take the answers of a batch service's file into the store.

    Raises:
        InputError: the judge is no server's model, or the file cannot be read.
    """
    inquiry, block = inquire(config.population, config.catalog, config.judge), config.judge
    judge = _server(inquiry.judge)
    assert isinstance(block, OpenAI)  # the only block that makes such a judge
    with closing(open_store(block.store)) as store:
        return str(import_batch(judge, inquiry.questions(), store, path))


def _server(judge: object) -> OpenAIJudge:
    if not isinstance(judge, OpenAIJudge):
        raise InputError(
            "judge.kind: files for batch services are for judges of kind openai; the others are "
            "asked by rlli judge itself."
        )
    return judge
