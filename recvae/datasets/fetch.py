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

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_MAX_BYTES = 4 << 30
_ABANDONED_SECONDS = 120.0  # a transfer that lives writes or gives up sooner


@dataclass(frozen=True)
class Checksum:
    """A digest that a file must have. MD5 only because publishers give no better; it guards against damage."""

    algorithm: Literal["md5", "sha256"]
    hexdigest: str


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's bytes, as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


class _CutOffError(Exception):
    """The transfer broke off and is worth another try."""


def cache_dir() -> Path:
    """The user's cache: $RECVAE_CACHE, else $XDG_CACHE_HOME/recvae, else ~/.cache/recvae."""
    if own := os.environ.get("RECVAE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recvae"


def offline() -> bool:
    """True where $RECVAE_OFFLINE forbids every download."""
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
    """Fetch `url` into `target`, which appears only when whole and verified.

    Each call writes to a name of its own, so that several may fetch one file at once. What arrived before a failure
    waits in `target` + `.part`, from where the next call goes on; what a killed process left, once it is old enough.
    A server that cannot be reached is not tried again; a transfer that breaks off is, `attempts` times in all.

    Parameters
    ----------
    url : str
        An http or https address.
    timeout, pause : float
        Seconds until a silent server counts as gone, and between attempts.
    max_bytes : int
        A longer file is refused.

    Raises
    ------
    DownloadError
        If the file cannot be had whole, or has another checksum; in the latter case nothing of it is kept.
    """
    if target.exists() and file_digest(target, checksum.algorithm) == checksum.hexdigest:
        return
    reason = ""
    with _own_part(target) as part:
        for attempt in range(attempts):
            time.sleep(pause * attempt)
            resumed = part.exists()
            try:
                _transfer(url, part, timeout, max_bytes, show_progress)
            except _CutOffError as error:
                reason = str(error)
                _log.info("%s: %s (attempt %d of %d)", url, reason, attempt + 1, attempts)
                continue
            if (found := file_digest(part, checksum.algorithm)) == checksum.hexdigest:
                part.replace(target)
                return
            part.unlink()
            reason = f"{checksum.algorithm} is {found}, expected {checksum.hexdigest}"
            if not resumed:
                break
    raise DownloadError(f"{url}: {reason}")


@contextlib.contextmanager
def _own_part(target: Path) -> Iterator[Path]:
    """A name that no other call writes to, holding what an earlier one left; what it holds in the end is left again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = target.with_name(f"{target.name}.part")
    own = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    for candidate in (left, *target.parent.glob(f"{target.name}.????????.part")):
        with contextlib.suppress(FileNotFoundError):  # another call has taken it
            if candidate == left or time.time() - candidate.stat().st_mtime > _ABANDONED_SECONDS:
                candidate.rename(own)
                break
    try:
        yield own
    finally:
        if own.exists():
            own.replace(left)


def _transfer(url: str, part: Path, timeout: float, max_bytes: int, show_progress: bool) -> None:
    """Append to `part` what it lacks of `url`; start afresh where the server does not resume."""
    have = part.stat().st_size if part.exists() else 0
    with _opened(url, have, timeout) as response:
        if response is None:
            return
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0
        expected = None if response.length is None else have + response.length
        with part.open("ab" if have else "wb") as out, _progress(show_progress, url, expected, have) as advance:
            for chunk in _chunks(response):
                out.write(chunk)
                advance(len(chunk))
                if out.tell() > max_bytes:
                    part.unlink()
                    raise DownloadError(f"{url}: longer than {max_bytes:,} bytes, which no known data set is")
            received = out.tell()
    if expected is not None and received < expected:
        raise _CutOffError(f"cut off after {received:,} of {expected:,} bytes")


@contextlib.contextmanager
def _opened(url: str, have: int, timeout: float) -> Iterator[http.client.HTTPResponse | None]:
    """The response to a GET from byte `have` on, or None where the server says that nothing is left to send."""
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


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
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
