"""The routes that answer with JSON, and their entries in the OpenAPI document."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from recvae.errors import RecvaeError, UnsupportedError
from recvae.serving import fields, schemas
from recvae.serving.backend import Backend
from recvae.serving.problems import MEDIA_TYPE, ProblemError
from recvae.serving.telemetry import TEXT

JSON = "application/json"
OPERATIONS = "operations"
FEW_IDS = 10
"""Most ids of a list in an address: headers are limited, and an id may have hundreds of characters."""
Id = Annotated[fields.TextId, Path(openapi_examples={"MovieLens": {"value": "50"}})]


BEHIND = {"/users/{user_id:id}": ("/events", "/recommendations"), "/items/{item_id:id}": ("/similar",)}
"""Ends of paths that other routes have behind an id; written `%2Fevents` they are part of the id."""


class _AnyText(Convertor[str]):
    """Path parameter that may hold any character, `/` too."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _AnyText())


class _JsonRequest(Request):
    async def json(self) -> Any:
        return orjson.loads(await self.body())


class _JsonRoute(APIRoute):
    """Route that reads bodies with orjson, as strict as JSON is, and several times faster than the standard library.

    It refuses parameters that it does not have, as bodies refuse fields, except where probes ask, which may add some.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as Starlette does, but `DELETE /users/ann/events` is none of the user `ann/events`."""
        match, found = super().matches(scope)
        ends = BEHIND.get(self.path, ())
        if match is not Match.NONE and ends:
            raw = scope.get("raw_path") or scope["path"].encode()
            given = next(iter(found["path_params"].values()))
            if given.endswith(ends) and raw.endswith(tuple(map(str.encode, ends))):
                return Match.NONE, {}
        return match, found

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}
        strict = OPERATIONS not in self.tags

        async def handle_json(request: Request) -> Response:
            if request.scope["query_string"] and strict and (unknown := sorted({*request.query_params} - known)):
                message = f"Extra inputs are not permitted; expected {', '.join(sorted(known)) or 'no parameters'}"
                raise RequestValidationError([{"type": "extra", "loc": ("query", x), "msg": message} for x in unknown])
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


def add_routes(app: FastAPI, backend: Backend) -> None:
    """Add every route that answers with JSON, and `/metrics`."""
    app.router.route_class = _JsonRoute
    requests = schemas.request_models(backend.settings)
    _add_recommendations(app, backend, requests)
    _add_anomaly(app, backend, requests)
    _add_users(app, backend, requests)
    _add_events(app, backend, requests)
    _add_items(app, backend)
    _add_columns(app, backend)
    _add_operations(app, backend)


def _add_recommendations(app: FastAPI, backend: Backend, requests: schemas.Requests) -> None:
    async def recommend(body: schemas.RecommendFields) -> Response:
        """Recommend items for a history."""
        return _json(await backend.recommend(body))

    async def recommend_batch(body: schemas.BatchFields) -> Response:
        """Recommend items for several histories; the answers come in the order of the requests."""
        answers = b",".join(await backend.recommend_batch(body.requests))
        return Response(b'{"answers":[' + answers + b"]}", media_type=JSON)

    for path, endpoint, body, answer in (
        ("/recommend", recommend, requests.recommend, schemas.RecommendResponse),
        ("/recommend/batch", recommend_batch, requests.batch, schemas.BatchResponse),
    ):
        _add(
            app,
            "recommendations",
            path,
            _with_body(endpoint, body),
            answer,
            *(400, 401, 404, 413, 415, 422, 503, 504),
            method="POST",
        )


def _add_anomaly(app: FastAPI, backend: Backend, requests: schemas.Requests) -> None:
    async def judge_history(body: schemas.AnomalyFields) -> Response:
        """Say how unusual a history is, and which of its items fit the rest least."""
        return _json(await backend.judge_history(body.history))

    body = _with_body(judge_history, requests.anomaly)
    problems = 400, 401, 413, 415, 422, 501, 503, 504
    _add(app, "users", "/anomaly", body, schemas.AnomalyResponse, *problems, method="POST")


