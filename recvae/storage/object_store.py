"""Object stores: copies of what is there for reading, and artifacts published so that nobody reads half of one.

The rest of the package reads and writes files; the command line calls these functions before and after. A published
artifact is

    NAME/manifest.json                 written last, in one step; it names every other file by its SHA-256
    NAME/<SHA-256>/model.safetensors   and so on: what a file holds is in its name, and never changes

so that a reader has the files of the manifest that it has read, whatever is published meanwhile. Files that neither
this manifest nor the one before names are removed a day after they were written. Directories that other tools have
copied to a store, with the files beside the manifest, can be read too.

Credentials are obstore's: environment variables such as AWS_ACCESS_KEY_ID, or the role of the machine.
"""

import contextlib
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.errors import ArtifactError, DownloadError, RecvaeError
from recvae.storage.checksums import digest_file
from recvae.storage.directories import replace_directory
from recvae.storage.files import check_path, replace_file
from recvae.storage.manifest import MANIFEST, is_file_name, verify_file
from recvae.storage.place import Place, digest_values

if TYPE_CHECKING:
    from obstore import ObjectMeta

SCHEMES = ("s3", "gs", "az")
KEPT = timedelta(days=1)
"""Time for which files that no manifest names any more are kept: another writer may be about to name them."""
FOLLOW_SECONDS = 60.0
LOGGER = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_address(text: str) -> bool:
    """Check whether a text is the address of something in an object store, such as `s3://bucket/name`."""
    return "://" in text and text.partition("://")[0].lower() in SCHEMES


def fetch(address: str) -> Path:
    """Copy what is at an address to the user's cache, unless the same is there already, and return its path.

    That is one object, a directory with a manifest (an artifact, prepared data), or a folder of objects. A directory's
    files are verified, and it keeps its path when another takes its place at the address, as artifacts do.

    Raises
    ------
    DownloadError
        If nothing is there, it cannot be read, or it differs from its manifest.
    MissingDependencyError
        If obstore is not installed.
    """
    place = Place.parse(address)
    found = place.head(place.name)
    if found is not None:
        return _fetch_file(place, found)
    manifest = place.read(f"{place.name}/{MANIFEST}")
    if manifest is not None:
        return _fetch_directory(place, manifest)
    objects = place.list_objects()
    if not objects:
        raise DownloadError(f"{address} is missing: the store has no such object")
    return _fetch_folder(place, objects)


def follow(address: str, seconds: float = FOLLOW_SECONDS) -> threading.Event:
    """Fetch what is at an address every so many seconds, in a thread, until the event that is returned is set."""
    stop = threading.Event()

    def fetch_again() -> None:
        while not stop.wait(seconds):
            try:
                fetch(address)
            except (RecvaeError, OSError) as error:
                LOGGER.error("the artifact was not fetched: %s", error)

    threading.Thread(target=fetch_again, name="follow", daemon=True).start()
    return stop


@contextmanager
def publishing(address: str, kind: str) -> Iterator[Path]:
    """Give a directory to write an artifact of this kind to, and publish it at the address when that is done.

    The directory is the same for the same address, so that interrupted work can go on there. It is removed when all is
    published, and stays if that fails.

    Raises
    ------
    DownloadError, MissingDependencyError
        Before anything is done, if the store cannot be read.
    ArtifactError
        If the address holds something else, or, at the end, cannot be written.
    """
    place = Place.parse(address)
    _refuse_foreign(place, kind)
    directory = place.cache("out") / place.last
    yield directory
    try:
        publish(directory, address)
    except RecvaeError as error:
        raise ArtifactError(f"{error}; what was there is unchanged, and the new {kind} is in {directory}") from None
    shutil.rmtree(directory, ignore_errors=True)


def publish(directory: str | Path, address: str) -> None:
    """Upload a directory with a manifest, the manifest last.

    Raises
    ------
    DownloadError, ArtifactError
        If the store cannot be read, or written.
    ArtifactError
        If the directory is none of recvae's or is damaged, or the address holds something else.
    """
    place, directory = Place.parse(address), check_path(directory)
    try:
        manifest = (directory / MANIFEST).read_bytes()
    except OSError:
        manifest = b""
    kind, files = _describe(manifest)
    if kind is None:
        raise ArtifactError(
            f"directory is {directory}, which has no manifest of recvae's; expected an artifact or prepared data"
        )
    for file, digest in files.items():
        verify_file(directory, file, digest)
    _refuse_foreign(place, kind)
    before = _describe(place.read(f"{place.name}/{MANIFEST}") or b"{}")[1]
    for file, digest in files.items():
        place.put(f"{place.name}/{digest}/{file}", directory / file)
    place.put(f"{place.name}/{MANIFEST}", manifest)
    named = {f"{place.name}/{digest}/{file}" for file, digest in [*files.items(), *before.items()]}
    with contextlib.suppress(RecvaeError):  # the artifact is published; the next one removes what this one could not
        published = [entry for entry in place.list_objects() if _is_published(place, entry)]
        place.delete([entry["path"] for entry in published if _is_old(entry) and entry["path"] not in named])


