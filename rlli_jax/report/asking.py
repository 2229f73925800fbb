"""What was asked and what was predicted: ``asking.json`` of a run directory."""

from dataclasses import dataclass
from pathlib import Path

from rlli_jax.report.data import Run, read, read_json
from rlli_jax.report.labels import number, percent

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


def load(run: Run) -> AskingView | None:
    """What the run directory says; None where everything was asked."""
    path = run.path / "asking.json"
    return read(path, _view) if path.exists() else None


def _view(path: Path) -> AskingView:
    found = read_json(path)
    cells, asked, rated = (int(found[key]) for key in ("cells", "asked", "rated"))
    checks, covered = int(found["checks"]), int(found["covered"])
    coverage = "not checked"
    if checks:
        low, high = map(float, found["coverage_interval"])
        coverage = (
            f"{covered} of {checks} ({percent(covered / checks)}; 95 % interval "
            f"{percent(low)} to {percent(high)})"
        )
    return AskingView(
        asked=f"{asked:,} of {cells:,} ({percent(asked / cells)})",
        predicted=f"{cells - asked:,} ({percent(1 - asked / cells)})",
        measures=[
            ("Cells asked", f"{asked:,} of {cells:,} ({percent(asked / cells)})"),
            ("Cells saved", f"{cells - asked:,} ({percent(1 - asked / cells)})"),
            ("Asked without a rating", f"{asked - rated:,}"),
            ("Questions chosen", STRATEGIES[str(found["strategy"])]),
            ("What they decide", CHOICES[str(found["choice"])]),
            ("Stopped because", str(found["stopped"])),
            ("Loss of choices to expect", f"{number(float(found['expected_regret']), 4)} QoE"),
            ("Random answers in the model's 90 % intervals", coverage),
            ("Standard deviation of a cell, mean", number(float(found["mean_sd"]), 3)),
            ("Standard deviation of the judge's noise", number(float(found["noise_sd"]), 3)),
        ],
    )
