"""The limit of the threads of BLAS, nested and without threadpoolctl."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from recvae.machine import blas
from recvae.machine.blas import BlasLimit


@pytest.fixture(autouse=True)
def find_blas_again() -> None:
    """Find the BLAS libraries that are loaded by now; an earlier test may have looked before the last one was."""
    blas._find_blas.cache_clear()


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_until_the_last_one_leaves() -> None:
    first, second = BlasLimit(), BlasLimit()
    with threadpool_limits(2, "blas"):
        with first:
            with first:
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        with second:
            assert blas_threads() == {1}
        assert blas_threads() == {2}


def test_nothing_is_limited_without_threadpoolctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_find_blas", lambda: None)
    with threadpool_limits(2, "blas"), BlasLimit():
        assert blas_threads() == {2}
