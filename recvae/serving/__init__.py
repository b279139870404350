"""The HTTP service: `create_app` gives an ASGI application, `run` starts it with its workers."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recvae.errors import MissingDependencyError

if TYPE_CHECKING:
    from recvae.serving.app import create_app
    from recvae.serving.server import run
    from recvae.serving.settings import Settings

__all__ = ["Settings", "create_app", "run"]

# OpenBLAS reads it when NumPy loads: idle threads wait 2^20 cycles, less than a millisecond, for the next product;
# by default they do so for much longer, on cores that the event loop needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
_HOMES = {"Settings": "settings", "create_app": "app", "run": "server"}


def __getattr__(name: str) -> Any:
    """Import a part when it is first used, so that the library works without the service's dependencies."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recvae.serving' has no attribute {name!r}")
    try:
        module = import_module(f"recvae.serving.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recvae"):
            raise
        raise MissingDependencyError(
            f"the service needs {error.name}; install recvae with the extra 'service'"
        ) from None
    return getattr(module, name)
