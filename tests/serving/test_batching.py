"""The scoring thread: batches, the slow lane, failures, requests that are given up, and full queues."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from recvae.machine import blas
from recvae.serving.batching import AT_ONCE_SECONDS, SLICE_SECONDS, Batcher, QueueFullError, Steps


def run(work: Callable[[Batcher], Awaitable[Any]], size: int = 8, window: float = 0.0, queue: int = 100) -> list[int]:
    """The sizes of the batches that a piece of work made."""
    sizes: list[int] = []

    async def main() -> None:
        batcher = Batcher(size, window, queue, sizes.append)
        await batcher.start()
        try:
            await work(batcher)
        finally:
            await batcher.stop()

    asyncio.run(main())
    return sizes


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def iter_nothing() -> Steps[None]:
    yield


def doubled_after(release: threading.Event) -> Callable[[Sequence[int]], list[int]]:
    def held(items: Sequence[int]) -> list[int]:
        release.wait(30)
        return doubled(items)

    return held


def test_each_gets_its_own_result() -> None:
    async def work(batcher: Batcher) -> None:
        assert await asyncio.gather(*(batcher.submit(doubled, i) for i in range(50))) == [2 * i for i in range(50)]

    sizes = run(work)
    assert sum(sizes) == 50
    assert max(sizes) == 8


def test_one_alone_is_not_kept_waiting() -> None:
    async def work(batcher: Batcher) -> None:
        started = time.perf_counter()
        await batcher.submit(doubled, 1)
        assert time.perf_counter() - started < 4

    assert run(work, window=5.0) == [1]


def test_the_event_loop_scores_one_alone_if_the_last_took_little() -> None:
    threads: list[int] = []

    def score(items: Sequence[float]) -> list[None]:
        threads.append(threading.get_ident())
        ends = time.thread_time() + sum(items)
        while time.thread_time() < ends:
            pass
        return [None for _ in items]

    async def work(batcher: Batcher) -> None:
        await batcher.submit(score, 0.0)  # nothing is known of it yet
        await batcher.submit(score, 2 * AT_ONCE_SECONDS)
        await batcher.submit(score, 0.0)  # after a long one
        await asyncio.gather(batcher.submit(score, 0.0), batcher.submit(score, 0.0))
        await batcher.submit(score, 0.0)
        await batcher.submit(lambda items: score(items), 0.0)  # of another model

    assert run(work) == [1, 1, 1, 2, 1, 1]
    at_once = [thread == threading.get_ident() for thread in threads]
    assert at_once == [False, True, False, False, True, False]


def test_the_event_loop_multiplies_in_one_thread() -> None:
    threads: list[set[int]] = []

    def score(items: Sequence[int]) -> Sequence[int]:
        threads.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return items

    async def work(batcher: Batcher) -> None:
        for i in range(2):
            batcher._alone = hash(score), i * AT_ONCE_SECONDS
            await batcher.submit(score, i)

    blas._find_blas.cache_clear()  # an earlier test may have looked before the last library was loaded
    with threadpool_limits(2, "blas"):
        run(work)
    assert threads == [{1}, {2}]


def test_those_that_come_meanwhile_share_the_next_batch() -> None:
    release = threading.Event()
    held = doubled_after(release)

    async def work(batcher: Batcher) -> None:
        first = batcher.submit(held, 0)
        await asyncio.sleep(0.05)
        others = [batcher.submit(held, i) for i in range(1, 6)]
        await asyncio.sleep(0.05)  # the loop is free while the scorer works
        assert not first.done()
        release.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10]

    assert run(work) == [1, 5]


def test_a_window_gathers_those_that_come_a_little_later() -> None:
    release = threading.Event()
    held = doubled_after(release)

    async def work(batcher: Batcher) -> None:
        first = batcher.submit(held, 0)
        await asyncio.sleep(0.05)
        early = batcher.submit(held, 1)
        release.set()
        await first
        late = batcher.submit(held, 2)
        assert [await early, await late] == [2, 4]

    assert run(work, window=0.5) == [1, 2]


def test_only_what_is_scored_alike_is_scored_together() -> None:
    def tripled(items: Sequence[int]) -> list[int]:
        return [3 * item for item in items]

    async def work(batcher: Batcher) -> None:
        ways = [doubled, doubled, tripled, doubled]
        assert await asyncio.gather(*(batcher.submit(way, 1) for way in ways)) == [2, 2, 3, 2]

    assert run(work) == [2, 1, 1]


def test_one_that_fails_fails_alone() -> None:
    def inverse(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    async def work(batcher: Batcher) -> None:
        results = await asyncio.gather(*(batcher.submit(inverse, i) for i in (1, 0, 2)), return_exceptions=True)
        assert results[::2] == [1, 0.5]
        assert isinstance(results[1], ZeroDivisionError)
        assert await batcher.submit(inverse, 4) == 0.25

    run(work)


def test_those_given_up_are_not_scored() -> None:
    scored: list[int] = []

    def slow(items: Sequence[int]) -> Sequence[int]:
        time.sleep(0.1)
        scored.extend(items)
        return items

    async def work(batcher: Batcher) -> None:
        first = batcher.submit(slow, 0)
        await asyncio.sleep(0.02)
        given_up, kept = batcher.submit(slow, 1), batcher.submit(slow, 2)
        given_up.cancel()
        await asyncio.gather(first, kept)

    run(work)
    assert scored == [0, 2]


def test_a_full_queue_refuses() -> None:
    async def work(batcher: Batcher) -> None:
        waiting = [batcher.submit(doubled, i) for i in range(3)]
        assert len(batcher) == 3
        with pytest.raises(QueueFullError, match="3 requests"):
            batcher.submit(doubled, 3)
        assert await asyncio.gather(*waiting) == [0, 2, 4]

    run(work, queue=3)


def test_the_slow_lane_never_holds_up_the_fast_one_for_longer_than_a_slice() -> None:
    order: list[str] = []

    def steps(name: str, n: int) -> Steps[str]:
        for _ in range(n):
            time.sleep(SLICE_SECONDS)
            order.append(name)
            yield
        return name

    async def work(batcher: Batcher) -> None:
        slow = [batcher.submit_steps(steps(name, 20)) for name in ("a", "b")]
        while not order:
            await asyncio.sleep(0)
        for i in range(5):
            seen = len(order)
            assert await batcher.submit(doubled, i) == 2 * i
            assert len(order) - seen <= 3
        assert await asyncio.gather(*slow) == ["a", "b"]

    run(work)
    assert order[:6] in (["a", "b"] * 3, ["b", "a"] * 3)  # they take turns


def test_a_result_of_the_slow_lane_may_be_an_error_and_may_be_given_up() -> None:
    closed = threading.Event()

    def broken() -> Steps[int]:
        yield
        raise ZeroDivisionError

    def endless() -> Steps[int]:
        try:
            while True:
                time.sleep(SLICE_SECONDS)
                yield
        finally:
            closed.set()

    async def work(batcher: Batcher) -> None:
        with pytest.raises(ZeroDivisionError):
            await batcher.submit_steps(broken())
        given_up = batcher.submit_steps(endless())
        await asyncio.sleep(0.05)
        given_up.cancel()
        assert await batcher.submit(doubled, 1) == 2
        await asyncio.to_thread(closed.wait, 30)

    run(work)
    assert closed.is_set()


def test_a_full_slow_lane_refuses_and_leaves_the_fast_one_alone() -> None:
    async def work(batcher: Batcher) -> None:
        waiting = [batcher.submit_steps(iter_nothing()) for _ in range(3)]
        with pytest.raises(QueueFullError, match="3 requests"):
            batcher.submit_steps(iter_nothing())
        assert await batcher.submit(doubled, 1) == 2
        await asyncio.gather(*waiting)

    run(work, queue=3)


def test_an_end_cancels_what_waits() -> None:
    async def main() -> None:
        batcher = Batcher(8, 0.0, 10)
        waiting = [batcher.submit(doubled, 1), batcher.submit_steps(iter_nothing())]
        await batcher.stop()
        assert all(result.cancelled() for result in waiting)

    asyncio.run(main())
