import subprocess
import sys
from pathlib import Path

import pytest

from recvae.storage.locks import hold_lock

HOLDER = """
import sys, time
from pathlib import Path
from recvae.storage.locks import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with hold_lock(file), pytest.raises(BlockingIOError), hold_lock(file):
        pass
    assert not file.exists()
    with hold_lock(file):
        assert file.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), hold_lock(file):
            pass
        process.kill()
    assert file.exists()
    with hold_lock(file):
        pass
    assert not file.exists()


def test_no_module_needs_fcntl() -> None:
    """As on Windows, where there is none: everything but the service's workers can be imported."""
    code = "import sys; sys.modules['fcntl'] = None; import recvae.workflow, recvae.inference.bulk, recvae.cli.main"
    subprocess.run([sys.executable, "-c", code], check=True)
