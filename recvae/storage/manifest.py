"""manifest.json: what a directory holds, in which version of its format, with the checksum of every file."""

import contextlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from recvae.errors import ArtifactError
from recvae.storage.checksums import digest_file

MANIFEST = "manifest.json"
PACKAGES = ("recvae", "torch", "numpy", "scipy", "pandas")


def write_manifest(directory: Path, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write `manifest.json` with the format, its version, `content` and the SHA-256 of every file beside it."""
    digests = {file.name: digest_file(file) for file in sorted(directory.iterdir())}
    manifest = {"format": kind, "format_version": version, **content, "sha256": digests}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def read_manifest(directory: Path, kind: str, *versions: int) -> dict[str, Any]:
    """Read a manifest and verify every file that it names.

    Raises
    ------
    ArtifactError
        For a missing directory or file, another kind, an unknown version or a wrong checksum, saying which.
    """
    manifest = _parse_manifest(directory, kind, versions)
    for name, expected in manifest["sha256"].items():
        verify_file(directory, name, expected)
    return manifest


def find_file_faults(directory: Path, kind: str, *versions: int) -> tuple[dict[str, Any] | None, list[str]]:
    """List every fault of a directory's files, where `read_manifest` stops at the first.

    Returns
    -------
    (manifest, faults)
        The manifest is None if it cannot be read.
    """
    try:
        manifest = _parse_manifest(directory, kind, versions)
    except ArtifactError as error:
        return None, [str(error)]
    faults = []
    for name, expected in manifest["sha256"].items():
        try:
            verify_file(directory, name, expected)
        except ArtifactError as error:
            faults.append(str(error))
    others = sorted(entry.name for entry in directory.iterdir() if entry.name not in {MANIFEST, *manifest["sha256"]})
    return manifest, faults + [f"{directory} holds {name}, which its manifest does not name" for name in others]


def _parse_manifest(directory: Path, kind: str, versions: tuple[int, ...]) -> dict[str, Any]:
    if not directory.is_dir():
        state = "a file" if directory.is_file() else "missing"
        raise ArtifactError(f"{directory} is {state}; expected a {kind} directory")
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{directory} has no {MANIFEST}; expected a {kind} directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{directory / MANIFEST} is not readable JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise ArtifactError(f"{directory / MANIFEST} does not describe a {kind}")
    if manifest.get("format_version") not in versions:
        raise ArtifactError(
            f"{directory} has format_version {manifest.get('format_version')!r}; this version of recvae reads "
            f"{' and '.join(map(str, versions))}"
        )
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or not all(is_file_name(name) for name in digests):
        raise ArtifactError(f"{directory / MANIFEST} lists no checksums, or of files outside the directory")
    return manifest


def describe_directory(directory: Path) -> tuple[str | None, set[str]]:
    """Read which format a directory claims to have, and the names of its own files; (None, no names) without one.

    Nothing is verified: it is enough to know what may be deleted.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        kind, digests = manifest.get("format"), manifest.get("sha256")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None, set()
    names = set(digests) if isinstance(digests, dict) else set()
    return (kind if isinstance(kind, str) else None), {MANIFEST, *names}


def find_own_kind(directory: Path) -> str | None:
    """Find the format of a directory that recvae has written; None of any other."""
    kind = describe_directory(directory)[0]
    return kind if kind and kind.startswith("recvae-") else None


def versions(*others: str) -> dict[str, str]:
    """Versions of this package, of those whose arithmetic it relies on, and of the others named, where installed."""
    found = {}
    for package in (*PACKAGES, *others):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def verify_file(directory: Path, name: str, expected: Any) -> None:
    """Check that a file is there and has the SHA-256 that is expected; `ArtifactError` otherwise."""
    file = directory / name
    try:
        if not file.is_file():
            raise ArtifactError(f"{directory} has no {name}, which its manifest names")
        damaged = digest_file(file) != expected
    except OSError as error:
        raise ArtifactError(f"{file} is not readable: {error.strerror}") from None
    if damaged:
        raise ArtifactError(f"{file} is damaged: its SHA-256 differs from the manifest's")


def is_file_name(name: Any) -> bool:
    """Check that a name cannot lead out of its directory."""
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name
