"""`Batcher`: one scoring thread with a fast lane, whose requests are scored together, and a slow lane."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any, TypeAlias, TypeVar

from recvae.errors import RecvaeError
from recvae.machine.blas import ONE_BLAS_THREAD

T = TypeVar("T")
Score = Callable[[Sequence[Any]], Sequence[Any]]
Steps: TypeAlias = Generator[None, None, T]
"""Work in steps of a few milliseconds at most: it yields between them and returns the result."""
SLICE_SECONDS = 0.002
"""Time that the slow lane gets after each batch of the fast lane, or half the time of the batch where that is more."""
AT_ONCE_SECONDS = 0.005
"""Processor time below which the event loop itself scores a request that is alone: beside a busy process, whatever is
handed to another thread may wait milliseconds for a core.
"""


class QueueFullError(RecvaeError):
    """More requests wait to be scored than the queue may hold."""


@dataclass(frozen=True, eq=False)
class _Request:
    score: Score
    item: Any
    result: asyncio.Future[Any]


@dataclass(frozen=True, eq=False)
class _Task:
    steps: Steps[Any]
    result: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Scores requests in a thread of its own, so that the event loop stays free.

    A request of the fast lane that finds the thread idle is scored at once, by the event loop if the last one that was
    alone took less than `AT_ONCE_SECONDS`. Requests that come meanwhile are scored together afterwards. Work of the
    slow lane, such as explanations, runs in slices between the batches: both lanes share one thread because products of
    matrices in two threads would slow each other down, and because a thread of low priority could keep the
    interpreter's lock from all others.

    Parameters
    ----------
    size : int
        Most requests in a batch.
    window : float
        Seconds that requests wait for others to share their batch, if the thread was busy when they came.
    queue : int
        Most requests that wait, in each lane.
    observe : callable
        Called with the size of each batch.
    """

    def __init__(
        self,
        size: int,
        window: float,
        queue: int,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._size, self._window, self._queue, self._observe = size, window, queue, observe
        self._alone = 0, 0.0  # what scored the last request alone, by its hash, which holds no model; and its seconds
        self._requests: deque[_Request] = deque()
        self._tasks: deque[_Task] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        self._runner: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._requests) + len(self._tasks)

    async def start(self) -> None:
        """Begin to score."""
        self._runner = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop scoring and cancel everything that still waits."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        for result in [*(request.result for request in self._requests), *(task.result for task in self._tasks)]:
            result.cancel()
        self._thread.shutdown()

    def submit(self, score: Score, item: Any) -> asyncio.Future[Any]:
        """Queue a request of the fast lane.

        Returns
        -------
        Future
            Result of `score([..., item, ...])` for this item; requests with the same `score` share a call.

        Raises
        ------
        QueueFullError
            If the queue is full.
        """
        self._refuse_if_full(self._requests)
        request = _Request(score, item, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._arrived.set()
        return request.result

    def submit_steps(self, steps: Steps[T]) -> "asyncio.Future[T]":
        """Queue work of the slow lane; several such pieces of work take turns.

        Raises
        ------
        QueueFullError
            If the queue is full.
        """
        self._refuse_if_full(self._tasks)
        task = _Task(steps)
        self._tasks.append(task)
        self._arrived.set()
        return task.result

    def _refuse_if_full(self, waiting: deque[Any]) -> None:
        if len(waiting) >= self._queue:
            raise QueueFullError(f"{self._queue:,} requests are waiting to be scored already")

    async def _run(self) -> None:
        busy = False
        while True:
            if not self._requests and not self._tasks:
                self._arrived.clear()
                await self._arrived.wait()
            elif busy and self._window and not self._tasks and len(self._requests) < self._size:
                # The clients that the last batch answered come back about now: waiting for them a little makes one
                # batch out of two, which together cost less than apart.
                await asyncio.sleep(self._window)
            started = perf_counter()
            busy = await self._score_next_batch()
            await self._run_next_slice(max(SLICE_SECONDS, (perf_counter() - started) / 2))

    async def _score_next_batch(self) -> bool:
        batch = self._take_batch()
        if batch:
            self._observe(len(batch))
            alone = len(batch) == 1 and not self._requests
            if alone and self._alone[0] == hash(batch[0].score) and self._alone[1] < AT_ONCE_SECONDS:
                with ONE_BLAS_THREAD:  # products in others would wait for a core too
                    outcomes = self._score_alone(batch)
            else:
                score = self._score_alone if alone else _score_batch
                outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, score, batch)
            for request, outcome in zip(batch, outcomes, strict=True):
                _deliver(request.result, outcome)
        return bool(batch)

    def _score_alone(self, batch: Sequence[_Request]) -> Sequence[Any]:
        started = process_time()  # of all threads, of which the event loop has one
        outcomes = _score_batch(batch)
        self._alone = hash(batch[0].score), process_time() - started
        return outcomes

    async def _run_next_slice(self, seconds: float) -> None:
        while self._tasks and self._tasks[0].result.done():  # its client has given up
            self._tasks.popleft().steps.close()
        if self._tasks:
            task = self._tasks.popleft()
            finished, outcome = await asyncio.get_running_loop().run_in_executor(
                self._thread, _run_slice, task.steps, seconds
            )
            if finished:
                _deliver(task.result, outcome)
            else:
                self._tasks.append(task)

    def _take_batch(self) -> list[_Request]:
        """Take requests from the head of the queue that share one `score`, without those whose clients gave up."""
        batch: list[_Request] = []
        while self._requests and len(batch) < self._size:
            if self._requests[0].result.done():
                self._requests.popleft()
            elif batch and self._requests[0].score != batch[0].score:
                break
            else:
                batch.append(self._requests.popleft())
        return batch


def _score_batch(batch: Sequence[_Request]) -> Sequence[Any]:
    """Return a result or an exception for each request; one that fails does not fail the others."""
    score = batch[0].score
    try:
        return score([request.item for request in batch])
    except Exception as error:  # noqa: BLE001 whoever waits for the result gets it
        if len(batch) == 1:
            return [error]
        return [_score_batch([request])[0] for request in batch]


def _run_slice(steps: Steps[Any], seconds: float) -> tuple[bool, Any]:
    """Run steps until the time is up; return whether they are finished, and the result or an exception."""
    end = perf_counter() + seconds
    try:
        while True:
            next(steps)
            if perf_counter() >= end:
                return False, None
    except StopIteration as stop:
        return True, stop.value
    except Exception as error:  # noqa: BLE001 whoever waits for the result gets it
        return True, error


def _deliver(result: asyncio.Future[Any], outcome: Any) -> None:
    if result.done():
        return
    if isinstance(outcome, Exception):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)
