"""`recvae recommend` with rules: one list and everybody's, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.inference.recommend import recommend
from recvae.models import registry
from recvae.models.linear.ease import EASE
from tests.contracts import random_interactions

N_ITEMS = 40
GENRES = ["Drama", "Comedy|Crime", "Crime"]
Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    interactions = random_interactions(30, N_ITEMS)
    items = pd.DataFrame(
        {
            "item_id": range(N_ITEMS),
            "title": [f"Film {i}" for i in range(N_ITEMS)],
            "genre": [GENRES[i % 3] for i in range(N_ITEMS)],
            "year": np.arange(N_ITEMS) + 1980,
        }
    )
    users = pd.DataFrame({"user_id": range(30), "history": [row.indices for row in interactions]})
    registry.save(EASE().fit(interactions, show_progress=False), folder / "model", items=items, users=users)
    return folder


@pytest.fixture
def recvae(made: Path, monkeypatch: pytest.MonkeyPatch, run_recvae: Command) -> Command:
    monkeypatch.chdir(made)
    return run_recvae


def ids(output: str) -> list[int]:
    return [item["id"] for item in json.loads(output)["items"]]


def test_one_list_by_rules(recvae: Command) -> None:
    _, whole, _ = recvae("recommend model --history 1,2 --json -n 38")
    status, out, _ = recvae(
        """recommend model --history 1,2 --json -n 5 --filter '{"genre": "Crime", "year": {"ge": 1990}}' --exclude 11"""
    )
    assert status == 0
    assert ids(out) == [i for i in ids(whole) if i % 3 and i >= 10 and i != 11][:5]
    _, out, _ = recvae("recommend model --history 1,2 --json --only 5,6,7,nobody")
    assert ids(out) == [i for i in ids(whole) if i in (5, 6, 7)]
    _, out, _ = recvae("""recommend model --user 3 --json --cap '{"genre": 1}' --diversity 0.3""")
    assert len({i % 3 for i in ids(out)}) == len(ids(out)) == 2
    _, out, _ = recvae("""recommend model --user 3 -n 3 --json --boost '[{"filter": {"genre": "Drama"}, "by": 99}]'""")
    assert {i % 3 for i in ids(out)} == {0}


def test_everybodys_lists_by_rules(recvae: Command, made: Path, tmp_path: Path) -> None:
    users = made / "model" / "users.parquet"
    given = """--filter '{"genre": "Crime"}' --cap '{"genre": 3}' --diversity 0.2"""
    status, _, _ = recvae(f"recommend model --users {users} --out {tmp_path / 'lists'} -n 6 {given}")
    assert status == 0
    written = pd.read_parquet(tmp_path / "lists")
    for user, items in zip(written["user_id"], written["items"], strict=True):
        rules: dict[str, Any] = {"filter": {"genre": "Crime"}, "cap": {"genre": 3}, "diversity": 0.2}
        one = recommend(made / "model", user=str(user), n=6, **rules)
        assert list(items) == [item["id"] for item in one.items]
    status, _, err = recvae(f"recommend model --users {users} --out {tmp_path / 'lists'} -n 6")
    assert status == 2
    assert "holds lists of another rules" in err
    status, out, _ = recvae(f"recommend model --users {users} --out {tmp_path / 'lists'} -n 6 {given}")
    assert (status, "was complete already" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--history 1 --filter genre=Drama", "--filter is 'genre=Drama'; expected JSON"),
        (f"--history 1 --boost {'[' * 100_000}", "[[['; expected JSON (maximum recursion depth exceeded"),
        (
            """--history 1 --filter '{"colour": 1}'""",
            "filter.colour is no column of the items; expected one of genre",
        ),
        ("""--history 1 --filter '{"year": "1990"}'""", "filter.year is '1990'; expected a number"),
        ("""--history 1 --cap '{"genre": 0}'""", "cap.genre is 0; expected a whole number of at least 1"),
        ("--history 1 --exclude '2,\"3'", "--exclude is '2,\"3'; expected item ids as in a line of CSV"),
        ("--history 1 --diversity 2", "diversity is 2.0; expected a number from 0 to 1"),
        ("--users model/users.parquet --out lists --only 1", "--exclude and --only are for one list"),
        ("""--users model/users.parquet --out lists --boost '{}'""", "boost is no list"),
    ],
)
def test_refused(recvae: Command, arguments: str, said: str) -> None:
    status, _, err = recvae(f"recommend model {arguments}")
    assert status == 2
    assert err.count("\n") == 1
    assert said in err


def test_a_wrong_rule_is_refused_before_anything_is_written(recvae: Command, made: Path) -> None:
    status, _, err = recvae("""recommend model --users model/users.parquet --out lists --filter '{"studio": 1}'""")
    assert status == 2
    assert "filter.studio" in err
    assert not (made / "lists").exists()


def test_the_card_of_a_model(recvae: Command) -> None:
    status, out, _ = recvae("show model")
    assert status == 0
    assert "items: 40, 40 with a title; columns: genre (text), item_id (number), title (text), year (number)" in out
    _, out, _ = recvae("show model --json")
    assert json.loads(out)["model"] == "EASE"
