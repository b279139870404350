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
    unseen.main()
    found = json.loads((out / "unseen.json").read_text(encoding="utf8"))["data"]
    assert set(found) == {"plays"}
    assert set(found["plays"]["ndcg@100"]) == {"popularity", "ease"}
    text = (out / "unseen.md").read_text(encoding="utf8")
    assert "| | plays |" in text
    assert f"{found['plays']['ndcg@100']['ease']['mean']:.4f}" in text


def test_a_row_that_is_not_significantly_behind_the_best_is_bold() -> None:
    counts = {"users": 5, "items": 1234, "interactions": 20, "test users": 2}
    figures = {"ease": {"mean": 0.3}, "als": {"mean": 0.29}, "popularity": {"mean": 0.1}}
    found = {
        "plays": {"counts": counts, "ndcg@100": figures, "as_good_as_the_best": ["als", "ease"]},
        "more": {"counts": counts, "ndcg@100": {"ease": {"mean": 0.2}}, "as_good_as_the_best": ["ease"]},
    }
    lines = unseen.markdown(found, "command", "a machine").splitlines()
    assert "| items | 1,234 | 1,234 |" in lines
    assert lines[-3:] == [
        "| ease | **0.3000** | **0.2000** |",
        "| als | **0.2900** | not run |",
        "| popularity | 0.1000 | not run |",
    ]
