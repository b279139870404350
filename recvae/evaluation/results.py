"""results.json: the file that a comparison or an evaluation writes, and that tables and reports read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recvae.errors import DataError
from recvae.evaluation.evaluate import PRIMARY_METRICS
from recvae.storage.files import write_text

Results = Mapping[str, Any]

FORMAT_VERSION = 1


def write_results(path: str | Path, results: Results) -> None:
    """Write results.json in one step: a reader sees the old file or the new one, never half of either.

    Raises
    ------
    DataError
        If the results hold values that JSON cannot express, or the file cannot be written.
    """
    write_text(Path(path), format_results(results))


def format_results(results: Results) -> str:
    """Text of results.json; `DataError` for values that JSON cannot express."""
    try:
        return json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"results are not JSON: {error}") from error


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


def choose_shown_metrics(results: Results) -> tuple[str, ...]:
    """Choose three metrics for tables and plots, the one that models are sorted by last.

    After a search it is the metric that was searched by.
    """
    metric = results.get("search", {}).get("metric", PRIMARY_METRICS[-1])
    if metric == PRIMARY_METRICS[-1]:
        return PRIMARY_METRICS
    others = [primary for primary in (PRIMARY_METRICS[0], PRIMARY_METRICS[-1], PRIMARY_METRICS[1]) if primary != metric]
    return (*others[:2], metric)
