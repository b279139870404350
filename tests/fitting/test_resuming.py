"""Ctrl-C in a fit, in Python and on the command line, and going on with the search."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recvae
from recvae.errors import ParameterError
from recvae.fitting import fit as module
from recvae.fitting.search import Search
from recvae.models import registry
from recvae.models.linear.ease import EASE
from tests.fitting.test_fit import QUICK, SOURCE


def interrupt_at(number: int) -> Callable[..., bool]:
    """Make a first round in which Ctrl-C comes before the given candidate."""
    original, seen = Search._try_defaults, list[str]()

    def try_defaults(self: Search, name: str, at_once: bool = True) -> bool:
        seen.append(name)
        if len(seen) == number:
            raise KeyboardInterrupt
        return original(self, name, at_once)

    return try_defaults


def test_ctrl_c_gives_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Search, "_try_defaults", interrupt_at(3))
    fitted = recvae.fit(SOURCE.ratings, out=tmp_path / "model", **{**QUICK, "show_progress": True})
    assert fitted.results is not None
    assert fitted.results["search"]["interrupted"]
    assert set(fitted.results["models"]) == {"popularity", "bm25"}
    said = f"interrupted: the best so far, {fitted.name}, is fitted on everything"
    err = capsys.readouterr().err
    assert said in err
    assert f"{tmp_path / 'model.search'} keeps the search; the same command with --resume goes on" in err
    assert "The search was interrupted" in (tmp_path / "model.report" / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.report", "model.search"]

    monkeypatch.undo()
    fitted = recvae.fit(SOURCE.ratings, out=tmp_path / "model", **QUICK, resume=True)
    assert fitted.results is not None
    assert not fitted.results["search"]["interrupted"]
    assert set(fitted.results["models"]) > {"popularity", "bm25"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.report"]


def test_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    options = {**QUICK, "show_progress": True, "out": tmp_path / "model"}
    with monkeypatch.context() as patched:
        patched.setattr(EASE, "_fit", stop)
        patched.setattr(module._Run, "_finish", stop)  # the second Ctrl-C
        with pytest.raises(KeyboardInterrupt):
            recvae.fit(SOURCE.ratings, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["model.search"]

    with pytest.raises(ParameterError, match=r"model.search is of a search with metric 'ndcg@10', not 'ndcg@20'"):
        recvae.fit(SOURCE.ratings, **options, metric="ndcg@20", resume=True)
    with pytest.raises(ParameterError, match=r"model.search is of a search with data "):
        recvae.fit(SOURCE.ratings, **options, min_rating=4, resume=True)

    capsys.readouterr()
    fitted = recvae.fit(SOURCE.ratings, **options, resume=True)
    said = capsys.readouterr().err
    assert "resumed: 2 candidates, " in said
    defaults = [line for line in said.splitlines() if not line.endswith(")")]
    assert not any(line.startswith(("popularity ", "bm25 ")) for line in defaults)
    assert fitted.results is not None
    assert set(fitted.results["models"]) == {"popularity", "bm25", "ease"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.report"]


def test_resume_without_a_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recvae.fit(SOURCE.ratings, out=tmp_path / "model", **{**QUICK, "show_progress": True}, resume=True)
    assert "model.search has no state yet; the search starts from the beginning" in capsys.readouterr().err


PROGRAM = """
import sys, time
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from recvae.cli.main import main

def slow(*_, **__):
    print("slow", flush=True)
    time.sleep(60)

EASE._fit = slow
if "twice" in sys.argv:
    sys.argv.remove("twice")
    Popularity.refit = slow
main()
"""


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_on_the_command_line(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, twice: bool) -> None:
    plays = tmp_path_factory.mktemp("data") / "plays.csv"
    SOURCE.ratings.to_csv(plays, index=False)
    line = ["fit", str(plays), "--out", str(tmp_path / "model"), "--models", "popularity,ease"]
    command = [sys.executable, "-c", PROGRAM, *line, "--budget", "10m", *(["twice"] if twice else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        for _ in range(1 + twice):
            assert process.stdout.readline() == "slow\n"
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "interrupted: the best so far, popularity, is fitted on everything; Ctrl-C again ends at once" in err
    if twice:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "recvae: interrupted; continue with the same command and --resume"
        assert [path.name for path in tmp_path.iterdir()] == ["model.search"]
        assert json.loads((tmp_path / "model.search" / "search.json").read_text())["trials"][0]["name"] == "popularity"
    else:
        assert process.returncode == 0
        assert "saved " in out
        assert registry.load(tmp_path / "model").manifest["class"] == "Popularity"
