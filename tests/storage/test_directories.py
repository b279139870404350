import errno
import hashlib
import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Never

import pytest
from safetensors import SafetensorError

from recvae.errors import ArtifactError
from recvae.storage import directories, manifest
from recvae.storage.checksums import digest_file
from recvae.storage.directories import read_consistently, refuse_other_files, replace_directory
from recvae.storage.manifest import describe_directory, read_manifest, write_manifest

KIND = "recvae-test"


def write(path: Path, content: str, **fields: Any) -> None:
    with replace_directory(path, KIND) as directory:
        (directory / "data.txt").write_text(content)
        write_manifest(directory, KIND, 1, {"note": "für «alle»", **fields})


def listing(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def edit(path: Path, **fields: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | fields))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write(tmp_path / "saved", "old")
    return tmp_path / "saved"


def test_a_manifest_carries_what_was_given_and_the_checksums(saved: Path) -> None:
    assert read_manifest(saved, KIND, 1) == {
        "format": KIND,
        "format_version": 1,
        "note": "für «alle»",
        "sha256": {"data.txt": hashlib.sha256(b"old").hexdigest()},
    }


def test_a_new_directory_replaces_the_old(saved: Path) -> None:
    write(saved, "new")
    assert listing(saved).keys() == {"data.txt", "manifest.json"}
    assert (saved / "data.txt").read_text() == "new"
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model/manifest.json"])
def test_files_that_the_manifest_does_not_name_are_never_deleted(name: str, saved: Path) -> None:
    (saved / name).parent.mkdir(exist_ok=True)
    (saved / name).write_text("mine")
    before = listing(saved.parent)
    with pytest.raises(ArtifactError) as error:
        write(saved, "new")
    first = name.split("/")[0]
    assert f"{saved} holds files that its manifest does not name ({first})" in str(error.value)
    assert listing(saved.parent) == before


def test_a_link_to_a_directory_is_followed(saved: Path) -> None:
    link = saved.parent / "current"
    link.symlink_to(saved.name)
    write(link, "new")
    assert link.is_symlink()
    assert (saved / "data.txt").read_text() == "new"
    (saved.parent / "dangling").symlink_to("elsewhere")
    write(saved.parent / "dangling", "new")
    assert (saved.parent / "elsewhere" / "data.txt").read_text() == "new"
    (saved.parent / "circle").symlink_to("circle")
    with pytest.raises(ArtifactError, match=r"circle (is not readable|could not be written)"):
        write(saved.parent / "circle", "new")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_follow_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    former = os.umask(umask)
    try:
        with replace_directory(tmp_path / "new", KIND) as directory:
            (directory / "closed").touch(0o600)  # as safetensors writes
            write_manifest(directory, KIND, 1, {})
    finally:
        os.umask(former)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "new").iterdir()}
    assert modes == {"closed": mode, "manifest.json": mode}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~umask


