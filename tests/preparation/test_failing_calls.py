"""Preparation whose n-th call fails, for every n: an earlier directory, and all around it, stay as they were."""

import shutil
from pathlib import Path

import pytest

from recvae.datasets.synthetic import generate
from recvae.preparation.pipeline import Options, prepare
from tests.failing_calls import AT_MOST, KINDS, fail_every_call


# A ParquetWriter whose close failed closes itself again when it is collected, and complains of its closed file.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function ParquetWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("state", "backend"), [("new", None), ("earlier", None), ("linked", None), ("new", "duckdb")])
def test_what_was_there_stays(tmp_path: Path, kind: str, state: str, backend: str | None) -> None:
    if backend:
        pytest.importorskip("ibis", reason="the extra 'scale' is not installed")
    source, folder = tmp_path / "interactions.csv", tmp_path / "all"
    generate(60, 50).ratings.to_csv(source, index=False)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "notes.txt").chmod(0o640)
    out = folder / "data"
    if state != "new":
        prepare(source, folder / "earlier", Options(split="leave-last"))
        (folder / "earlier").chmod(0o750)
        out = folder / "earlier"
    if state == "linked":
        out = folder / "current"
        out.symlink_to("earlier")
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept, symlinks=True)

    def restore() -> None:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder, symlinks=True)

    def work() -> None:
        prepare(source, out, Options(seed=1, backend=backend))

    assert fail_every_call(kind, work, folder, restore, at_most=AT_MOST // (8 if backend else 1)) >= 1
