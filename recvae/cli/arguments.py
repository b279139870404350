"""Parsers of command-line arguments."""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from recvae.errors import RecvaeError, first_line, shorten

PATH = "expected a path, or . for the current directory"


def parse_path(text: str) -> Path:
    """Return a path; `~` is the home directory even where no shell has expanded it."""
    from recvae.storage.object_store import is_address

    if not text:
        raise typer.BadParameter(PATH)  # which names the option
    if is_address(text):
        raise RecvaeError(f"{text} is in an object store; expected a path on this machine")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def parse_input(text: str) -> Path:
    """Return a path to read from; of an object store's address, that of a copy."""
    from recvae.storage.object_store import fetch, is_address

    return fetch(text) if is_address(text) else parse_path(text)


def parse_source(text: str) -> str:
    """Return the source of a data set, a name or a path; of an object store's address, the path of a copy."""
    from recvae.storage.object_store import is_address

    if not text:
        raise typer.BadParameter(PATH, param_hint="'source'")
    return str(parse_input(text)) if is_address(text) or text.startswith("~") else text


@contextmanager
def artifact_directory(out: str) -> Iterator[Path]:
    """Give the directory to write an artifact to; at an object store's address, it is published there afterwards."""
    from recvae.storage.object_store import is_address, publishing

    if not out:
        raise typer.BadParameter(PATH, param_hint="'--out'")
    if not is_address(out):
        yield parse_path(out)
        return
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecvaeError(f"--out is {out}; expected a path on this machine where torchrun starts several processes")
    with publishing(out, "recvae-model") as directory:
        yield directory
    typer.echo(f"published {out}")


def parse_ids(text: str, option: str) -> list[str]:
    """Return the ids of a line of CSV, where quotes keep a comma inside an id."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise RecvaeError(f"{option} is {text!r}; expected item ids as in a line of CSV ({error})") from None
    return [cell.strip() for row in rows for cell in row if cell.strip()]


def parse_json(text: str | None, option: str) -> Any:
    """Return the value of an option that is written as JSON; None where it is not given."""
    try:
        return None if text is None else json.loads(text, object_pairs_hook=_name_once)
    except (ValueError, RecursionError) as error:
        raise RecvaeError(f"{option} is {shorten(text)}; expected JSON ({first_line(error)})") from None


def _name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of a name that is there twice JSON would keep the last value without a word."""
    named: dict[str, Any] = {}
    for name, value in pairs:
        if name in named:
            raise ValueError(f"{name!r} is there twice")
        named[name] = value
    return named


def parse_numbers(text: str, option: str) -> list[int | float]:
    """Return numbers that are separated by commas."""
    numbers = [_parse_value(entry.strip()) for entry in text.split(",") if entry.strip()]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise RecvaeError(f"{option} is {text!r}; expected numbers separated by commas")
    return numbers


def parse_settings(given: list[str]) -> dict[str, Any]:
    """Return the settings of a command's only model."""
    from recvae.models.registry import MODELS

    params, named = parse_model_settings(given, set(MODELS))
    if named:
        raise RecvaeError(f"--set {next(iter(named))}.… names a model; expected name=value")
    return params


def parse_model_settings(given: list[str], models: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return settings without a model's name, and settings with one by model."""
    plain: dict[str, Any] = {}
    named: dict[str, dict[str, Any]] = {}
    for setting in given:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise RecvaeError(f"--set is {setting!r}; expected name=value")
        model, dot, parameter = name.partition(".")
        if dot and model not in models:
            raise RecvaeError(f"--set is {setting!r}; {model!r} is not one of the models {', '.join(sorted(models))}")
        (named.setdefault(model, {}) if dot else plain)[parameter if dot else name] = _parse_value(text)
    return plain, named


def _parse_value(text: str) -> Any:
    """Return a JSON number, truth value, list or null; `600,200` and `(600, 200)` are lists; else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        entries = text.strip("()").split(",")  # also a tuple as Python writes it
        return [_parse_value(entry.strip()) for entry in entries if entry.strip()] if len(entries) > 1 else text