def test_replacing_without_an_atomic_exchange(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_exchange", lambda *_: False)
    write(saved, "new")
    assert (saved / "data.txt").read_text() == "new"
    assert list(saved.parent.iterdir()) == [saved]


def test_parents_are_made_and_an_empty_directory_is_used(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "new", "new")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "new")
    for path in (tmp_path / "a" / "b" / "new", tmp_path / "empty"):
        assert read_manifest(path, KIND, 1)["format"] == KIND


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("here"), "new")
    assert (tmp_path / "here" / "data.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("files", "held"),
    [
        ({"thesis.tex": "x"}, "thesis.tex"),
        ({"a": "", "b": "", "c": "", "d": ""}, "a, b, c, …"),
        ({"manifest.json": '{"format": "recvae-other"}'}, "recvae-other"),
        ({"manifest.json": "not json"}, "manifest.json"),
        ({"manifest.json": "[]"}, "manifest.json"),
        ({"manifest.json": "[" * 100_000}, "manifest.json"),
    ],
    ids=["file", "files", "other kind", "no JSON", "list", "deep"],
)
def test_something_else_is_never_overwritten(files: dict[str, str], held: str, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_text(content)
    before = listing(tmp_path)
    with pytest.raises(ArtifactError) as error:
        write(path, "new")
    assert f"{path} exists and holds something else ({held})" in str(error.value)
    assert listing(tmp_path) == before


def test_nothing_is_written_into_a_directory_with_a_manifest(tmp_path: Path) -> None:
    outer, message = tmp_path / "outer", r"is inside of .*outer, a recvae-other directory; expected another place"
    outer.mkdir()
    (outer / "manifest.json").write_text('{"format": "recvae-other"}')
    (tmp_path / "link").symlink_to(outer / "inner")
    for path in (outer / "inner", outer / "deep" / "inner", tmp_path / "link"):
        with pytest.raises(ArtifactError, match=message):
            write(path, "new")
        with pytest.raises(ArtifactError, match=message):
            refuse_other_files(path, "earlier lists", lambda _: True)
    assert sorted(entry.name for entry in outer.iterdir()) == ["manifest.json"]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="file exists and is not a directory"):
        write(tmp_path / "file", "new")
    assert listing(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ENOSPC, "no matter"), "No space left on device"),
        (OSError("a reason without a number"), "a reason without a number"),
        (SafetensorError("I/O error: No space left on device"), "No space left on device"),
    ],
    ids=str,
)
def test_a_failure_leaves_what_was_there(failure: Exception, reason: str, saved: Path) -> None:
    before = listing(saved.parent)

    def fail() -> None:
        with replace_directory(saved, KIND) as directory:
            (directory / "data.txt").write_text("half")
            raise failure

    with pytest.raises(ArtifactError, match=f"saved could not be written: .*{reason}; what was there is unchanged$"):
        fail()
    assert listing(saved.parent) == before


def test_an_error_of_the_caller_passes_and_leaves_what_was_there(saved: Path) -> None:
    before = listing(saved.parent)

    def fail() -> None:
        with replace_directory(saved, KIND) as directory:
            (directory / "data.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert listing(saved.parent) == before


def test_a_parent_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Never:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtifactError, match="new could not be written: Permission denied"):
        write(tmp_path / "new", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"format": "recvae-test"', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000]
)
def test_a_manifest_that_is_no_json(content: bytes, saved: Path) -> None:
    (saved / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json is not readable JSON"):
        read_manifest(saved, KIND, 1)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"recvae-test"', "{}", '{"format": "recvae-other"}'])
def test_a_manifest_of_something_else(content: str, saved: Path) -> None:
    (saved / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json does not describe a recvae-test$"):
        read_manifest(saved, KIND, 1)


def test_a_missing_directory_or_manifest(saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"absent is missing; expected a recvae-test directory$"):
        read_manifest(saved.parent / "absent", KIND, 1)
    with pytest.raises(ArtifactError, match=r"data\.txt is a file; expected a recvae-test directory$"):
        read_manifest(saved / "data.txt", KIND, 1)
    (saved / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"saved has no manifest\.json; expected a recvae-test directory$"):
        read_manifest(saved, KIND, 1)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_an_unknown_version(version: Any, saved: Path) -> None:
    edit(saved, format_version=version)
    with pytest.raises(ArtifactError) as error:
        read_manifest(saved, KIND, 1)
    assert f"has format_version {version!r}; this version of recvae reads 1" in str(error.value)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "sub/data.txt", "..", ".", ""])
def test_files_outside_the_directory_are_not_read(name: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved.parent / "outside.txt").write_text("secret")
    edit(saved, sha256={name: hashlib.sha256(b"secret").hexdigest()})
    monkeypatch.setattr(manifest, "digest_file", lambda file: pytest.fail(f"{file} was read"))
    with pytest.raises(ArtifactError, match=r"of files outside the directory$"):
        read_manifest(saved, KIND, 1)


@pytest.mark.parametrize("sums", [None, [], "data.txt", 4])
def test_checksums_of_another_type(sums: Any, saved: Path) -> None:
    edit(saved, sha256=sums)
    with pytest.raises(ArtifactError, match="lists no checksums"):
        read_manifest(saved, KIND, 1)


@pytest.mark.parametrize("found", [None, 5, "0" * 64, ["x"]])
def test_a_checksum_that_differs(found: Any, saved: Path) -> None:
    edit(saved, sha256={"data.txt": found})
    with pytest.raises(ArtifactError, match=r"data\.txt is damaged"):
        read_manifest(saved, KIND, 1)


