"""Threads of a training run on made-up machines: quiet, busy, with many cores, and the number as it was at the end."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recvae.training import threads
from recvae.training.threads import ThreadChoice, adapted_threads


def train(
    choice: ThreadChoice, seconds_with: Callable[[int], float], duration: float, used: float = 1.0
) -> dict[int, float]:
    """Seconds spent with each number of threads in `duration` seconds of updates, which use this share of them."""
    spent: dict[int, float] = {}
    while sum(spent.values()) < duration:
        number = choice.number
        seconds = seconds_with(number)
        choice.record(seconds, used * number * seconds)
        spent[number] = spent.get(number, 0.0) + seconds
    return spent


def make_choice(most: int) -> tuple[ThreadChoice, list[int]]:
    numbers: list[int] = []
    return ThreadChoice(most, numbers.append), numbers


def test_a_quiet_machine_keeps_all_threads_and_loses_little() -> None:
    choice, _ = make_choice(2)
    spent = train(choice, lambda number: 0.012 * (1 if number == 2 else 1.4), 300.0)
    assert spent[1] < 0.025 * 300
    assert spent[1] * (1 - 1 / 1.4) < 0.01 * 300  # what is lost by it


def test_a_neighbour_leaves_one_thread_within_seconds_and_two_come_back_after_it() -> None:
    choice, numbers = make_choice(2)
    train(choice, lambda number: 0.05 if number == 2 else 0.016, 1.5)
    assert choice.number == 1
    spent = train(choice, lambda number: 0.05 if number == 2 else 0.016, 300.0)
    assert spent[2] < 0.03 * 300
    train(choice, lambda number: 0.012 if number == 2 else 0.016, 10.0)
    assert choice.number == 2
    assert set(numbers) == {1, 2}


@pytest.mark.parametrize(("most", "best"), [(64, 16), (64, 64), (64, 1), (6, 3), (3, 1)])
def test_the_best_number_is_found_on_many_cores(most: int, best: int) -> None:
    choice, _ = make_choice(most)
    train(choice, lambda number: 0.01 * max(number / best, best / number), 200.0)
    spent = train(choice, lambda number: 0.01 * max(number / best, best / number), 200.0)
    assert max(spent, key=lambda number: spent[number]) == best


@settings(deadline=None)
@example(1, [1.0] * 9, 0.0)
@given(st.integers(1, 40), st.lists(st.floats(1e-4, 5.0), max_size=400), st.floats(0, 40))
def test_the_number_stays_within_bounds(most: int, seconds: list[float], used: float) -> None:
    choice, numbers = make_choice(most)
    for elapsed in seconds:
        choice.record(elapsed, used * elapsed)
    assert all(1 <= number <= most for number in numbers)


def test_short_training_changes_nothing() -> None:
    choice, numbers = make_choice(8)
    train(choice, lambda _: 0.01, 0.99)
    assert numbers == []


def test_updates_longer_than_a_window_are_timed_in_twos() -> None:
    choice, numbers = make_choice(2)
    for seconds in (*[3.0] * 11, 9.0, 2.0, 2.0):  # the first update with one thread is not counted
        choice.record(seconds, 2 * seconds)
    assert numbers == [1]


def test_cores_that_others_keep_busy_are_noticed_at_once() -> None:
    choice, numbers = make_choice(2)
    for seconds in (5.0, 3.0, 3.0, 0.2, 0.2, 0.2):
        choice.record(seconds, seconds)
    assert numbers == [1]
    spent = train(choice, lambda number: 3.0 if number == 2 else 0.2, 300.0, used=0.5)
    assert spent[2] < 0.05 * 300


def test_threads_that_wait_for_one_another_on_a_quiet_machine_are_tried_no_more_often_than_others() -> None:
    choice, _ = make_choice(8)
    spent = train(choice, lambda number: 0.012 if number == 8 else 0.016, 300.0, used=0.6)
    assert spent[4] < 0.025 * 300


def test_a_trial_that_is_much_slower_ends_with_its_first_update() -> None:
    choice, numbers = make_choice(2)
    train(choice, lambda number: 3.0 if number == 2 else 0.2, 20.0, used=0.5)
    assert choice.number == 1
    while choice.number == 1:
        choice.record(0.2, 0.1)
    choice.record(3.0, 3.0)
    assert choice.number == 1
    assert numbers[-2:] == [2, 1]


def test_long_updates_lose_little_by_trials() -> None:
    choice, _ = make_choice(2)
    spent = train(choice, lambda number: 3.0 if number == 2 else 5.0, 600.0)
    assert spent[1] * (1 - 3 / 5) < 0.05 * 600


def test_a_trial_that_failed_by_chance_is_soon_repeated() -> None:
    choice, _ = make_choice(2)
    train(choice, lambda number: 0.3 if number == 2 else 0.4, 4.5)
    assert choice.number == 2
    train(choice, lambda number: 0.3 if number == 2 else 0.02, 12.0)
    assert choice.number == 1


@pytest.fixture
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.usefixtures("two_threads")
def test_the_number_is_as_before_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS_ARE_GIVEN", False)
    with suppress(KeyboardInterrupt), adapted_threads(True) as record:
        for _ in range(3):  # which use hardly any of the processor's time
            record(1.0)
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("enabled", "given"), [(False, False), (True, True)])
def test_a_number_that_was_given_stays(monkeypatch: pytest.MonkeyPatch, enabled: bool, given: bool) -> None:
    monkeypatch.setattr(threads, "THREADS_ARE_GIVEN", given)
    with adapted_threads(enabled) as record:
        for _ in range(9):
            record(1.0)
            assert torch.get_num_threads() == 2
