"""What was asked and what was predicted: ``asking.json`` of a run directory."""

from dataclasses import dataclass
from pathlib import Path

from rlli_jax.report.labels import number, percent
from rlli_jax.report.run import RunDirectory
from rlli_jax.report.section import of_file
from rlli_jax.run_files.answers import AskingFile

STRATEGIES = {
    "random": "drawn at random",
    "variance": "those whose answers were least sure",
    "decision": "those that most change which provider is chosen",
}
CHOICES = {
    "user": "a provider for each user",
    "user request": "a provider for each user and request",
    "request": "a provider for each request",
}


@dataclass(frozen=True)
class AskingView:
    """The section of the report, ready to print."""

    asked: str
    predicted: str
    measures: list[tuple[str, str]]


def _view(path: Path, run: RunDirectory) -> AskingView:
    found = AskingFile.read(path)
    cells, asked = found.cells, found.asked
    coverage = "not checked"
    if found.coverage_interval is not None:
        low, high = map(percent, found.coverage_interval)
        share = percent(found.covered / found.checks)
        coverage = f"{found.covered} of {found.checks} ({share}; 95 % interval {low} to {high})"
    return AskingView(
        asked=f"{asked:,} of {cells:,} ({percent(asked / cells)})",
        predicted=f"{cells - asked:,} ({percent(1 - asked / cells)})",
        measures=[
            ("Cells asked", f"{asked:,} of {cells:,} ({percent(asked / cells)})"),
            ("Cells saved", f"{cells - asked:,} ({percent(1 - asked / cells)})"),
            ("Asked without a rating", f"{asked - found.rated:,}"),
            ("Questions chosen", STRATEGIES[found.strategy]),
            ("What they decide", CHOICES[found.choice]),
            ("Stopped because", found.stopped),
            ("Loss of choices to expect", f"{number(found.expected_regret, 4)} QoE"),
            ("Random answers in the model's 90 % intervals", coverage),
            ("Standard deviation of a cell, mean", number(found.mean_sd, 3)),
            ("Standard deviation of the judge's noise", number(found.noise_sd, 3)),
        ],
    )


SECTION = of_file("asking", "asking.json", _view)
