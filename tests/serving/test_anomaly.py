"""POST /anomaly: answers of the library, and what it refuses."""

from pathlib import Path

import pytest

from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.linear.ease import EASE
from recvae.serving import Settings
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.http_service import N_ITEMS, item_id, save, small
from tests.serving.test_routes import Asker, row


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("anomaly") / "model"
    save(path)
    return path


@pytest.fixture(scope="module")
def ask(model: Path) -> Asker:
    return Asker(Settings(model))


def test_the_answer_is_the_library_s(model: Path, ask: Asker) -> None:
    loaded = registry.load(model)
    assert isinstance(loaded.model, MultVAE)
    answer = ask("POST", "/anomaly", json={"history": [item_id(1), item_id(7), item_id(9), "new"]}).json()
    scores, p_values = loaded.model.find_anomalies(row(1, 7, 9))
    ids, surprises = loaded.model.explain_anomaly(row(1, 7, 9), N=3)
    assert answer["score"] == pytest.approx(scores[0], abs=1e-3)
    assert answer["p_value"] == pytest.approx(p_values[0], abs=0.02)
    assert [item["id"] for item in answer["items"]] == [item_id(i) for i in ids[0]]
    assert [item["surprise"] for item in answer["items"]] == pytest.approx(surprises[0].tolist(), abs=1e-4)
    assert answer["items"][0]["title"] == loaded.items["title"][ids[0, 0]]
    assert answer["unknown"] == ["new"]
    assert answer["model"]["name"] == "MultVAE"


def test_a_single_item_is_judged_by_its_popularity(ask: Asker) -> None:
    answer = ask("POST", "/anomaly", json={"history": [item_id(0)]}).json()
    assert 0 < answer["p_value"] <= 1
    assert [item["id"] for item in answer["items"]] == [item_id(0)]


def test_of_unknown_items_nothing_can_be_said(ask: Asker) -> None:
    answer = ask("POST", "/anomaly", json={"history": ["new", "newer"]}).json()
    assert (answer["score"], answer["p_value"], answer["items"]) == (None, None, [])
    assert answer["unknown"] == ["new", "newer"]


@pytest.mark.parametrize(
    ("body", "message"),
    [({"history": []}, "at least 1 item"), ({}, "required"), ({"history": [1, 1]}, "more than once")],
)
def test_refused_histories(body: dict[str, list[int]], message: str, ask: Asker) -> None:
    answer = ask("POST", "/anomaly", json=body)
    assert answer.status_code == 422
    assert message in answer.text


def test_models_that_cannot_judge(tmp_path: Path) -> None:
    save(tmp_path / "ease", EASE())
    registry.save(small().fit(random_interactions(40, N_ITEMS), show_progress=False), tmp_path / "model")
    for name, message in (("ease", "EASE gives no probability of a history"), ("model", "does not know what is usual")):
        answer = Asker(Settings(tmp_path / name))("POST", "/anomaly", json={"history": [0]})
        assert answer.status_code == 501
        assert message in answer.text
