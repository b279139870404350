"""Databases for the service's tests: a file of SQLite, and a real PostgreSQL server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_service import Postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server for the tests of one module; the gate fails without one."""
    if not Postgres.installed():
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's binaries are not installed; the gate needs them")
        pytest.skip("PostgreSQL's binaries are not installed")
    with Postgres.started() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()
