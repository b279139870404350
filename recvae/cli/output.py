"""Output that any terminal can show."""

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from recvae.errors import escape_control_characters

NOT_ESCAPED_BY_JSON = re.compile(r"[\x7f-\x9f]")


def accept_any_encoding() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def item_line(rank: int, item: Mapping[str, Any]) -> str:
    """Return one line for a recommended item; control characters in its title cannot reach the terminal."""
    title = f"  {item['title']}" if item.get("title") else ""
    return escape_control_characters(f"{rank:3}  {item['score']:9.4f}  {item['id']}{title}")


def to_json(content: Any) -> str:
    """Return JSON in one line, in ASCII where standard output is not Unicode."""
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(content, ensure_ascii=not unicode)
    return NOT_ESCAPED_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
