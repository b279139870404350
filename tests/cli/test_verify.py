"""`recvae verify`: sound directories pass, and everything that is wrong with others is listed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recvae import workflow
from recvae.cli.verify import find_faults
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError
from recvae.models.linear.ease import EASE
from recvae.models.registry import save
from recvae.preparation.pipeline import Options, prepare
from tests.contracts import random_interactions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    prepare(generate(60, 40), folder / "data", Options())
    workflow.train(folder / "data", folder / "model", "multvae", params={"epochs": 1, "hidden": 8, "latent": 4})
    return folder


@pytest.mark.parametrize("name", ["data", "model"])
def test_sound_directories_pass(made: Path, name: str) -> None:
    assert find_faults(made / name) == []
    command = [sys.executable, "-m", "recvae", "verify", str(made / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{made / name} is sound\n"


def truncate(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes((directory / name).read_bytes()[:-10])

    return damage


def add_file(directory: Path) -> None:
    (directory / "notes\x1b[2J.txt").write_text("mine")


def change_manifest(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "hyperparameters": {"layers": 3}}))


@pytest.mark.parametrize(
    ("name", "damages", "said"),
    [
        (
            "model",
            [truncate("items.parquet"), truncate("users.parquet"), add_file],
            ["items.parquet", "users.parquet", "which its manifest does not name"],
        ),
        ("data", [truncate("users.parquet"), truncate("items.parquet")], ["users.parquet", "items.parquet"]),
        ("model", [change_manifest], ["layers"]),
    ],
)
def test_every_fault_is_listed(
    made: Path, tmp_path: Path, name: str, damages: list[Callable[[Path], None]], said: list[str]
) -> None:
    directory = shutil.copytree(made / name, tmp_path / name)
    for damage in damages:
        damage(directory)
    done = subprocess.run(
        [sys.executable, "-m", "recvae", "verify", str(directory)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    for text in said:
        assert any(text in line for line in done.stdout.splitlines()), done.stdout


def test_scores_that_are_not_finite_are_a_fault(tmp_path: Path) -> None:
    model = EASE().fit(random_interactions(), show_progress=False)
    for name, value in list(vars(model).items()):
        if isinstance(value, np.ndarray) and value.ndim == 2:
            setattr(model, name, np.full_like(value, np.nan))
    save(model, tmp_path / "model")
    assert any("finite" in fault for fault in find_faults(tmp_path / "model"))


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json cannot be read: No such file"):
        find_faults(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "recvae-mo')
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged: Unterminated string"):
        find_faults(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "something else"}')
    with pytest.raises(ArtifactError, match="expected one of recvae-model, recvae-data, recvae-checkpoint"):
        find_faults(tmp_path)
