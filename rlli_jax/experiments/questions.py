"""What a study would still have to ask a language model: plans, and files for batch services."""

from contextlib import closing
from pathlib import Path

from rlli_jax.errors import InputError
from rlli_jax.experiments.config import LanguageModel, OpenAI, StudyConfig
from rlli_jax.experiments.tables import inquire
from rlli_jax.judges.openai_judge import OpenAIJudge
from rlli_jax.oracle import open_store, plan
from rlli_jax.oracle.batches import export_batch, import_batch


def plan_questions(config: StudyConfig) -> str:
    """What asking the judge would mean now, as lines for people."""
    inquiry, block = inquire(config), config.judge
    questions = inquiry.questions()
    if not isinstance(block, LanguageModel):
        return f"{len(questions):,} questions; the {block.kind} judge costs nothing"
    with closing(open_store(block.store, read_only=True)) as store:
        return plan(inquiry.judge, questions, store).describe()


def export_missing(config: StudyConfig, path: Path) -> str:
    """Write the questions without an answer as lines for a batch service.

    Raises:
        InputError: the judge is no server's model, or the file cannot be written.
    """
    inquiry, block = inquire(config), config.judge
    judge = _server(inquiry.judge)
    assert isinstance(block, OpenAI)  # the only block that makes such a judge
    with closing(open_store(block.store, read_only=True)) as store:
        return f"{export_batch(judge, inquiry.questions(), store, path):,} questions in {path}"


def import_answers(config: StudyConfig, path: Path) -> str:
    """Take the answers of a batch service's file into the store.

    Raises:
        InputError: the judge is no server's model, or the file cannot be read.
    """
    inquiry, block = inquire(config), config.judge
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
