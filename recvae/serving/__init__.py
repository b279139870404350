"""The HTTP service: `create_app` gives an ASGI application, `run` starts it with its workers."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.errors import MissingDependencyError

if TYPE_CHECKING:
    from recvae.serving.app import create_app
    from recvae.serving.server import run
    from recvae.serving.settings import Settings

__all__ = ["Settings", "create_app", "run"]

AVX512 = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
CPU_INFO = Path("/proc/cpuinfo")
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


def _choose_kernels() -> None:
    """Let OpenBLAS use AVX-512 on AMD's processors too, where NumPy's wheels leave it aside; read when NumPy loads."""
    info = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    if "AuthenticAMD" in info and set(info.split()) >= AVX512:
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


_choose_kernels()
