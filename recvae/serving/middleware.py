"""What stands around every route: keys, limits, time-outs, headers, request ids, figures and the access log."""

import asyncio
import hmac
import itertools
import re
import secrets
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recvae.serving.batching import QueueFullError
from recvae.serving.problems import ProblemError, problem
from recvae.serving.routes import Direct
from recvae.serving.settings import Settings
from recvae.serving.telemetry import LOGGER, AccessLog, Metrics
from recvae.serving.user_store import StoreUnavailableError

OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/docs", "/docs.js", "/healthz", "/readyz", "/openapi.json"})
"""What needs no API key: nothing of it tells about users or items."""
ADMIN = "/admin/"
PROCESS_ID, NUMBERS = secrets.token_hex(6), itertools.count()
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
JSON = re.compile(rb"application/json\s*(;.*)?", re.IGNORECASE)
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)

Headers = Mapping[bytes, bytes]


class Shell:
    """ASGI middleware."""

    def __init__(
        self, app: ASGIApp, busiest: Mapping[str, Direct], settings: Settings, metrics: Metrics, log: AccessLog
    ) -> None:
        self._app, self._busiest, self._settings = app, busiest, settings
        self._metrics, self._log = metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._answer(exchange, scope, receive)
        except asyncio.CancelledError:  # the server gives up on it, or on everything
            exchange.status = 499
            raise
        except Exception:  # noqa: BLE001 it is logged, and its client told no more than that
            LOGGER.exception("unexpected error", extra={"fields": {"request_id": exchange.request_id}})
            await exchange.respond(problem(500, "an unexpected error, which the log tells about"), receive)
        finally:
            self._record(exchange)

    async def _answer(self, exchange: "_Exchange", scope: Scope, receive: Receive) -> None:
        body: bytes | None = None
        try:
            with _TimeLimit(self._settings.timeout_seconds):
                self._refuse_strangers(scope, exchange.headers)
                body = await self._body(exchange.headers, receive) if scope["method"] == "POST" else b""
                direct = self._busiest.get(scope["path"]) if scope["method"] == "POST" else None
                if direct is not None:
                    exchange.route = scope["path"]
                    await exchange.respond(await direct(body), receive)
                else:
                    await self._app(scope, _replayed(body, receive), exchange.send)
        except TimeoutError:
            seconds = f"{self._settings.timeout_seconds:g} seconds"
            status, what = (408, "not received") if body is None else (504, "no answer")
            await exchange.respond(problem(status, f"{what} within {seconds}"), receive)
        except ProblemError as error:
            await exchange.respond(error.response(), receive)
        except QueueFullError as error:
            await exchange.respond(problem(503, str(error)), receive)
        except StoreUnavailableError as error:
            LOGGER.error("store: %s", error, extra={"fields": {"request_id": exchange.request_id}})
            await exchange.respond(problem(503, "the store of users is not available; nothing was changed"), receive)

    def _refuse_strangers(self, scope: Scope, headers: Headers) -> None:
        path, settings = scope["path"], self._settings
        if path.startswith(ADMIN):
            if not settings.admin_key:
                raise ProblemError(404, "admin routes are off; RECVAE_ADMIN_KEY switches them on")
            key = settings.admin_key
        elif not settings.api_key or path in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        else:
            key = settings.api_key
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(given, key.encode()):
            raise ProblemError(401, "X-API-Key is missing or wrong")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
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
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _record(self, exchange: "_Exchange") -> None:
        seconds = perf_counter() - exchange.started
        route = exchange.route or getattr(exchange.scope.get("route"), "path", "other")
        method = exchange.scope["method"] if route != "other" else "any"
        self._metrics.request(route, method, exchange.status, seconds)
        self._log.request(exchange.request_id, method, route, exchange.status, seconds)


class _TimeLimit:
    """What `asyncio.timeout` does, at a fifth of its cost, which every request pays."""

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
    """A request and its answer, which gets the headers that all answers have."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = perf_counter()
        self.scope, self._send = scope, send
        self.headers: Headers = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if REQUEST_ID.fullmatch(given) else f"{PROCESS_ID}-{next(NUMBERS):x}"
        self.route = ""
        self.status = 500
        self._started = False

    async def send(self, message: Message) -> None:
        """Pass on, with headers."""
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.request_id.encode()), *SECURITY_HEADERS]
        await self._send(message)

    async def respond(self, response: Response, receive: Receive) -> None:
        """Answer, unless an answer has begun."""
        if not self._started:
            await response(self.scope, receive, self.send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was received, then whatever else comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
