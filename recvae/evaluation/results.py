"""results.json: the file that a comparison or an evaluation writes, and that tables and reports read."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recvae.errors import DataError

Results = Mapping[str, Any]

FORMAT_VERSION = 1


def write_results(path: str | Path, results: Results) -> None:
    """Write results.json in one step: a reader sees the old file or the new one, never half of either.

    Raises
    ------
    DataError
        If the results hold values that JSON cannot express, or the file cannot be written.
    """
    try:
        text = format_results(results)
    except (TypeError, ValueError) as error:
        raise DataError(f"results for {path} are not JSON: {error}") from error
    write_text(Path(path), text)


def format_results(results: Results) -> str:
    """Text of results.json."""
    return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a results.json.

    Raises
    ------
    DataError
        If the file is missing, not JSON, or of another format version.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    version = results.get("format_version") if isinstance(results, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {version!r}; expected {FORMAT_VERSION}")
    if not isinstance(results.get("models"), dict):
        raise DataError(f"{path} has no models; expected an object of model name to figures")
    return dict(results)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: whole, or not at all.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_synced(temporary, text)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
