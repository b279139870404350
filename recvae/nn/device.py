"""Where to compute, and in which precision to multiply."""

import re
from typing import Any

import torch

from recvae.errors import ParameterError

PRECISIONS = ("auto", "float32", "bfloat16")


def device_named(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises
    ------
    ParameterError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError(f"device is {name!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def checked_device(name: Any) -> str:
    """A device's name as a hyperparameter: "auto", "cpu", "cuda" or "cuda:N", whether or not it is here.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ParameterError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N")
    return name


def multiplying(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products are made in the precision asked for; sums and statistics stay in float32.

    "auto" is bfloat16 where the processor has instructions for it, about twice as fast, and float32 elsewhere.
    """
    reduced = precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced, cache_enabled=False)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
