"""A log gets a line of progress a minute; a terminal gets bars and no lines."""

from io import StringIO

import pytest
from rich.console import Console
from rich.progress import TextColumn

from rlli_jax import progress
from rlli_jax.experiments.sweeps import run
from rlli_jax.experiments.training import training_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: the attribute ``now``."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def columns():
    return TextColumn("{task.description} {task.completed:.0f} of {task.total}")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_gets_a_line_a_minute(clock, terminal):
    file = StringIO()
    console = Console(file=file, force_terminal=terminal, width=60)
    with progress.LoggedProgress(columns(), console=console, auto_refresh=False) as bars:
        finished = bars.add_task("first", total=1)
        bars.update(finished, completed=1)
        task = bars.add_task("second", total=100)
        for second in range(0, 150, 10):
            clock.now = float(second)
            bars.update(task, advance=1)
            assert finished in bars.task_ids
        written = file.getvalue()
    if not terminal:
        lines = [line.rstrip() for line in written.splitlines()]
        assert lines == ["second 7 of 100", "second 13 of 100"]
    else:
        assert "second 7 of 100" not in written


def test_training_and_sweeps_write_such_lines(clock):
    assert isinstance(training_progress(Console(file=StringIO())), progress.LoggedProgress)
    assert run.LoggedProgress is progress.LoggedProgress


def test_advancing_counts_too(clock):
    file = StringIO()
    with progress.LoggedProgress(columns(), console=Console(file=file, width=60)) as bars:
        task = bars.add_task("runs", total=10)
        clock.now = 61.0
        bars.advance(task, 4)
        assert file.getvalue().strip() == "runs 4 of 10"
