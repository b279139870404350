"""Archives that mean harm or are damaged: refused, with nothing left behind."""

import stat
import zipfile
from pathlib import Path

import pytest

from recvae.datasets.unzip import unzip
from recvae.errors import DataError


def archive(folder: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in entries:
            opened.writestr(name, content, compress_type=method)
    return path


def refused(path: Path, message: str, max_bytes: int = 1 << 30, max_ratio: int = 100) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError, match=message):
        unzip(path, path.parent / "out", max_bytes=max_bytes, max_ratio=max_ratio)
    assert sorted(path.parent.rglob("*")) == before


def test_unpacks_folders_and_files(tmp_path: Path) -> None:
    path = archive(tmp_path, ("ml/", b""), ("ml/u.data", b"1\t2\n"), ("ml/deep/README", b"read"))
    unzip(path, tmp_path / "out")
    assert (tmp_path / "out/ml/u.data").read_bytes() == b"1\t2\n"
    assert (tmp_path / "out/ml/deep/README").read_bytes() == b"read"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set.zip"]


def test_takes_only_what_is_asked_for(tmp_path: Path) -> None:
    path = archive(tmp_path, ("ml/ratings.csv", b"r"), ("ml/genome-scores.csv", b"g"))
    unzip(path, tmp_path / "out", only={"ratings.csv"})
    assert [p.name for p in (tmp_path / "out").rglob("*.csv")] == ["ratings.csv"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "ml/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:evil", "\\\\host\\share\\evil", "\\evil"],
)
def test_path_outside(tmp_path: Path, name: str) -> None:
    refused(archive(tmp_path, ("good", b"1"), (name, b"2")), "expected paths that stay inside")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR], ids=["link", "pipe", "device"])
def test_special_file(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    refused(archive(tmp_path, (entry, b"/etc/passwd")), "'link', a link or device")


def test_bomb_by_ratio(tmp_path: Path) -> None:
    refused(archive(tmp_path, ("bomb", bytes(2_000_000))), "unpacks to far more")


def test_bomb_by_size(tmp_path: Path) -> None:
    path = archive(tmp_path, ("a", b"x" * 600), ("b", b"y" * 600), method=zipfile.ZIP_STORED)
    refused(path, "unpacks to far more", max_bytes=1000)


def test_header_that_understates_the_size(tmp_path: Path) -> None:
    path = archive(tmp_path, ("bomb", bytes(100_000)))
    size = (100_000).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    refused(path, "not a whole zip archive", max_ratio=10_000)


def test_same_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path, ("a", b"1"), ("a", b"2"))
    refused(path, "two entries at 'a'")


def test_file_that_is_also_a_folder(tmp_path: Path) -> None:
    refused(archive(tmp_path, ("a", b"1"), ("a/b", b"2")), "two entries at 'b'")


def test_unusual_compression(tmp_path: Path) -> None:
    refused(archive(tmp_path, ("a", b"1" * 99), method=zipfile.ZIP_LZMA), "expected deflate or none")


def test_every_truncation(tmp_path: Path) -> None:
    path = archive(tmp_path, ("ml/u.data", bytes(range(200))))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(path, "not a whole zip archive")


def test_every_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = archive(tmp_path, ("ml/u.data", bytes(range(100))))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        into = tmp_path / f"out{position}"
        try:
            unzip(path, into)
        except DataError:
            assert not into.exists()
        else:
            assert all(p.read_bytes() == bytes(range(100)) for p in into.rglob("*") if p.is_file())


def test_not_a_zip_at_all(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"<html>moved</html>")
    refused(tmp_path / "set.zip", "not a whole zip archive")
