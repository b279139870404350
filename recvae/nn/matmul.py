"""Matrix products in float32 by the faster of the libraries that torch carries."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor

from recvae.memory import LARGEST_KEPT

CACHED_ROWS = 2000  # of a product's smaller parts
ALIGNED = 16  # floats in a cache line


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, (n, in) and (out, in) to (n, out), which may lie in `out`; without gradients.

    Torch multiplies float32 matrices by MKL, which leaves AVX-512 aside on AMD's processors: there oneDNN, which torch
    itself takes for bfloat16, is twice as fast and as exact.
    """
    if _by_onednn(x):
        if out is None or out.nbytes < LARGEST_KEPT:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
            return product
        for start in range(0, len(weight), CACHED_ROWS):  # oneDNN always takes fresh memory
            part = slice(start, start + CACHED_ROWS)
            out[:, part] = linear(x, weight[part], None if bias is None else bias[part])
        return out
    return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)


def accumulate(totals: Sequence[Tensor], a: Tensor, b: Tensor, *, first: bool) -> None:
    """Add `a @ b` to the totals that share its columns, or put it there first of all.

    Parameters
    ----------
    totals : sequence of (m, width) tensors
        Of one type, which may be another than the factors'; the widths sum to n.
    a : (m, k)
    b : (k, n)
    """
    widths = [total.shape[1] for total in totals]
    if a.dtype == totals[0].dtype and not _by_onednn(a):
        for total, columns in zip(totals, torch.split(b, widths, dim=1), strict=True):
            torch.addmm(total, a, columns, beta=0 if first else 1, out=total)
        return
    padded = F.pad(b, (0, -b.shape[1] % ALIGNED))
    size = CACHED_ROWS if a.device.type == "cpu" else len(a)
    for start in range(0, len(a), size):
        product = linear(a[start : start + size], padded.T)[:, : b.shape[1]]
        for total, columns in zip(totals, torch.split(product, widths, dim=1), strict=True):
            part = total[start : start + size]
            if first:
                part.copy_(columns)
            else:
                part += columns


def _by_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and onednn_is_faster()


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor of AMD's with AVX-512, and torch has oneDNN."""
    processor = torch.cpu.get_capabilities()
    if not processor.get("cpu_name", "").startswith("AMD") or not processor.get("avx512_f", False):
        return False
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
