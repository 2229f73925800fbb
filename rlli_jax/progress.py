"""Progress for people at a terminal and in a log."""

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 60.0


class LoggedProgress(Progress):
    """Bars at a terminal; elsewhere, such as in a file, what is at work as a line once a minute."""

    _logged: float | None = None

    def start(self) -> None:
        self._logged = time.monotonic()
        super().start()

    def stop(self) -> None:
        if self.live.transient and not self.console.is_terminal:
            self.live.stop()  # rich would end a line that it has not begun
        else:
            super().stop()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._log()

    def update(self, task_id: TaskID, *arguments: Any, **fields: Any) -> None:
        super().update(task_id, *arguments, **fields)
        self._log()

    def _log(self) -> None:
        now = time.monotonic()
        if self.disable or self.console.is_terminal or self._logged is None:
            return
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            at_work = [task for task in self.tasks if not task.finished]
            if at_work:
                self.console.print(self.make_tasks_table(at_work))


def counted(what: str, console: Console | None, *columns: ProgressColumn) -> LoggedProgress:
    """How many of how many are done, gone when all are; nothing is shown without a console.

    Args:
        what: stands before the task's description.
        columns: stand behind the time that remains.
    """
    return LoggedProgress(
        TextColumn(f"{what} {{task.description}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *columns,
        console=console,
        transient=True,
        disable=console is None,
    )