def _refuse_foreign(place: Place, kind: str) -> None:
    """Raise `ArtifactError` unless the address is new, what an upload that broke off has left, or of this kind."""
    manifest = place.read(f"{place.name}/{MANIFEST}")
    if manifest is None:
        foreign = place.head(place.name) or any(not _is_published(place, entry) for entry in place.list_objects())
    else:
        foreign = _describe(manifest)[0] != kind
    if foreign:
        raise ArtifactError(
            f"{place.address} exists and holds something else; expected a new address or an earlier {kind}"
        )


def _fetch_file(place: Place, found: "ObjectMeta") -> Path:
    version = digest_values(found["e_tag"], found["size"], found["last_modified"])
    target = place.cache("files") / version / place.last
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(target) as temporary:
            place.download(found, temporary)
        _remove_siblings(target.parent)
    return target


def _fetch_directory(place: Place, manifest: bytes) -> Path:
    kind, files = _describe(manifest)
    if kind is None or not files:
        raise DownloadError(f"{place.address}: {MANIFEST} does not describe a directory of recvae's")
    target = place.cache(kind) / place.last
    with contextlib.suppress(OSError):
        same = (target / MANIFEST).read_bytes() == manifest
        if same and all((target / file).is_file() for file in files):  # cleaners of caches delete single files
            return target
    with replace_directory(target, kind) as directory:
        for file, digest in files.items():
            found = place.head(f"{place.name}/{digest}/{file}") or place.head(f"{place.name}/{file}")
            if found is None:
                raise DownloadError(f"{place.address} has no {file}, which its manifest names")
            place.download(found, directory / file)
            if digest_file(directory / file) != digest:
                raise DownloadError(f"{place.address}: {file} is damaged: its SHA-256 differs from the manifest's")
        (directory / MANIFEST).write_bytes(manifest)
    return target


def _fetch_folder(place: Place, objects: list["ObjectMeta"]) -> Path:
    version = digest_values(*(entry[key] for entry in objects for key in ("path", "e_tag", "size", "last_modified")))
    target = place.cache("folders") / version / place.last
    if not target.exists():
        partial = target.parent / f"partial-{time.time_ns()}"
        try:
            for entry in objects:
                parts = entry["path"].removeprefix(f"{place.name}/").split("/")
                if not all(map(is_file_name, parts)):
                    raise DownloadError(f"{place.address} holds {entry['path']!r}, which cannot be a file's name")
                file = partial.joinpath(*parts)
                file.parent.mkdir(parents=True, exist_ok=True)
                place.download(entry, file)
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # unless another process has fetched the same
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _remove_siblings(target.parent)
    return target


def _describe(manifest: bytes) -> tuple[str | None, dict[str, str]]:
    """Read a manifest's format and the SHA-256 of each file; (None, nothing) if it has not the form of one."""
    try:
        content = json.loads(manifest)
        kind, digests = content.get("format"), content.get("sha256")
    except (ValueError, RecursionError, AttributeError):
        return None, {}
    whole = isinstance(digests, dict) and all(
        is_file_name(file) and isinstance(digest, str) and _SHA256.fullmatch(digest) for file, digest in digests.items()
    )
    return (kind, digests) if whole and isinstance(kind, str) and is_file_name(kind) else (None, {})


def _is_published(place: Place, entry: "ObjectMeta") -> bool:
    """Check that an object has the name of a published file."""
    folder, _, file = entry["path"].removeprefix(f"{place.name}/").partition("/")
    return _SHA256.fullmatch(folder) is not None and is_file_name(file)


def _is_old(entry: "ObjectMeta") -> bool:
    """Check that an object is older than what another writer may be about to name."""
    return datetime.now(UTC) - entry["last_modified"] > KEPT


def _remove_siblings(directory: Path) -> None:
    """Remove the copies of what was at the address before."""
    for other in directory.parent.iterdir():
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)
