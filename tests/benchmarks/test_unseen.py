"""The table of data that no setting was chosen on."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import unseen
from recvae.datasets.synthetic import generate


def test_each_file_of_a_folder_is_prepared_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(n_users=150, n_items=50, seed=1).ratings.to_csv(tmp_path / "plays.csv", index=False)
    (tmp_path / "notes.txt").write_text("no table", encoding="utf8")
    out, keep = tmp_path / "out", tmp_path / "keep"
    options = ["--models", "popularity,ease", "--fit", "0", "--keep", str(keep), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["unseen", str(tmp_path), *options])
    out.mkdir()
    other = {
        "data": "other",
        "counts": {"users": 5, "items": 1234, "interactions": 20, "test users": 2},
        "ndcg@100": {"als": {"mean": 0.29}, "ease": {"mean": 0.3}, "popularity": {"mean": 0.1}},
        "as_good_as_the_best": ["als", "ease"],
        "command": "another command",
        "machine": {"cpu": "another machine", "cores": 8},
    }
    (out / "unseen.json").write_text(json.dumps({"rows": [other]}), encoding="utf8")
    unseen.main()
    found = json.loads((out / "unseen.json").read_text(encoding="utf8"))["rows"]
    assert [row["data"] for row in found] == ["other", "plays"]
    assert found[0] == other
    assert set(found[1]["ndcg@100"]) == {"popularity", "ease"}
    text = (out / "unseen.md").read_text(encoding="utf8")
    command = "python -m benchmarks.unseen FOLDER --fit 0 --models popularity,ease"
    assert f"Made by `another command` on another machine, 8 cores and `{command}` on " in text
    lines = text.splitlines()
    assert "| data | users | items | interactions | test users | als | ease | popularity |" in lines
    assert lines[-2] == "| other | 5 | 1,234 | 20 | 2 | **.2900** | **.3000** | .1000 |"
    assert lines[-1].startswith("| plays | 150 | 50 | ")
    assert " |  | **." in lines[-1]  # ALS was not run
