"""What choices are worth by the share of the questions that were asked.

    python benchmarks/ask_less.py --output results/ [--draws 20] [--only standin_300]
    python benchmarks/ask_less.py --output results/ --table RUN/table.npz --people users.csv

For the strategies ``random``, ``variance`` and ``decision``, over draws (seeds of the questions;
the answers are the same), mean and central 90 % of the draws:

- ``standin_300``, ``standin_5000``: users x 6 requests x 4 providers of the stand-in (the embedded
  psychometric judge, no language model; women 21-40, seed 3, noise .3). The value is the share of
  what personal choice gains on the true QoE over the best single provider, one provider a user.
- ``agiqa3k``: real answers of five vision-language models to 200 requests x 10 providers, judges as
  users. The value is people's mean opinion score (0-5) of the provider chosen for each request by
  what the judges have in common. Coverage is of the judges' answers that were not asked.

- ``table``: a table of a judge that was asked everything, and its users. The value is as for the
  stand-in, by the judge's own answers.

``coverage`` fits the model to answers drawn at random and tells what share of the others lies in
its 90 % intervals. The last lines time a million cells: fitting, predicting, and choosing the next
4,096 questions.
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

SIZES = (24, 48, 96, 192, 384, 768, 1536)  # answers, for the coverage


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
    return Problem(tables[0], people.traits, "user", gain(tables[1]), share)


def gain(truth: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of providers chosen for users: the share of what personal choice gains, QoE [K, R, L]."""
    true = truth.mean(1)
    single, best = true.mean(0).max(), true.max(1).mean()

    def value(chosen: np.ndarray) -> float:
        return float((true[np.arange(len(true)), chosen].mean() - single) / (best - single))

    return value


def asked_in_full(table: Path, people: Path, share: float) -> Problem:
    """A judge that was asked everything."""
    answers = QoETable.load(table).mean
    return Problem(answers, Population.from_csv(people).traits, "user", gain(answers), share)


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


def coverage(name: str, problem: Problem, sizes: tuple[int, ...], draws: int) -> None:
    """Print what the 90 % intervals hold of the answers that were not given, mean and standard
    error over draws of those that were, and the lowest and highest of the draws."""
    known = np.flatnonzero(~np.isnan(problem.answers))
    flat = problem.answers.reshape(-1)
    for size in sizes:
        held = []
        for seed in range(draws):
            chosen = np.random.default_rng(seed).permutation(known)[:size]
            given = np.full(len(flat), np.nan)
            given[chosen] = flat[chosen]
            model = fit_model(given.reshape(problem.answers.shape), problem.traits)
            low, high = (ends.reshape(-1) for ends in model.users().interval())
            rest = np.setdiff1d(known, chosen)
            held.append(((flat >= low) & (flat <= high))[rest].mean())
        error = np.std(held, ddof=1) / np.sqrt(draws)
        print(
            f"coverage {name}: {size} answers {np.mean(held):.3f} ± {error:.3f} "
            f"[{min(held):.3f}, {max(held):.3f}]",
            flush=True,
        )


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
    parser.add_argument("--table", type=Path, help="table.npz of a judge asked in full")
    parser.add_argument("--people", type=Path, help="its users, as CSV")
    parser.add_argument("--share", type=float, default=0.5, help="of that table, asked at most")
    parser.add_argument(
        "--only", help="standin_300, standin_5000, agiqa3k, table, coverage or million"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    problems: dict[str, Callable[[], Problem]] = {
        "standin_300": lambda: stand_in(300, 0.12),
        "standin_5000": lambda: stand_in(5000, 0.01),
        "agiqa3k": lambda: agiqa3k(arguments.data, 0.35),
    }
    if arguments.table is not None:
        problems["table"] = lambda: asked_in_full(
            arguments.table, arguments.people, arguments.share
        )
    for name, make in problems.items():
        if arguments.only in (None, name):
            compare(name, make(), arguments.draws, arguments.output)
        if arguments.only in (None, "coverage") and name != "standin_5000":
            problem = make()
            fitting = tuple(n for n in SIZES if n <= 0.7 * np.isfinite(problem.answers).sum())
            coverage(name, problem, fitting, arguments.draws)
    if arguments.only in (None, "million"):
        for shape, share in (((5000, 50, 4), 0.1), ((41_667, 6, 4), 0.1), ((1000, 100, 10), 0.1)):
            million(shape, share)


if __name__ == "__main__":
    main()
