"""The dense reference: the same model as the library's, written the other way."""

import numpy as np
import pytest
import torch
from scipy import sparse

from benchmarks.dense import DenseMultVAE, DenseTraining
from recvae.models.autoencoders.multvae import MultVAE
from tests.contracts import checkerboard

N_ITEMS, HIDDEN, LATENT = 40, 12, 5
WEIGHTS = {  # the reference's by the library's
    "encoder.0.bias": "encoder.input.bias",
    "encoder.2.weight": "encoder.layers.0.weight",
    "encoder.2.bias": "encoder.layers.0.bias",
    "decoder.0.weight": "decoder.0.weight",
    "decoder.0.bias": "decoder.0.bias",
    "decoder.2.weight": "output.weight",
    "decoder.2.bias": "output.bias",
}


@pytest.fixture(scope="module")
def interactions() -> sparse.csr_matrix:
    dense = np.random.default_rng(0).random((30, N_ITEMS)) < 0.2
    dense[:, 0] = True
    return sparse.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module")
def fitted(interactions: sparse.csr_matrix) -> MultVAE:
    model = MultVAE(hidden=HIDDEN, latent=LATENT, epochs=5, batch_size=10, learning_rate=0.02)
    return model.fit(interactions, show_progress=False)


def copied(model: MultVAE) -> DenseMultVAE:
    theirs = model.module_.state_dict()
    state = {name: theirs[other] for name, other in WEIGHTS.items()}
    dense = DenseMultVAE(N_ITEMS, HIDDEN, LATENT)
    dense.load_state_dict({**state, "encoder.0.weight": theirs["encoder.input.weight"].T})
    return dense.eval()


def test_loss_is_the_librarys(fitted: MultVAE, interactions: sparse.csr_matrix) -> None:
    loss = copied(fitted).loss(torch.from_numpy(interactions.toarray()), beta=1.0)
    assert loss.item() == pytest.approx(-fitted.log_likelihood(interactions).mean(), rel=1e-5)


def test_scores_are_the_librarys(fitted: MultVAE, interactions: sparse.csr_matrix) -> None:
    logits, _, _ = copied(fitted)(torch.from_numpy(interactions.toarray()))
    np.testing.assert_allclose(logits.detach().numpy(), fitted.score(interactions), rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss_and_repeats() -> None:
    runs: list[list[float]] = []
    for _ in range(2):
        training = DenseTraining(checkerboard(40), batch_size=15, hidden=HIDDEN, latent=LATENT, seed=3)
        runs.append([training.epoch() for _ in range(60)])
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.95 * runs[0][0]
    assert training.step == 180
