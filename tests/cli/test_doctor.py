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
    assert "usable by this process" in found["cores"]
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


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/\n", {"cpu.max": "150000 100000", "memory.max": "2000000000"}, "may use 1.5 of them", "2.0 GB"),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, "no limit", "no limit"),
        (
            "4:memory:/docker/1\n1:cpu,cpuacct:/docker/1\n",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/docker/1/memory.limit_in_bytes": "3000000000",
            },
            "may use 2 of them",
            "3.0 GB",
        ),
        (
            "4:memory:/\n1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": "9223372036854771712"},
            "no limit",
            "no limit",
        ),
    ],
)
def test_limits_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], cores: str, memory: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    monkeypatch.setattr(doctor, "OWN_CGROUP", tmp_path / "own")
    assert cores in lines()["cores"]
    assert memory in lines()["memory"]
