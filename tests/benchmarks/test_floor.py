"""The floor's arithmetic, by hand."""

import pytest

from benchmarks.floor import Floor, measure, medians, n_parameters, output_flops
from recvae.models.autoencoders.multvae import MultVAE
from tests.contracts import checkerboard


def test_parameters_are_those_of_the_model() -> None:
    interactions = checkerboard(20)
    model = MultVAE(hidden=7, latent=3, epochs=1).fit(interactions, show_progress=False)
    assert n_parameters(interactions.shape[1], 7, 3) == sum(p.numel() for p in model.module_.parameters())


def test_parameters_at_ml_20m() -> None:
    # 20,108·600 + 600, 600·400 + 400, 200·600 + 600, 600·20,108 + 20,108
    assert n_parameters(20_108) == 12_065_400 + 240_400 + 120_600 + 12_084_908


def test_flops_of_a_product() -> None:
    assert output_flops(500, 600, 20_108) == 12_064_800_000


def test_floor_is_products_and_bytes() -> None:
    bound = Floor(products=(0.1, 0.2, 0.3), gflops=150.0, gb_per_s=28.0)
    assert bound.seconds(n_parameters=10**9) == pytest.approx(0.6 + 1.0)


def test_measured_rates_fit_the_measured_times() -> None:
    found = measure(batch=8, hidden=16, n_items=64, repeats=3)
    assert all(seconds > 0 for seconds in found.products)
    assert found.gflops == pytest.approx(3 * output_flops(8, 16, 64) / sum(found.products) / 1e9)
    assert found.gb_per_s > 0


def test_works_take_turns() -> None:
    order: list[str] = []
    found = medians((lambda: order.append("a"), lambda: order.append("b")), repeats=2)
    assert order == ["a", "b"] * 3
    assert len(found) == 2
