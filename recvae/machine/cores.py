"""Cores that this process may keep busy, and the threads of the numerical libraries that follow from them."""

import importlib
import math
import os
import sys

from recvae.machine.cgroup import cpu_quota

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which the numerical libraries, when they are loaded, learn how many threads to start."""
THREADS_ARE_GIVEN = any(variable in os.environ for variable in THREADS)
"""True where the user chose the number of threads, which then stays as it is."""
WAITING, ROUNDS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"), "1000"
"""Variables that say how threads wait for each other, and how often GNU's OpenMP looks before a thread sleeps: 300,000
times by default. Measured on two cores, Mult-VAE: a thousand cost a twentieth to a tenth on a quiet machine, not to
look at all half as much time again; beside one busy process an epoch takes two to three times as long, by default up to
twenty times.
"""


def assigned_cores() -> int:
    """Cores on which the system may run this process; a quota of their time is not counted in."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Cores that this process can keep busy: those assigned to it, or as many as its quota of their time makes up.

    A quota is rounded, halves up: with time for one core and a half, two threads that are stopped for a quarter of the
    time are faster than one.
    """
    quota = cpu_quota()
    return assigned_cores() if quota is None else min(assigned_cores(), max(1, math.floor(quota + 0.5)))


def adapt_threads() -> None:
    """Make the numerical libraries use the cores that there are, and soon sleep where they wait for each other.

    Threads that spin at a barrier for long, as OpenMP's do by default, are several times slower than one thread as soon
    as another process takes a core for a while: the thread they wait for cannot run. Libraries that are not loaded yet
    learn it from the environment, where variables that are set already are left alone. PyTorch, where it was loaded
    before, is only told the number of threads, and only where a quota allows fewer than there are cores.
    """
    if not any(variable in os.environ for variable in WAITING):
        os.environ["GOMP_SPINCOUNT"] = ROUNDS
    cores = usable_cores()
    if cores == assigned_cores() or THREADS_ARE_GIVEN:
        return
    for variable in THREADS:
        os.environ[variable] = str(cores)
    if "torch" in sys.modules:
        importlib.import_module("torch").set_num_threads(cores)
