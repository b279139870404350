"""Matrix products in float32 by the faster of the libraries that torch carries."""

from functools import cache

import torch
from torch import Tensor

CACHED_ROWS = 2000  # of a product that is added to another


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, (n, in) and (out, in) to (n, out), which may lie in `out`; without gradients.

    Torch multiplies float32 matrices by MKL, which leaves AVX-512 aside on AMD's processors: there oneDNN, which torch
    itself takes for bfloat16, is twice as fast and as exact.
    """
    if _by_onednn(x):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)


def accumulate(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """Add `a @ b` to `total`, which may be of another type, or put it there first of all."""
    if a.dtype == total.dtype and not _by_onednn(a):
        torch.addmm(total, a, b, beta=0 if first else 1, out=total)
        return
    size = CACHED_ROWS if total.device.type == "cpu" else len(total)
    for start in range(0, len(total), size):
        part, product = total[start : start + size], linear(a[start : start + size], b.T)
        if first:
            part.copy_(product)
        else:
            part += product


def _by_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and onednn_is_faster()


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of AMD's with AVX-512, and torch has oneDNN."""
    processor = torch.cpu.get_capabilities()
    if not processor.get("cpu_name", "").startswith("AMD") or not processor.get("avx512_f", False):
        return False
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