def test_a_missing_file(saved: Path) -> None:
    (saved / "data.txt").unlink()
    with pytest.raises(ArtifactError, match=r"saved has no data\.txt, which its manifest names$"):
        read_manifest(saved, KIND, 1)
    (saved / "data.txt").mkdir()
    with pytest.raises(ArtifactError, match=r"saved has no data\.txt, which its manifest names$"):
        read_manifest(saved, KIND, 1)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_cannot_be(name: str, saved: Path) -> None:
    edit(saved, sha256={name: "0" * 64})
    with pytest.raises(ArtifactError, match=r"is not readable: File name too long$|which its manifest names$"):
        read_manifest(saved, KIND, 1)


def test_a_file_that_cannot_be_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Never:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(manifest, "digest_file", refuse)
    with pytest.raises(ArtifactError, match=r"data\.txt is not readable: Permission denied$"):
        read_manifest(saved, KIND, 1)


def test_reading_starts_again_when_the_directory_was_replaced(saved: Path) -> None:
    seen: list[str] = []

    def read(path: Path) -> str:
        seen.append((path / "data.txt").read_text())
        if len(seen) == 1:
            write(path, "second")
        if len(seen) == 2:
            write(path, "third")
            raise ArtifactError("of two minds")
        return seen[-1]

    assert read_consistently(saved, read) == "third"
    assert seen == ["old", "second", "third"]


def test_an_error_in_an_unchanged_directory_is_told_at_once(saved: Path) -> None:
    calls: list[Path] = []

    def read(path: Path) -> Never:
        calls.append(path)
        raise ArtifactError("damaged")

    with pytest.raises(ArtifactError, match=r"^damaged$"):
        read_consistently(saved, read)
    assert calls == [saved]


def test_reading_gives_up_in_the_end(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "READ_PATIENCE", 0.1)
    with pytest.raises(ArtifactError, match=r"was replaced whenever it was read, for 0\.1 s$"):
        read_consistently(saved, lambda path: write(path, "new"))


def test_two_writers_of_one_path(saved: Path) -> None:
    """The one that ends last is kept, and neither takes the other's half for abandoned."""
    with replace_directory(saved, KIND) as first:
        (first / "data.txt").write_text("first")
        write(saved, "second")
        assert (saved / "data.txt").read_text() == "second"
        write_manifest(first, KIND, 1, {})
    assert (saved / "data.txt").read_text() == "first"
    assert read_manifest(saved, KIND, 1)["format"] == KIND
    assert list(saved.parent.iterdir()) == [saved]


def test_many_writers_of_one_path(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None takes for abandoned what another one has just made and is about to lock."""
    monkeypatch.setattr(directories, "sync", lambda path: None)
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for writer in [pool.submit(write, saved, "new") for _ in range(800)]:
                writer.result()
    finally:
        sys.setswitchinterval(seconds)
    assert list(saved.parent.iterdir()) == [saved]


def test_a_directory_of_other_files_that_comes_in_between_is_not_foreign(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names were listed before another writer replaced it, and its manifest was read afterwards."""
    describe = describe_directory
    waiting = [True]

    def describe_late(path: Path) -> tuple[str | None, set[str]]:
        if waiting and waiting.pop():
            with replace_directory(saved, KIND) as other:
                (other / "other.txt").write_text("other")
                write_manifest(other, KIND, 1, {})
        return describe(path)

    monkeypatch.setattr(directories, "describe_directory", describe_late)
    write(saved, "new")
    assert (saved / "data.txt").read_text() == "new"
    assert list(saved.parent.iterdir()) == [saved]


def test_only_what_a_writer_of_this_path_left_is_removed(saved: Path) -> None:
    names = [".saved.0123abcd.tmp", ".saved.mine.tmp", ".saved.old.0123abcd.tmp", "saved.0123abcd.tmp"]
    for name in names:
        (saved.parent / name).mkdir()
    write(saved, "new")
    assert sorted(path.name for path in saved.parent.iterdir()) == sorted([*names[1:], "saved"])


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
