"""results.json: written whole or not at all, and refused by name where it is something else."""

from pathlib import Path
from typing import Any

import pytest

from recvae.errors import DataError
from recvae.evaluation.results import read_results, write_results
from tests.evaluation.test_tables import results as results


def test_results_round_trip(tmp_path: Path, results: dict[str, Any]) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_writing_replaces_the_old_file(tmp_path: Path, results: dict[str, Any]) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    write_results(path, results)
    assert read_results(path) == results


@pytest.mark.parametrize("value", [object(), float("nan")])
def test_results_that_are_not_json_leave_the_old_file_intact(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(DataError, match="are not JSON"):
        write_results(path, {"format_version": value})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_intact(
    tmp_path: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr(step, fail)
    with pytest.raises(DataError, match=r"results.json cannot be written: No space left on device"):
        write_results(path, results)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_into_no_folder_is_one_clear_line(tmp_path: Path, results: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    for folder in ("absent", "file"):
        with pytest.raises(DataError, match="cannot be written"):
            write_results(tmp_path / folder / "results.json", results)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[1]", "has format_version None; expected 1"),
        (b'{"format_version": 2, "models": {}}', "has format_version 2; expected 1"),
        (b'{"format_version": 1}', "has no models"),
    ],
)
def test_reading_what_is_no_results_file(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as refusal:
        read_results(path)
    assert str(path) in str(refusal.value)


def test_reading_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results.json cannot be read: No such file"):
        read_results(tmp_path / "results.json")
