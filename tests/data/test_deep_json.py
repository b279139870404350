"""Depth of JSON lines: deep files are refused before Arrow reads them, all others are read."""

import gzip
import json
from pathlib import Path

import pytest

from recvae.data import readers
from recvae.data.items import read_items
from recvae.data.readers import DEEPEST, read_table, refuse_deep
from recvae.errors import DataError

ROW = '{"user_id": "a", "item_id": "b"}\n'


def nest(depth: int, before: str = "", opening: str = "[", closing: str = "]") -> str:
    return '{"user_id": "a", "item_id": ' + before + opening * depth + "1" + closing * depth + "}\n"


@pytest.mark.parametrize(
    "text",
    [
        nest(100_000),
        nest(100_000, opening='{"a":', closing="}"),
        nest(DEEPEST + 1, before="\n\n"),
        ROW + nest(100_000, opening='["]]]", ') + ROW,
        nest(100_000, opening="[\n", closing="\n]"),
        nest(100_000, opening='{"a": "}\\"", "b":\n', closing="}"),
        ROW.replace("\n", "\r\n") + nest(100_000) + ROW,
        "[" * 100_000,
        '"' + "[" * 100_000 + '"' + "[" * 100_000,
    ],
)
def test_deep_values_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deep.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    for read in (read_table, read_items):
        with pytest.raises(DataError, match=f"deep.jsonl.gz has values nested deeper than {DEEPEST} levels"):
            read(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\n\n", "\n  "])
def test_rows_with_many_brackets_that_are_not_deep_are_read(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"user_id": f"u{n}", "item_id": "[{" * 300 + '\\"', "tags": [[]] * 300} for n in range(200)]
    path = tmp_path / "wide.jsonl"
    path.write_text("".join(json.dumps(row) + end for row in rows), encoding="utf8", newline="")
    monkeypatch.setattr(readers, "LONGEST_ROW", 10_000)  # so that rows go over the end of what is read at once
    refuse_deep(path)
    assert read_table(path)["user_id"].tolist() == [row["user_id"] for row in rows]


def test_a_row_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text('{"user_id": "' + "a" * 3000 + '"}', encoding="utf8")
    monkeypatch.setattr(readers, "LONGEST_ROW", 1000)
    with pytest.raises(DataError, match="has a row of more than 1,000 bytes; expected an object a line"):
        refuse_deep(path)
