"""Titles of items: those of an artifact, and those that clients set with other metadata."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recvae.errors import shorten
from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.metadata import Metadata

Titles = list[str | None]


def read_titles(items: pa.Table) -> Titles:
    """Read the titles of an item table; None where there is none."""
    titles = items["title"].to_pylist() if "title" in items.column_names else [None] * len(items)
    return [None if title is None or title != title else str(title) for title in titles]  # NaN is no title


def replace_titles(titles: Titles, changed: Mapping[int, Mapping[str, Any]]) -> Titles:
    """Give items whose metadata, by index, have a title that one."""
    given = {item: title for item, values in changed.items() if isinstance(title := values.get("title"), str)}
    return [given.get(item, title) for item, title in enumerate(titles)] if given else titles


def check_values(given: Mapping[str, Any], metadata: Metadata) -> None:
    """Check what a client sets of an item, its title too.

    Raises
    ------
    RuleError
        If a value is of another kind than its column's, or the title is no text.
    """
    if not isinstance(given.get("title"), str | None):
        raise RuleError("title", f"is {shorten(given['title'])}; expected text")
    metadata.parse_values({name: value for name, value in given.items() if name != "title"})
