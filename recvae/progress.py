"""Progress of long work on standard error: a bar on a terminal, plain lines in a log, nothing unless asked for."""

import contextlib
import io
import sys
import time
from types import TracebackType
from typing import Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


def write_line(line: str) -> None:
    """Write a line to standard error, or nothing where it cannot be written.

    A log on a full disk, or a reader that has gone away, must not end hours of work.
    """
    stream = _LenientStream(sys.stderr)
    stream.write(f"{line}\n")
    stream.flush()


class _LenientStream(io.TextIOBase):
    """A stream whose errors of writing are ignored; see `write_line`.

    Parameters
    ----------
    stream : text stream, optional
        Python has None for standard error if the process was started without one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = io.StringIO() if stream is None else stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"  # bars are of ASCII characters where there are no others

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()


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
        self._console = Console(file=cast("TextIO", _LenientStream(sys.stderr)))
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
        """Show that `done` epochs are done, and their figures."""
        text = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        narrow = " ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._bar.update(self._task, completed=done, figures=narrow)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= SECONDS_BETWEEN_LINES or done in (self.start + 1, self.total)):
            self._last_line = now
            left = (now - self._started) / (done - self.start) * (self.total - done)
            write_line(f"{self.title}: {self.unit} {done}/{self.total}{text}  {left:.0f} s left")
