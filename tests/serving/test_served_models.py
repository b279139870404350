"""Several models behind one service: each answers for its share of users, and its click-through is counted."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from recvae.models.linear.ease import EASE
from recvae.serving import Settings
from recvae.serving.live_model import ModelReloader, ServedModels
from recvae.serving.settings import Variant
from recvae.serving.telemetry import Metrics
from tests.contracts import one_thread as one_thread
from tests.http_service import asked, item_id, running, save

USERS = [f"user {i}" for i in range(400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    save(path / "a")
    save(path / "b", EASE())
    return path


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Settings:
    store = f"sqlite:///{tmp_path / 'events.db'}"
    shares = "a:0.75,b:0.25"
    # No test waits for a poll, which could load a model before `/admin/reload` does.
    return Settings(folder, models=shares, store=store, admin_key="admin", unknown_users="popular", poll_seconds=3600.0)


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["id"] for item in answer["items"]]


def choices(**shares: float) -> list[str]:
    """The variant of each user."""
    one = Path()
    reloaders = [ModelReloader(Variant(name, one, share), 1, Metrics()) for name, share in shares.items()]
    for reloader in reloaders:
        reloader.current = reloader.variant.name  # type: ignore[assignment]
    return [str(ServedModels(reloaders).choose(user)) for user in USERS]


def test_users_are_shared_out_and_stay() -> None:
    first = choices(a=0.75, b=0.25)
    assert first == choices(b=1, a=3)
    assert first.count("b") == pytest.approx(100, abs=25)
    moved = Counter(zip(first, choices(a=0.5, b=0.5), strict=True))
    assert moved["b", "a"] == 0
    assert moved["a", "b"] == pytest.approx(100, abs=25)
    another = choices(a=0.75, c=0.25)  # the next experiment is tried on other users
    assert sum(x == y == one for one, x, y in zip("b" * 400, first, another, strict=True)) == 0
    assert sum(x != "a" and y != "a" for x, y in zip(first, another, strict=True)) == pytest.approx(25, abs=15)


def test_each_version_s_click_through_can_be_read(settings: Settings) -> None:
    """Every second list of a is answered, and every fourth of b."""

    async def question(http: httpx.AsyncClient) -> tuple[dict[str, Counter[str]], str]:
        counts = {name: Counter[str]() for name in "ab"}
        for user in USERS[:60]:
            path = f"/users/{user}/recommendations"
            answer = (await http.get(path, params={"n": 3})).json()
            model = answer["model"]
            count = counts[model["variant"]]
            assert answer["list_id"].startswith(f"{model['version']}-")
            count[model["version"]] += 1
            if count.total() % {"a": 2, "b": 4}[model["variant"]] == 0:
                event = {"items": [answer["items"][0]["id"]], "list_id": answer["list_id"]}
                assert (await http.post(f"/users/{user}/events", json=event)).json()["stored"] == 1
            assert (await http.get(path)).json()["model"] == model  # the history has grown, and the model is the same
        return counts, (await http.get("/metrics")).text

    counts, metrics = asked(settings, question)
    for name, every in (("a", 2), ("b", 4)):
        ((version, given),) = counts[name].items()
        figures = [
            float(found[1])
            for kind in ("lists", "list_answers")
            if (found := re.search(rf'recvae_{kind}_total{{version="{version}"}} (\S+)', metrics))
        ]
        assert figures == [2 * given, given // every]
    assert counts["a"].total() == pytest.approx(45, abs=12)
    assert metrics.count("recvae_model_info{") == 2


def test_histories_and_batches(settings: Settings) -> None:
    bodies: list[dict[str, Any]] = [{"history": [item_id(i % 25), item_id((i + 7) % 25)], "n": 3} for i in range(25)]

    async def question(http: httpx.AsyncClient) -> list[Any]:
        alone = [(await http.post("/recommend", json=body)).json() for body in bodies]
        turned = [{**body, "history": body["history"][::-1]} for body in bodies]
        batch = (await http.post("/recommend/batch", json={"requests": turned})).json()["answers"]
        named = [(await http.post("/recommend", json={**bodies[0], "variant": name})).json() for name in "ab"]
        by_user = (await http.post("/users/ann/recommendations", json={"variant": "b"})).json()
        wrong = {"history": [], "variant": "c"}
        refused = [
            await http.post("/recommend", json=wrong),
            await http.post("/recommend/batch", json={"requests": [bodies[0], wrong]}),
        ]
        return [alone, batch, named, by_user, *refused]

    alone, batch, named, by_user, refused, refused_batch = asked(settings, question)
    assert [ids(answer) for answer in batch] == [ids(answer) for answer in alone]
    assert [answer["model"] for answer in batch] == [answer["model"] for answer in alone]
    assert {answer["model"]["variant"] for answer in alone} == {"a", "b"}
    assert [answer["model"]["name"] for answer in (*named, by_user)] == ["MultVAE", "EASE", "EASE"]
    assert refused.status_code == 404
    assert refused.json()["errors"] == [{"field": "variant", "detail": "no model is called 'c'"}]
    assert refused_batch.status_code == 404
    assert refused_batch.json()["errors"][0]["field"] == "requests[1].variant"


def test_each_model_is_described_and_replaced(folder: Path, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        async def reload() -> httpx.Response:
            return await http.post("/admin/reload", headers={"x-api-key": "admin"})

        missing, ready = (await http.get("/model")).json(), (await http.get("/readyz")).status_code
        not_yet = await http.post("/recommend", json={"history": [], "variant": "b"})
        assert not_yet.status_code == 503
        assert not_yet.json()["detail"].startswith(f"model 'b' is not loaded: {tmp_path / 'b'} is missing")
        everybody = [(await http.get(f"/users/{user}/recommendations")).json() for user in USERS[:30]]
        save(tmp_path / "b", EASE())
        there = (await reload()).json()
        before = (await http.get("/model")).json()
        save(tmp_path / "b", EASE(l2=5.0))
        replaced = (await reload()).json()
        (tmp_path / "b" / "manifest.json").unlink()
        refused = await reload()
        about = (await http.get("/model")).json()
        await http.put(f"/items/{item_id(3)}", json={"in_stock": False})
        sold_out = [
            (await http.post("/recommend", json={"history": [], "filter": {"in_stock": False}, "variant": name})).json()
            for name in "ab"
        ]
        erased = (await http.delete("/users/u1")).json()
        lists = [(await http.post("/users/u1/recommendations", json={"variant": name})).json() for name in "ab"]
        return [missing, ready, everybody, there, before, replaced, refused, about, sold_out, erased, lists]

    (tmp_path / "a").symlink_to(folder / "a")
    store = f"sqlite:///{tmp_path / 'events.db'}"
    settings = Settings(tmp_path, models="a:1,b:1", store=store, admin_key="admin", unknown_users="popular")
    missing, ready, everybody, there, before, replaced, refused, about, sold_out, erased, lists = asked(
        settings, question
    )
    assert ready == 200
    assert missing["name"] == "MultVAE"
    assert missing["variants"][1]["model"] is None
    assert missing["last_error"].startswith("b: ")
    assert {answer["model"]["variant"] for answer in everybody} == {"a"}
    assert there["changed"] is replaced["changed"] is True
    assert [one["share"] for one in before["variants"]] == [1, 1]
    a, b = (one["model"] for one in about["variants"])
    assert a == {key: about[key] for key in a}
    assert a["version"] == before["variants"][0]["model"]["version"]
    assert b["version"] != before["variants"][1]["model"]["version"]
    assert b["hyperparameters"]["l2"] == 5.0
    assert refused.status_code == 409
    assert about["variants"][1]["last_error"] in about["last_error"]
    assert [ids(answer) for answer in sold_out] == [[item_id(3)]] * 2
    assert erased == {"erased": 0, "hidden": True}
    assert all(answer["popular"] for answer in lists)


def test_workers_agree(folder: Path) -> None:
    """Each user has one model whichever worker answers, and the metrics are of both workers."""
    with running(folder, workers=2, RECVAE_MODELS="a:0.5,b:0.5", RECVAE_UNKNOWN_USERS="popular") as (address, _):
        chosen: dict[str, set[str]] = {user: set() for user in USERS[:10]}
        for _ in range(6):
            with httpx.Client(base_url=address, timeout=60) as http:  # each connection may reach another worker
                for user, variants in chosen.items():
                    variants.add(http.get(f"/users/{user}/recommendations").json()["model"]["variant"])
        metrics = httpx.get(f"{address}/metrics", timeout=60).text
    assert all(len(variants) == 1 for variants in chosen.values())
    assert set.union(*chosen.values()) == {"a", "b"}
    assert sum(map(float, re.findall(r"^recvae_lists_total{.*} (\S+)$", metrics, re.MULTILINE))) == 60


def test_all_artifacts_must_be_sound_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recvae.errors import ArtifactError
    from recvae.serving import run

    monkeypatch.setenv("RECVAE_MODELS", "a:1,missing:1")
    with pytest.raises(ArtifactError, match="missing"):
        run(folder, "127.0.0.1", 0, 1)


def test_each_artifact_that_is_not_loaded_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked(Settings(tmp_path, models="a:1,b:1"), lambda http: http.get("/healthz"))
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("not loaded")]
    assert all(f"{name}: {tmp_path / name}" in said for name in "ab")


def test_one_model_has_no_variants(folder: Path) -> None:
    about = asked(Settings(folder / "a"), lambda http: http.get("/model")).json()
    assert about["variants"] == []
    assert "variant" not in about
    refused = asked(Settings(folder / "a"), lambda http: http.post("/recommend", json={"history": [], "variant": ""}))
    assert refused.status_code == 422
