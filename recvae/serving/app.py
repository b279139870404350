"""The ASGI application: what it opens when it starts, what it closes when it ends."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from threadpoolctl import threadpool_limits

import recvae
from recvae.errors import RecvaeError
from recvae.serving.answers import Service
from recvae.serving.batching import Batcher
from recvae.serving.live_model import Models
from recvae.serving.middleware import OPEN_PATHS, Shell
from recvae.serving.page import add_page
from recvae.serving.problems import Problem, invalid, problem
from recvae.serving.routes import add_routes
from recvae.serving.settings import Settings
from recvae.serving.telemetry import LOGGER, AccessLog, Metrics
from recvae.serving.user_store import SQLStore

SWITCH_SECONDS = 0.0005
"""How long the event loop may keep the interpreter from the scoring thread, whose steps are short."""

YOUNG_OBJECTS = 10_000
"""After how many new objects the garbage collector looks for cycles: Python's 700 are made by a few requests."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service for one artifact.

    Parameters
    ----------
    settings : Settings, optional
        Those of the environment when None.

    Raises
    ------
    ParameterError
        If a setting has a value that it cannot have.
    """
    settings = settings or Settings.from_environment()
    metrics, log = Metrics(), AccessLog()
    service = Service(
        settings,
        Models(settings.model, settings.exact_items, metrics),
        Batcher(settings.batch_size, settings.batch_window_ms / 1000, settings.queue, metrics.batch_size.observe),
        metrics,
        SQLStore(settings.store) if settings.store else None,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.set_threshold(YOUNG_OBJECTS)
        with threadpool_limits(settings.scoring_threads):
            async with _running(service):
                yield
        log.flush()

    plain: dict[str, Any] = {"docs_url": None, "redoc_url": None, "redirect_slashes": False}
    app = FastAPI(title="recvae", version=recvae.__version__, lifespan=lifespan, **plain)
    busiest = add_routes(app, service)
    app.add_middleware(Shell, busiest=busiest, settings=settings, metrics=metrics, log=log)
    if settings.cors:
        origins = [origin.strip() for origin in settings.cors.split(",")]
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    for kind, handler in (
        (RequestValidationError, _refused),
        (HTTPException, _spoken),
    ):
        app.add_exception_handler(kind, handler)
    add_page(app)
    app.openapi = lambda: _documented(app, settings)  # type: ignore[method-assign]
    app.state.service = service
    return app


@contextlib.asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    """A model where there is a sound one, and a look-out for the next."""
    try:
        await service.models.reload()
    except RecvaeError as error:
        LOGGER.error("no model yet: %s", error)
    await service.batcher.start()
    watcher = asyncio.create_task(service.models.watch(service.settings.poll_seconds))
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await service.batcher.stop()
        if service.store is not None:
            service.store.close()


async def _refused(_: Request, error: Exception) -> Response:
    return invalid(error.errors() if isinstance(error, RequestValidationError) else [])


async def _spoken(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = problem(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _documented(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document, with the keys that this service asks for."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemes: dict[str, Any] = {}
        for path, operations in document["paths"].items():
            admin = path.startswith("/admin/")
            name, wanted = ("admin_key", settings.admin_key) if admin else ("api_key", settings.api_key)
            if wanted and path not in OPEN_PATHS:
                schemes[name] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
                for operation in operations.values():
                    operation["security"] = [{name: []}]
        if schemes:
            document["components"]["securitySchemes"] = schemes
        described = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**described.pop("$defs"), "Problem": described}
        app.openapi_schema = document
    return app.openapi_schema
