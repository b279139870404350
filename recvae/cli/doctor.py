"""`recvae doctor`: what this installation has, and what the machine or container gives it."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from recvae.machine.cgroup import cpu_quota, memory_limit
from recvae.machine.cores import assigned_cores
from recvae.memory import available_bytes

VARIABLES = re.compile(r"RECVAE_\w+|OMP_\w+|MKL_NUM_THREADS|OPENBLAS_\w+|CUDA_VISIBLE_DEVICES")
SECRETS = re.compile(r"\w*(KEY|STORE|SECRET|PASSWORD)")


def report() -> Iterator[str]:
    """Yield lines about versions, extras, devices, cores, memory, BLAS, folders and environment variables.

    It runs in incomplete installations too: whatever may be missing is imported only where it is there.
    """
    yield f"recvae {_version('recvae') or 'not installed'} in {Path(__file__).parent.parent}"
    yield f"Python {platform.python_version()} in {sys.prefix}, {platform.platform()}"
    yield from _packages()
    yield _devices()
    yield _cores()
    yield _memory()
    yield from _blas()
    yield f"RECVAE_DATA: {os.environ.get('RECVAE_DATA') or 'not set'}"
    yield f"cache of data sets: {_cache()}"
    names = sorted(name for name in os.environ if VARIABLES.fullmatch(name) and name != "RECVAE_DATA")
    yield f"environment: {' '.join(map(_variable, names)) or 'no variable that matters here is set'}"


def _packages() -> Iterator[str]:
    for title, names in _requirements().items():
        found = [f"{name} {_version(name)}" for name in names if _version(name)]
        missing = [name for name in names if not _version(name)]
        if not missing:
            yield f"{title}: {', '.join(found)}"
        else:
            there = f"; there: {', '.join(found)}" if found else ""
            yield f"{title}: missing {', '.join(missing)}{there}"


def _requirements() -> dict[str, list[str]]:
    """Return the names of the packages that recvae and each of its extras require."""
    required: dict[str, list[str]] = {}
    try:
        lines = metadata.requires("recvae") or []
    except metadata.PackageNotFoundError:  # run from a source tree
        lines = []
    for line in lines:
        name, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        package = re.match(r"[\w.-]+", name)
        elsewhere = "win32" in marker and sys.platform == "win32"
        if package and package[0] != "recvae" and not elsewhere and (not extra or extra[1] != "all"):
            required.setdefault(f"extra {extra[1]}" if extra else "required packages", []).append(package[0])
    return required


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    if util.find_spec("torch") is None:
        return "devices: cpu for ranking only, since torch is not installed"
    import torch

    names = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return f"devices: {', '.join(['cpu', *names])}; torch uses {torch.get_num_threads()} threads"


def _cores() -> str:
    quota = cpu_quota()
    container = "no limit by the container" if quota is None else f"the container may use {quota:g} of them at a time"
    return f"cores: {os.cpu_count()}, {assigned_cores()} assigned to this process, {container}"


def _memory() -> str:
    limit, available = memory_limit(), available_bytes()
    container = "no limit by the container" if limit is None else f"the container's limit is {_gb(limit)}"
    return f"memory: {'unknown' if available is None else _gb(available)} available, {container}"


def _blas() -> Iterator[str]:
    if util.find_spec("threadpoolctl") is None:
        yield "BLAS: unknown, since threadpoolctl is not installed"
        return
    import numpy  # noqa: F401 its library is looked for, as are those loaded by now
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        name = " ".join(str(pool[key]) for key in ("internal_api", "version") if pool.get(key))
        yield f"{pool['user_api']}: {name}, {pool['num_threads']} threads, {pool['filepath']}"


def _cache() -> str:
    try:
        from recvae.storage.cache import cache_dir
    except ImportError as error:
        return f"unknown, since {error.name} is not installed"
    return f"{cache_dir()}{'' if cache_dir().exists() else ', which does not exist yet'}"


def _variable(name: str) -> str:
    return f"{name}={'(set)' if SECRETS.match(name) else os.environ[name]}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
