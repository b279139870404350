"""The demo: from nothing to ten titles, on MovieLens-100K or, where it cannot be had, on generated data."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recvae.cli import demo
from recvae.cli.main import main
from recvae.errors import ArtifactError, DownloadError
from recvae.models.registry import MODELS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MODELS", ("popularity", "bpr", "cosine", "multvae"))
    monkeypatch.setattr(demo, "BUDGET", "20s")
    monkeypatch.setitem(MODELS["multvae"].PRESETS, "recommended", {"epochs": 2, "hidden": 16, "latent": 8})


def unreachable(*_: Any) -> None:
    raise DownloadError("ml-100k was not found: /data/ml-100k does not exist; files.example.org: no connection")


def printed(out: Path) -> list[str]:
    screen = io.StringIO()
    demo.run(out, Console(file=screen, width=100, color_system=None))
    return screen.getvalue().splitlines()


def test_without_a_data_set_it_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load", unreachable)
    lines = printed(tmp_path / "a demo [of a model]")
    model = tmp_path / "a demo [of a model]" / "model"
    assert any(line.startswith(f"saved {model}: ") and line.endswith(" has the figures") for line in lines)
    assert any(line.endswith(f": recvae recommend '{model}' --user 1") for line in lines)
    (said,) = [line for line in lines if "not found" in line]
    assert said.startswith("continuing with generated data, since ml-100k was not found: ")
    assert said.endswith("no connection")
    assert all(re.fullmatch(rf" *{rank}  Film \d+ \(\d{{4}}\)", line) for rank, line in enumerate(lines[-10:], start=1))
    assert not any(re.match(" *1  Film", line) for line in lines[:-10])


def test_movielens(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECVAE_DATA", str(data_dir))
    lines = printed(tmp_path / "demo")
    assert not any("generated" in line for line in lines)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("ml-100k from ")
    assert said[0].endswith("ml-100k: 100,000 rows")
    assert all(re.fullmatch(rf" *{rank}  .+ \(\d{{4}}\)", line) for rank, line in enumerate(lines[-10:], start=1))
    tried = [line.split()[0] for line in said if re.match(r"(popularity|cosine|multvae) +ndcg@10 0\.", line)]
    assert tried[:3] == ["popularity", "cosine", "multvae"]
    assert any(line.startswith("bpr is left out: BPR cannot fold in") for line in said)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert written == ["demo/model/manifest.json", "demo/report/results.json"]


def test_what_is_in_the_way_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load", lambda _: pytest.fail("it has begun"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"model exists and holds something else \(mine.txt\)"):
        printed(tmp_path)
    with pytest.raises(ArtifactError, match=r"mine.txt is not a directory that can be written to"):
        printed(tmp_path / "model" / "mine.txt")


def test_the_command_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recvae.cli.demo.run", lambda out, console: asked.append(out))
    monkeypatch.setattr("sys.argv", ["recvae", "demo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert asked == [Path("demo")]
