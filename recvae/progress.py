"""Progress of long work on standard error: a bar on a terminal, plain lines in a log, nothing unless asked for."""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from recvae.errors import escape_control_characters

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


class StatusLine:
    """The state of work in steps of unknown length, on standard error.

    On a terminal, a line at the bottom is kept up to date and gives way to lines that stay. In a log it is written at
    most every ten seconds.

    Parameters
    ----------
    show : bool
    suffix : callable
        Gives what stands behind the text at any moment, such as the time left.
    """

    def __init__(self, show: bool, suffix: Callable[[], str]) -> None:
        self.suffix = suffix
        self._doing = ""
        self._console = Console(file=cast("TextIO", _LenientStream(sys.stderr)), highlight=False)
        self._shows, self._on_terminal = show, show and self._console.is_terminal
        self._last_line = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_terminal:
            self._doing = ""
            self._live.stop()

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if self._shows:
            self._last_line = time.monotonic()
            self._console.print(Text(escape_control_characters(line)), soft_wrap=True)

    def show(self, doing: str) -> None:
        """Show what is being done."""
        self._doing = doing
        if self._shows and not self._on_terminal and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self.say(f"{doing}  {self.suffix()}")

    def _render(self) -> Text:
        text = f"{self._doing}   {self.suffix()}" if self._doing else ""
        return Text(escape_control_characters(text), style="dim", no_wrap=True, overflow="ellipsis")
