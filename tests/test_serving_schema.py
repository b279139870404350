"""The OpenAPI document is true: schemathesis asks what it allows and what it forbids, and checks every answer."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from recvae.serving import Settings, create_app
from tests.contracts import one_thread as one_thread
from tests.serving import save

EXAMPLES = 40


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("serving")
    save(folder / "model")
    app = create_app(
        Settings(folder / "model", admin_key="admin", api_key="key", store=f"sqlite:///{folder / 'plays.db'}")
    )
    with opened(app):
        yield schemathesis.openapi.from_asgi("/openapi.json", app)
