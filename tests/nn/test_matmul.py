"""Matrix products by both libraries, against torch's own."""

import pytest
import torch

from recvae.nn import matmul as products
from recvae.nn.matmul import accumulate, linear, onednn_is_faster

LIBRARIES = [False, *([True] if torch.backends.mkldnn.is_available() else [])]  # type: ignore[no-untyped-call]


@pytest.fixture(params=LIBRARIES, ids=lambda onednn: "onednn" if onednn else "mkl")
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product(n: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((n, 5), (9, 5), (9,)))
    found = linear(x, weight, bias if biased else None)
    torch.testing.assert_close(found, x @ weight.T + (bias if biased else 0))
    torch.testing.assert_close(linear(found, weight.T), found @ weight)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("biased", [True, False])
def test_a_large_product_lies_in_its_place(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGEST_KEPT", 100)
    monkeypatch.setattr(products, "CACHED_ROWS", 4)
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((3, 5), (9, 5), (9,)))
    place = torch.empty(3, 9)
    found = linear(x, weight, bias if biased else None, out=place)
    assert found.data_ptr() == place.data_ptr()
    torch.testing.assert_close(found, x @ weight.T + (bias if biased else 0))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sums_of_products(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "CACHED_ROWS", 4)
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn((3, 10), generator=generator).to(dtype), torch.randn((3, 7), generator=generator).to(dtype)
    totals = [torch.full((10, n), torch.nan, dtype=torch.promote_types(dtype, torch.float32)) for n in (6, 1)]
    accumulate(totals, a.T, b, first=True)
    accumulate(totals, a.T, b, first=False)
    torch.testing.assert_close(torch.cat(totals, dim=1), 2 * (a.T @ b).to(totals[0].dtype))


@pytest.mark.parametrize(
    ("name", "features", "faster"),
    [("AMD EPYC", {"avx512_f": True}, True), ("AMD EPYC", {}, False), ("Intel Xeon", {"avx512_f": True}, False)],
)
def test_which_library(name: str, features: dict[str, bool], faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": False, **features})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert onednn_is_faster.__wrapped__() is faster
