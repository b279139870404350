"""Two days of a shop on a real PostgreSQL: served, bought in, fitted again from the store, and served again."""

import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

import recvae
from recvae.cli import main as cli
from recvae.models import registry
from tests.contracts import one_thread as one_thread
from tests.http_service import Postgres, running, wait_until

N_USERS, N_ITEMS, SECRET = 60, 30, "hunter2"
KINDS = {"view": 1.0, "buy": 5.0}
FIT: dict[str, Any] = {"models": "popularity,ease", "budget": "20s"}
pytestmark = pytest.mark.usefixtures("one_thread")


def first_day() -> pd.DataFrame:
    """Views and purchases of users who like the even items, or the odd ones."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user}", item, kind)
        for user in range(N_USERS)
        for item in generator.choice(np.arange(user % 2, N_ITEMS, 2), 8, replace=False)
        for kind in ("view", *(["buy"] if generator.random() < 0.3 else []))
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind"])


def list_for(address: str, *history: int) -> list[Any]:
    answer = httpx.post(f"{address}/recommend", json={"history": history, "n": 5}, timeout=60)
    return [item["id"] for item in answer.raise_for_status().json()["items"]]


def send_second_day(address: str) -> None:
    """Everybody buys items 1 and 999, which is new; a new user comes, one is erased, and item 0 is sold out."""
    with httpx.Client(base_url=address, timeout=60) as http:
        for user in [*(f"u{user}" for user in range(N_USERS)), "newcomer"]:
            bought = [{"id": item, "type": "buy"} for item in (1, 999)]
            viewed = [{"id": item, "type": "view"} for item in (3, 5, 7)] if user == "newcomer" else []
            http.post(f"/users/{user}/events", json={"items": [*viewed, *bought]}).raise_for_status()
        http.delete("/users/u3").raise_for_status()
        http.put("/items/0", json={"in_stock": False}).raise_for_status()


def test_two_days(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, model, following = postgres.fresh(), tmp_path / "model", tmp_path / "following"
    titles = pd.DataFrame({"item_id": range(N_ITEMS), "title": [f"item {item}" for item in range(N_ITEMS)]})
    kinds: dict[str, Any] = {"event_column": "kind", "event_weights": KINDS, "repeats": "sum"}
    recvae.fit(first_day(), items=titles, out=model, show_progress=False, **kinds, **FIT)
    with running(model, RECVAE_STORE=store) as (address, _):
        assert all(item % 2 == 0 for item in list_for(address, 0, 2))
        send_second_day(address)
        assert list_for(address, 0, 999) == list_for(address, 0)  # it is not known yet

        url = store.replace("recvae@", f"recvae:{SECRET}@")
        options = [part for name, value in FIT.items() for part in (f"--{name}", value)]
        arguments = ["fit", "--from-store", url, "--since", str(model), "--out", str(following), *options]
        monkeypatch.setattr(sys, "argv", ["recvae", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        printed = "".join(capsys.readouterr())
        assert not exit_.value.code, printed
        assert "store: 123 events" in printed
        assert SECRET not in printed
        assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

        replace_artifact(model, following)
        wait_until(lambda: 999 in list_for(address, 0, 2), 60)
        assert httpx.get(f"{address}/users/newcomer/recommendations").status_code == 200
        assert httpx.get(f"{address}/users/u3/recommendations").status_code == 404
    learned = registry.load(model)
    assert learned.users is not None
    assert set(learned.users["user_id"]) == {f"u{user}" for user in range(N_USERS)} - {"u3"} | {"newcomer"}
    items = learned.items.set_index("item_id")
    assert items["in_stock"][0] is False
    assert items["title"][1] == "item 1"
    assert learned.manifest["data"]["filters"]["weights"]["events"] == KINDS


def replace_artifact(model: Path, following: Path) -> None:
    """Put another artifact in a model's place, as `mv` does."""
    model.rename(model.with_name("before"))
    following.rename(model)
