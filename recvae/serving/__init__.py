"""The HTTP service: `create_app` gives an ASGI application, `run` starts it with its workers."""

import os
from typing import TYPE_CHECKING

from recvae.lazy import lazy_names

if TYPE_CHECKING:
    from recvae.serving.app import create_app
    from recvae.serving.server import run
    from recvae.serving.settings import Settings

__all__ = ["Settings", "create_app", "run"]

# OpenBLAS reads it when NumPy loads: idle threads wait 2^20 cycles, less than a millisecond, for the next product;
# by default they do so for much longer, on cores that the event loop needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
__getattr__ = lazy_names(
    __name__,
    {
        "Settings": "recvae.serving.settings",
        "create_app": "recvae.serving.app",
        "run": "recvae.serving.server",
    },
    extra="service",
)
