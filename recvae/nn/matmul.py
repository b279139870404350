"""Matrix products in float32 by the faster of the libraries that torch carries."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 the field's name
from torch import Tensor

from recvae.memory import LARGEST_KEPT

CACHED_ROWS = 2000
"""Rows of a product that are made at a time, few enough to stay in the cache until they are copied or added."""

ALIGNED = 16
"""Floats in a cache line."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, (n, in) and (out, in) to (n, out), without gradients.

    Torch multiplies float32 matrices by MKL, which does not use AVX-512 on AMD's processors. There oneDNN, which torch
    itself uses for bfloat16, is twice as fast and as exact.

    Parameters
    ----------
    out : (n, out), optional
        Memory that the product may be written to; it is returned if it was.
    """
    if _uses_onednn(x):
        if out is None or out.nbytes < LARGEST_KEPT:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
            return product
        # oneDNN allocates its result. Of more than the allocator keeps, the pages would be fresh every time, so the
        # product is made in pieces that are small enough to be kept, and copied.
        for start in range(0, len(weight), CACHED_ROWS):
            columns = slice(start, start + CACHED_ROWS)
            out[:, columns] = linear(x, weight[columns], None if bias is None else bias[columns])
        return out
    return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)


def accumulate(totals: Sequence[Tensor], a: Tensor, b: Tensor, *, first: bool) -> None:
    """Add `a @ b`, cut into groups of columns, to one total for each group.

    Parameters
    ----------
    totals : sequence of (m, width) tensors
        The widths sum to n. All of one dtype, which may be wider than the factors'.
    a : (m, k)
    b : (k, n)
    first : bool
        Overwrite the totals instead.
    """
    widths = [total.shape[1] for total in totals]
    if a.dtype == totals[0].dtype and not _uses_onednn(a):  # BLAS adds to its result itself
        for total, columns in zip(totals, torch.split(b, widths, dim=1), strict=True):
            torch.addmm(total, a, columns, beta=0 if first else 1, out=total)
        return
    padded = F.pad(b, (0, -b.shape[1] % ALIGNED))  # products of odd widths are slower
    size = CACHED_ROWS if a.device.type == "cpu" else len(a)
    for start in range(0, len(a), size):
        product = linear(a[start : start + size], padded.T)[:, : b.shape[1]]
        for total, columns in zip(totals, torch.split(product, widths, dim=1), strict=True):
            rows = total[start : start + size]
            if first:
                rows.copy_(columns)
            else:
                rows += columns


def _uses_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and onednn_is_faster()


@cache
def onednn_is_faster() -> bool:
    """Check for an AMD processor with AVX-512 and a torch with oneDNN."""
    processor = torch.cpu.get_capabilities()
    if not processor.get("cpu_name", "").startswith("AMD") or not processor.get("avx512_f", False):
        return False
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
