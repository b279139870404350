"""The regret table: drawing of settings, the search's order, and what the page says."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import regret
from benchmarks.regret_table import tabulate
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from tests.benchmarks.test_quality import prepared

__all__ = ["prepared"]

SPACE: SearchSpace = {"l2": RealRange(1.0, 1000.0), "p": RealRange(0.0, 1.0, log=False), "K": WholeRange(10, 500)}


def test_settings_are_drawn_within_the_space() -> None:
    drawn = [regret.draw(SPACE, np.random.default_rng(i), None) for i in range(200)]
    assert all(1 <= d["l2"] <= 1000 and 0 <= d["p"] <= 1 and 10 <= d["K"] <= 500 for d in drawn)
    assert all(isinstance(d["K"], int) for d in drawn)
    assert 0.4 < np.mean([d["l2"] < 1000**0.5 for d in drawn]) < 0.6


def test_settings_around_the_best_are_near_it() -> None:
    best = {"l2": 30.0, "p": 0.5, "K": None}
    drawn = [regret.draw(SPACE, np.random.default_rng(i), best) for i in range(200)]
    assert abs(np.mean([d["p"] for d in drawn]) - 0.5) < 0.05
    assert abs(np.median([d["l2"] for d in drawn]) - 30) < 8
    assert np.std([d["K"] for d in drawn]) > 50  # unknown of the best, so drawn anywhere


def test_the_search_of_a_set(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--data", str(prepared), "--out", str(tmp_path), "--keep", str(tmp_path / "keep")]
    command = ["regret", "--sets", "gowalla", "--models", "popularity,cosine", "--users", "50", *places]
    monkeypatch.setattr(sys, "argv", [*command, "--trials", "2"])
    regret.main()
    assert "cosine     trial 1" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--trials", "3"])
    regret.main()
    assert "trial 1 " not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command[:3], "--models", "tfidf", *command[5:], "--trials", "1"])
    regret.main()
    rows = json.loads((tmp_path / "regret.json").read_text(encoding="utf8"))["rows"]
    popularity, tfidf, cosine = sorted(rows, key=lambda row: row["trials"])  # those of before stay
    assert tfidf["model"] == "tfidf"
    page = (tmp_path / "regret.md").read_text(encoding="utf8")
    for models, trials in (("popularity,cosine", 3), ("tfidf", 1)):
        assert f"`python -m benchmarks.regret --sets gowalla --models {models} --trials {trials} --users 50`" in page
    assert "best" not in popularity
    assert cosine["trials"] == 3
    assert cosine["best"]["params"].keys() == {"K"}
    for side in ("validation", "test"):
        share = 1 - cosine["default"][side] / cosine["best"][side]
        assert cosine[f"regret_{side}"]["share"] == pytest.approx(share)


def row(model: str, default: float, best: float, stderr: float) -> dict[str, Any]:
    figures = {"validation": default, "test": default, "fit_seconds": 1.0}
    regrets = {"share": 1 - default / best, "stderr": stderr}
    return {
        "data": "lastfm",
        "model": model,
        "failed": "",
        "command": "python -m benchmarks.regret",
        "trials": 30,
        "seconds": 60.0,
        "default": figures,
        "best": {**figures, "test": best, "validation": best},
        "regret_validation": regrets,
        "regret_test": regrets,
    }


def test_the_page_says_what_is_wrong() -> None:
    rows = [row("ease", 0.40, 0.41, 0.02), row("recvae", 0.20, 0.40, 0.01), row("als", 0.40, 0.40, 0.01)]
    popularity = {"data": "lastfm", "model": "popularity", "failed": "", "trials": 0, "seconds": 1.0}
    popularity["command"] = "python -m benchmarks.regret"
    popularity["default"] = {"validation": 0.3, "test": 0.3, "fit_seconds": 0.0}
    page = tabulate({"metric": "ndcg@100", "rows": [*rows, popularity]})
    assert "| recvae | 50.0 ±1.0 |" in page
    assert "1 of 3 cells have a regret of at most 2% on test users; of the 2 others 1 are above" in page
    assert "two standard errors (recvae on lastfm)." in page
    assert "Defaults below popularity on test users: 1 (recvae on lastfm)." in page
