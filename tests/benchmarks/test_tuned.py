"""The table of `recvae fit` beside the best single model of a search."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import regret, tuned
from tests.benchmarks.test_quality import prepared

__all__ = ["prepared"]


def test_the_best_trial_of_all_models_is_compared(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--data", str(prepared), "--out", str(tmp_path), "--keep", str(tmp_path / "keep")]
    options = ["--sets", "gowalla", "--users", "50", *places]
    monkeypatch.setattr(sys, "argv", ["tuned", *options])
    with pytest.raises(SystemExit, match="no trials are in"):
        tuned.main()
    monkeypatch.setattr(sys, "argv", ["regret", *options, "--models", "popularity,cosine", "--trials", "2"])
    regret.main()
    monkeypatch.setattr(sys, "argv", ["tuned", *options, "--budget", "5"])
    capsys.readouterr()
    tuned.main()
    page = capsys.readouterr().out
    assert page.strip() == (tmp_path / "tuned.md").read_text(encoding="utf8").strip()
    file = tmp_path / "tuned.json"
    (row,) = json.loads(file.read_text(encoding="utf8"))["rows"]
    kept = [json.loads(path.read_text(encoding="utf8")) for path in (tmp_path / "keep" / "gowalla").glob("*.json")]
    best = max(kept, key=lambda trial: trial["validation"])
    single = row["single"]
    assert (single["validation"], single["test"], single["models"]) == (best["validation"], best["test"], 2)
    assert single["trials"] == (2 if single["model"] == "cosine" else 0)
    assert row["difference"]["mean"] == pytest.approx(row["fit"]["test"] - single["test"])
    assert np.isfinite(row["difference"]["stderr"])
    assert f"{row['difference']['mean'] / single['test']:+.1%}" in page
    other = {**row, "data": "other", "command": "another command"}
    file.write_text(json.dumps({"rows": [other]}), encoding="utf8")
    tuned.main()
    assert json.loads(file.read_text(encoding="utf8"))["rows"] == [other, row]
    page = capsys.readouterr().out
    assert "\n    another command\n    python -m benchmarks.tuned " in page
    assert "\n| other | " in page
