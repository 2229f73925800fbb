"""What choices are worth by the share of the questions that were asked.

    python benchmarks/ask_less.py --output results/ [--draws 20] [--only standin_300]

For the strategies ``random``, ``variance`` and ``decision``, over draws (seeds of the questions;
the answers are the same), mean and central 90 % of the draws:

- ``standin_300``, ``standin_5000``: users x 6 requests x 4 providers of the stand-in (the embedded
  psychometric judge, no language model; women 21-40, seed 3, noise .3). The value is the share of
  what personal choice gains on the true QoE over the best single provider, one provider a user.
- ``agiqa3k``: real answers of five vision-language models to 200 requests x 10 providers, judges as
  users. The value is people's mean opinion score (0-5) of the provider chosen for each request by
  what the judges have in common. Coverage is of the judges' answers that were not asked.

The last lines time a million cells: fitting, predicting, and choosing the next 4,096 questions.
"""

import argparse
import csv
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from agiqa3k_choices import DATA, HUMAN_SCALE, load

from rlli_jax.catalog import Catalog
from rlli_jax.judges import scale_of
from rlli_jax.judges.psychometric import PsychometricJudge
from rlli_jax.oracle import ask, build_questions
from rlli_jax.oracle.asking_less import AskLess, Round, ask_less
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.choosing import STRATEGIES, Choice, belief, next_questions
from rlli_jax.qoe.model import QoEModel, fit_model


class Problem(NamedTuple):
    """Answers to everything, and what a choice is worth."""

    answers: np.ndarray  # [K, R, L], NaN where there is no picture
    traits: np.ndarray | None
    choice: Choice
    value: Callable[[np.ndarray], float]  # of providers chosen, one a choice
    share: float  # asked at most


def stand_in(users: int, share: float) -> Problem:
    """The stand-in's answers; values are shares of the gain over the best single provider."""
    catalog, scale = Catalog.studio(), scale_of("adjectives")
    people = Population.sample(users, group="women 21-40", seed=3)
    tables = []
    for noise in (0.3, 0.0):
        judge = PsychometricJudge(catalog, noise=noise)
        answers = ask(judge, build_questions(people, catalog, scale))
        table = QoETable.from_answers(
            answers, population=people, catalog=catalog, scale=scale, judge=judge.identity
        )
        tables.append(table.mean)
    true = tables[1].mean(1)
    single, best = true.mean(0).max(), true.max(1).mean()

    def value(chosen: np.ndarray) -> float:
        return float((true[np.arange(users), chosen].mean() - single) / (best - single))

    return Problem(tables[0], people.traits, "user", value, share)


def agiqa3k(data: Path, share: float) -> Problem:
    """Five judges' answers as they are; values are people's scores, 0-5."""
    judges, human = load(data)
    answers = np.where(judges.legal, judges.mean, np.nan)

    def value(chosen: np.ndarray) -> float:
        return float(HUMAN_SCALE * human[np.arange(len(human)), chosen].mean())

    return Problem(answers, None, "request", value, share)


def curve(problem: Problem, strategy: str, seed: int) -> list[tuple[float, ...]]:
    """(asked, value, coverage of 90 % intervals, expected regret) after each round."""
    offered = ~np.isnan(problem.answers)
    asked = np.zeros(offered.shape, bool)
    points: list[tuple[float, ...]] = []

    def ask_cells(places: np.ndarray) -> np.ndarray:
        asked.reshape(-1)[places] = True
        return problem.answers.reshape(-1)[places]

    def after(round_: Round) -> None:
        mean = belief(round_.model, problem.choice).mean
        if problem.choice == "request":
            mean = np.where(offered.any(0), mean, -np.inf)
        low, high = round_.model.users().interval()
        rest = offered & ~asked
        held = ((problem.answers >= low) & (problem.answers <= high))[rest]
        points.append(
            (
                round_.asked,
                problem.value(mean.argmax(-1)),
                float(held.mean()) if len(held) else np.nan,
                round_.expected.regret,
            )
        )

    questions = int(problem.share * offered.sum())
    plan = AskLess(questions, strategy, problem.choice, seed=seed)  # type: ignore[arg-type]
    ask_less(ask_cells, offered, problem.traits, plan, after=after)
    return points


def compare(name: str, problem: Problem, draws: int, output: Path) -> None:
    """Print and write the curves of all strategies."""
    total = int((~np.isnan(problem.answers)).sum())
    rows = []
    for strategy in STRATEGIES:
        every = np.array([curve(problem, strategy, seed) for seed in range(draws)])
        for point in every.swapaxes(0, 1):  # [draws, 4]
            low, high = np.percentile(point[:, 1], [5, 95])
            mean = point.mean(0)
            rows.append(
                (name, strategy, int(mean[0]), mean[0] / total, mean[1], low, high, *mean[2:])
            )
    header = ("table", "strategy", "asked", "share", "value", "low", "high", "coverage", "regret")
    with open(output / f"ask_less_{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    print(*header)
    for row in rows:
        print(*(f"{x:.4f}" if isinstance(x, float) else x for x in row), flush=True)


def million(shape: tuple[int, int, int], share: float) -> None:
    """Time one table of a million cells whose truth is linear in the traits."""
    users, requests, providers = shape
    generator = np.random.default_rng(0)
    traits = np.clip(generator.normal(3.3, 0.6, (users, 5)), 1, 5)
    slopes = generator.normal(0, 0.05, (1, providers, 5)) + generator.normal(
        0, 0.03, (requests, providers, 5)
    )
    truth = 0.5 + np.einsum("kf,rlf->krl", (traits - 3.3) / 0.6, slopes)
    answers = np.clip(truth + generator.normal(0, 0.05, shape), 0, 1)
    answers[generator.random(shape) >= share] = np.nan

    def clock(what: str, work: Callable[[], object]) -> object:
        start, busy = time.perf_counter(), time.process_time()
        result = work()
        print(
            f"{shape} {share:.0%} asked: {what} {time.perf_counter() - start:.2f} s, "
            f"{time.process_time() - busy:.2f} s of CPU, peak "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB",
            flush=True,
        )
        return result

    model = clock("fit", lambda: fit_model(answers, traits))
    assert isinstance(model, QoEModel)
    clock("predict", model.users)
    unasked = np.isnan(answers)
    clock("next 4,096", lambda: next_questions(model, unasked, 4096, "decision"))


def main() -> None:
    """Print everything and write the curves."""
    parser = argparse.ArgumentParser(description="Value of choices by the share asked.")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of AGIQA-3K")
    parser.add_argument("--output", type=Path, required=True, help="folder for the CSV files")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", help="standin_300, standin_5000, agiqa3k or million")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    problems: dict[str, Callable[[], Problem]] = {
        "standin_300": lambda: stand_in(300, 0.12),
        "standin_5000": lambda: stand_in(5000, 0.01),
        "agiqa3k": lambda: agiqa3k(arguments.data, 0.35),
    }
    for name, make in problems.items():
        if arguments.only in (None, name):
            compare(name, make(), arguments.draws, arguments.output)
    if arguments.only in (None, "million"):
        for shape, share in (((5000, 50, 4), 0.1), ((41_667, 6, 4), 0.1), ((1000, 100, 10), 0.1)):
            million(shape, share)


if __name__ == "__main__":
    main()
