import os
import stat
import threading
from io import BytesIO
from pathlib import Path

import pytest

from recvae.errors import DataError, ParameterError
from recvae.storage.files import check_path, replace_file, write_text, write_together


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")
    path.chmod(0o640)
    write_text(path, "new «one»")
    assert path.read_text(encoding="utf8") == "new «one»"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "text")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/target")
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "folder" / "target").read_text() == text


def test_devices_and_pipes_are_written_to(tmp_path: Path) -> None:
    write_text(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through it")
    reader.join(10)
    assert found == ["through it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_files_are_all_written_or_none(tmp_path: Path) -> None:
    write_together({tmp_path / "a": "old", tmp_path / "b": "old"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="absent/b cannot be written: "):
        write_together({tmp_path / "a": "new", tmp_path / "folder" / "absent" / "b": "new"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"a": "old", "b": "old"}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "folder").mkdir()
    for name in ("circle", "folder", "absent/file"):
        with pytest.raises(DataError, match=f"{name} cannot be written: "):
            write_text(tmp_path / name, "text")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["circle", "folder"]


def test_only_paths_are_paths() -> None:
    assert check_path("model") == Path("model")
    for given in (BytesIO(), 3, None):
        with pytest.raises(ParameterError, match=rf"^path is a {type(given).__name__}; expected the path of a dir"):
            check_path(given)
