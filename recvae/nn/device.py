"""Devices by name, and the precision of matrix products."""

import re
from typing import TYPE_CHECKING, Any

from recvae.errors import ParameterError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def find_device(name: str) -> "torch.device":
    """The device of that name; "auto" is the GPU where there is one.

    Raises
    ------
    ParameterError
        If this machine has no such device.
    """
    import torch  # here, since a process that only ranks checks names and needs no torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError(f"device is {name!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def free_device_bytes(device: "torch.device") -> int | None:
    """Memory of a CUDA device that this process could still take; None for other devices.

    That is what the device has left, and what torch's allocator holds without using it.
    """
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def check_device_name(name: Any) -> str:
    """The name, if it is "auto", "cpu", "cuda" or "cuda:N"; this machine need not have the device.

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise ParameterError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N")
    return name


def matmul_precision(precision: str, device: "torch.device") -> "torch.autocast":
    """A context in which matrix products have the given precision; sums and statistics stay in float32.

    "auto" is bfloat16, about twice as fast, where the processor has instructions for it, and float32 elsewhere.
    """
    import torch

    reduced = precision == "bfloat16" or (precision == "auto" and _has_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced, cache_enabled=False)


def _has_bfloat16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
