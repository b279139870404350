"""A client generated from the OpenAPI document: pleasant names, and types that fit the answers."""

import importlib.util
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import httpx
import pytest

from recvae.serving import Settings, create_app
from tests.contracts import one_thread as one_thread
from tests.http_service import asked, item_id, save

OPERATIONS = {
    "recommend",
    "recommend_batch",
    "recommend_for_user",
    "recommend_for_user_by_rules",
    "append_events",
    "judge_history",
    "erase_user",
    "set_item",
    "search_items",
    "similar_items",
    "get_model",
    "list_columns",
    "reload_model",
    "check_alive",
    "check_ready",
    "get_metrics",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("client")
    save(folder / "model")
    return Settings(folder / "model", store=f"sqlite:///{folder / 'events.db'}")


@pytest.fixture(scope="module")
def document(settings: Settings) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(create_app(settings).openapi()))
    return content


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "datamodel_code_generator", "--input", str(folder / "openapi.json")]
    options = ["--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel", "--disable-timestamp"]
    subprocess.run([*command, *options, "--output", str(folder / "recvae_client.py")], check=True)
    spec = importlib.util.spec_from_file_location("recvae_client", folder / "recvae_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_operations_and_schemas_have_pleasant_names(document: dict[str, Any]) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == OPERATIONS
    assert all(operation["tags"] and operation["description"] for operation in operations)
    for name, schema in document["components"]["schemas"].items():
        assert name.isidentifier(), name
        assert name.lower() not in map(str.lower, schema.get("properties", {})), name


def test_a_generated_client_asks_and_understands(settings: Settings, generated: ModuleType) -> None:
    request = generated.RecommendRequest(history=[item_id(1), item_id(7)], n=3, explain=True)
    batch = generated.BatchRequest(requests=[request, generated.RecommendRequest(history=[])])
    events = generated.EventsRequest(items=[item_id(2), "new"])

    async def question(http: httpx.AsyncClient) -> list[httpx.Response]:
        http.headers["content-type"] = "application/json"
        return [
            await http.post("/recommend", content=request.model_dump_json(exclude_none=True)),
            await http.post("/recommend/batch", content=batch.model_dump_json(exclude_none=True)),
            await http.post("/users/ann/events", content=events.model_dump_json()),
            await http.get("/users/ann/recommendations"),
            await http.get("/items", params={"query": "film"}),
            await http.get(f"/items/{item_id(1)}/similar"),
            await http.get("/model"),
            await http.post("/recommend", content=b"{}"),
        ]

    types = (
        generated.RecommendResponse,
        generated.BatchResponse,
        generated.EventsResponse,
        generated.RecommendResponse,
        generated.SearchResponse,
        generated.SimilarItemsResponse,
        generated.ModelInfo,
        generated.Problem,
    )
    answers = [
        kind.model_validate_json(answer.content) for kind, answer in zip(types, asked(settings, question), strict=True)
    ]
    one, many, stored, by_user, found, similar, model, problem = answers
    assert len(one.items) == 3
    assert one.items[0].because[0].contribution > 0
    assert [item.id for item in many.answers[0].items] == [item.id for item in one.items]
    assert (stored.stored, stored.unknown) == (2, ["new"])
    assert by_user.model.version == one.model.version == model.version
    assert found.items[0].title.startswith("Film")
    assert similar.items[0].score >= similar.items[1].score
    assert problem.errors[0].field == "history"