def _add_users(app: FastAPI, backend: Backend, requests: schemas.Requests) -> None:
    length = Query(ge=1, le=backend.settings.max_n)
    few = Query(max_length=FEW_IDS, json_schema_extra={"uniqueItems": True})

    async def recommend_for_user(
        user_id: Id,
        n: Annotated[int, length] = 10,
        explain: bool = False,
        filter: Annotated[str, Query()] = "",  # noqa: A002 the name that clients know it by
        exclude: Annotated[list[fields.TextId], few] = [],  # noqa: B006 FastAPI copies it
        only: Annotated[list[fields.TextId] | None, few] = None,
    ) -> Response:
        """Recommend items for a user, by the history of the artifact and the interactions appended since.

        POST takes longer lists of items and all rules.
        """
        given = {"n": n, "explain": explain, "exclude": exclude, "only": only, "filter": _parse_filter(filter)}
        try:
            request = requests.user.model_validate(given)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        return _json(await backend.recommend_for_user(user_id, request))

    async def recommend_for_user_by_rules(user_id: Id, body: schemas.ListFields) -> Response:
        """Recommend items for a user; the body has what `POST /recommend` has, without a history."""
        return _json(await backend.recommend_for_user(user_id, body))

    _add(
        app,
        "users",
        "/users/{user_id:id}/recommendations",
        recommend_for_user,
        schemas.UserResponse,
        *(400, 401, 404, 422, 503, 504),
    )
    _add(
        app,
        "users",
        "/users/{user_id:id}/recommendations",
        _with_body(recommend_for_user_by_rules, requests.user),
        schemas.UserResponse,
        *(400, 401, 404, 413, 415, 422, 503, 504),
        method="POST",
    )


def _add_events(app: FastAPI, backend: Backend, requests: schemas.Requests) -> None:
    async def append_events(user_id: Id, body: schemas.EventsFields) -> Response:
        """Append interactions of a user, which the next request takes into account."""
        return _json(await backend.append_events(user_id, body))

    async def erase_user(user_id: Id) -> Response:
        """Erase a user's interactions from the store, and hide the artifact's history of the user from now on."""
        return _json(await backend.erase_user(user_id))

    _add(
        app,
        "users",
        "/users/{user_id:id}/events",
        _with_body(append_events, requests.events),
        schemas.EventsResponse,
        *(400, 401, 409, 413, 415, 422, 501, 503, 504),
        method="POST",
    )
    _add(
        app,
        "users",
        "/users/{user_id:id}",
        erase_user,
        schemas.EraseResponse,
        *(400, 401, 422, 501, 503, 504),
        method="DELETE",
    )


def _add_items(app: FastAPI, backend: Backend) -> None:
    length = Query(ge=1, le=backend.settings.max_n)

    async def similar_items(item_id: Id, n: Annotated[int, length] = 10) -> Response:
        """List the items most similar to one."""
        model = backend.model
        index = model.ranker.items.get(item_id)
        if index is None:
            raise ProblemError(404, f"item {item_id!r} is not known", "item_id")
        try:
            ranked = await backend.batcher.submit_steps(model.similar(index, n))
        except UnsupportedError as error:
            raise ProblemError(501, str(error)) from None
        return _json({"items": model.ranker.describe(ranked), "model": model.version})

    async def search_items(
        query: Annotated[str, Query(max_length=fields.LONGEST_ID)] = "", n: Annotated[int, length] = 10
    ) -> Response:
        """Search items whose title contains the text, whatever its case and accents; the most popular come first."""
        ranker = backend.model.ranker
        found = await backend.batcher.submit_steps(backend.model.search(query, n))
        return _json({"items": [{"id": ranker.items.ids[i], "title": ranker.titles[i]} for i in found]})

    async def set_item(item_id: Id, body: schemas.ItemRequest) -> Response:
        """Set an item's metadata, such as whether it is in stock, in place of what was set before.

        Columns that are not named are the model's own. Every worker filters by it within a second. An item that the
        model does not know, of which it knows a value, is recommended from then on.
        """
        return _json(await backend.set_item(item_id, body.root))

    _add(
        app,
        "items",
        "/items/{item_id:id}",
        set_item,
        schemas.ItemResponse,
        *(400, 401, 404, 409, 413, 415, 422, 501, 503, 504),
        method="PUT",
    )
    _add(app, "items", "/items", search_items, schemas.SearchResponse, 401, 422, 503, 504)
    _add(
        app,
        "items",
        "/items/{item_id:id}/similar",
        similar_items,
        schemas.SimilarItemsResponse,
        *(400, 401, 404, 422, 501, 503, 504),
    )


