"""The benchmark of new items: every way is compared on the same cold items, and the page is written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import cold_items
from benchmarks.cold_items import Data
from recvae.data.interactions import Interactions
from recvae.datasets.synthetic import generate


def read_small(_: object) -> Iterator[tuple[str, Data]]:
    made_up = generate(120, 150)
    assert made_up.items is not None
    items = made_up.items.assign(year=pd.to_numeric(made_up.items["title"].str[-5:-1])).drop(columns="title")
    yield "small", Data(Interactions.from_frame(made_up.ratings[["user_id", "item_id"]]), items, "genres")


def test_every_way_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_items, "MODEL_NAMES", ("popularity", "ease"))
    monkeypatch.setattr(cold_items, "read_data", read_small)
    cold_items.main(["--out", str(tmp_path)])
    found = json.loads((tmp_path / "cold_items.json").read_text())["data_sets"]["small"]
    assert found["n_cold"] == 30
    figures = {way: entry["metrics"]["ndcg@100"]["mean"] for way, entry in found["models"].items()}
    assert list(figures) == [
        "random",
        "popularity in genres",
        "nearest features",
        "EASE with side information",
        "popularity, mapped",
        "ease, mapped",
    ]
    assert figures["ease, mapped"] > figures["random"]
    without, alone, stretched = found["beside_known"]
    assert without["share"] == 0
    assert alone["share"] <= stretched["share"] < 0.5
    page = (tmp_path / "cold_items.md").read_text()
    assert "| ease, mapped |" in page
    assert "| ease | stretched |" in page
