"""New items sent by PUT: in the lists of every worker within a second, until a model knows them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from recvae.inference.new_items import new_items
from recvae.serving import Settings, create_app
from tests.contracts import one_thread as one_thread
from tests.http_service import FIRST_ID, N_ITEMS, asked, client, item_id, save, small

ITEMS = pd.DataFrame(
    {
        "item_id": [item_id(i) for i in range(N_ITEMS)],
        "genre": [["Drama", "Comedy|Crime", "Crime"][i % 3] for i in range(N_ITEMS)],
        "year": [1980 + i for i in range(N_ITEMS)],
    }
)
NEW = {"title": "Premiere", "genre": "Crime", "year": 1999, "fresh": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "model"
    save(path, items=ITEMS)
    return path


async def listed(http: httpx.AsyncClient, **body: Any) -> dict[int, dict[str, Any]]:
    answer = await http.post("/recommend", json={"history": [item_id(2)], "n": 50, **body})
    assert answer.status_code == 200, answer.text
    return {item["id"]: item for item in answer.json()["items"]}


def test_a_new_item_is_recommended_at_once(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        assert 7 not in await listed(http)
        assert (await http.put("/items/7", json=NEW)).json() == {"id": 7, "metadata": NEW}
        found = await listed(http, explain=True)
        assert len(found) == N_ITEMS
        assert found[7]["title"] == "Premiere"
        assert found[7]["because"] == []
        assert [*await listed(http, filter={"fresh": True})] == [7]
        assert [*await listed(http, only=[7, item_id(4)])] in ([7, item_id(4)], [item_id(4), 7])
        assert 7 not in await listed(http, exclude=[7])
        assert next(iter(await listed(http, boost=[{"filter": {"fresh": True}, "by": 99}]))) == 7
        assert 7 in await listed(http, diversity=0.3, cap={"genre": 20})
        batch = await http.post("/recommend/batch", json={"requests": [{"history": [], "n": 50}] * 3})
        assert all(7 in {item["id"] for item in answer["items"]} for answer in batch.json()["answers"])
        user = await http.get("/users/u3/recommendations", params={"n": 50})
        assert 7 in {item["id"] for item in user.json()["items"]}
        await http.put("/items/7", json={**NEW, "year": 1981})
        assert 7 in await listed(http, filter={"year": 1981})
        await http.put("/items/7", json={})  # nothing is known of it any more
        assert 7 not in await listed(http)

    asked(Settings(model, store=url), question)


def test_who_has_it_is_not_told_of_it_again(model: Path, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        await http.put("/items/7", json=NEW)
        assert (await http.post("/users/u3/events", json={"items": [7]})).json()["unknown"] == [7]
        user = (await http.get("/users/u3/recommendations", params={"n": 50})).json()
        assert 7 not in {item["id"] for item in user["items"]}
        assert 7 not in await listed(http, history=[7, item_id(2)])
        answer = await http.post("/recommend", json={"history": [7, {"id": item_id(2), "weight": 2}], "n": 50})
        assert answer.json()["unknown"] == [7]
        assert 7 not in {item["id"] for item in answer.json()["items"]}
        assert (await http.get("/items/7/similar")).status_code == 404

    asked(Settings(model, store=f"sqlite:///{tmp_path / 'service.db'}"), question)


def test_every_worker_within_a_second_and_after_a_restart(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        async with client(create_app(settings)) as other:
            await http.put("/items/7", json=NEW)
            begun = time.monotonic()
            while 7 not in await listed(other):
                assert time.monotonic() - begun < 1
                await asyncio.sleep(0.02)

    settings = Settings(model, store=url)
    asked(settings, question)
    assert 7 in asked(settings, listed)


def test_the_next_model_knows_it(tmp_path: Path) -> None:
    save(tmp_path / "model", items=ITEMS)

    async def question(http: httpx.AsyncClient) -> None:
        for item in (7, 8):
            await http.put(f"/items/{item}", json=NEW)
        save(tmp_path / "model", small(seed=1), items=ITEMS.assign(item_id=ITEMS["item_id"].replace(FIRST_ID, 7)))
        assert (await http.post("/admin/reload", headers={"X-API-Key": "key"})).json()["changed"]
        assert (await http.get("/items/7/similar")).status_code == 200
        found = await listed(http, filter={"fresh": True})
        assert {*found} == {7, 8}
        assert found[8]["title"] == "Premiere"

    database = f"sqlite:///{tmp_path / 'service.db'}"
    asked(Settings(tmp_path / "model", store=database, admin_key="key", poll_seconds=60), question)


@pytest.mark.parametrize(
    ("item", "metadata", "status", "field", "said"),
    [
        ("new", NEW, 404, "item_id", "'new' is not known, and new ones are whole numbers"),
        ("7", {"fresh": True}, 404, "item_id", "shares nothing with the items that are; columns to share values of"),
        ("7", {"genre": 3}, 409, "genre", "expected text"),
        ("7", {"year": "new"}, 409, "year", "expected a number"),
        ("7", {"title": 3, "year": 1999}, 409, "title", "expected text"),
        ("7", {"year": 1999, "about": "x" * 1_000_000}, 422, "about", "at most 1000 characters"),
        ("9", NEW, 409, "item_id", "is '9', and 1 new items are listed already"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused_is_not_stored(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    item: str,
    metadata: dict[str, Any],
    status: int,
    field: str,
    said: str,
) -> None:
    monkeypatch.setattr(new_items, "MOST_NEW_ITEMS", 1 if item == "9" else 2)

    async def question(http: httpx.AsyncClient) -> None:
        await http.put("/items/8", json=NEW)
        answer = await http.put(f"/items/{item}", json=metadata)
        assert answer.status_code == status
        assert field in answer.json()["errors"][0]["field"]
        assert said in answer.json()["detail"]
        assert len(await listed(http)) == N_ITEMS

    asked(Settings(model, store=f"sqlite:///{tmp_path / 'service.db'}"), question)


def test_items_without_metadata_give_none_to_new_ones(tmp_path: Path) -> None:
    save(tmp_path / "model", items=ITEMS[["item_id"]])
    settings = Settings(tmp_path / "model", store=f"sqlite:///{tmp_path / 'service.db'}")
    answer = asked(settings, lambda http: http.put("/items/7", json=NEW))
    assert answer.status_code == 404
    assert "columns to share values of: none" in answer.json()["detail"]
