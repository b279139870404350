"""README's commands run as they stand there, and its table is the one in benchmarks/results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recvae.report import markdown_table, read_results

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
RECVAE_COMMANDS = [command for command in COMMANDS if command.startswith("recvae ")]
MAKE_COMMANDS = [command for command in COMMANDS if command.startswith("make ")]


@pytest.fixture
def environment(data_dir: Path, tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RECVAE_DATA": str(data_dir.resolve()), "RECVAE_CACHE": str(tmp_path / "cache")}


def test_there_are_no_other_commands() -> None:
    assert len(RECVAE_COMMANDS) == 7
    assert MAKE_COMMANDS == ["make demo", "make test"]
    assert sorted(COMMANDS) == sorted(RECVAE_COMMANDS + MAKE_COMMANDS)


def test_recvae_commands(tmp_path: Path, environment: dict[str, str]) -> None:
    for command in RECVAE_COMMANDS:
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), command


@pytest.mark.parametrize("command", MAKE_COMMANDS)
def test_make_commands_are_targets(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"make demo": "recvae demo", "make test": "pytest"}[command] in done.stdout


def test_python_usage(tmp_path: Path, environment: dict[str, str]) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 0.1 < float(done.stdout.split()[-1]) < 0.9
    assert (tmp_path / "model" / "manifest.json").is_file()


def test_table_is_the_measured_one() -> None:
    tables = re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", README, re.DOTALL)
    assert tables
    for name, table in tables:
        assert table == markdown_table(read_results(ROOT / "benchmarks" / "results" / f"{name}.json")) + "\n"
