"""The table of defaults on a hundred users."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import hundred_users
from recvae.datasets.synthetic import generate
from recvae.preparation.pipeline import Options, prepare


def test_what_is_below_popularity_is_named() -> None:
    good = dict.fromkeys(hundred_users.NAMES, 0.25)
    found = {"plays": [good, {**good, "recvae": 0.05}], "orders": [good]}
    text = hundred_users.markdown(found, "command", "a machine")
    assert "| recvae | 0.1500 | 0.2500 |" in text.splitlines()
    assert text.endswith("Below popularity: recvae on plays, sample 2 (0.0500, popularity 0.2500).\n")
    text = hundred_users.markdown({"plays": [good]}, "command", "a machine")
    assert text.endswith("Below popularity: no model on any sample.\n")


def test_models_are_fitted_on_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(n_users=200, n_items=40, seed=1).ratings.to_csv(tmp_path / "plays.csv", index=False)
    prepare(tmp_path / "plays.csv", tmp_path / "prepared" / "plays", Options(split="strong", val_users=5, test_users=5))
    monkeypatch.setattr(hundred_users, "NAMES", ["popularity", "ease", "recvae"])
    folders = ["--data", str(tmp_path / "prepared"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["hundred_users", "--sets", "plays", "--samples", "1", *folders])
    hundred_users.main()
    (found,) = json.loads((tmp_path / "hundred_users.json").read_text(encoding="utf8"))["data"]["plays"]
    assert min(found["ease"], found["recvae"]) > found["popularity"] > 0
    assert "| ease | " in (tmp_path / "hundred_users.md").read_text(encoding="utf8")


def test_a_data_set_that_there_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["hundred_users", "--sets", "nope", *folders])
    with pytest.raises(SystemExit, match="not run: nope is neither a file"):
        hundred_users.main()
