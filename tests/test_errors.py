"""Messages never show a URL's password."""

import pytest

from recvae.errors import redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://ann:secret@host/db", "postgres://ann:***@host/db"),
        ("postgresql+psycopg://ann:se@c/r:et@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("mysql://host/db?user=ann&password=secret&ssl=1", "mysql://host/db?user=ann&password=***&ssl=1"),
        ("snowflake://ann:secret@host/db?Token=secret", "snowflake://ann:***@host/db?Token=***"),
        ("postgres://ann@host/db", "postgres://ann@host/db"),
        ("postgres://host/db?mail=a@b", "postgres://host/db?mail=a@b"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("duckdb", "duckdb"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "secret" not in redact_url(url)
