"""The commands anomalies and sample, from the command line."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recvae.cli import main as cli
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from tests.contracts import one_thread as one_thread
from tests.models.generative.test_anomaly import COMMON, draw_users, fit

pytestmark = pytest.mark.usefixtures("one_thread")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["recvae", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_made_up_users_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, users, out = tmp_path / "model", tmp_path / "users.parquet", tmp_path / "anomalies.parquet"
    registry.save(fit(MultVAE(hidden=16, epochs=5, **COMMON)), model)
    assert run(monkeypatch, "sample", model, "--users", 30, "--out", users, "--seed", 1) == 0
    assert run(monkeypatch, "anomalies", model, "--users", users, "--out", out, "--level", 0.05) == 0
    assert "of 30 users are unusual at level 0.05" in capsys.readouterr().out
    assert len(pq.read_table(out)) == 30
    assert run(monkeypatch, "anomalies", model, "--users", users, "--out", out, "--level", 2) == 2
    assert capsys.readouterr().err == "recvae: level is 2; expected a number between 0 and 1\n"
    assert run(monkeypatch, "sample", model, "--users", 0, "--out", users) == 2
    assert capsys.readouterr().err.startswith("recvae: users is 0; expected a whole number of at least 1")
    assert draw_users(1, seed=0).shape[1] == len(registry.load(model).items)
