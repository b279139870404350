"""`create_app`: the ASGI application, and what it opens at its start and closes at its end."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match
from threadpoolctl import threadpool_limits

from recvae.errors import RecvaeError
from recvae.inference.rules.schema import describe_rules
from recvae.serving.backend import Backend
from recvae.serving.batching import Batcher
from recvae.serving.item_updates import ItemUpdates
from recvae.serving.live_model import ModelReloader, ServedModels
from recvae.serving.middleware import OPEN_PATHS, Middleware
from recvae.serving.page import add_page
from recvae.serving.problems import Problem, problem_response, validation_response
from recvae.serving.routes import add_routes
from recvae.serving.settings import Settings, split_list
from recvae.serving.telemetry import LOGGER, AccessLog, Metrics
from recvae.store.user_store import DatabaseUserStore

SWITCH_SECONDS = 0.0005
"""Interval of Python's thread switches. The scoring thread holds the interpreter's lock only for short moments between
products; at Python's default of 5 ms it waits for the event loop ten times as long as it computes."""

QUEUE_SECONDS = 0.5
CANCEL_SECONDS = 0.1
YOUNG_OBJECTS = 10_000
"""New objects after which the garbage collector looks for cycles; Python's 700 are made by a few requests."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the service for one artifact.

    Parameters
    ----------
    settings : Settings, optional
        Read from the environment when None.

    Raises
    ------
    ParameterError
        If a setting has a value that it cannot have.
    """
    settings = settings or Settings()
    metrics, log = Metrics(), AccessLog()
    backend = _make_backend(settings, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.set_threshold(YOUNG_OBJECTS)
        with threadpool_limits(settings.scoring_threads):
            async with _run(backend):
                yield
        log.flush()

    # Logs that FastAPI hands to OpenTelemetry quote what clients sent; the service writes its own.
    options: dict[str, Any] = {
        "docs_url": None,
        "redoc_url": None,
        "redirect_slashes": False,
        "telemetry": {"logs": False},
    }
    app = FastAPI(title="recvae", version=metadata.version("recvae"), lifespan=lifespan, **options)
    add_routes(app, backend)
    add_page(app)
    app.add_middleware(Middleware, settings=settings, metrics=metrics, log=log)
    if settings.cors:
        origins, methods = split_list(settings.cors), ("GET", "POST", "PUT", "DELETE")
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=["*"])
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.openapi = lambda: _openapi(app, settings, backend)  # type: ignore[method-assign]
    app.state.backend = backend
    return app


def _make_backend(settings: Settings, metrics: Metrics) -> Backend:
    """Make what the routes ask, without a model yet."""
    store = settings.store.get_secret_value()
    database = DatabaseUserStore(store) if store else None
    updates = None if database is None else ItemUpdates(database)
    prepare = updates.apply if updates else lambda model: model
    return Backend(
        settings,
        ServedModels(
            [
                ModelReloader(variant, settings.exact_items, metrics, prepare, leads=i == 0)
                for i, variant in enumerate(settings.variants)
            ]
        ),
        Batcher(
            settings.batch_size,
            settings.batch_window_ms / 1000,
            settings.queue,
            metrics.batch_size.observe,
        ),
        metrics,
        database,
        updates,
    )


@contextlib.asynccontextmanager
async def _run(backend: Backend) -> AsyncIterator[None]:
    """Load a model, if there is a sound one, and look for the next one until the end."""
    try:
        await backend.models.reload()
    except RecvaeError:
        LOGGER.error("not loaded: %s", backend.models.error)
    await backend.batcher.start()
    watchers = [
        asyncio.create_task(backend.models.watch(backend.settings.poll_seconds)),
        asyncio.create_task(_report_queue(backend)),
    ]
    if backend.updates is not None:
        await backend.updates.try_refresh(backend.models)
        watchers.append(asyncio.create_task(backend.updates.watch(backend.models)))
    try:
        yield
    finally:
        await _cancel(watchers)
        await backend.batcher.stop()
        if backend.store is not None:
            backend.store.close()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: one whose call to the store is being committed goes on at first."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_SECONDS)


async def _report_queue(backend: Backend) -> None:
    """Report the length of this worker's queue until cancelled: another worker may answer for all."""
    while True:
        backend.metrics.queue.set(len(backend.batcher))
        await asyncio.sleep(QUEUE_SECONDS)


async def _answer_validation_error(_: Request, error: Exception) -> Response:
    return validation_response(error.errors() if isinstance(error, RequestValidationError) else [])


async def _answer_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = problem_response(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # Starlette names those of the first route of a path
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        methods = {method for route in routes if route.path == routes[0].path for method in route.methods}
        response.headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return response


def _openapi(app: FastAPI, settings: Settings, backend: Backend) -> dict[str, Any]:
    """Return the OpenAPI document, with the keys that this service asks for and the rules that the items allow."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemes: dict[str, Any] = {}
        for path, operations in document["paths"].items():
            admin = path.startswith("/admin/")
            name, key = ("admin_key", settings.admin_key) if admin else ("api_key", settings.api_key)
            if key and path not in OPEN_PATHS:
                schemes[name] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
                for operation in operations.values():
                    operation["security"] = [{name: []}]
        if schemes:
            document["components"]["securitySchemes"] = schemes
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
        app.openapi_schema = document
    if backend.models.current is not None:
        _describe_rules(app.openapi_schema, describe_rules(backend.models.current.ranker.metadata))
    return app.openapi_schema


def _describe_rules(document: dict[str, Any], rules: dict[str, dict[str, Any]]) -> None:
    """Write schemas of the rules wherever a request has them."""
    for schema in document["components"]["schemas"].values():
        for name, rule in rules.items():
            given = schema.get("properties", {}).get(name, {})
            if "description" in given:
                schema["properties"][name] = {**rule, "title": given["title"], "description": given["description"]}
    for operation in document["paths"]["/users/{user_id}/recommendations"].values():
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "filter":
                parameter.pop("schema", None)
                parameter["content"] = {"application/json": {"schema": rules["filter"]["anyOf"][0]}}
