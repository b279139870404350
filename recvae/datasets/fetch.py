"""Download one file: with resume, a progress bar on a terminal, and a checksum before it gets its name."""

import contextlib
import hashlib
import http.client
import logging
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from recvae.errors import DownloadError
from recvae.storage.checksums import digest_file

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_MAX_BYTES = 4 << 30
_ABANDONED_SECONDS = 120.0  # a running transfer writes more often, or gives up sooner


@dataclass(frozen=True)
class Checksum:
    """Digest that a file must have: MD5 or Git's id where the publisher gives no other, against damage, not attacks."""

    algorithm: Literal["md5", "sha256", "git"]
    hexdigest: str

    def compute(self, path: Path) -> str:
        """Compute this kind of digest of a file; Git's is the SHA-1 of the file's length and content."""
        if self.algorithm != "git":
            return digest_file(path, self.algorithm)
        header = f"blob {path.stat().st_size}\0".encode()
        with path.open("rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


class _CutOffError(Exception):
    """The transfer broke off and may succeed on another attempt."""


def is_offline() -> bool:
    """Check whether $RECVAE_OFFLINE forbids every download."""
    return os.environ.get("RECVAE_OFFLINE", "").lower() not in ("", "0", "false", "no")


def download(
    url: str,
    target: Path,
    checksum: Checksum,
    *,
    show_progress: bool = True,
    timeout: float = 10.0,
    attempts: int = 3,
    pause: float = 0.5,
    max_bytes: int = _MAX_BYTES,
) -> None:
    """Download `url` to `target`, which appears only when it is complete and verified.

    Each call writes to a file of its own, so that several may download one file at once. The bytes that arrived before
    a failure are kept in `target` + `.part`, and the next call resumes there; the bytes of a killed process are taken
    over once they are old enough. A server that cannot be reached is not tried again; a transfer that breaks off is,
    `attempts` times in all.

    Parameters
    ----------
    url : str
        An http or https address.
    timeout, pause : float
        Seconds until a silent server is given up, and between attempts.
    max_bytes : int
        A longer file is refused.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded completely, or has another checksum; then nothing of it is kept.
    """
    if target.exists() and checksum.compute(target) == checksum.hexdigest:
        return
    reason = ""
    with _partial_file(target) as partial:
        for attempt in range(attempts):
            time.sleep(pause * attempt)
            resumed = partial.exists()
            try:
                _transfer(url, partial, timeout, max_bytes, show_progress)
            except _CutOffError as error:
                reason = str(error)
                _log.info("%s: %s (attempt %d of %d)", url, reason, attempt + 1, attempts)
                continue
            if (found := checksum.compute(partial)) == checksum.hexdigest:
                partial.replace(target)
                return
            partial.unlink()
            reason = f"{checksum.algorithm} is {found}, expected {checksum.hexdigest}"
            if not resumed:
                break
    raise DownloadError(f"{url}: {reason}")


@contextlib.contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    """Path that no other call writes to, with the bytes that an earlier call left; bytes left at the end are kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = target.with_name(f"{target.name}.part")
    own = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    for candidate in (left, *target.parent.glob(f"{target.name}.????????.part")):
        with contextlib.suppress(FileNotFoundError):  # another call was faster
            if candidate == left or time.time() - candidate.stat().st_mtime > _ABANDONED_SECONDS:
                candidate.rename(own)
                break
    try:
        yield own
    finally:
        if own.exists():
            own.replace(left)


def _transfer(url: str, partial: Path, timeout: float, max_bytes: int, show_progress: bool) -> None:
    """Append the missing bytes of `url` to `partial`; start from the beginning where the server cannot resume."""
    have = partial.stat().st_size if partial.exists() else 0
    with _request(url, have, timeout) as response:
        if response is None:
            return
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0
        expected = None if response.length is None else have + response.length
        with partial.open("ab" if have else "wb") as out, _progress(show_progress, url, expected, have) as advance:
            for chunk in _iter_chunks(response):
                out.write(chunk)
                advance(len(chunk))
                if out.tell() > max_bytes:
                    partial.unlink()
                    raise DownloadError(f"{url}: longer than {max_bytes:,} bytes, the limit for a data set")
            received = out.tell()
    if expected is not None and received < expected:
        raise _CutOffError(f"cut off after {received:,} of {expected:,} bytes")


@contextlib.contextmanager
def _request(url: str, have: int, timeout: float) -> Iterator[http.client.HTTPResponse | None]:
    """Response to a GET from byte `have` on; None where the server says that there are no more bytes."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: expected an http or https address")
    headers = {"User-Agent": "recvae"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the scheme is checked above)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            yield None
            return
        text = f"HTTP {error.code} {error.reason}"
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise _CutOffError(text) from None
        raise DownloadError(f"{url}: {text}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url}: no connection ({reason})") from None
    with response:
        yield response


def _iter_chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _CutOffError(f"cut off ({error})") from None
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _progress(show: bool, url: str, total: int | None, have: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        _log.info("downloading %s from byte %d", url, have)
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(url.rsplit("/", 1)[-1], total=total, completed=have)
        yield lambda n: progress.advance(task, n)
