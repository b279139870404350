"""README's commands run as they stand there, and its table is the one in benchmarks/results."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recvae.datasets import NAMES
from recvae.evaluation.results import read_results
from recvae.evaluation.tables import markdown_table
from tests.http_service import free_port, ready, wait_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
SERVE_COMMANDS = [command for command in COMMANDS if command.startswith(("recvae serve ", "curl "))]
RECVAE_COMMANDS = [c for c in COMMANDS if c.startswith(("recvae ", "torchrun ")) and c not in SERVE_COMMANDS]
MAKE_COMMANDS = [command for command in COMMANDS if command.startswith("make ")]


@pytest.fixture
def environment(data_dir: Path, tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RECVAE_DATA": str(data_dir.resolve()), "RECVAE_CACHE": str(tmp_path / "cache")}


def test_there_are_no_other_commands() -> None:
    assert len(RECVAE_COMMANDS) == 10
    assert MAKE_COMMANDS == ["make demo", "make test"]
    assert [command.split()[0] for command in SERVE_COMMANDS] == ["recvae", "curl"]
    assert sorted(COMMANDS) == sorted(RECVAE_COMMANDS + SERVE_COMMANDS + MAKE_COMMANDS)


def test_recvae_commands(tmp_path: Path, environment: dict[str, str]) -> None:
    for command in RECVAE_COMMANDS:
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), command
    serve, ask = SERVE_COMMANDS
    answer = served(serve, ask, tmp_path, environment)
    assert [len(answer["items"]), answer["unknown"]] == [5, []]
    assert answer["items"][0]["because"]


def served(serve: str, ask: str, folder: Path, environment: dict[str, str]) -> Any:
    """What a service that was started by one command answers to the other, on a port that is free."""
    port = str(free_port())
    command = serve.replace("8000", port).split()
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: ready(f"http://127.0.0.1:{port}"))
            asked = subprocess.run(shlex.split(ask.replace("8000", port)), capture_output=True, check=True)
        finally:
            process.terminate()
        assert process.wait(60) == 0
    return json.loads(asked.stdout)


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


def test_tables_are_the_measured_ones() -> None:
    tables = re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", README, re.DOTALL)
    measured = [path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json") if path.stem in NAMES]
    assert sorted(name for name, _ in tables) == sorted(measured)
    assert "ml-1m" in measured
    for name, table in tables:
        results = read_results(ROOT / "benchmarks" / "results" / f"{name}.json")
        metrics = list(dict.fromkeys(pair["metric"] for pair in results["comparisons"]))
        assert table == markdown_table(results, metrics) + "\n"
