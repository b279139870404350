"""Output on every kind of terminal, and interruptions at any time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recvae.models.popularity import Popularity
from tests.contracts import random_interactions

TITLES = ["Am\xe9lie", "\x1b[2J\x1b[31mred", "new\nline", "\x9b31m", "\N{PILE OF POO}"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pandas as pd

    path = tmp_path_factory.mktemp("output") / "model"
    items = pd.DataFrame({"item_id": range(len(TITLES)), "title": TITLES})
    Popularity().fit(random_interactions(20, len(TITLES)), show_progress=False).save(path, items=items)
    return path


def recommend(model: Path, encoding: str, *options: str) -> str:
    command = [sys.executable, "-m", "recvae", "recommend", str(model), "--history", "0", "-n", "4", *options]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.stderr == b""
    return done.stdout.decode("utf8" if encoding == "ascii" else encoding)  # click takes ASCII for a broken locale


@pytest.mark.parametrize("encoding", ["utf8", "ascii", "latin-1"])
def test_control_characters_of_titles_never_reach_the_terminal(model: Path, encoding: str) -> None:
    text = recommend(model, encoding)
    assert len(text.splitlines()) == 4
    assert [c for c in text if c != "\n" and not c.isprintable()] == []
    assert "\\x1b[2J\\x1b[31mred" in text
    assert ("\N{PILE OF POO}" in text) == (encoding != "latin-1")


@pytest.mark.parametrize("encoding", ["utf8", "ascii"])
def test_json_is_json_in_every_encoding(model: Path, encoding: str) -> None:
    text = recommend(model, encoding, "--json")
    assert [c for c in text if c != "\n" and not c.isprintable()] == []
    assert {item["title"] for item in json.loads(text)["items"]} == set(TITLES[1:])


def test_closed_streams_end_no_command_with_a_traceback(model: Path, tmp_path: Path) -> None:
    recvae = f"{sys.executable} -m recvae"
    for line, status in (
        (f"{recvae} recommend {model} --history 0 -n 2 >&-", 0),
        (f"{recvae} recommend {model} --history 0 -n 2 <&- >/dev/null", 0),
        (f"{recvae} prepare - --out {tmp_path / 'data'} <&-", 2),
        (f"{recvae} doctor 2>&-", 0),
    ):
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == status, (line, done.stderr)
        assert "Traceback" not in done.stderr
        assert status == 0 or done.stderr.startswith("recvae: ")


def test_an_interruption_of_the_imports_is_one_line() -> None:
    code = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from recvae.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "recvae: interrupted\n")


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.4])
def test_an_early_interruption_leaves_no_traceback(seconds: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "recvae", "--help"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said in ("", "recvae: interrupted\n")
