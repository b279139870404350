"""Show how long work is getting on: a bar on a terminal, plain lines in a log, nothing when not asked for."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class EpochProgress:
    """Progress over epochs, or over another unit, on standard error.

    Parameters
    ----------
    title : str
    total : int
        Epochs in all.
    show : bool
    start : int
        Epochs that an earlier run has done.
    unit : str
    """

    def __init__(self, title: str, total: int, show: bool, start: int = 0, unit: str = "epoch") -> None:
        self.title, self.total, self.start, self.unit = title, total, start, unit
        self._console = Console(stderr=True)
        self._lines = show and not self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not (show and self._console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task(self.title, total=self.total, completed=self.start, figures="")
        self._started = self._last_line = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int, figures: dict[str, float]) -> None:
        """Report `done` epochs and their figures."""
        text = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        narrow = " ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._bar.update(self._task, completed=done, figures=narrow)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= SECONDS_BETWEEN_LINES or done in (self.start + 1, self.total)):
            self._last_line = now
            left = (now - self._started) / (done - self.start) * (self.total - done)
            sys.stderr.write(f"{self.title}: {self.unit} {done}/{self.total}{text}  {left:.0f} s left\n")
