"""Metadata that clients set: kept in the store, and seen by every worker's filters within a second."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from recvae.serving import Settings, create_app
from recvae.serving.item_updates import SECONDS, ItemUpdates
from recvae.store.database import StoreUnavailableError
from recvae.store.user_store import DatabaseUserStore
from tests.contracts import one_thread as one_thread
from tests.http_service import N_ITEMS, asked, client, item_id, running, save, small
from tests.store.test_database import execute

ITEMS = pd.DataFrame(
    {
        "item_id": [item_id(i) for i in range(N_ITEMS)],
        "genre": [["Drama", "Comedy|Crime", "Crime"][i % 3] for i in range(N_ITEMS)],
        "year": [1980 + i for i in range(N_ITEMS)],
    }
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("items") / "model"
    save(path, items=ITEMS)
    return path


async def put(http: httpx.AsyncClient, index: int, **metadata: Any) -> httpx.Response:
    return await http.put(f"/items/{item_id(index)}", json=metadata)


async def listed(http: httpx.AsyncClient, **given: Any) -> set[int]:
    answer = await http.post("/recommend", json={"history": [], "n": N_ITEMS, "filter": given})
    assert answer.status_code == 200, answer.text
    return {item["id"] - item_id(0) for item in answer.json()["items"]}


def test_other_values_and_new_columns_at_once(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        answer = await put(http, 3, in_stock=False, year=2030)
        assert answer.json() == {"id": item_id(3), "metadata": {"in_stock": False, "year": 2030}}
        await put(http, 4, in_stock=True, genre=["Western", "Crime"])
        await put(http, 5, in_stock=True, genre="Western|War", price=9.5)
        assert await listed(http, in_stock=True) == {4, 5}
        assert await listed(http, in_stock={"not": False}) == set(range(N_ITEMS)) - {3}
        assert await listed(http, year={"ge": 2003}) == {3, 23, 24}
        assert await listed(http, genre="Western") == {4, 5}
        assert await listed(http, genre="War") == {5}
        assert await listed(http, genre={"all": ["Western", "Crime"]}) == {4}
        assert 4 not in await listed(http, genre="Comedy")
        assert await listed(http, price={"gt": 9}) == {5}
        await put(http, 3, genre=None)  # what is not named is the model's again
        assert await listed(http, year=1983) == {3}
        assert 3 not in await listed(http, genre=["Drama", "Comedy", "Crime"])
        assert await listed(http, in_stock={"not": True}) == set(range(N_ITEMS)) - {4, 5}

    asked(Settings(model, store=url), question)


def test_a_store_that_is_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    refused, unforeseen = StoreUnavailableError("refused"), KeyError()
    answers: list[Exception | None] = [refused, refused, None, None, unforeseen, unforeseen, refused]

    class Store:
        async def changed_items(self, since: float) -> list[Any]:
            if (failure := answers.pop(0)) is not None:
                raise failure
            return []

    class Models:
        reloaders = ()

    async def look() -> None:
        updates = ItemUpdates(Store())  # type: ignore[arg-type]
        while answers:
            await updates.try_refresh(Models())  # type: ignore[arg-type]

    with caplog.at_level(logging.INFO, logger="recvae"):
        asyncio.run(look())
    assert [record.getMessage() for record in caplog.records] == [
        "items: refused",
        "items: the store answers again",
        "items were not updated",
        "items: refused",
    ]


def test_changes_count_whatever_the_clocks_of_the_workers_say(model: Path, url: str) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        await put(http, 3, in_stock=False)
        execute(url, "UPDATE recvae_items SET at = at + 3600")  # as of a machine whose clock is an hour ahead
        await asyncio.sleep(2.5 * SECONDS)
        await put(http, 4, in_stock=False)
        assert await listed(http, in_stock=False) == {3, 4}
        await put(http, 3, in_stock=True)
        assert await listed(http, in_stock=False) == {4}

    asked(Settings(model, store=url), question)


def test_titles(model: Path, url: str) -> None:
    """Clients send a title with every item, whether the model knows it yet or not."""

    async def titles(http: httpx.AsyncClient) -> dict[int, str | None]:
        answer = await http.post("/recommend", json={"history": [], "n": N_ITEMS})
        return {item["id"]: item["title"] for item in answer.json()["items"]}

    async def question(http: httpx.AsyncClient) -> None:
        assert set((await titles(http)).values()) == {None}
        assert (await put(http, 3, title="Premiere", year=1983)).status_code == 200
        assert (await titles(http))[item_id(3)] == "Premiere"
        assert await listed(http, year=1983) == {3}
        await put(http, 3, year=1983)
        assert set((await titles(http)).values()) == {None}

    asked(Settings(model, store=url), question)


def test_filters_know_the_titles_that_were_set(tmp_path: Path) -> None:
    titled = ITEMS.assign(title=[f"Film {i}" for i in range(N_ITEMS)])
    save(tmp_path / "model", items=titled)

    async def question(http: httpx.AsyncClient) -> None:
        assert await listed(http, title="Film 3") == {3}
        await put(http, 3, title=" Premiere|2 ")
        for _ in range(2):
            assert await listed(http, title="Premiere|2") == {3}
            assert await listed(http, title="Film 3") == set()
            assert await listed(http, title=["Film 4", "Premiere|2"]) == {3, 4}
            assert (await http.put("/items/7", json={"title": "New", "genre": "Drama"})).status_code == 200
        assert await listed(http, title="New") == {7 - item_id(0)}
        await put(http, 3, year=1983)
        assert await listed(http, title="Film 3") == {3}

    asked(Settings(tmp_path / "model", store=f"sqlite:///{tmp_path / 'items.db'}"), question)


def test_search_knows_the_titles_that_were_set(model: Path, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        async def search(text: str, n: int = N_ITEMS) -> list[int]:
            answer = await http.get("/items", params={"query": text, "n": n})
            return [item["id"] for item in answer.json()["items"]]

        popular = await search("")
        assert await search(str(popular[2])) == [popular[2]]
        await http.put(f"/items/{popular[2]}", json={"title": "Première"})
        await http.put(f"/items/{popular[0]}", json={"title": "After the premiere"})
        assert await search("premiere") == [popular[0], popular[2]]
        assert await search(str(popular[2])) == []
        assert await search("", n=4) == popular[:4]
        await http.put(f"/items/{popular[2]}", json={"year": 1999})
        assert await search(str(popular[2])) == [popular[2]]
        assert await search("premiere") == [popular[0]]

    asked(Settings(model, store=f"sqlite:///{tmp_path / 'items.db'}"), question)


@pytest.mark.parametrize("nothing", [None, []])
def test_no_value_does_not_say_of_what_kind_a_column_is(model: Path, tmp_path: Path, nothing: list[str] | None) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        assert (await put(http, 3, price=nothing)).status_code == 200
        assert (await put(http, 4, price=9.5)).status_code == 200
        assert await listed(http, price={"ge": 1}) == {4}
        await put(http, 5, price=2)
        await put(http, 4, price=nothing)
        assert await listed(http, price={"ge": 1}) == {5}
        assert (await put(http, 4, price=8.5)).status_code == 200
        await put(http, 5, price=nothing)

    settings = Settings(model, store=f"sqlite:///{tmp_path / 'items.db'}")
    asked(settings, question)

    async def after_a_restart(http: httpx.AsyncClient) -> set[int]:
        return await listed(http, price={"ge": 1})

    assert asked(settings, after_a_restart) == {4}


def test_every_worker_within_a_second_and_after_a_restart(model: Path, url: str, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        async with client(create_app(settings)) as other:
            await put(http, 7, in_stock=False)
            begun = time.monotonic()
            while (
                await other.post("/recommend", json={"history": [], "filter": {"in_stock": False}})
            ).status_code != 200:
                assert time.monotonic() - begun < 1
                await asyncio.sleep(0.02)
            await put(other, 8, in_stock=False)
            await asyncio.sleep(1)
            assert await listed(http, in_stock=False) == {7, 8}

    settings = Settings(model, store=url)
    asked(settings, question)
    assert asked(settings, lambda http: listed(http, in_stock=False)) == {7, 8}


def test_another_model_keeps_what_was_set(tmp_path: Path) -> None:
    """From its first request on, also where its items are in another order and some are gone."""
    save(tmp_path / "model", items=ITEMS)

    async def question(http: httpx.AsyncClient) -> set[int]:
        await put(http, 7, in_stock=False)
        await put(http, 9, in_stock=False)
        turned = ITEMS.iloc[::-1].assign(item_id=lambda t: t["item_id"].where(t["item_id"] != item_id(9), 5))
        save(tmp_path / "model", small(seed=1), items=turned)
        assert (await http.post("/admin/reload", headers={"X-API-Key": "key"})).json()["changed"]
        return await listed(http, in_stock=False)

    settings = Settings(
        tmp_path / "model", store=f"sqlite:///{tmp_path / 'items.db'}", admin_key="key", poll_seconds=60
    )
    assert asked(settings, question) == {7}


def test_two_processes(model: Path, tmp_path: Path) -> None:
    """Requests reach one worker or the other; within a second all of them know what one was told, and a new item."""
    with running(model, workers=2, RECVAE_STORE=f"sqlite:///{tmp_path / 'items.db'}") as (address, _):
        assert httpx.put(f"{address}/items/{item_id(7)}", json={"in_stock": False}).status_code == 200
        time.sleep(1)
        for _ in range(20):
            body = {"history": [], "filter": {"in_stock": False}}
            answer = httpx.post(f"{address}/recommend", json=body)
            assert [item["id"] for item in answer.json()["items"]] == [item_id(7)]
        new = {"title": "New", "genre": "Drama", "year": 1999}
        assert httpx.put(f"{address}/items/7", json=new).status_code == 200
        time.sleep(1)
        for _ in range(20):
            answer = httpx.post(f"{address}/recommend", json={"history": [item_id(3)], "n": 50})
            assert 7 in {item["id"] for item in answer.json()["items"]}


@pytest.mark.parametrize(
    ("metadata", "status", "field", "said"),
    [
        ({"year": "new"}, 409, "year", "is 'new'; expected a number"),
        ({"genre": 3}, 409, "genre", "expected text"),
        ({"title": 3}, 409, "title", "expected text"),
        ({"item_id": 1}, 409, "item_id", "comes with the model"),
        ({"about": "x" * 1_000_000}, 422, "about", "at most 1000 characters"),
        ({"about": ["x"] * 101}, 422, "about", "at most 100 items"),
        ({"x" * 65: 1}, 422, "", "at most 64 characters"),
        ({"about": {"a": 1}}, 422, "about", "about: expected a text, a number, true or false, a list of texts or of"),
        ({"plain": {"a": 1}}, 422, "plain", "plain: expected a text, a number"),
        ({"nothing": [{}]}, 422, "nothing[0]", "valid string"),
        ({"object": "x" * 1001}, 422, "object", "at most 1000 characters"),
        ({f"c{i}": i for i in range(65)}, 422, "body", "has 65 columns; expected at most 64"),
        ([1], 422, "body", "dictionary"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_is_not_stored(
    model: Path, tmp_path: Path, metadata: Any, status: int, field: str, said: str
) -> None:
    async def question(http: httpx.AsyncClient) -> httpx.Response:
        answer = await http.put(f"/items/{item_id(1)}", json=metadata)
        assert await listed(http) == set(range(N_ITEMS))
        return answer

    settings = Settings(model, store=f"sqlite:///{tmp_path / 'items.db'}")
    answer = asked(settings, question)
    assert answer.status_code == status
    assert field in answer.json()["errors"][0]["field"]
    assert said in answer.json()["detail"]
    again = asked(settings, lambda http: http.put(f"/items/{item_id(1)}", json={"year": 1}))
    assert again.json()["metadata"] == {"year": 1}


def test_deeply_nested_values_are_refused(model: Path, tmp_path: Path) -> None:
    body = '{"about":' + "[" * 1000 + "]" * 1000 + "}"

    async def question(http: httpx.AsyncClient) -> httpx.Response:
        return await http.put(f"/items/{item_id(1)}", content=body, headers={"content-type": "application/json"})

    assert asked(Settings(model, store=f"sqlite:///{tmp_path / 'items.db'}"), question).status_code == 422


def test_the_service_ends_while_it_looks_for_changes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[float] = []

    async def looks(*_: object) -> list[Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:  # as one whose transaction is being committed
            given_up.append(time.monotonic())
        return []

    async def serve() -> None:
        async with asyncio.timeout(30), client(create_app(Settings(model, store=f"sqlite:///{tmp_path}/items.db"))):
            monkeypatch.setattr(DatabaseUserStore, "changed_items", looks)
            await asyncio.sleep(2 * SECONDS)

    asyncio.run(serve())
    assert len(given_up) == 1


def test_unknown_items_and_no_store(model: Path, tmp_path: Path) -> None:
    settings = Settings(model, store=f"sqlite:///{tmp_path / 'items.db'}")
    assert asked(settings, lambda http: http.put("/items/nowhere", json={})).status_code == 404
    refused = asked(Settings(model), lambda http: put(http, 1, in_stock=True))
    assert refused.status_code == 501
    assert "RECVAE_STORE" in json.loads(refused.text)["detail"]
