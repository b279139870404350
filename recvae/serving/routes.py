"""The routes and what the OpenAPI document says of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from recvae.errors import RecvaeError, UnsupportedError
from recvae.serving import schemas
from recvae.serving.answers import Service, described
from recvae.serving.problems import MEDIA_TYPE, ProblemError, invalid
from recvae.serving.telemetry import TEXT

JSON = "application/json"
Direct = Callable[[bytes], Awaitable[Response]]
Id = Annotated[schemas.UserId, Path(openapi_examples={"MovieLens": {"value": "50"}})]


def add_routes(app: FastAPI, service: Service) -> dict[str, Direct]:
    """Add every route that answers with JSON; returns the busiest, which `Shell` asks itself."""
    busiest = _add_recommendations(app, service)
    _add_users(app, service)
    _add_items(app, service)
    _add_operations(app, service)
    return busiest


def _add_recommendations(app: FastAPI, service: Service) -> dict[str, Direct]:
    requests = schemas.request_models(service.settings)

    async def recommend(body: schemas.Recommend) -> Response:
        """The best items for a history."""
        return _json(await service.answer(body, service.served))

    async def recommend_batch(body: schemas.Batch) -> Response:
        """One answer a request, in order."""
        served = service.served
        answers = await asyncio.gather(*(service.answer(asked, served) for asked in body.requests))
        return _json({"answers": answers})

    busiest = {}
    for path, endpoint, given, answer in (
        ("/recommend", recommend, requests.recommend, schemas.Answer),
        ("/recommend/batch", recommend_batch, requests.batch, schemas.BatchAnswer),
    ):
        app.add_api_route(
            path,
            _taking(endpoint, given),
            methods=["POST"],
            response_model=answer,
            responses=_problems(400, 401, 413, 415, 422, 503, 504),
            tags=["recommendations"],
        )
        busiest[path] = _direct(endpoint, given)
    return busiest


def _direct(endpoint: Callable[[Any], Awaitable[Response]], body: type[BaseModel]) -> Direct:
    """An endpoint as a function of the bytes that it is sent: FastAPI's way there costs more than the endpoint."""
    validate = body.__pydantic_validator__.validate_json

    async def answer(given: bytes) -> Response:
        try:
            asked = validate(given)
        except ValidationError as error:
            return invalid(error.errors(include_url=False, include_context=False, include_input=False))
        return await endpoint(asked)

    return answer


def _add_users(app: FastAPI, service: Service) -> None:
    requests = schemas.request_models(service.settings)
    store = service.store
    length = Query(ge=1, le=service.settings.max_n)

    async def recommendations(user_id: Id, n: Annotated[int, length] = 10, explain: bool = False) -> Response:
        """The best items for a user: by the history of the artifact and the interactions appended since."""
        served = service.served
        query, unknown = await service.user_query(user_id, n, served)
        return _json(await service.ranked(query, served, unknown, explain))

    async def append(user_id: Id, body: schemas.Events) -> Response:
        """Append interactions, which the next request for the user already takes into account."""
        if store is None:
            raise ProblemError(501, "there is no store to keep interactions in; RECVAE_STORE names a database")
        _, unknown = service.served.ranker.items.find(body.items)
        return _json(
            {
                "stored": await store.append(user_id, [str(item) for item in body.items]),
                "unknown": unknown,
            }
        )

    app.add_api_route(
        "/users/{user_id}/recommendations",
        recommendations,
        response_model=schemas.Answer,
        responses=_problems(401, 404, 422, 503, 504),
        tags=["users"],
    )
    app.add_api_route(
        "/users/{user_id}/events",
        _taking(append, requests.events),
        methods=["POST"],
        response_model=schemas.StoredAnswer,
        responses=_problems(400, 401, 413, 415, 422, 501, 503, 504),
        tags=["users"],
    )


def _add_items(app: FastAPI, service: Service) -> None:
    length = Query(ge=1, le=service.settings.max_n)

    async def similar(item_id: Id, n: Annotated[int, length] = 10) -> Response:
        """The items most like one."""
        served = service.served
        known, _ = served.ranker.items.find([item_id])
        if not known:
            raise ProblemError(404, f"item {item_id!r} is not known", "item_id")
        try:
            ranked = await service.batcher.submit(served.similar, (known[0], n))
        except UnsupportedError as error:
            raise ProblemError(501, str(error)) from None
        return _json({"items": described(served, ranked), "model": served.name})

    async def search(
        query: Annotated[str, Query(max_length=schemas.LONGEST_ID)] = "", n: Annotated[int, length] = 10
    ) -> Response:
        """Items whose title holds the text, whatever its case and accents, the most played first."""
        served = service.served
        found = await service.batcher.submit(served.search, (query, n))
        ranker = served.ranker
        return _json({"items": [{"id": ranker.items.ids[i], "title": ranker.titles[i]} for i in found]})

    answers = {"responses": _problems(401, 422, 503, 504), "tags": ["items"]}
    app.add_api_route("/items", search, response_model=schemas.Titles, **answers)  # type: ignore[arg-type]
    app.add_api_route(
        "/items/{item_id}/similar",
        similar,
        response_model=schemas.SimilarAnswer,
        responses=_problems(401, 404, 422, 501, 503, 504),
        tags=["items"],
    )


def _add_operations(app: FastAPI, service: Service) -> None:
    async def model() -> Response:
        """The model that serves: version, metrics, data, hyperparameters."""
        served = service.served
        ranker, manifest = served.ranker, served.ranker.loaded.manifest
        shown = {key: manifest[key] for key in ("metrics", "data", "hyperparameters")}
        index = None if ranker.index is None else ranker.index.about()
        about = {
            **served.name,
            **shown,
            "n_items": len(ranker.items),
            "loaded_at": served.loaded_at,
            "index": index,
        }
        return _json({**about, "last_error": service.models.error})

    async def reload() -> Response:
        """Serve the artifact now at the path, if it is sound; this worker does so at once, others within seconds."""
        try:
            changed = await service.models.reload()
        except RecvaeError as error:
            raise ProblemError(409, f"the model that serves was kept: {error}") from None
        return _json({"changed": changed, "model": service.served.name})

    async def healthz() -> Response:
        """Whether the process lives."""
        return _json({"status": "alive"})

    async def readyz() -> Response:
        """Whether a model is loaded."""
        service.served  # noqa: B018 raises where there is none
        return _json({"status": "ready"})

    async def metrics() -> Response:
        """Figures for Prometheus."""
        service.metrics.queue.set(len(service.batcher))
        return Response(service.metrics.exposition(), media_type=TEXT)

    def add(path: str, endpoint: Any, answer: type[BaseModel] | None, *statuses: int, **more: Any) -> None:
        responses = _problems(*statuses)
        app.add_api_route(path, endpoint, response_model=answer, responses=responses, tags=["operations"], **more)

    add("/model", model, schemas.ModelAnswer, 401, 503)
    add("/admin/reload", reload, schemas.ReloadAnswer, 401, 404, 409, 504, methods=["POST"])
    add("/healthz", healthz, schemas.Status)
    add("/readyz", readyz, schemas.Status, 503)
    add("/metrics", metrics, None, 401, response_class=_PlainText)


class _PlainText(Response):
    media_type = "text/plain"


def _taking(endpoint: Callable[..., Any], body: type[BaseModel]) -> Callable[..., Any]:
    """The endpoint with a body that knows the service's limits."""
    endpoint.__annotations__["body"] = body
    return endpoint


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type=JSON)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem", "content": content} for status in statuses}
