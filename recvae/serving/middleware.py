"""ASGI middleware: authentication, body limits, time-outs, security headers, request ids, metrics, the access log."""

import asyncio
import contextlib
import hmac
import itertools
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes

from opentelemetry import trace
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recvae.serving.batching import QueueFullError
from recvae.serving.page import DOCS_FILES, PAGE_FILES
from recvae.serving.problems import ProblemError, problem_response
from recvae.serving.settings import Settings
from recvae.serving.telemetry import LOGGER, AccessLog, Metrics, hide_path
from recvae.store.database import StoreUnavailableError

OPEN_PATHS = frozenset({*PAGE_FILES, *DOCS_FILES, "/docs", "/healthz", "/readyz", "/openapi.json"})
"""Paths that need no API key, since their content tells nothing about users or items."""
ADMIN = "/admin/"
LARGE_BODY, LARGE_BODY_PAUSE = 64 * 1024, 0.02
"""Bytes above which a worker takes one body at a time, and seconds between two of them: parsing a megabyte keeps the
event loop for ten milliseconds, and clients that send one after the other would keep it for all others' requests."""
PROCESS_ID, NUMBERS = secrets.token_hex(6), itertools.count()
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
JSON = re.compile(rb"application/json\s*(;.*)?", re.IGNORECASE)
BEARER = re.compile(rb"bearer +", re.IGNORECASE)
CSP = b"content-security-policy"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
DEFAULT_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Headers = Mapping[bytes, bytes]


class Middleware:
    """Stands around the application and answers what never reaches a route."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, log: AccessLog) -> None:
        self._app, self._settings, self._metrics, self._log = app, settings, metrics, log
        self._large_bodies = asyncio.Lock()
        self._key, self._admin_key = (key.get_secret_value().encode() for key in (settings.api_key, settings.admin_key))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hide_path(trace.get_current_span())
        if scope["method"] == "HEAD":  # as GET: the server leaves the body out by the scope that it has made
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(scope, send)
        try:
            await self._answer(exchange, scope, receive)
        except asyncio.CancelledError:  # the client has left, or the server stops
            exchange.status = 499
            raise
        except Exception:  # noqa: BLE001 it is logged; the client learns no more than that
            LOGGER.exception("unexpected error", extra={"fields": {"request_id": exchange.request_id}})
            await exchange.respond(problem_response(500, "an unexpected error, which the log describes"), receive)
        finally:
            self._record(exchange)

    async def _answer(self, exchange: "_Exchange", scope: Scope, receive: Receive) -> None:
        body: bytes | None = None
        try:
            with _TimeLimit(self._settings.timeout_seconds):
                self._authenticate(scope, exchange.headers)
                _refuse_undecodable(scope)
                body = await self._read_body(exchange.headers, receive) if scope["method"] in ("POST", "PUT") else b""
                async with self._take_turn() if len(body) > LARGE_BODY else contextlib.nullcontext():
                    await self._app(scope, _replay(body, receive), exchange.send)
        except TimeoutError:
            seconds = f"{self._settings.timeout_seconds:g} seconds"
            status, missing = (408, "not received") if body is None else (504, "no answer")
            await exchange.respond(problem_response(status, f"{missing} within {seconds}"), receive)
        except ProblemError as error:
            await exchange.respond(error.response(), receive)
        except QueueFullError as error:
            await exchange.respond(problem_response(503, str(error)), receive)
        except StoreUnavailableError as error:
            LOGGER.error("store: %s", error, extra={"fields": {"request_id": exchange.request_id}})
            await exchange.respond(problem_response(503, "the store of interactions is not available"), receive)

    def _authenticate(self, scope: Scope, headers: Headers) -> None:
        path, key = scope["path"], self._key
        if path.startswith(ADMIN):
            if not self._admin_key:
                raise ProblemError(404, "admin routes are off; RECVAE_ADMIN_KEY switches them on")
            key = self._admin_key
        elif not key or path in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        given = headers.get(b"x-api-key") or BEARER.sub(b"", headers.get(b"authorization", b""), count=1)
        if not hmac.compare_digest(given, key):
            raise ProblemError(401, "X-API-Key is missing or wrong")

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limit:
            raise ProblemError(413, f"the body has more than max_body_bytes = {limit:,} bytes")
        chunks, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ProblemError(400, "the connection ended before the body did")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise ProblemError(413, f"the body has more than max_body_bytes = {limit:,} bytes")
            more = message.get("more_body", False)
        if size and not JSON.fullmatch(headers.get(b"content-type", b"")):
            raise ProblemError(415, "Content-Type is not application/json")
        if size and headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ProblemError(415, "the body has a Content-Encoding; expected JSON as it is")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @contextlib.asynccontextmanager
    async def _take_turn(self) -> AsyncIterator[None]:
        """Wait until no other large body is under way, nor was one just now."""
        await self._large_bodies.acquire()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(LARGE_BODY_PAUSE, self._large_bodies.release)

    def _record(self, exchange: "_Exchange") -> None:
        seconds = perf_counter() - exchange.started
        route = getattr(exchange.scope.get("route"), "path_format", "other")
        method = exchange.scope["method"] if route != "other" else "any"
        self._metrics.count_request(route, method, exchange.status, seconds)
        self._log.request(exchange.request_id, method, route, exchange.status, seconds)


class _TimeLimit:
    """Does what `asyncio.timeout` does, at a fifth of its cost, which every request pays."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._expired = seconds, False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] = asyncio.current_task(loop)  # type: ignore[assignment]
        self._cancelled_before = self._task.cancelling()
        self._timer = loop.call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if not self._expired:
            return
        if self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise TimeoutError from error


class _Exchange:
    """A request and its answer, to which it adds the headers that every answer has."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = perf_counter()
        self.scope, self._send = scope, send
        self.headers: Headers = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if REQUEST_ID.fullmatch(given) else f"{PROCESS_ID}-{next(NUMBERS):x}"
        self.status = 500
        self._started = False

    async def send(self, message: Message) -> None:
        """Pass on a message, the first one with headers."""
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self.request_id.encode()), *SECURITY_HEADERS]
            if all(name != CSP for name, _ in message["headers"]):
                headers.append((CSP, DEFAULT_CSP))
            message["headers"] = headers
        await self._send(message)

    async def respond(self, response: Response, receive: Receive) -> None:
        """Answer, unless an answer has begun."""
        if not self._started:
            await response(self.scope, receive, self.send)


def _refuse_undecodable(scope: Scope) -> None:
    """Refuse a path whose percent escapes are not UTF-8: servers decode all of them to the same character."""
    raw = scope.get("raw_path") or b""
    if b"%" in raw:
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise ProblemError(400, "the path holds percent escapes that are not UTF-8") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body, which was read already, and then whatever else comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
