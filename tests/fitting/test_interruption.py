"""An end to work after some time, and Ctrl-C."""

import signal
import threading
import time

import pytest

from recvae.fitting.interruption import OutOfTimeError, interrupt_after, note_interruptions


def test_work_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(OutOfTimeError), interrupt_after(0.1):
        time.sleep(10)
    assert time.monotonic() - started < 5


def test_work_that_is_quick_is_not_and_the_alarm_is_off() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with interrupt_after(0.2):
        pass
    time.sleep(0.3)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_time_that_no_timer_can_hold_is_no_limit() -> None:
    with interrupt_after(1e300):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 1e9


def test_other_threads_run_to_their_end() -> None:
    done = []

    def work() -> None:
        with interrupt_after(0.01):
            time.sleep(0.1)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_the_first_ctrl_c_ends_the_search_the_second_everything() -> None:
    with note_interruptions(print) as interruptions:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interruptions.finishes = True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_after_the_search_is_answered_and_the_second_ends() -> None:
    said: list[str] = []
    with note_interruptions(said.append) as interruptions:
        interruptions.finishes = True
        signal.raise_signal(signal.SIGINT)
        assert said == ["the best model is being fitted; Ctrl-C again ends at once"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
