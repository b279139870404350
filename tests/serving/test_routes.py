"""Every route: what it answers, and what it refuses."""

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recvae.inference.card import describe_artifact
from recvae.models import registry
from recvae.models.factorization import BPR
from recvae.models.popularity import Popularity
from recvae.serving import Settings
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.http_service import N_ITEMS, N_USERS, asked, item_id, save, small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "model"
    save(path)
    return path


class Asker:
    """Puts one request to a service, from tests that are not asynchronous."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer: httpx.Response = asked(self._settings, lambda http: http.request(method, path, **options))
        return answer

    def recommend(self, **body: Any) -> dict[str, Any]:
        answer = self("POST", "/recommend", json=body)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content


@pytest.fixture(scope="module")
def ask(model: Path) -> Asker:
    return Asker(Settings(model))


def row(*indices: int) -> sparse.csr_matrix:
    columns = sorted(indices)
    return sparse.csr_matrix((np.ones(len(columns), np.float32), columns, [0, len(columns)]), shape=(1, N_ITEMS))


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["id"] - item_id(0) for item in answer["items"]]


def test_recommendations_are_the_library_s(model: Path, ask: Asker) -> None:
    loaded = registry.load(model)
    answer = ask.recommend(history=[item_id(1), item_id(7)], n=5)
    expected, scores = loaded.model.recommend(0, row(1, 7), N=5)
    assert ids(answer) == expected.tolist()
    assert [item["score"] for item in answer["items"]] == pytest.approx(scores.tolist(), abs=1e-5)
    assert [item["title"] for item in answer["items"]] == loaded.items["title"][expected].tolist()
    assert answer["unknown"] == []
    assert answer["model"]["name"] == "MultVAE"
    assert answer["model"]["trained_at"] == loaded.manifest["trained_at"]


def test_without_a_history_the_popular_items(model: Path, ask: Asker) -> None:
    counts = registry.load(model).model.item_counts_
    assert ids(ask.recommend(history=[], n=3)) == np.argsort(-counts, kind="stable")[:3].tolist()


def test_what_is_listed(ask: Asker) -> None:
    every = set(range(N_ITEMS))
    assert set(ids(ask.recommend(history=[item_id(1)], n=N_ITEMS))) == every - {1}
    assert set(ids(ask.recommend(history=[item_id(1)], n=N_ITEMS, exclude=[item_id(2)]))) == every - {1, 2}
    only = [item_id(i) for i in (1, 2, 3, 4)]
    assert set(ids(ask.recommend(history=[item_id(1)], only=only, exclude=[item_id(4)]))) == {2, 3}
    assert ids(ask.recommend(history=[item_id(1)], only=[])) == []
    whole, some = ask.recommend(history=[item_id(1)], n=N_ITEMS), ask.recommend(history=[item_id(1)], only=only)
    assert ids(some) == [i for i in ids(whole) if i in {2, 3, 4}]


def test_ids_as_text_and_unknown_ids(ask: Asker) -> None:
    by_number = ask.recommend(history=[item_id(1), 7, -(2**53 - 1)], exclude=["x"])
    assert ids(ask.recommend(history=[float(item_id(1))], n=10.0)) == ids(by_number)
    by_text = ask.recommend(history=[str(item_id(1)), "007", "१०१"])
    assert ids(by_number) == ids(by_text)
    assert by_number["unknown"] == [7, -(2**53 - 1), "x"]
    assert by_text["unknown"] == ["007", "१०१"]


def test_reasons_are_items_of_the_history(model: Path, ask: Asker) -> None:
    history = [item_id(i) for i in (1, 7, 9, 12)]
    answer = ask.recommend(history=history, n=4, explain=True)
    assert ids(answer) == ids(ask.recommend(history=history, n=4))
    assert any(item["because"] for item in answer["items"])
    loaded = registry.load(model)
    for item in answer["items"]:
        given = [reason["id"] for reason in item["because"]]
        because, lost = loaded.model.explain(0, row(1, 7, 9, 12), item["id"] - item_id(0), N=3)
        assert given == [item_id(i) for i, owed in zip(because, lost, strict=True) if owed > 0]
        assert all(reason["contribution"] > 0 for reason in item["because"])
    assert "because" not in ask.recommend(history=history)["items"][0]


def test_a_batch_is_answered_in_order(ask: Asker) -> None:
    requests: list[dict[str, Any]] = [{"history": [item_id(i)], "n": i + 1} for i in range(6)] + [{"history": []}]
    answers = ask("POST", "/recommend/batch", json={"requests": requests}).json()["answers"]
    alone = [ask.recommend(**request) for request in requests]
    assert list(map(ids, answers)) == list(map(ids, alone))
    scores = [[item["score"] for answer in each for item in answer["items"]] for each in (answers, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-6)  # a product of several rows rounds otherwise than one of one


def test_explanations_of_a_batch_cost_no_more_than_those_of_one_long_history(model: Path) -> None:
    ask = Asker(Settings(model, max_history=20))
    for n, status in ((4, 200), (5, 422)):
        requests = [{"history": [item_id(i) for i in range(10)], "explain": True}] * n
        answer = ask("POST", "/recommend/batch", json={"requests": requests})
        assert answer.status_code == status
    assert "sum to 500; expected at most 400" in answer.text
    plain = [{"history": [item_id(i) for i in range(10)]}] * 50
    assert ask("POST", "/recommend/batch", json={"requests": plain}).status_code == 200


def test_by_user(model: Path, ask: Asker) -> None:
    loaded = registry.load(model)
    assert loaded.users is not None
    answer = ask("GET", "/users/u5/recommendations?n=4&explain=true").json()
    assert ids(answer) == loaded.model.recommend(0, row(*loaded.users["history"][5]), N=4)[0].tolist()
    assert answer["items"][0]["because"]
    assert ask("GET", "/users/nobody/recommendations").status_code == 404


def test_events_need_a_store(ask: Asker) -> None:
    refused = ask("POST", "/users/u5/events", json={"items": [item_id(1)]})
    assert refused.status_code == 501
    assert "RECVAE_STORE" in refused.json()["detail"]


def test_similar_items(model: Path, ask: Asker) -> None:
    answer = ask("GET", f"/items/{item_id(3)}/similar?n=4").json()
    assert ids(answer) == registry.load(model).model.similar_items(3, N=5)[0][1:].tolist()
    assert ask("GET", "/items/7/similar").status_code == 404


def test_items_whose_ids_hold_slashes(tmp_path: Path) -> None:
    model = small().fit(random_interactions(N_USERS, N_ITEMS), show_progress=False)
    names = [f"a/{i}/similar" for i in range(N_ITEMS)]
    registry.save(model, tmp_path / "model", items=names)
    ask = Asker(Settings(tmp_path / "model"))
    for path in ("a/3/similar", "a%2F3%2Fsimilar"):
        answer = ask("GET", f"/items/{path}/similar?n=4")
        expected = model.similar_items(3, N=5)[0][1:]
        assert [item["id"] for item in answer.json()["items"]] == [names[i] for i in expected]


@pytest.mark.parametrize(
    ("query", "found"),
    [("amelie", [3]), ("AMÉL", [3]), ("film 07", [7]), ("(1957)", [7]), ("no such", []), (".*", []), ("\n", None)],
)
def test_search(model: Path, ask: Asker, query: str, found: list[int] | None) -> None:
    answer = ask("GET", "/items", params={"query": query, "n": 5}).json()
    popular = np.argsort(-registry.load(model).model.item_counts_, kind="stable")[:5].tolist()
    assert ids(answer) == (popular if found is None else found)


def test_the_model_is_described(model: Path, ask: Asker) -> None:
    about = ask("GET", "/model").json()
    manifest = registry.load(model).manifest
    assert about["metrics"] == manifest["metrics"]
    assert about["hyperparameters"]["latent"] == 8
    assert about["n_items"] == N_ITEMS
    assert about["last_error"] is None
    assert about["card"] == describe_artifact(registry.load(model))
    assert len(about["version"]) == 12


def test_probes_may_add_parameters(ask: Asker) -> None:
    for path in ("/healthz", "/readyz", "/model", "/metrics"):
        assert ask("GET", f"{path}?probe=1").status_code == 200


def test_probes_and_documentation(ask: Asker) -> None:
    assert ask("GET", "/healthz").json() == {"status": "alive"}
    assert ask("GET", "/readyz").json() == {"status": "ready"}
    document = ask("GET", "/openapi.json").json()
    assert "/recommend" in document["paths"]
    assert document["components"]["schemas"]["RecommendRequest"]["examples"]
    assert ask("GET", "/docs").headers["content-type"].startswith("text/html")


def test_without_a_model_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    ask = Asker(Settings(tmp_path / "nowhere"))
    assert ask("GET", "/healthz").status_code == 200
    for answer in (ask("GET", "/readyz"), ask("POST", "/recommend", json={"history": []})):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "nowhere is missing" in answer.json()["detail"]


def test_a_model_of_known_users(tmp_path: Path) -> None:
    save(tmp_path / "bpr", BPR(factors=4, iterations=5))
    ask = Asker(Settings(tmp_path / "bpr"))
    assert len(ask("GET", "/users/u1/recommendations?n=3").json()["items"]) == 3
    refused = ask("POST", "/recommend", json={"history": [item_id(1)]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "history"
    assert ids(ask.recommend(history=[], only=[item_id(1)])) == [1]


def test_a_model_without_item_vectors(tmp_path: Path) -> None:
    save(tmp_path / "popularity", Popularity())
    assert Asker(Settings(tmp_path / "popularity"))("GET", f"/items/{item_id(1)}/similar").status_code == 501


WRONG: dict[str, tuple[str, str]] = {
    "{}": ("history", "required"),
    "[]": ("body", "object"),
    "": ("body", "JSON"),
    "nonsense": ("body", "JSON"),
    '{"history": null}': ("history", "list"),
    '{"history": "1"}': ("history", "list"),
    '{"history": [null]}': ("history[0]", "integer"),
    '{"history": [true]}': ("history[0]", "integer"),
    '{"history": [1.5]}': ("history[0]", "integer"),
    '{"history": [NaN]}': ("body", "JSON"),
    '{"history": [1e400]}': ("body", "JSON"),
    '{"history": [9007199254740992]}': ("history[0]", "9007199254740991"),
    '{"history": [' + "9" * 5000 + "]}": ("", ""),
    '{"history": [""]}': ("history[0]", "at least 1"),
    '{"history": ["' + "x" * 300 + '"]}': ("history[0]", "at most 256"),
    '{"history": ["a\\u0000b"]}': ("history[0]", "pattern"),
    '{"history": ["\\ud800"]}': ("body", "JSON"),
    '{"history": [1, 1]}': ("history", "more than once"),
    '{"history": [' + ",".join(map(str, range(1001))) + "]}": ("history", "at most 1000"),
    '{"history": [], "n": 0}': ("n", "greater than or equal to 1"),
    '{"history": [], "n": 501}': ("n", "less than or equal to 500"),
    '{"history": [], "n": "10"}': ("n", "integer"),
    '{"history": [], "n": 1e9}': ("n", "less than or equal to 500"),
    '{"history": [], "n": 1.5}': ("n", "integer"),
    '{"history": [], "n": true}': ("n", "integer"),
    '{"history": [], "only": [[]]}': ("only[0]", "integer"),
    '{"history": [], "colour": 1}': ("colour", "not permitted"),
    '{"history": ' + "[" * 10_000 + "]" * 10_000 + "}": ("body", "depth limit"),
}


@pytest.mark.parametrize("body", WRONG, ids=lambda body: body[:40])
def test_wrong_bodies(ask: Asker, body: str) -> None:
    field, expected = WRONG[body]
    answer = ask("POST", "/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert set(content) == {"type", "title", "status", "detail", "errors"}
    fields = [error["field"] for error in content["errors"]]
    assert not field or field in fields, fields
    assert expected in answer.text
    inside = ask(
        "POST", "/recommend/batch", content=f'{{"requests": [{body}]}}', headers={"content-type": "application/json"}
    )
    assert inside.status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "encoding", "status"),
    [
        (b'{"history": ["\xff"]}', "application/json", "identity", 422),
        (b'{"history": []}', "text/plain", "identity", 415),
        (gzip.compress(b'{"history": []}', mtime=0), "application/json", "gzip", 415),
        (b'{"history": [' + b"1," * 2**20 + b"1]}", "application/json", "identity", 413),
    ],
)
def test_wrong_bytes(ask: Asker, content: bytes, kind: str, encoding: str, status: int) -> None:
    answer = ask("POST", "/recommend", content=content, headers={"content-type": kind, "content-encoding": encoding})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", "/users/u1/recommendations?n=0", 422, "n"),
        ("GET", "/users/u1/recommendations?n=ten", 422, "n"),
        ("GET", "/users/u%001/recommendations", 422, "user_id"),
        ("GET", f"/users/{'u' * 300}/recommendations", 422, "user_id"),
        ("GET", "/users/u%FF/recommendations", 400, None),
        ("GET", "/items/%ED%A0%80/similar", 400, None),
        ("GET", "/users//recommendations", 422, "user_id"),
        ("GET", f"/items/{item_id(1)}/similar?n=9999999999999999999999", 422, "n"),
        ("GET", f"/items?query={'x' * 300}", 422, "query"),
        ("GET", "/users/u1/recommendations?N=3", 422, "N"),
        ("GET", f"/items/{item_id(1)}/similar?n=3&explain=true", 422, "explain"),
        ("POST", "/recommend?n=3", 422, "n"),
        ("DELETE", "/users/u1?dry_run=true", 422, "dry_run"),
        ("GET", "/nowhere", 404, None),
        ("GET", "/recommend", 405, None),
        ("DELETE", "/model", 405, None),
    ],
)
def test_wrong_paths(ask: Asker, method: str, path: str, status: int, field: str | None) -> None:
    answer = ask(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json().get("errors", [])] == ([field] if field else [])
    assert status != 405 or answer.headers["allow"]


JSON_BODY = {"content-type": "application/json"}


def test_deeply_nested_values_are_wrong_values(shop: Asker) -> None:
    deep = "[" * 1000 + "]" * 1000
    for rule in (
        f'"filter":{{"year":{deep}}}',
        f'"boost":[{{"filter":{{}},"by":{deep}}}]',
        f'"cap":{{"genre":{deep}}}',
    ):
        answer = shop("POST", "/recommend", content=f'{{"history":[],{rule}}}', headers=JSON_BODY)
        assert answer.status_code == 422, answer.text
        assert len(answer.text) < 1000


@pytest.mark.parametrize("weight", [1e-46, 1e-30, 1e9])
def test_no_item_of_the_history_is_listed_whatever_it_weighs(ask: Asker, weight: float) -> None:
    history = [{"id": item_id(1), "weight": weight}, {"id": item_id(3), "weight": 1}]
    answer = ask("POST", "/recommend", json={"history": history, "n": N_ITEMS}).json()
    assert sorted(ids(answer)) == [i for i in range(N_ITEMS) if i not in (1, 3)]


def test_a_long_batch_is_refused_with_the_limit(ask: Asker) -> None:
    answer = ask("POST", "/recommend/batch", json={"requests": [{"history": []}] * 101})
    assert answer.status_code == 422
    assert "at most 100" in answer.text


GENRES = ["Drama", "Comedy|Crime", "Crime"]
ITEMS = pd.DataFrame(
    {
        "item_id": [item_id(i) for i in range(N_ITEMS)],
        "genre": [GENRES[i % 3] for i in range(N_ITEMS)],
        "year": [1980 + i for i in range(N_ITEMS)],
        "in_stock": [i != 9 for i in range(N_ITEMS)],
    }
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Asker:
    path = tmp_path_factory.mktemp("shop") / "model"
    save(path, items=ITEMS)
    return Asker(Settings(path))


def test_rules_on_every_route(shop: Asker) -> None:
    history = [item_id(1), item_id(7)]
    whole = ids(shop.recommend(history=history, n=N_ITEMS))
    rules: dict[str, Any] = {"filter": {"genre": ["Crime"], "year": {"ge": 1985}, "in_stock": True}}
    allowed = [i for i in range(5, N_ITEMS) if i % 3 and i != 9]
    assert ids(shop.recommend(history=history, **rules)) == [i for i in whole if i in allowed][:10]
    requests = [{"history": history, **rules}, {"history": history}]
    answers = shop("POST", "/recommend/batch", json={"requests": requests}).json()["answers"]
    assert list(map(ids, answers)) == [[i for i in whole if i in allowed][:10], whole[:10]]

    whole = ids(shop("GET", f"/users/u5/recommendations?n={N_ITEMS}").json())
    query = {"filter": json.dumps(rules["filter"]), "exclude": item_id(whole[0]), "n": 4}
    expected = [i for i in whole[1:] if i in allowed][:4]
    assert ids(shop("GET", "/users/u5/recommendations", params=query).json()) == expected
    body = {**rules, "exclude": [item_id(whole[0])], "n": 4}
    assert ids(shop("POST", "/users/u5/recommendations", json=body).json()) == expected
    some = [("only", item_id(i)) for i in (2, 3, 4, 5)]
    answer = shop("GET", "/users/u5/recommendations", params=some).json()
    assert ids(answer) == [i for i in whole if i in (2, 3, 4, 5)]


def test_columns_have_the_choices_of_filters(shop: Asker) -> None:
    columns = shop("GET", "/columns").json()["columns"]
    assert set(columns) == {"genre", "in_stock", "year"}
    for value in columns["genre"]["values"]:
        assert shop.recommend(history=[], filter={"genre": value})["items"]
    assert shop.recommend(history=[], filter={"year": {"gt": columns["year"]["largest"]}})["items"] == []


def test_caps_boosts_and_diversity(shop: Asker) -> None:
    capped = ids(shop.recommend(history=[item_id(1)], cap={"genre": 2.0}))
    assert [sum(i % 3 in of for i in capped) for of in ({0}, {1, 2})] == [2, 2]
    boost = [{"filter": {"genre": "Drama"}, "by": 50}]
    assert {i % 3 for i in ids(shop.recommend(history=[], boost=boost, n=5))} == {0}
    plain = ids(shop.recommend(history=[item_id(1)]))
    diverse = shop.recommend(history=[item_id(1)], diversity=0.9, explain=True)
    assert ids(diverse)[0] == plain[0]
    assert ids(diverse) != plain
    assert "because" in diverse["items"][0]


@pytest.mark.parametrize(
    ("rules", "field", "said"),
    [
        ({"filter": {"colour": "red"}}, "filter.colour", "expected one of genre, in_stock, item_id, year"),
        ({"filter": {"genre": 1}}, "filter.genre", "is 1; expected text"),
        ({"filter": {"year": {"ge": "x"}}}, "filter.year.ge", "is 'x'; expected a number"),
        ({"filter": [1]}, "filter", "valid dictionary"),
        ({"filter": {"genre": ["a"] * 1001}}, "filter.genre", "has 1,001 values; expected at most 1,000"),
        ({"filter": {"genre": {"all": ["a"] * 17}}}, "filter.genre.all", "expected at most 16"),
        ({"boost": [{"filter": {}, "by": "much"}]}, "boost[0].by", "is 'much'; expected a number"),
        ({"cap": {"genre": 1.5}}, "cap.genre", "is 1.5; expected a whole number"),
        ({"diversity": 1.01}, "diversity", "less than or equal to 1"),
        ({"diversity": "much"}, "diversity", "valid number"),
    ],
    ids=str,
)
def test_wrong_rules_name_their_field(shop: Asker, rules: dict[str, Any], field: str, said: str) -> None:
    for path, body, where in (
        ("/recommend", {"history": [], **rules}, ""),
        ("/users/u1/recommendations", rules, ""),
        ("/recommend/batch", {"requests": [{"history": []}] * 20 + [{"history": [], **rules}]}, "requests[20]."),
    ):
        answer = shop("POST", path, json=body)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [f"{where}{field}"]
        assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("filter=genre", "filter"),
        ("filter=[1]", "filter"),
        ('filter={"genre":1}', "filter.genre"),
        ("only=", "only[0]"),
        ("exclude=1&exclude=1", "exclude"),
        ("&".join(f"only={i}" for i in range(11)), "only"),
    ],
)
def test_wrong_rules_of_an_address(shop: Asker, query: str, field: str) -> None:
    answer = shop("GET", f"/users/u1/recommendations?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_the_document_knows_the_columns(shop: Asker) -> None:
    """A document that is asked for without a request before it, as by its own page."""
    document = shop("GET", "/openapi.json").json()
    request = document["components"]["schemas"]["RecommendRequest"]["properties"]
    assert set(request["filter"]["anyOf"][0]["properties"]) == set(request["cap"]["properties"]) == set(ITEMS.columns)
    methods = shop("PUT", "/users/u1/recommendations")
    assert (methods.status_code, methods.headers["allow"]) == (405, "GET, HEAD, POST")


def test_what_a_model_cannot_do_is_said_with_its_field(tmp_path: Path) -> None:
    save(tmp_path / "popularity", Popularity())
    save(tmp_path / "bpr", BPR(factors=4, iterations=5))
    popularity, bpr = (Asker(Settings(tmp_path / name)) for name in ("popularity", "bpr"))
    plain: dict[str, Any] = {"history": []}
    diverse, known = {**plain, "diversity": 0.5}, {"history": [item_id(1)]}
    cases: list[tuple[Asker, str, dict[str, Any], str]] = [
        (popularity, "/recommend", diverse, "diversity"),
        (popularity, "/recommend/batch", {"requests": [plain, known, diverse]}, "requests[2].diversity"),
        (popularity, "/users/u1/recommendations", {"diversity": 0.5}, "diversity"),
        (bpr, "/recommend", known, "history"),
        (bpr, "/recommend/batch", {"requests": [plain, known]}, "requests[1].history"),
        (bpr, "/users/u1/recommendations", {"explain": True}, "explain"),
    ]
    for ask, path, body, field in cases:
        refused = ask("POST", path, json=body)
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert "BPR gives no reasons" in refused.json()["detail"]


def test_weights_of_a_history(model: Path, ask: Asker) -> None:
    loaded = registry.load(model)
    weighted = [{"id": item_id(7), "weight": 9}, {"id": str(item_id(4)), "weight": 0.5}, {"id": "new", "weight": 1}]
    history = [item_id(1), *weighted]
    matrix = sparse.csr_matrix((np.array([1, 0.5, 9], np.float32), [1, 4, 7], [0, 3]), shape=(1, N_ITEMS))
    expected, scores = loaded.model.recommend(0, matrix, N=5)
    answer = ask.recommend(history=history, n=5)
    assert ids(answer) == expected.tolist()
    assert [item["score"] for item in answer["items"]] == pytest.approx(scores.tolist(), abs=1e-5)
    assert answer["unknown"] == ["new"]
    batch = ask("POST", "/recommend/batch", json={"requests": [{"history": history, "n": 5}]}).json()["answers"][0]
    assert ids(batch) == expected.tolist()
    assert ids(ask.recommend(history=history, n=5, filter={"title": {"not": "x"}})) == expected.tolist()
    same = [ask.recommend(history=[entry]) for entry in ({"id": float(item_id(1)), "weight": 1}, item_id(1))]
    assert ids(same[0]) == ids(same[1])


@pytest.mark.parametrize(
    ("entry", "field", "said"),
    [
        ({"id": 1}, "history[0].weight", "required"),
        ({"weight": 1}, "history[0].id", "required"),
        ({"id": 1, "weight": 0}, "history[0].weight", "greater than 0"),
        ({"id": 1, "weight": -1}, "history[0].weight", "greater than 0"),
        ({"id": 1, "weight": "2"}, "history[0].weight", "valid number"),
        ({"id": 1, "weight": 1e10}, "history[0].weight", "less than or equal to 1000000000"),
        ({"id": 1, "weight": 1, "at": 1}, "history[0].at", "not permitted"),
        ({"id": [], "weight": 1}, "history[0].id", "integer"),
    ],
    ids=str,
)
def test_wrong_weights(ask: Asker, entry: dict[str, Any], field: str, said: str) -> None:
    answer = ask("POST", "/recommend", json={"history": [entry]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert said in answer.json()["detail"]


def test_weights_of_the_same_item_add_up(ask: Asker) -> None:
    other = item_id(7)
    twice = [{"id": item_id(1), "weight": 2}, other, {"id": item_id(1), "weight": 0.5}, str(item_id(1))]
    once = [{"id": item_id(1), "weight": 3.5}, other]
    assert ask.recommend(history=twice)["items"] == ask.recommend(history=once)["items"]
    answer = ask("POST", "/recommend", json={"history": [{"id": 5, "weight": 2}, {"id": 5, "weight": 2.0}]})
    assert answer.json()["errors"][0] == {"field": "history", "detail": "Value error, ids occur more than once"}


def test_the_artifact_s_weights_count(tmp_path: Path) -> None:
    users = pd.DataFrame({"user_id": ["ann", "bob"], "history": [[7, 1], [7, 1]], "weights": [[9.0, 1.0], [1.0, 1.0]]})
    save(tmp_path / "model", users=users)
    ask = Asker(Settings(tmp_path / "model"))
    by_id = ask("GET", "/users/ann/recommendations").json()["items"]
    assert by_id == ask.recommend(history=[{"id": item_id(7), "weight": 9}, item_id(1)])["items"]
    assert by_id != ask("GET", "/users/bob/recommendations").json()["items"]


def test_lists_and_answers_to_them_are_counted_by_version(model: Path, tmp_path: Path) -> None:
    async def question(http: httpx.AsyncClient) -> tuple[list[str], str, str]:
        version = (await http.get("/model")).json()["version"]
        first = (await http.post("/recommend", json={"history": [item_id(1)]})).json()["list_id"]
        requests = [{"history": []}, {"history": [item_id(2)]}]
        batch = (await http.post("/recommend/batch", json={"requests": requests})).json()["answers"]
        by_user = (await http.get("/users/u1/recommendations")).json()["list_id"]
        for list_id in (first, "of-another-service", None):
            body = {"items": [item_id(3), item_id(4)], "list_id": list_id}
            assert (await http.post("/users/ann/events", json=body)).status_code == 200
        lists = [first, *(answer["list_id"] for answer in batch), by_user]
        return lists, version, (await http.get("/metrics")).text

    settings = Settings(model, store=f"sqlite:///{tmp_path / 'events.db'}")
    lists, version, metrics = asked(settings, question)
    assert len(set(lists)) == 4
    assert all(name.startswith(f"{version}-") for name in lists)
    assert f'recvae_lists_total{{version="{version}"}} 4.0' in metrics
    assert f'recvae_list_answers_total{{version="{version}"}} 2.0' in metrics
    assert 'recvae_list_answers_total{version="other"} 2.0' in metrics
    refused = asked(settings, lambda http: http.post("/users/ann/events", json={"items": [1], "list_id": "x" * 65}))
    assert refused.json()["errors"][0]["field"] == "list_id"
