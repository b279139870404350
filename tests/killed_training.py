"""A program that forks a `recvae` for each command line on its standard input, with a checkpoint after every update.

Each is a process of its own and is killed after the seconds that the line begins with; its exit status is printed.
Only imports are shared, torch's own late ones with them; they take longer than all of a small training run.
"""

import os
import shlex
import signal
import sys
import time
import traceback

import numpy as np
from scipy import sparse

from recvae.cli import main as cli
from recvae.models.autoencoders.multvae import MultVAE
from recvae.training import trainer as training


def run(line: str) -> None:
    training.SECONDS_TO_FIRST_CHECKPOINT = training.SECONDS_BETWEEN_CHECKPOINTS = -1.0
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.argv = ["recvae", *shlex.split(line)]
    try:
        cli.main()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(int(end.code or 0))
    except BaseException:  # noqa: BLE001 the parent must not go on in two processes
        traceback.print_exc()
        os._exit(1)


def status_of(child: int, kill_after: float) -> int:
    """The exit status of a process that is killed after `kill_after` seconds if it still runs."""
    deadline = time.monotonic() + kill_after
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.0005)


if __name__ == "__main__":
    MultVAE(hidden=2, latent=2, epochs=1).fit(sparse.csr_matrix(np.eye(3, dtype=np.float32)), show_progress=False)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        seconds, _, command = line.partition(" ")
        if (child := os.fork()) == 0:
            run(command)
        print(status_of(child, float(seconds)), flush=True)  # noqa: T201
