"""`BoundedHttpProtocol`: uvicorn's HTTP protocol with limits on what arrives before the middleware sees a request."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEADER_BYTES = 64 * 1024
"""Size of headers; what comes in one read of the socket, 256 KiB at most, is taken as it is."""
HEADER_SECONDS = 5.0
"""Time for the headers of a request to arrive, and for the rest of a body that was answered already."""
MOST_WAITING = 256
"""Connections whose headers are not complete; one more closes the oldest of them. Headers of an honest client arrive
within milliseconds, so its connection is never the oldest when an attacker opens hundreds."""
CHUNK_OVERHEAD = 8
"""Bytes of chunked encoding for a byte of the body, in the worst of cases that are still a body."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose headers are too large or too slow: they hold a worker before any key is checked.

    Bytes are counted as they arrive, since the parser gives no header to its caller before the header is complete.
    """

    _waiting: ClassVar[dict["BoundedHttpProtocol", asyncio.TimerHandle]] = {}
    """Connections without complete headers, in the order in which they began to wait."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received = self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first headers their time."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count and parse what has arrived."""
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._received > HEADER_BYTES + (1 + CHUNK_OVERHEAD) * self._body_bytes:
            self._refuse(431)
        elif self not in self._waiting and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        """Count anew for each request of a connection."""
        self._received = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what is a body; its size is the middleware's business."""
        self._body_bytes += len(body)
        super().on_body(body)

    def _wait_for_headers(self) -> None:
        self._waiting[self] = self.loop.call_later(HEADER_SECONDS, self._refuse, 408)
        if len(self._waiting) > MOST_WAITING:
            next(iter(self._waiting))._refuse(408)

    def _stop_waiting(self) -> None:
        timer = self._waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _refuse(self, status: int) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