def _add_columns(app: FastAPI, backend: Backend) -> None:
    async def list_columns() -> Response:
        """List the columns, beside `item_id` and `title`, that rules can name, with frequent values or bounds."""
        return _json({"columns": await asyncio.to_thread(lambda: backend.model.ranker.metadata.choices)})

    _add(app, "items", "/columns", list_columns, schemas.ColumnsResponse, 401, 503, 504)


def _add_operations(app: FastAPI, backend: Backend) -> None:
    async def get_model() -> Response:
        """Describe what is served: version, metrics, data, hyperparameters, and each of several models."""
        # cards read all items when they are first asked for
        described = await asyncio.to_thread(backend.describe_models)
        return _json(described)

    async def reload_model() -> Response:
        """Load the artifact now at the path, in the worker that answers; the others do so within seconds."""
        try:
            changed = await backend.models.reload()
        except RecvaeError as error:
            what = "the present model stays" if backend.models.current else "no model is loaded"
            raise ProblemError(409, f"{what}: {error}") from None
        return _json({"changed": changed, "model": backend.model.version})

    async def check_alive() -> Response:
        """Answer while the process lives."""
        return _json({"status": "alive"})

    async def check_ready() -> Response:
        """Answer once a model is loaded."""
        backend.model  # noqa: B018 raises where there is none
        return _json({"status": "ready"})

    async def get_metrics() -> Response:
        """Write the metrics of all workers in Prometheus's text format."""
        backend.metrics.queue.set(len(backend.batcher))
        return Response(backend.metrics.exposition(), media_type=TEXT)

    tag = OPERATIONS
    _add(app, tag, "/model", get_model, schemas.ModelInfo, 401, 503)
    _add(app, tag, "/admin/reload", reload_model, schemas.ReloadResponse, 401, 404, 409, 504, method="POST")
    _add(app, tag, "/healthz", check_alive, schemas.ServiceStatus)
    _add(app, tag, "/readyz", check_ready, schemas.ServiceStatus, 503)
    _add(app, tag, "/metrics", get_metrics, None, 401, response_class=_PlainText)


class _PlainText(Response):
    media_type = "text/plain"


def _add(
    app: FastAPI,
    tag: str,
    path: str,
    endpoint: Callable[..., Any],
    answer: type[BaseModel] | None,
    *problems: int,
    method: str = "GET",
    **options: Any,
) -> None:
    """Add a route whose operation id is the endpoint's name, for generated clients."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=endpoint.__name__,
        response_model=answer,
        responses={status: {"description": "Problem", "content": content} for status in problems},
        tags=[tag],
        **options,
    )


def _with_body(endpoint: Callable[..., Any], body: type[BaseModel]) -> Callable[..., Any]:
    """Return the endpoint with a body type that has the service's limits."""
    endpoint.__annotations__["body"] = body
    return endpoint


def _parse_filter(text: str) -> Any:
    """Parse the query parameter `filter`."""
    try:
        return orjson.loads(text) if text else None
    except ValueError as error:
        raise ProblemError(422, f"filter is no JSON: {error}", "filter") from None


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=JSON)
