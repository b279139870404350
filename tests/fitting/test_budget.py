"""The notation of a budget, and a clock that is moved by hand."""

import time
from pathlib import Path
from typing import Any

import pytest

from recvae.errors import ParameterError
from recvae.fitting import budget
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


@pytest.mark.parametrize(("worked", "waited", "slowdown"), [(0, 0, 1), (10, 0, 1), (10, 10, 2), (10, 80, 3)])
def test_the_clock_tells_how_much_slower_work_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worked: int, waited: int, slowdown: float
) -> None:
    monkeypatch.setattr(budget, "SCHEDULER", tmp_path / "schedstat")
    budget.SCHEDULER.write_text("5000000000 1000000000 7\n", encoding="ascii")
    clock = Clock(60)
    budget.SCHEDULER.write_text(f"{5 + worked}000000000 {1 + waited}000000000 9\n", encoding="ascii")
    assert clock.slowdown == slowdown


def test_where_the_system_does_not_tell_nothing_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SCHEDULER", tmp_path / "none")
    assert Clock(60).slowdown == 1


@pytest.mark.skipif(not budget.SCHEDULER.exists(), reason="only Linux tells how long a thread has waited for a core")
def test_the_core_time_of_this_thread_is_read() -> None:
    before, _ = budget.read_core_time()
    used = time.thread_time()
    while time.thread_time() < used + 0.05:
        pass
    assert budget.read_core_time()[0] - before >= 0.04
