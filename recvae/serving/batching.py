"""Micro-batching: requests that arrive while others are being scored are scored together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from recvae.errors import RecvaeError

Score = Callable[[Sequence[Any]], Sequence[Any]]


class QueueFullError(RecvaeError):
    """More requests wait to be scored than the queue may hold."""


@dataclass(frozen=True, eq=False)
class _Job:
    score: Score
    item: Any
    result: asyncio.Future[Any]


class Batcher:
    """Scores in one thread of its own, so that the event loop goes on meanwhile.

    A request that finds the scorer idle is scored at once. Those that come while it works wait at most `window`
    seconds longer than they must, for others to share their batch.

    Parameters
    ----------
    size : int
        Most requests in a batch.
    window : float
        Seconds.
    queue : int
        Most requests that wait.
    observe : callable
        Told the size of each batch.
    """

    def __init__(self, size: int, window: float, queue: int, observe: Callable[[int], object] = lambda _: None) -> None:
        self._size, self._window, self._queue, self._observe = size, window, queue, observe
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def start(self) -> None:
        """Begin to score."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what is still waiting is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for job in self._waiting:
            job.result.cancel()
        self._thread.shutdown()

    def submit(self, score: Score, item: Any) -> asyncio.Future[Any]:
        """The future result of `score([..., item, ...])` for this item, scored with others that have the same `score`.

        Raises
        ------
        QueueFullError
            If as many requests wait already as may.
        """
        if len(self._waiting) >= self._queue:
            raise QueueFullError(f"{self._queue:,} requests are waiting to be scored already")
        job = _Job(score, item, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return job.result

    async def _run(self) -> None:
        loop, busy = asyncio.get_running_loop(), False
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            elif busy and self._window and len(self._waiting) < self._size:
                await asyncio.sleep(self._window)
            batch = self._next()
            busy = bool(batch)
            if batch:
                self._observe(len(batch))
                outcomes = await loop.run_in_executor(self._thread, _outcomes, batch)
                for job, outcome in zip(batch, outcomes, strict=True):
                    _settle(job.result, outcome)

    def _next(self) -> list[_Job]:
        """The requests at the head of the queue that share one way to be scored; nobody waits for those given up."""
        batch: list[_Job] = []
        while self._waiting and len(batch) < self._size:
            if self._waiting[0].result.done():
                self._waiting.popleft()
            elif batch and self._waiting[0].score != batch[0].score:
                break
            else:
                batch.append(self._waiting.popleft())
        return batch


def _outcomes(batch: Sequence[_Job]) -> Sequence[Any]:
    """A result or an exception for each request; one that fails does not take the others with it."""
    score = batch[0].score
    try:
        return score([job.item for job in batch])
    except Exception as error:  # noqa: BLE001 it is handed to whoever waits for it
        if len(batch) == 1:
            return [error]
        return [_outcomes([job])[0] for job in batch]


def _settle(result: asyncio.Future[Any], outcome: Any) -> None:
    if result.done():
        return
    if isinstance(outcome, Exception):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)
