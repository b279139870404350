"""Work in several processes on one machine, under a limit of time, cores and memory; nothing finished is lost.

A task that fails, or whose process is killed, is reported like a result and costs only itself.
"""

import importlib
import math
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

import torch

from recvae.machine.cores import THREADS
from recvae.memory import available_bytes

Result = dict[str, Any]
Work = Callable[[Any], Result]
MOST_WAITING = 16
SECONDS_TO_LEAVE = 10.0
SPARE_MEMORY = 0.8  # of what is available, so that an estimate may be wrong


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    what : picklable
        The argument of the function that does the work.
    threads : int
        Threads that the work uses.
    memory, gpu_memory : int
        Bytes that it takes at its peak, as far as that can be told.
    """

    what: Any
    threads: int = 1
    memory: int = 0
    gpu_memory: int = 0


@dataclass(frozen=True)
class Limits:
    """Threads and bytes of memory for all tasks that are at work together."""

    threads: float = math.inf
    memory: float = math.inf
    gpu_memory: float = math.inf

    @classmethod
    def of_this_machine(cls, cores: int) -> "Limits":
        """Most of the memory that is free now."""
        memory, gpu_memory = available_bytes() or math.inf, math.inf
        if torch.cuda.is_available():
            gpu_memory = torch.cuda.mem_get_info()[0]
        return cls(cores, memory * SPARE_MEMORY, gpu_memory * SPARE_MEMORY)

    def allow(self, tasks: Sequence[Task]) -> bool:
        """Tell if tasks may be at work together; one alone always may."""
        names = ("threads", "memory", "gpu_memory")
        return len(tasks) < 2 or all(sum(getattr(t, name) for t in tasks) <= getattr(self, name) for name in names)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None
    started: float = field(default_factory=monotonic)


def run(
    work: Work,
    take: Callable[[], Task | None],
    done: Callable[[Any, Result], None],
    *,
    workers: int,
    cores: int,
    seconds: float,
) -> bool:
    """Do tasks until there are none left or the time is over; then stop those that still run.

    Parameters
    ----------
    work : callable
        A function of a module that does a task in a process of its own and returns plain values.
    take : callable
        Gives the next task, or None if there is none, at least not before another one is done.
    done : callable
        Called as `done(what, result)`; the result of a failed task is {"error": text}.
    workers, cores : int
        Largest number of tasks at once, and of the threads of all of them; a task with more threads than cores runs
        alone.
    seconds : float
        Limit of time for everything.

    Returns
    -------
    bool
        Whether everything was done in time.
    """
    deadline = monotonic() + seconds
    limits = Limits.of_this_machine(cores)
    staff: list[_Worker] = []
    waiting: list[Task] = []  # for cores or memory; smaller tasks overtake them
    # SIGTERM alone would leave the workers behind, which would go on with their tasks.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while True:
            while len(busy := [worker.task for worker in staff if worker.task]) < workers:
                if (task := choose(busy, waiting, take, limits)) is None:
                    break
                _give(_idle(staff, work), task)
            if not busy:
                return not waiting
            left = deadline - monotonic()
            if left <= 0:
                return False
            _collect(staff, done, min(left, 3600.0))
    finally:
        for worker in staff:
            _end(worker)
        signal.signal(signal.SIGTERM, previous)


def choose(busy: Sequence[Task], waiting: list[Task], take: Callable[[], Task | None], limits: Limits) -> Task | None:
    """Choose the next task that there is room for beside those at work: of those that wait for it, else a new one."""
    for task in waiting:
        if limits.allow([*busy, task]):
            waiting.remove(task)
            return task
    while len(waiting) < MOST_WAITING and (new := take()):
        if limits.allow([*busy, new]):
            return new
        waiting.append(new)
    return None


def _idle(staff: list[_Worker], work: Work) -> _Worker:
    for worker in staff:
        if worker.task is None:
            return worker
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work.__module__, work.__qualname__))
    process.start()
    theirs.close()
    staff.append(_Worker(process, ours))
    return staff[-1]


def _give(worker: _Worker, task: Task) -> None:
    worker.task, worker.started = task, monotonic()
    worker.connection.send(task)


def _collect(staff: list[_Worker], done: Callable[[Any, Result], None], timeout: float) -> None:
    """Wait until a task is done or a process ends, and report it."""
    ready = wait([worker.connection for worker in staff if worker.task], timeout)
    for worker in [worker for worker in staff if worker.connection in ready and worker.task]:
        task, worker.task = worker.task, None
        try:
            result: Result = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            result = {"error": f"the process ended with code {worker.process.exitcode}"}
            staff.remove(worker)
        if task is not None:
            done(task.what, {"seconds": monotonic() - worker.started, **result})


def _end(worker: _Worker) -> None:
    """Let a worker without a task leave by itself, so that it cleans up after the libraries; kill any other."""
    worker.connection.close()
    if worker.task is None:
        worker.process.join(SECONDS_TO_LEAVE)
    worker.process.kill()
    worker.process.join()


def _serve(connection: Connection, module: str, function: str) -> None:
    """Do the tasks that the connection brings until it is closed."""
    work: Work = getattr(importlib.import_module(module), function)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            task: Task = connection.recv()
            _set_threads(task.threads)
            try:
                connection.send(dict(work(task.what)))
            except Exception as error:  # noqa: BLE001 - every failure is a result, and the next task may succeed
                text = traceback.format_exception_only(error)[-1].strip()
                connection.send({"error": text[:500]})


def _set_threads(threads: int) -> None:
    """Let the numerical libraries use this many threads from here on."""
    for variable in (*THREADS, "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
    torch.set_num_threads(threads)
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
