"""Download against a real server on this machine: whole, cut off, resumed, damaged, refused."""

import hashlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from recvae.datasets import fetch
from recvae.datasets.fetch import Checksum, download, is_offline
from recvae.errors import DownloadError

BODY = bytes(range(256)) * 4000
SHA256 = Checksum("sha256", hashlib.sha256(BODY).hexdigest())


class Site(ThreadingHTTPServer):
    """Serves `body` at every address except those with a number, which answer with that status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = BODY
        self.ranges = True
        self.cut_after: list[int] = []
        self.announces_length = True
        self.asked: list[str | None] = []
        self.half_way: threading.Barrier | None = None

    def url(self, path: str = "set.zip") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers.get("Range")
        site.asked.append(wanted)
        if (status := self.path.strip("/")).isdigit():
            self.send_error(int(status))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.ranges else 0
        if wanted and site.ranges and start >= len(site.body):
            self.send_error(416)
            return
        rest = site.body[start:]
        self.send_response(206 if wanted and site.ranges else 200)
        if site.announces_length:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if site.half_way:
            self.wfile.write(rest[:300_000])
            rest = rest[300_000:]
            site.half_way.wait(60)
        self.wfile.write(rest[: site.cut_after.pop(0)] if site.cut_after else rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is the base class's)
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_gets_its_name_and_leaves_no_part(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "new" / "set.zip"
    download(site.url(), target, SHA256)
    assert target.read_bytes() == BODY
    assert files_in(target.parent) == ["set.zip"]


def test_md5_of_the_publisher_is_enough(site: Site, tmp_path: Path) -> None:
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    download(site.url(), tmp_path / "set.zip", Checksum("md5", md5))
    assert (tmp_path / "set.zip").read_bytes() == BODY


def test_a_verified_file_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(BODY)
    download(site.url(), tmp_path / "set.zip", SHA256)
    assert site.asked == []


def test_cut_off_transfer_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000, 200_000]
    download(site.url(), tmp_path / "set.zip", SHA256, pause=0)
    assert (tmp_path / "set.zip").read_bytes() == BODY
    assert site.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_next_call_resumes_what_the_last_one_left(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000]
    with pytest.raises(DownloadError, match=r"cut off after 300,000 of 1,024,000 bytes"):
        download(site.url(), tmp_path / "set.zip", SHA256, attempts=1)
    assert files_in(tmp_path) == ["set.zip.part"]
    download(site.url(), tmp_path / "set.zip", SHA256)
    assert site.asked[-1] == "bytes=300000-"
    assert (tmp_path / "set.zip").read_bytes() == BODY


def test_two_at_once_do_not_write_into_each_others_file(site: Site, tmp_path: Path) -> None:
    site.half_way = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(download, site.url(), tmp_path / "set.zip", SHA256) for _ in range(2)]
        for call in calls:
            call.result(120)
    assert site.asked == [None, None]
    assert (tmp_path / "set.zip").read_bytes() == BODY
    assert files_in(tmp_path) == ["set.zip"]


def test_only_one_goes_on_with_what_an_earlier_call_left(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(BODY[:1000])
    site.half_way = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(download, site.url(), tmp_path / "set.zip", SHA256) for _ in range(2)]:
            call.result(120)
    assert sorted(map(str, site.asked)) == ["None", "bytes=1000-"]
    assert (tmp_path / "set.zip").read_bytes() == BODY
    assert files_in(tmp_path) == ["set.zip"]


def test_what_a_killed_process_left_is_taken_up_when_it_is_old(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.zip.0123abcd.part").write_bytes(BODY[:1000])
    (tmp_path / "set.zip.89efabcd.part").write_bytes(BODY[:2000])
    os.utime(tmp_path / "set.zip.0123abcd.part", (1, 1))
    download(site.url(), tmp_path / "set.zip", SHA256)
    assert site.asked == ["bytes=1000-"]
    assert files_in(tmp_path) == ["set.zip", "set.zip.89efabcd.part"]


def test_server_that_ignores_range_starts_afresh(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cut_after = False, [300_000]
    download(site.url(), tmp_path / "set.zip", SHA256, pause=0)
    assert (tmp_path / "set.zip").read_bytes() == BODY


def test_part_that_is_already_whole_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(BODY)
    download(site.url(), tmp_path / "set.zip", SHA256)
    assert files_in(tmp_path) == ["set.zip"]


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 2_000_000], ids=["shorter", "longer"])
def test_stale_part_is_dropped_and_fetched_anew(site: Site, tmp_path: Path, stale: bytes) -> None:
    (tmp_path / "set.zip.part").write_bytes(stale)
    download(site.url(), tmp_path / "set.zip", SHA256, pause=0)
    assert (tmp_path / "set.zip").read_bytes() == BODY


@pytest.mark.parametrize("announced", [True, False])
def test_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path, announced: bool) -> None:
    site.body, site.announces_length = b"damaged", announced
    with pytest.raises(DownloadError, match=f"sha256 is [0-9a-f]{{64}}, expected {SHA256.hexdigest}"):
        download(site.url(), tmp_path / "set.zip", SHA256)
    assert files_in(tmp_path) == []
    assert len(site.asked) == 1


def test_endless_file_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"longer than 500,000 bytes"):
        download(site.url(), tmp_path / "set.zip", SHA256, max_bytes=500_000)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_only_server_errors_are_tried_again(site: Site, tmp_path: Path, status: int, requests: int) -> None:
    with pytest.raises(DownloadError, match=f"HTTP {status}"):
        download(site.url(str(status)), tmp_path / "set.zip", SHA256, pause=0)
    assert len(site.asked) == requests
    assert files_in(tmp_path) == []


def test_refused_connection_says_so_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=rf"^http://127.0.0.1:{port}/x: no connection \(.*refused"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", SHA256, pause=60)


def test_silent_server_times_out(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DownloadError, match=r"no connection \(timed out\)"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", SHA256, timeout=0.1, pause=60)


def test_only_web_addresses(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an http or https address"):
        download(f"file://{tmp_path}/secret", tmp_path / "x", SHA256)


def test_bar_on_a_terminal_only(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal = False
    monkeypatch.setattr(fetch, "Console", lambda **_: Console(file=shown, force_terminal=terminal, width=100))
    download(site.url(), tmp_path / "a", SHA256)
    assert shown.getvalue() == ""
    terminal = True
    download(site.url(), tmp_path / "b", SHA256, show_progress=False)
    assert shown.getvalue() == ""
    download(site.url(), tmp_path / "c", SHA256)
    assert "set.zip" in shown.getvalue()


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("yes", True), ("", False), ("0", False)])
def test_offline_switch(monkeypatch: pytest.MonkeyPatch, value: str, forbidden: bool) -> None:
    monkeypatch.setenv("RECVAE_OFFLINE", value)
    assert is_offline() is forbidden


def test_checksum_of_git(tmp_path: Path) -> None:
    """The id that `git hash-object` gives, here of the text of Git's own book."""
    (tmp_path / "file").write_text("test content\n")
    checksum = Checksum("git", "d670460b4b4aece5915caf5c68d12f560a9fe3e4")
    assert checksum.compute(tmp_path / "file") == checksum.hexdigest
