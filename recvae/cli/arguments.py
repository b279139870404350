"""How the values of command-line arguments are read."""

import csv
import json
from pathlib import Path
from typing import Any

from recvae.errors import RecvaeError


def path(text: str) -> Path:
    """A path; `~` is the home directory also where no shell has put that in its place."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody's home
        return Path(text)


def item_ids(history: str) -> list[str]:
    """The ids of a line of CSV, where quotes keep a comma inside an id."""
    try:
        rows = list(csv.reader([history], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise RecvaeError(f"--history is {history!r}; expected item ids as in a line of CSV ({error})") from None
    return [part.strip() for row in rows for part in row if part.strip()]


def settings_of_one(given: list[str]) -> dict[str, Any]:
    """Settings of the one model that a command is about."""
    from recvae.models.registry import MODELS

    params, named = settings_by_model(given, set(MODELS))
    if named:
        raise RecvaeError(f"--set {next(iter(named))}.… names a model; expected name=value")
    return params


def settings_by_model(given: list[str], models: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings without a model's name, and those with one, by model."""
    plain: dict[str, Any] = {}
    named: dict[str, dict[str, Any]] = {}
    for setting in given:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise RecvaeError(f"--set is {setting!r}; expected name=value")
        model, dot, parameter = name.partition(".")
        if dot and model not in models:
            raise RecvaeError(f"--set is {setting!r}; {model!r} is none of the models {', '.join(sorted(models))}")
        (named.setdefault(model, {}) if dot else plain)[parameter if dot else name] = _value(text)
    return plain, named


def _value(text: str) -> Any:
    """A number, truth value, list or null as JSON writes it; `600,200` and `(600, 200)` are lists; else text."""
    try:
        return json.loads(text)
    except ValueError:
        parts = text.strip("()").split(",")  # also a tuple as Python writes it
        return [_value(part.strip()) for part in parts if part.strip()] if len(parts) > 1 else text
