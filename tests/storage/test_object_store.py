"""Object stores, against moto's server, which speaks S3: what is read, what is published, and what is refused."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import from_url

from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, DownloadError, MissingDependencyError, ParameterError
from recvae.models import registry
from recvae.models.popularity import Popularity
from recvae.storage import object_store
from recvae.storage import place as places
from recvae.storage.directories import replace_directory
from recvae.storage.manifest import read_manifest, write_manifest
from recvae.storage.object_store import fetch, follow, is_address, publish, publishing
from recvae.storage.place import Place
from tests.contracts import random_interactions

KIND, SECRET = "recvae-test", "very-secret"
Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    with (
        log,
        subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log) as server,
    ):
        try:
            for _ in range(600):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A new bucket `shop`, and an empty cache."""
    send("POST", f"{endpoint}/moto-api/reset")
    send("PUT", f"{endpoint}/shop")
    use(monkeypatch, endpoint)
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "cache"))
    return from_url("s3://shop", client_options={"allow_http": True})


def send(method: str, url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method=method)).close()  # noqa: S310


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    given = {
        "ENDPOINT_URL": endpoint,
        "ACCESS_KEY_ID": "me",
        "SECRET_ACCESS_KEY": SECRET,
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A store that answers everything with 403."""

    class Forbid(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815 the base class's names

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbid) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "cache"))
        yield
        server.shutdown()


def write(path: Path, content: str) -> Path:
    with replace_directory(path, KIND) as directory:
        (directory / "data.txt").write_text(content)
        (directory / "same.txt").write_text("the same")
        write_manifest(directory, KIND, 1, {})
    return path


def listing(bucket: Any) -> list[str]:
    return sorted(entry["path"] for entries in obstore.list(bucket) for entry in entries)


def test_addresses() -> None:
    assert all(map(is_address, ("s3://a/b", "S3://a/b", "gs://a/b", "az://a/b")))
    assert not any(map(is_address, ("s3", "s3:/a/b", "a/b", "sqlite:///a", "https://a/b", "-")))


def test_a_file_is_copied_once_and_again_when_it_changes(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PART_BYTES", 3)
    obstore.put(bucket, "day/plays.csv", b"first version")
    first = fetch("s3://shop/day/plays.csv")
    assert (first.name, first.read_bytes()) == ("plays.csv", b"first version")
    written = first.stat().st_mtime_ns
    assert fetch("s3://shop/day/plays.csv").stat().st_mtime_ns == written
    obstore.put(bucket, "day/plays.csv", b"second")
    second = fetch("s3://shop/day/plays.csv")
    assert second.read_bytes() == b"second"
    assert not first.exists()
    obstore.put(bucket, "empty.csv", b"")
    assert fetch("s3://shop/empty.csv").read_bytes() == b""
    obstore.put(bucket, "plays#1.csv", b"a name with a mark")
    assert fetch("s3://shop/plays#1.csv").read_bytes() == b"a name with a mark"


def test_a_folder_is_copied(bucket: Any, tmp_path: Path) -> None:
    for name in ("a.parquet", "deep/b.parquet"):
        obstore.put(bucket, f"plays/{name}", name.encode())
    obstore.put(bucket, "playsets.csv", b"another")
    send("PUT", f"{os.environ['AWS_ENDPOINT_URL']}/shop/plays/")  # a folder's mark
    folder = fetch("s3://shop/plays/")
    assert {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*")} == {
        "a.parquet": "a.parquet",
        "deep/b.parquet": "deep/b.parquet",
    }
    assert fetch("s3://shop/plays/") == folder


def test_a_folder_that_two_processes_copy_at_once(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore.put(bucket, "plays/a.parquet", b"a")
    rename = Path.rename

    def come_second(partial: Path, target: Path) -> Path:
        shutil.copytree(partial, target)
        return rename(partial, target)

    monkeypatch.setattr(Path, "rename", come_second)
    assert (fetch("s3://shop/plays") / "a.parquet").read_bytes() == b"a"


def test_what_is_published_is_read_again(bucket: Any, tmp_path: Path) -> None:
    saved = write(tmp_path / "saved", "old")
    publish(saved, "s3://shop/models/best")
    digests = read_manifest(saved, KIND, 1)["sha256"]
    files = [f"models/best/{digest}/{name}" for name, digest in digests.items()]
    assert listing(bucket) == sorted([*files, "models/best/manifest.json"])
    copy = fetch("s3://shop/models/best")
    assert read_manifest(copy, KIND, 1) == read_manifest(saved, KIND, 1)
    assert (copy / "data.txt").read_text() == "old"
    publish(write(saved, "new"), "s3://shop/models/best")
    assert fetch("s3://shop/models/best") == copy
    assert (copy / "data.txt").read_text() == "new"


def test_a_copy_of_which_a_file_was_deleted_is_made_whole(bucket: Any, tmp_path: Path) -> None:
    publish(write(tmp_path / "saved", "content"), "s3://shop/model")
    (fetch("s3://shop/model") / "data.txt").unlink()
    assert (fetch("s3://shop/model") / "data.txt").read_text() == "content"


def test_a_directory_that_another_tool_copied(bucket: Any, tmp_path: Path) -> None:
    saved = write(tmp_path / "saved", "old")
    for file in saved.iterdir():
        obstore.put(bucket, f"flat/{file.name}", file)
    assert (fetch("s3://shop/flat") / "data.txt").read_text() == "old"
    obstore.put(bucket, "flat/manifest.json", (write(saved, "new") / "manifest.json").read_bytes())
    with pytest.raises(DownloadError, match=r"s3://shop/flat: data.txt is damaged: its SHA-256"):
        fetch("s3://shop/flat")
    obstore.delete(bucket, "flat/data.txt")
    with pytest.raises(DownloadError, match=r"s3://shop/flat has no data.txt, which its manifest names"):
        fetch("s3://shop/flat")


@pytest.mark.parametrize(
    "manifest",
    [b"{", b"[]", b'{"format": "recvae-test", "sha256": {"../x": "00"}}', b'{"format": "../x", "sha256": {}}'],
)
def test_a_manifest_that_is_none(bucket: Any, manifest: bytes) -> None:
    obstore.put(bucket, "odd/manifest.json", manifest)
    with pytest.raises(DownloadError, match=r"s3://shop/odd: manifest.json does not describe"):
        fetch("s3://shop/odd")


def cut_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let uploads fail at the manifest."""
    put = obstore.put

    def fail_at_manifest(store: Any, path: str, content: Any) -> None:
        if path.endswith("manifest.json"):
            raise obstore.exceptions.GenericError("the line is cut\n  and much more")
        put(store, path, content)

    monkeypatch.setattr(obstore, "put", fail_at_manifest)


def test_an_upload_that_breaks_off_leaves_the_former_artifact(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(write(tmp_path / "old", "old"), "s3://shop/model")
    cut_the_line(monkeypatch)
    with (
        pytest.raises(ArtifactError, match=r"s3://shop/model cannot be written: the line is cut; .*is in ") as refused,
        publishing("s3://shop/model", KIND) as directory,
    ):
        write(directory, "new")
    assert (directory / "data.txt").read_text() == "new"
    assert str(directory) in str(refused.value)
    assert (fetch("s3://shop/model") / "data.txt").read_text() == "old"


def test_a_first_upload_that_breaks_off_is_made_good(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        cut_the_line(broken)
        with pytest.raises(ArtifactError, match="the line is cut"), publishing("s3://shop/model", KIND) as directory:
            write(directory, "new")
    assert len(listing(bucket)) == 2
    with publishing("s3://shop/model", KIND) as directory:
        assert (directory / "data.txt").read_text() == "new"
    assert (fetch("s3://shop/model") / "data.txt").read_text() == "new"


def test_readers_beside_a_writer_see_whole_artifacts(bucket: Any, tmp_path: Path) -> None:
    versions = [write(tmp_path / f"{n}", f"version {n}") for n in range(2)]
    publish(versions[0], "s3://shop/model")
    done = threading.Event()

    def republish() -> None:
        for n in range(1, 12):
            publish(versions[n % 2], "s3://shop/model")
        done.set()

    writer = threading.Thread(target=republish)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add((fetch("s3://shop/model") / "data.txt").read_text())
    writer.join()
    assert seen == {"version 0", "version 1"}


def test_old_files_that_no_manifest_names_are_removed(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in ("first", "second"):
        publish(write(tmp_path / "saved", content), "s3://shop/model")
    obstore.put(bucket, "model/notes.txt", b"not ours")
    before = listing(bucket)
    publish(write(tmp_path / "saved", "third"), "s3://shop/model")
    assert set(before) < set(listing(bucket))  # a day has not passed
    monkeypatch.setattr(object_store, "KEPT", timedelta(0))
    publish(write(tmp_path / "saved", "fourth"), "s3://shop/model")
    left = {obstore.get(bucket, path).bytes().to_bytes() for path in listing(bucket) if path.endswith("data.txt")}
    assert left == {b"third", b"fourth"}
    assert "model/notes.txt" in listing(bucket)


def test_publishing_refuses_an_address_that_holds_something_else(bucket: Any, tmp_path: Path) -> None:
    obstore.put(bucket, "thesis/mine.txt", b"mine")
    obstore.put(bucket, "file", b"mine")
    publish(write(tmp_path / "saved", "old"), "s3://shop/other")
    for name in ("thesis", "file", "other"):
        with (
            pytest.raises(ArtifactError, match=f"s3://shop/{name} exists and holds something else"),
            publishing(f"s3://shop/{name}", "recvae-model"),
        ):
            pytest.fail("the work was begun")


def test_only_what_is_sound_is_published(bucket: Any, tmp_path: Path) -> None:
    """At an address that is new, or has an earlier one of its kind: whatever is there stays."""
    saved = write(tmp_path / "saved", "sound")
    publish(str(saved), "s3://shop/model")
    obstore.put(bucket, "thesis/mine.txt", b"mine")
    with pytest.raises(ArtifactError, match="s3://shop/thesis exists and holds something else"):
        publish(saved, "s3://shop/thesis")
    shutil.copytree(saved, tmp_path / "damaged")
    (tmp_path / "damaged" / "data.txt").write_text("changed")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    for name, said in (
        ("damaged", "data.txt is damaged: its SHA-256"),
        ("other", "other, which has no manifest of recvae's; expected an artifact or prepared data"),
        ("missing", "missing, which has no manifest of recvae's"),
    ):
        with pytest.raises(ArtifactError, match=said):
            publish(tmp_path / name, "s3://shop/model")
    assert (fetch("s3://shop/model") / "data.txt").read_text() == "sound"
    with pytest.raises(ParameterError, match="path is a NoneType; expected the path of a directory"):
        publish(None, "s3://shop/model")  # type: ignore[arg-type]


def test_follow_fetches_what_is_published_later(bucket: Any, tmp_path: Path) -> None:
    publish(write(tmp_path / "saved", "old"), "s3://shop/model")
    copy = fetch("s3://shop/model")
    stop = follow("s3://shop/model", seconds=0.05)
    publish(write(tmp_path / "saved", "new"), "s3://shop/model")
    deadline = time.monotonic() + 20
    while (copy / "data.txt").read_text() != "new":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()


@pytest.fixture
def recvae(monkeypatch: pytest.MonkeyPatch, run_recvae: Command, tmp_path: Path) -> Command:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return run_recvae


def test_from_a_bucket_to_a_model_in_a_bucket(bucket: Any, recvae: Command, tmp_path: Path) -> None:
    """Prepare, train, fit, recommend and show, with sources and artifacts in the store."""
    source = generate(60, 40)
    obstore.put(bucket, "plays.csv", source.ratings.to_csv(index=False).encode())
    obstore.put(bucket, "items.csv", b"item_id,title\n" + b"".join(b"%d,Film %d\n" % (i, i) for i in range(1, 41)))
    assert recvae("prepare s3://shop/plays.csv --items s3://shop/items.csv --out data")[0] == 0
    assert json.loads(Path("data/manifest.json").read_text())["dataset"] == "plays.csv"
    status, out, _ = recvae("train data --model popularity --out s3://shop/models/trained")
    assert (status, out.splitlines()[-1]) == (0, "published s3://shop/models/trained")
    status, out, err = recvae("fit s3://shop/plays.csv --models popularity --budget 20s --out s3://shop/models/fitted")
    assert (status, out.splitlines()[-1]) == (0, "published s3://shop/models/fitted"), err
    for name in ("trained", "fitted"):
        assert len(json.loads(recvae(f"recommend s3://shop/models/{name} --history 1,2 --json")[1])["items"]) == 10
        assert "Popularity" in recvae(f"show s3://shop/models/{name}")[1]
    obstore.put(bucket, "new.csv", b"item_id,title\n41,Film 41\n")
    new = "--new-items s3://shop/new.csv --only 41"
    status, out, err = recvae(f"recommend s3://shop/models/trained --history 1,2 {new} --json")
    assert (status, [item["id"] for item in json.loads(out)["items"]]) == (0, [41]), err
    assert "is sound" in recvae("verify s3://shop/models/fitted")[1]
    assert not list((tmp_path / "cache").rglob("out/trained"))
    assert {path.name for path in Path().iterdir()} == {"data"}


def test_serve_takes_an_address(bucket: Any, recvae: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.save(Popularity().fit(random_interactions(20, 10), show_progress=False), tmp_path / "model")
    publish(tmp_path / "model", "s3://shop/model")
    served: list[Any] = []
    followed: list[str] = []
    monkeypatch.setattr("recvae.serving.run", lambda path, *_: served.append(registry.load(path)))
    monkeypatch.setattr(object_store, "follow", followed.append)
    assert recvae("serve s3://shop/model")[0] == 0
    assert (len(served), followed) == (1, ["s3://shop/model"])


REFUSED = {
    "prepare s3://shop/nowhere.csv --out data": "s3://shop/nowhere.csv is missing",
    "prepare s3://nobody/plays.csv --out data": "s3://nobody/plays.csv cannot be read: there is no such bucket",
    "recommend s3://shop/nowhere --history 1": "s3://shop/nowhere is missing: the store has no such object",
    "recommend s3://shop --history 1": "s3://shop is no address of an object; expected such as s3://bucket/name",
    "recommend s3://shop/a/../b --history 1": "is no address of an object",
    "recommend s3://[shop/model --history 1": "s3://[shop/model is no address of an object",
    "fit s3://[shop/plays.csv --out model": "s3://[shop/plays.csv is no address of an object",
    "fit ml-100k --out s3://[shop/model": "s3://[shop/model is no address of an object",
    f"fit s3://me:{SECRET}/more@shop/plays.csv --out model": "s3://me:***@shop/plays.csv is no address of an object",
    f"recommend s3://me:{SECRET}@shop/model --history 1": "holds credentials; they belong in the environment",
    "recommend az://shop/model --history 1": "az://shop/model cannot be opened",
    "fit ml-100k --out s3://nobody/model": "s3://nobody/model cannot be read: there is no such bucket",
    "prepare ml-100k --out s3://shop/data": "s3://shop/data is in an object store; expected a path on this machine",
    "forget s3://shop/model --users users.csv": "s3://shop/model is in an object store; expected a path",
}


@pytest.mark.parametrize("command", REFUSED)
def test_one_line_for_what_cannot_be_found(bucket: Any, recvae: Command, tmp_path: Path, command: str) -> None:
    assert_refused(recvae(command), REFUSED[command], tmp_path)


def assert_refused(outcome: tuple[int, str, str], expected: str, tmp_path: Path) -> None:
    status, _, err = outcome
    assert (status, err.count("\n")) == (2, 1), err
    assert expected in err
    assert SECRET not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", ["prepare s3://shop/a.csv --out data", "fit ml-100k --out s3://shop/model"])
def test_one_line_where_permission_is_denied(forbidden: None, recvae: Command, tmp_path: Path, command: str) -> None:
    assert_refused(recvae(command), "cannot be read: permission denied, with the credentials of the environ", tmp_path)


def test_one_line_where_the_network_is_down(recvae: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "cache"))
    assert_refused(recvae("prepare s3://shop/a.csv --out data"), "s3://shop/a.csv cannot be read: ", tmp_path)


def test_one_line_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(MissingDependencyError, match=r"s3://shop/model needs obstore; install recvae\[cloud\]"):
        fetch("s3://shop/model")


def test_a_store_that_has_replaced_the_object_meanwhile(bucket: Any, tmp_path: Path) -> None:
    obstore.put(bucket, "plays.csv", b"first")
    place = Place.parse("s3://shop/plays.csv")
    found = place.head("plays.csv")
    assert found is not None
    obstore.put(bucket, "plays.csv", b"later")
    with pytest.raises(DownloadError, match=r"s3://shop/plays.csv cannot be read: it was replaced while it was read"):
        place.download(found, tmp_path / "file")


def test_several_processes_do_not_publish(bucket: Any, recvae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--out is s3://shop/model" in recvae("train data --out s3://shop/model")[2]
