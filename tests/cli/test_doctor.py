"""`recvae doctor`: what it reports, in complete and in incomplete installations, with and without a container."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from recvae.cli import doctor


def lines() -> dict[str, str]:
    return {title: rest for title, _, rest in (line.partition(": ") for line in doctor.report())}


def test_it_reports_versions_extras_devices_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECVAE_API_KEY", "hidden")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = lines()
    assert f"numpy {metadata.version('numpy')}" in found["required packages"]
    assert f"fastapi {metadata.version('fastapi')}" in found["extra service"]
    assert found["devices"].startswith("cpu")
    assert "assigned to this process" in found["cores"]
    assert found["cache of data sets"] == f"{tmp_path / 'cache'}, which does not exist yet"
    assert "RECVAE_API_KEY=(set)" in found["environment"]
    assert "OMP_NUM_THREADS=1" in found["environment"]
    assert any("openblas" in line for line in doctor.report())


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy>=1",
        "nosuch-package>=2 ; extra == 'ann'",
        "uvloop; sys_platform != 'win32' and extra == 'service'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    assert lines()["extra ann"] == "missing nosuch-package"


def test_it_runs_without_torch_and_without_pandas() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['pandas'] = None; sys.argv = ['recvae', 'doctor'];"
        "from recvae.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "devices: cpu for ranking only, since torch is not installed" in done.stdout


def test_limits_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2 * 10**9)
    assert "may use 1.5 of them" in lines()["cores"]
    assert "2.0 GB" in lines()["memory"]
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    monkeypatch.setattr(doctor, "memory_limit", lambda: None)
    assert "no limit" in lines()["cores"]
    assert "no limit" in lines()["memory"]
