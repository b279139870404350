"""Settings of the service: from variables, from files of secrets, and what they cannot be."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recvae.errors import ArtifactError, MissingDependencyError, ParameterError
from recvae.models.linear.ease import EASE
from recvae.serving import Settings, create_app, run
from tests.contracts import one_thread as one_thread
from tests.http_service import json_logs as json_logs
from tests.http_service import save


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("RECVAE_MAX_N", "ten", "RECVAE_MAX_N is 'ten'; expected a whole number"),
        ("RECVAE_MAX_N", "1.5", "RECVAE_MAX_N is '1.5'; expected a whole number"),
        ("RECVAE_MAX_N", "0", "RECVAE_MAX_N is 0; expected at least 1"),
        ("RECVAE_TIMEOUT_SECONDS", "soon", "RECVAE_TIMEOUT_SECONDS is 'soon'; expected a number"),
        ("RECVAE_TIMEOUT_SECONDS", "nan", "RECVAE_TIMEOUT_SECONDS is nan; expected a finite number"),
        ("RECVAE_TIMEOUT_SECONDS", "0", "RECVAE_TIMEOUT_SECONDS is 0; expected at least 0.001"),
        ("RECVAE_BATCH_WINDOW_MS", "-1", "RECVAE_BATCH_WINDOW_MS is -1; expected at least 0"),
        ("RECVAE_API_KEY", "schlüssel", "RECVAE_API_KEY holds characters"),
        ("RECVAE_API_KEY", "from a file\n", "RECVAE_API_KEY holds characters that a header cannot; expected printable"),
        ("RECVAE_API_KEY", "", "RECVAE_API_KEY is empty; expected a key"),
        ("RECVAE_ADMIN_KEY", " admin", "RECVAE_ADMIN_KEY holds characters that a header cannot"),
        ("RECVAE_CORS", "https://a,https://b/", "RECVAE_CORS has 'https://b/'; expected origins such as"),
        ("RECVAE_CORS", "shop.example", "RECVAE_CORS has 'shop.example'; expected origins"),
        ("RECVAE_CORS", "https://Shop.example", "RECVAE_CORS has 'https://Shop.example'; expected origins"),
        ("RECVAE_MODELS", "a", "RECVAE_MODELS is 'a'; expected names and shares such as films:0.9,other:0.1"),
        ("RECVAE_MODELS", "a:0.5,b:0", "RECVAE_MODELS is 'a:0.5,b:0'; expected names and shares"),
        ("RECVAE_MODELS", "a:nan", "RECVAE_MODELS is 'a:nan'; expected names and shares"),
        ("RECVAE_MODELS", ":1", "RECVAE_MODELS is ':1'; expected names and shares"),
        ("RECVAE_MODELS", "a:1,a:2", "RECVAE_MODELS is 'a:1,a:2', with a more than once"),
        ("RECVAE_SECRETS_DIR", "nowhere", "RECVAE_SECRETS_DIR is 'nowhere'; expected a directory"),
    ],
)
def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ParameterError, match=said):
        Settings(Path("model"))


def test_a_store_that_cannot_be_is_refused_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model")
    monkeypatch.setenv("RECVAE_STORE", "mysql://host/base")
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("workers were started"))
    with pytest.raises(ParameterError, match="expected sqlite or postgresql"):
        run(tmp_path / "model", "127.0.0.1", 0, 2)


def test_what_workers_could_not_load_is_refused_before_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("workers were started"))
    save(tmp_path / "weights", EASE(), data={"filters": {"weights": {"events": {"buy": "much"}}}})
    with pytest.raises(ArtifactError, match="weights of the data are"):
        run(tmp_path / "weights", "127.0.0.1", 0, 1)
    save(tmp_path / "large")
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setenv("RECVAE_EXACT_ITEMS", "10")
    with pytest.raises(MissingDependencyError, match="a catalogue this large needs faiss"):
        run(tmp_path / "large", "127.0.0.1", 0, 1)


def test_a_folder_of_metrics_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ParameterError, match=r"PROMETHEUS_MULTIPROC_DIR is '.*nowhere'; expected an empty folder"):
        create_app(Settings(tmp_path))


@pytest.mark.parametrize(("seconds", "whole"), [("0.5", 1), ("2.5", 3), ("30", 30)])
def test_time_to_drain_is_never_shorter_than_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json_logs: None, seconds: str, whole: int
) -> None:
    save(tmp_path / "model", EASE())
    given: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda *_, **options: given.update(options))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.environ", {**os.environ, "RECVAE_DRAIN_SECONDS": seconds})
    run(tmp_path / "model", "127.0.0.1", 0, 1)
    assert given["timeout_graceful_shutdown"] == whole


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="RECVAE_MODEL is not set"):
        Settings()
    for variable, value in (("RECVAE_MODEL", "m"), ("RECVAE_MAX_N", "7"), ("RECVAE_CORS", "*, http://a:80")):
        monkeypatch.setenv(variable, value)
    assert Settings() == Settings(Path("m"), max_n=7, cors="*, http://a:80")


def test_several_models_are_in_one_folder() -> None:
    variants = Settings(Path("models"), models="a:0.9, /srv/b:2").variants
    assert variants == [("a", Path("models/a"), 0.9), ("/srv/b", Path("/srv/b"), 2.0)]
    assert Settings(Path("models")).variants == [("", Path("models"), 1.0)]


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(1, 1, 1), (2, 1, 2), (2, 2, 1), (8, 1, 4), (8, 3, 2), (8, 8, 1), (2, 8, 1)],
)
def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert Settings(Path("m"), workers=workers).scoring_threads == threads
    assert Settings(Path("m"), threads=5).scoring_threads == 5


def test_secrets_come_from_files_and_are_never_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recvae_api_key").write_text("from a file\n")
    (tmp_path / "recvae_store").write_text("sqlite:///secret.db")
    monkeypatch.setenv("RECVAE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("RECVAE_ADMIN_KEY", "from a variable")
    settings = Settings(Path("m"))
    assert settings.api_key.get_secret_value() == "from a file"
    assert settings.store.get_secret_value() == "sqlite:///secret.db"
    for secret in ("file", "variable", "secret.db"):
        assert secret not in f"{settings!r} {settings}"


def empty(directory: Path) -> str:
    (directory / "api_key").write_text("secret")
    return "which holds no recvae_api_key, recvae_admin_key or recvae_store"


def folder(directory: Path) -> str:
    (directory / "recvae_api_key").mkdir()
    return "recvae_api_key cannot be read: Is a directory"


def binary(directory: Path) -> str:
    (directory / "recvae_api_key").write_bytes(b"\xff\xfe")
    return "recvae_api_key cannot be read: 'utf-8' codec"


def blank(directory: Path) -> str:
    (directory / "recvae_api_key").write_text("\n")
    return "recvae_api_key is empty; expected a secret in it, or no such file"


@pytest.mark.parametrize("spoil", [empty, folder, binary, blank])
def test_secrets_that_are_not_found_or_read(
    spoil: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service without the key that it was to have would be open."""
    said = spoil(tmp_path)
    monkeypatch.setenv("RECVAE_SECRETS_DIR", str(tmp_path))
    with pytest.raises(ParameterError, match=said):
        Settings(Path("m"))
