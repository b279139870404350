"""A PostgreSQL server of a test's own, on a free port of the loopback interface."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SECONDS_TO_START = 120


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start a server with an empty database and give its address; skip where none is installed."""
    programs = {name: _program(name) for name in ("initdb", "postgres", "pg_isready")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"PostgreSQL is not installed: no {', '.join(missing)} on PATH or in /usr/lib/postgresql")
    user = _server_user()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        shutil.chown(folder, user)
        log = (Path(folder) / "log").open("w+")
        options = {"user": user, "cwd": folder, "stdout": log, "stderr": log}
        if os.getuid() == pwd.getpwnam(user).pw_uid:
            del options["user"]
        initdb = [str(programs["initdb"]), "-D", str(data), "-U", "tuner", "-A", "trust", "-E", "UTF8", "--no-sync"]
        server = [str(programs["postgres"]), "-D", str(data), "-p", port, "-h", "127.0.0.1", "-k", "", "-F"]
        subprocess.run(initdb, check=True, **options)  # type: ignore[call-overload]
        with log, subprocess.Popen(server, **options) as process:  # type: ignore[call-overload]
            try:
                _wait([str(programs["pg_isready"]), "-q", "-h", "127.0.0.1", "-p", port], process)
                yield f"tuner@127.0.0.1:{port}/postgres"
            finally:
                process.send_signal(signal.SIGINT)  # which does not wait for clients to leave


def _program(name: str) -> str | None:
    """Find a program on PATH, or among those of the newest version where Debian keeps them."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, reversed(folders))))


def _server_user() -> str:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return getpass.getuser()
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


def _wait(ready: list[str], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while subprocess.run(ready, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.1)
