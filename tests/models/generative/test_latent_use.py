"""Latent dimensions that carry something, and lines about a KL weight of the wrong size."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.generative.latent_use import LatentUse
from tests.contracts import one_thread as one_thread
from tests.models.generative.test_anomaly import COMMON, draw_users

pytestmark = pytest.mark.usefixtures("one_thread")


def test_dimensions_by_hand() -> None:
    mu = np.array([[0.0, 2, 0], [0, -2, 0.1]])
    logvar = np.log(np.array([[1, 0.5, 1.0], [1, 0.5, 1]]))
    use = LatentUse.measure(mu, logvar)
    assert_allclose(use.kl, [0, 0.5 * (0.5 + 4 - 1 - np.log(0.5)), 0.0025], atol=1e-12)
    assert_allclose(use.variance, [0, 4, 0.0025])
    assert use.active_units == 1
    entry = use.as_dict({"beta": 0.5, "kl": 2.0, "nll": 10.0})
    assert entry == {"kl": [2.097, 0.0025, 0.0], "active_units": 1, "warnings": []}


@pytest.mark.parametrize(
    ("gamma", "expected"), [(10.0, "latent dimensions differ between users"), (0.05, None), (1e-7, "does nothing")]
)
def test_a_line_says_that_the_kl_weight_is_wrong(
    gamma: float, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MultVAE(hidden=(32, 32), encoder="dense", gamma=gamma, epochs=25, **COMMON).fit(draw_users(300, seed=0))
    assert model.latent_use_.kl.shape == (8,)
    lines = [line for line in capsys.readouterr().err.splitlines() if "KL weight" in line]
    assert len(lines) == (expected is not None)
    assert all(str(expected) in line for line in lines)
