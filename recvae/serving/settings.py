"""`Settings` of the service: environment variables `RECVAE_…`, and files for secrets."""

import math
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from recvae.errors import ParameterError
from recvae.machine.cores import usable_cores

PREFIX = "RECVAE_"
SECRETS = "RECVAE_SECRETS_DIR"
"""Names a directory with a file for each secret, such as `/run/secrets` with `recvae_api_key` in it."""
MOST_THREADS = 4
"""A batch takes a few milliseconds; more threads would spend them on waiting for each other."""

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
"""The origin of a page, as browsers send it, or any."""

Count = Annotated[int, Ge(1)]
Seconds = Annotated[float, Field(ge=1e-3, allow_inf_nan=False)]


class Variant(NamedTuple):
    """One of several models behind the service, and its share of the users against those of the others."""

    name: str
    path: Path
    share: float


class Settings(BaseSettings):
    """Settings of the service; `max_n` is `RECVAE_MAX_N`.

    Arguments come before environment variables, and these before the files of `RECVAE_SECRETS_DIR`.

    Raises
    ------
    ParameterError
        If `model` is not given, or a value is not one that its variable can have.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True)

    model: Path
    """Artifact directory; a new artifact at this path is served from then on. With `models`, the folder they are in."""
    models: str = ""
    """Several artifacts in the folder `model`, and their shares of the users: `films:0.9,other:0.1`."""
    api_key: SecretStr = SecretStr("")
    """Key that requests must carry as `X-API-Key` or `Authorization: Bearer`; where it is not given, none."""
    admin_key: SecretStr = SecretStr("")
    """Key for `/admin/…`, which is off where it is not given."""
    store: SecretStr = SecretStr("")
    """Database URL where interactions are appended, `sqlite:///…` or `postgresql+psycopg://…`; none when empty."""
    unknown_users: Literal["refuse", "popular"] = "refuse"
    """Answer for users of whom nothing is known: `refuse` is 404, `popular` the popular items, marked as such."""
    cors: str = ""
    """Origins whose pages may call the service, separated by commas."""
    max_body_bytes: Count = 2**20
    """Size of the largest body."""
    max_history: Count = 1000
    """Most ids in a history, in `exclude` or in `only`."""
    max_batch: Count = 100
    """Most requests in one batch request."""
    max_n: Count = 500
    """Length of the longest list."""
    queue: Count = 1000
    """Most requests that wait to be scored; further ones are answered 503."""
    batch_size: Count = 64
    """Most requests that are scored together."""
    batch_window_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Time that requests wait for others to share their batch, when the scorer was busy as they came."""
    timeout_seconds: Seconds = 10.0
    """Time for receiving a request and answering it."""
    drain_seconds: Seconds = 30.0
    """Time that requests under way may still take after SIGTERM."""
    poll_seconds: Seconds = 1.0
    """Time between two looks for a changed artifact."""
    exact_items: Count = 100_000
    """Largest catalogue of which autoencoders score every item; for larger ones they use an approximate index."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads that score in each worker; 0 shares the cores between the workers, at most `MOST_THREADS` each."""
    workers: Count = 1
    """Number of processes, as given to `recvae serve --workers` or `uvicorn --workers`."""

    def __init__(self, model: Path | None = None, **values: Any) -> None:
        given = values if model is None else {"model": model, **values}
        directory = os.environ.get(SECRETS)
        if directory is not None:
            _check_secrets(directory)
        try:
            super().__init__(_secrets_dir=directory, **given)
        except ValidationError as error:
            raise ParameterError(_first_wrong_value(error)) from None
        for name in ("api_key", "admin_key"):  # what renders a secret may render nothing, and open the service
            if name in self.model_fields_set and not getattr(self, name).get_secret_value():
                raise ParameterError(f"{PREFIX}{name.upper()} is empty; expected a key, or no such variable")

    @field_validator("api_key", "admin_key")
    @classmethod
    def _refuse_unsendable_keys(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if not (text.isascii() and text.isprintable() and text == text.strip()):  # a line end of a file is refused too
            raise ValueError("holds characters that a header cannot; expected printable ASCII, no spaces around it")
        return key

    @field_validator("cors")
    @classmethod
    def _refuse_wrong_origins(cls, text: str) -> str:
        for origin in split_list(text):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"has {origin!r}; expected origins such as https://shop.example, in lower case and without a path"
                )
        return text

    @field_validator("models")
    @classmethod
    def _refuse_wrong_models(cls, text: str) -> str:
        _parse_models(text)
        return text

    @cached_property
    def variants(self) -> list[Variant]:
        """The models to serve; one without a name where `models` is empty."""
        shares = _parse_models(self.models)
        return [Variant(name, self.model / name, share) for name, share in shares.items()] or [
            Variant("", self.model, 1.0)
        ]

    @property
    def scoring_threads(self) -> int:
        """Threads that score in this worker: workers × threads never exceeds the cores."""
        return self.threads or max(1, min(MOST_THREADS, usable_cores() // self.workers))


def _check_secrets(directory: str) -> None:
    """Check that files of secrets are there and can be read: a key that is not found would open the service."""
    if not Path(directory).is_dir():
        raise ParameterError(f"{SECRETS} is {directory!r}; expected a directory")
    names = {f"{PREFIX}{name}".lower() for name in Settings.model_fields}
    place: str | Path = directory
    empty = []
    try:
        files = [file for file in Path(directory).iterdir() if file.name.lower() in names]
        for place in files:
            if not place.read_text().strip():
                empty.append(place)
    except (OSError, ValueError) as error:
        raise ParameterError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if empty:
        raise ParameterError(f"{empty[0]} is empty; expected a secret in it, or no such file")
    if not files:
        raise ParameterError(
            f"{SECRETS} is {directory!r}, which holds no recvae_api_key, recvae_admin_key or recvae_store; expected a "
            "file for each secret"
        )


def split_list(text: str) -> list[str]:
    """Split a list that is written with commas."""
    return list(filter(None, map(str.strip, text.split(","))))


def _parse_models(text: str) -> dict[str, float]:
    """Parse `films:0.9,other:0.1`."""
    expected = "expected names and shares such as films:0.9,other:0.1"
    shares: dict[str, float] = {}
    for entry in split_list(text):
        name, _, number = entry.rpartition(":")
        if name in shares:
            raise ValueError(f"is {text!r}, with {name} more than once; {expected}")
        try:
            shares[name] = float(number)
        except ValueError:
            name = ""
        if not name or not 0 < shares[name] < math.inf:
            raise ValueError(f"is {text!r}; {expected}")
    return shares


def _first_wrong_value(error: ValidationError) -> str:
    """Say which variable has which wrong value, and what was expected."""
    wrong = error.errors(include_url=False)[0]
    variable, given, limits = f"{PREFIX}{str(wrong['loc'][0]).upper()}", wrong["input"], wrong.get("ctx", {})
    match wrong["type"]:
        case "missing":
            return f"{variable} is not set; expected the path of a model artifact"
        case "value_error":
            return f"{variable} {limits['error']}"
        case "literal_error":
            return f"{variable} is {given!r}; expected {limits['expected']}"
        case "greater_than_equal":
            return f"{variable} is {given}; expected at least {limits['ge']:g}"
        case "finite_number":
            return f"{variable} is {given}; expected a finite number"
        case kind:
            return f"{variable} is {given!r}; expected a {'whole ' if kind.startswith('int') else ''}number"
