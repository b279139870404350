"""The table of what is chosen by few validation users."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import few_users
from recvae.datasets.synthetic import generate
from recvae.preparation.pipeline import Options, prepare


def sample(chosen: str, highest: float, own: float) -> dict[str, Any]:
    return {"chosen": chosen, "test": {"chosen": own, "highest": highest, "best": max(own, highest)}}


def test_gains_by_hand() -> None:
    samples = [sample("blend", 0.2, 0.22), sample("ease", 0.4, 0.4), sample("als", 0.3, 0.27)]
    assert few_users.list_gains(samples) == pytest.approx([0.1, 0, -0.1])
    lines = few_users.markdown({"plays": samples}, "command", "a machine").splitlines()
    assert "| plays | 0.3000 | 0.2967 | 0.3067 | blend, ease, als | +10.0%, +0.0%, -10.0% |" in lines
    assert "Of 3 samples 1 gain and 1 lose; median +0.0%." in lines


def test_samples_are_fitted_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(n_users=300, n_items=60, seed=1).ratings.to_csv(tmp_path / "plays.csv", index=False)
    prepare(tmp_path / "plays.csv", tmp_path / "prepared" / "plays", Options(split="strong", val_users=5, test_users=5))
    monkeypatch.setattr(few_users, "LEARN_FROM", 100)
    monkeypatch.setattr(few_users, "CHOOSE_BY", 30)
    options = ["--sets", "plays", "--samples", "1", "--budget", "5"]
    monkeypatch.setattr(
        sys, "argv", ["few_users", *options, "--data", str(tmp_path / "prepared"), "--out", str(tmp_path)]
    )
    few_users.main()
    (found,) = json.loads((tmp_path / "few_users.json").read_text(encoding="utf8"))["data"]["plays"]
    assert found["test"]["best"] >= max(found["test"]["chosen"], found["test"]["highest"]) > 0
    assert found["test_users"] > 100
    assert "| plays | " in (tmp_path / "few_users.md").read_text(encoding="utf8")


def test_a_data_set_that_there_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["few_users", "--sets", "nope", "--data", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="not run: nope is neither a file"):
        few_users.main()
