"""Progress on a standard error that cannot be written to: the work goes on."""

import errno
import io
import sys

import numpy as np
import pytest
from scipy import sparse

from recvae.models.autoencoders.multvae import MultVAE
from recvae.progress import EpochProgress, write_line


class Broken(io.StringIO):
    """A stream whose every write fails, as on a full disk or after the reader has closed a pipe."""

    def __init__(self, number: int, terminal: bool) -> None:
        super().__init__()
        self.number, self.terminal, self.tried = number, terminal, 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(self.number, "cannot be written")

    def flush(self) -> None:
        raise OSError(self.number, "cannot be flushed")

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(params=[errno.ENOSPC, errno.EPIPE], ids=["full", "closed pipe"])
def number(request: pytest.FixtureRequest) -> int:
    error: int = request.param
    return error


@pytest.mark.parametrize("terminal", [False, True])
def test_training_goes_on(number: int, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream = Broken(number, terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    model = MultVAE(hidden=4, latent=2, epochs=3).fit(sparse.csr_matrix(np.eye(6, dtype=np.float32)))
    assert len(model.history_) == 3
    assert stream.tried > 0


def test_a_line_is_lost(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken(number, terminal=False)
    monkeypatch.setattr(sys, "stderr", stream)
    write_line("hello")
    assert stream.tried == 1


def test_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    write_line("hello")
    with EpochProgress("work", 2, show=True) as progress:
        progress.update(1, {"loss": 1.0})


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    write_line("hello")
    with EpochProgress("work", 2, show=True) as progress:
        progress.update(1, {"loss": 1.0})


def test_lines_of_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with EpochProgress("work", 2, show=True, unit="row") as progress:
        progress.update(1, {"loss": 1.0})
    assert capsys.readouterr().err.startswith("work: row 1/2  loss 1  ")
