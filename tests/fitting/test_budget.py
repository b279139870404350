"""The notation of a budget, and a clock that is moved by hand."""

from typing import Any

import pytest

from recvae.errors import ParameterError
from recvae.fitting.budget import Clock, format_seconds, parse_budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1.5m", 90), (" 2M ", 120), (7, 7), (30.5, 30.5)],
)
def test_notation(text: str | float, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("wrong", ["", "ten", "10", "10 minutes", "m", "30m1h", "-5m", None, True, [600]])
def test_what_is_no_time(wrong: Any) -> None:
    with pytest.raises(ParameterError, match=r"budget is .*; expected a time such as 90s, 10m or 1h30m"):
        parse_budget(wrong)


@pytest.mark.parametrize("small", ["4s", "0m", 0, -1, float("nan"), float("inf")])
def test_the_least_budget(small: str | float) -> None:
    with pytest.raises(ParameterError, match=r"budget is .*; expected at least 5s"):
        parse_budget(small)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1:00"), (452, "7:32"), (3599.9, "1:00:00"), (4052, "1:07:32")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_clock_counts_earlier_runs() -> None:
    now = 100.0
    clock = Clock(60, before=10, now=lambda: now)
    assert (clock.elapsed, clock.left) == (10, 50)
    now = 155.0
    assert (clock.elapsed, clock.left) == (65, -5)


@pytest.mark.parametrize(("passed", "worked", "slowdown"), [(0, 0, 1), (8, 10, 1), (20, 10, 2), (90, 10, 3)])
def test_the_clock_tells_how_much_slower_work_is(
    monkeypatch: pytest.MonkeyPatch, passed: float, worked: float, slowdown: float
) -> None:
    now, thread = 100.0, 50.0
    monkeypatch.setattr("time.thread_time", lambda: thread)
    clock = Clock(60, now=lambda: now)
    now, thread = now + passed, thread + worked
    assert clock.slowdown == slowdown
