"""Random draws of training, from their generator only."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.nn.batches import Batch
from recvae.nn.sampling import NegativeSampler, draw_noise, drop_out, sample_normal


def values_of(dense: list[list[float]]) -> Batch:
    return Batch.from_csr(sparse.csr_matrix(np.array(dense, dtype=np.float32)))


def test_dropout_keeps_the_mean_and_uses_its_generator_only() -> None:
    batch = values_of([[3.0] * 200_000])
    before = torch.get_rng_state()
    dropped = drop_out(batch, 0.3, torch.Generator().manual_seed(4)).values
    assert torch.equal(torch.get_rng_state(), before)
    assert dropped.mean().item() == pytest.approx(3.0, abs=0.02)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert_allclose(dropped[dropped != 0].numpy(), 3.0 / 0.7, rtol=1e-6)
    assert torch.equal(drop_out(batch, 0.3, torch.Generator().manual_seed(4)).values, dropped)
    assert not torch.equal(drop_out(batch, 0.3, torch.Generator().manual_seed(5)).values, dropped)
    assert (batch.values == 3.0).all()


def test_noise_has_the_posteriors_mean_and_variance() -> None:
    mu, logvar = torch.full((20_000, 2), 3.0), torch.full((20_000, 2), 1.0)
    noise = draw_noise(values_of([[1.0]] * 20_000), 2, torch.Generator().manual_seed(4))
    z = sample_normal(mu, logvar, noise)
    assert z.mean().item() == pytest.approx(3.0, abs=0.03)
    assert z.var().item() == pytest.approx(np.e, rel=0.03)


def test_no_dropout_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    batch = values_of([[1.0, 2.0]])
    assert torch.equal(drop_out(batch, 0.0, generator).values, batch.values)
    assert torch.equal(generator.get_state(), before)


def test_negatives_are_drawn_by_their_weights() -> None:
    weights = torch.tensor([1.0, 0.0, 3.0, 4.0])
    items, log_expected = NegativeSampler(80_000, weights).draw(torch.Generator().manual_seed(0))
    counts = torch.bincount(items, minlength=4)
    torch.testing.assert_close(counts / 10_000, weights, rtol=0.05, atol=0)
    torch.testing.assert_close(log_expected.exp(), 10_000 * weights[items])
