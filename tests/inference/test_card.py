"""The card of a model: what it says, for models of every kind, and that all of it is JSON."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recvae import workflow
from recvae.datasets.synthetic import generate
from recvae.inference.card import describe_artifact, format_card
from recvae.models import registry
from recvae.models.base import Recommender
from recvae.models.factorization import BPR
from recvae.models.popularity import Popularity
from recvae.preparation.pipeline import Options, prepare
from recvae.preparation.weights import WeightOptions
from tests.contracts import random_interactions

N_ITEMS = 25


def card_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    card = describe_artifact(registry.load(path, frozen=True))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    return card, list(format_card(card))


def save(path: Path, model: Recommender, **content: Any) -> None:
    registry.save(model.fit(random_interactions(40, N_ITEMS), show_progress=False), path, **content)


def test_a_trained_model(tmp_path: Path) -> None:
    prepare(generate(60, 40), tmp_path / "data", Options(weights=WeightOptions(repeats="sum")))
    workflow.train(tmp_path / "data", tmp_path / "model", "ease", params={"l2": 7.0})
    card, lines = card_of(tmp_path / "model")
    assert card["model"] == "EASE"
    assert card["settings"]["l2"] == 7
    assert card["data"]["protocol"]["split"] == "strong"
    assert card["catalogue"]["columns"]["item_id"] == "number"
    assert card["users"] == 60
    assert lines[0].startswith("EASE, trained 20")
    assert any(line.startswith("settings: l2 7") for line in lines)
    assert any(line.startswith("validation: recall@20 ") and " ± " in line for line in lines)
    assert "limit: was trained on weights; its figures are binary: an item was found or not" in lines
    assert any("figures of validation users only" in line for line in lines)


def test_figures_of_the_whole_catalogue_have_no_standard_error(tmp_path: Path) -> None:
    figures = {"ndcg@10": {"mean": 0.25, "stderr": 0.01}, "coverage@10": {"mean": 0.5, "stderr": None}, "note": "none"}
    save(tmp_path / "model", Popularity(), metrics={"test": figures})
    assert "test: ndcg@10 0.2500 ± 0.0100  coverage@10 0.5000  note none" in card_of(tmp_path / "model")[1]


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (BPR(factors=2, iterations=1), "ranks only for users it was trained on; new users get the popular items"),
        (Popularity(), "has no figures: nothing was measured when it was saved"),
        (Popularity(), "was saved without users, so it ranks by histories, not by user ids"),
    ],
    ids=repr,
)
def test_limits(tmp_path: Path, model: Recommender, limit: str) -> None:
    save(tmp_path / "model", model)
    card, lines = card_of(tmp_path / "model")
    assert limit in card["limits"]
    assert f"limit: {limit}" in lines
    assert "data: unknown" in lines


def test_items_and_unusual_metrics(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": range(N_ITEMS), "title": ["x"] * 20 + [None] * 5, "tags": [["a"]] * N_ITEMS})
    save(tmp_path / "model", Popularity(), items=items, metrics={"test": {"recall@5": {"mean": 0.5}}, "note": "good"})
    card, lines = card_of(tmp_path / "model")
    assert card["catalogue"] == {
        "items": N_ITEMS,
        "titles": 20,
        "columns": {"item_id": "number", "tags": "text", "title": "text"},
    }
    assert "items: 25, 20 with a title; columns: item_id (number), tags (text), title (text)" in lines
    assert "test: recall@5 0.5000 ± 0.0000" in lines
    assert "note: good" in lines


def test_a_model_of_the_first_version() -> None:
    for path in sorted((Path(__file__).parents[1] / "fixtures" / "v0_1_0").iterdir()):
        if (path / "model.safetensors").exists():
            card_of(path)
