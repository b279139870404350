"""The model that is served, and how another takes its place: sound ones do, damaged ones do not."""

import asyncio
import shutil
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from recvae.errors import ArtifactError
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.linear.ease import EASE
from recvae.serving import Settings, create_app
from recvae.serving.live_model import LiveModel
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.http_service import asked, client, item_id, save, small

ADMIN = {"x-api-key": "admin"}
BODY = {"history": [item_id(1)], "n": 5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


def settings(path: Path, poll: float = 60.0) -> Settings:
    return Settings(path, admin_key="admin", poll_seconds=poll)


def truncated(path: Path) -> None:
    """A damaged artifact in the place of a sound one, as a broken copy would leave it."""
    other = path.with_name("damaged")
    shutil.copytree(path, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    path.rename(path.with_name("aside"))
    other.rename(path)


def infinite(path: Path) -> None:
    model = small().fit(random_interactions(), show_progress=False)
    assert isinstance(model, MultVAE)
    model.module_.output.bias.data[7] = float("inf")
    registry.save(model, path, items=[item_id(i) for i in range(25)])


def test_another_artifact_is_taken_on_demand(path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        first = (await http.post("/recommend", json=BODY)).json()
        unchanged = (await http.post("/admin/reload", headers=ADMIN)).json()
        save(path, EASE())
        changed = (await http.post("/admin/reload", headers=ADMIN)).json()
        return [first, unchanged, changed, (await http.post("/recommend", json=BODY)).json()]

    first, unchanged, changed, second = asked(settings(path), question)
    assert unchanged == {"changed": False, "model": first["model"]}
    assert changed == {"changed": True, "model": second["model"]}
    assert (first["model"]["name"], second["model"]["name"]) == ("MultVAE", "EASE")
    assert first["items"] != second["items"]


@pytest.mark.parametrize("damage", [truncated, infinite, shutil.rmtree])
def test_a_damaged_artifact_is_not_taken(path: Path, damage: Callable[[Path], None]) -> None:
    async def question(http: httpx.AsyncClient) -> list[httpx.Response]:
        before = await http.post("/recommend", json=BODY)
        damage(path)
        refused = await http.post("/admin/reload", headers=ADMIN)
        about, after = await http.get("/model"), await http.post("/recommend", json=BODY)
        save(path, EASE())
        mended = await http.post("/admin/reload", headers=ADMIN)
        return [before, refused, about, after, mended, await http.get("/model"), await http.get("/metrics")]

    before, refused, about, after, mended, later, figures = asked(settings(path), question)
    assert refused.status_code == 409
    assert "the present model stays" in refused.json()["detail"]
    assert about.json()["last_error"] in refused.json()["detail"]
    assert (after.json()["items"], after.json()["model"]) == (before.json()["items"], before.json()["model"])
    assert mended.json()["changed"]
    assert later.json()["last_error"] is None
    assert 'recvae_reloads_total{outcome="failed"} 1.0' in figures.text


def test_wrong_weights_of_events_are_named_with_their_artifact(path: Path) -> None:
    save(path, EASE(), data={"filters": {"weights": {"events": {"buy": "much"}}}})
    with pytest.raises(ArtifactError, match=f"{path}: weights of the data are .*; expected event types and numbers"):
        LiveModel(path, 100)


def test_a_changed_artifact_is_seen(path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[str]:
        seen = []
        changes: list[Callable[[], None]] = [
            lambda: save(path, EASE()),
            lambda: truncated(path),
            lambda: save(path, small(3)),
        ]
        for change in changes:
            before = (await http.get("/model")).json()
            change()
            for _ in range(200):
                await asyncio.sleep(0.05)
                about = (await http.get("/model")).json()
                if (about["version"], about["last_error"]) != (before["version"], before["last_error"]):
                    break
            seen.append(f"{about['name']} {about['last_error'] is None}")
        return seen

    assert asked(settings(path, poll=0.05), question) == ["EASE True", "EASE False", "MultVAE True"]


def test_a_reload_that_runs_out_of_time_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def question(http: httpx.AsyncClient) -> list[Any]:
        save(path, EASE())
        with monkeypatch.context() as slow:
            slow.setattr(registry, "load", lambda *_, **__: time.sleep(0.5))
            late = await http.post("/admin/reload", headers=ADMIN)
        for _ in range(200):
            await asyncio.sleep(0.05)
            if (name := (await http.get("/model")).json()["name"]) == "EASE":
                break
        return [late.status_code, name]

    limited = Settings(path, admin_key="admin", poll_seconds=0.3, timeout_seconds=0.1)
    assert asked(limited, question) == [504, "EASE"]


def test_a_reload_without_a_model_does_not_speak_of_a_present_one(tmp_path: Path) -> None:
    refused = asked(settings(tmp_path / "nowhere"), lambda http: http.post("/admin/reload", headers=ADMIN))
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("no model is loaded: ")


def test_a_first_model_may_come_late(path: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)

    async def question(http: httpx.AsyncClient) -> list[int]:
        first = (await http.get("/readyz")).status_code
        aside.rename(path)
        for _ in range(200):
            await asyncio.sleep(0.05)
            if (await http.get("/readyz")).status_code == 200:
                return [first, 200]
        return [first]

    assert asked(settings(path, poll=0.05), question) == [503, 200]


def test_an_artifact_that_is_copied_into_place_is_loaded_once_it_is_whole(path: Path) -> None:
    """However slow: the last file grows without a change of the directory or the manifest."""
    weights = path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])

    async def question(http: httpx.AsyncClient) -> list[int]:
        await asyncio.sleep(0.2)
        first = (await http.get("/readyz")).status_code
        with weights.open("ab") as stream:
            stream.write(whole[-100:])
        for _ in range(200):
            await asyncio.sleep(0.05)
            if (later := (await http.get("/readyz")).status_code) == 200:
                break
        return [first, later]

    assert asked(settings(path, poll=0.05), question) == [503, 200]


def pause(seconds: Sequence[float]) -> Sequence[float]:
    time.sleep(max(seconds))
    return seconds


def test_requests_finish_on_the_model_they_began_with(path: Path) -> None:
    async def question() -> tuple[Any, Any]:
        app = create_app(settings(path))
        async with client(app) as http:
            models, batcher = app.state.backend.models, app.state.backend.batcher
            old = models.current
            expected = (await http.post("/recommend", json=BODY)).json()
            blocked = batcher.submit(pause, 0.3)
            waiting = asyncio.create_task(http.post("/recommend", json=BODY))
            await asyncio.sleep(0.1)
            save(path, EASE())
            await models.reload()
            assert models.current is not old
            await blocked
            return (await waiting).json(), expected

    answer, expected = asyncio.run(question())
    assert (answer["items"], answer["model"]) == (expected["items"], expected["model"])


def test_a_replaced_model_is_forgotten(path: Path) -> None:
    async def question() -> bool:
        app = create_app(settings(path))
        async with client(app) as http:
            await http.post("/recommend", json=BODY)
            old = weakref.ref(app.state.backend.models.current.ranker.model)
            save(path, small(3))
            await app.state.backend.models.reload()
            await http.post("/recommend", json=BODY)
            return old() is None

    assert asyncio.run(question())


def test_mapped_weights_outlive_their_artifact(path: Path) -> None:
    served = LiveModel(path, 1000)
    expected = served.ranker.model.score(random_interactions())
    save(path, EASE())
    assert np.array_equal(served.ranker.model.score(random_interactions()), expected)


def test_what_is_not_sound_is_no_model(tmp_path: Path) -> None:
    infinite(tmp_path / "model")
    with pytest.raises(ArtifactError, match="self-check"):
        LiveModel(tmp_path / "model", 1000)
