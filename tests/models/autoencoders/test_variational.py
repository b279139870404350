"""Likelihood, samples and user vectors of a VAE, on data for which the answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse, stats
from scipy.special import logsumexp

from recvae.errors import ParameterError, UnsupportedError
from recvae.models.als import ALS
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.autoencoders.variational import VariationalAutoencoder
from recvae.models.linear.ease import EASE
from tests.contracts import one_thread as one_thread

pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS, N_TASTES = 300, 60, 3


def tastes() -> sparse.csr_matrix:
    """Users of three tastes; the items of each taste are of decreasing popularity."""
    generator = np.random.default_rng(0)
    chance = np.zeros((N_TASTES, N_ITEMS))
    for taste in range(N_TASTES):
        chance[taste, taste::N_TASTES] = np.linspace(0.9, 0.2, N_ITEMS // N_TASTES)
    dense = generator.random((N_USERS, N_ITEMS)) < chance[np.arange(N_USERS) % N_TASTES]
    return sparse.csr_matrix(dense, dtype=np.float32)


@pytest.fixture(scope="module", params=["multvae", "recvae"])
def model(request: pytest.FixtureRequest) -> VariationalAutoencoder:
    common = {"latent": 8, "batch_size": 50, "learning_rate": 5e-3}
    vae = MultVAE(hidden=32, epochs=40, anneal_cap=1.0, total_anneal_steps=0, **common)  # type: ignore[arg-type]
    descendant = RecVAE(hidden=(32, 32), epochs=20, gamma=0.05, **common)  # type: ignore[arg-type]
    fitted: VariationalAutoencoder = {"multvae": vae, "recvae": descendant}[request.param]
    return fitted.fit(tastes(), show_progress=False)


def test_embed(model: VariationalAutoencoder) -> None:
    mu = model.embed(tastes())
    assert mu.shape == (N_USERS, 8)
    assert mu.dtype == np.float32
    assert_array_equal(mu[:5], model.embed(tastes()[:5]))


def test_bots_are_the_least_likely_users(model: VariationalAutoencoder) -> None:
    generator = np.random.default_rng(1)
    bots = sparse.csr_matrix(generator.random((15, N_ITEMS)) < 0.25, dtype=np.float32)
    everybody = sparse.vstack([tastes(), bots], format="csr")
    per_interaction = model.log_likelihood(everybody) / np.diff(everybody.indptr)
    suspects = np.argsort(per_interaction)[:15]
    assert (suspects >= N_USERS).mean() >= 0.9


def test_log_likelihood_needs_no_whole_matrix(model: VariationalAutoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.log_likelihood(tastes())
    monkeypatch.setattr("recvae.memory.rows_at_once", lambda _: 7)
    np.testing.assert_allclose(model.log_likelihood(tastes()), whole, rtol=1e-5)


def test_everything_survives_the_artifact(model: VariationalAutoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert_array_equal(loaded.embed(tastes()), model.embed(tastes()))


def test_similar_users_share_a_taste(model: VariationalAutoencoder) -> None:
    ids, scores = model.similar_users(np.arange(30), N=20, user_items=tastes())
    assert ids.shape == scores.shape == (30, 20)
    assert_array_equal(ids[:, 0], np.arange(30))
    assert np.mean(ids % N_TASTES == np.arange(30)[:, None] % N_TASTES) > 0.95


def test_similar_users_among_some(model: VariationalAutoencoder) -> None:
    ids, _ = model.similar_users(0, N=5, users=[9, 3, 1, 6], user_items=tastes())
    assert set(ids[:3]) == {3, 6, 9}
    assert ids[4] == -1
    ids, _ = model.similar_users(0, N=5, filter_users=[0, 3], user_items=tastes())
    assert not {0, 3} & set(ids)


def test_similar_users_refusals(model: VariationalAutoencoder) -> None:
    with pytest.raises(UnsupportedError, match="give user_items"):
        model.similar_users(0)
    with pytest.raises(ParameterError, match="userid holds 300"):
        model.similar_users(300, user_items=tastes())
    with pytest.raises(UnsupportedError, match="EASE has no user vectors"):
        EASE().fit(tastes(), show_progress=False).similar_users(0)


def test_similar_users_of_a_model_that_stores_them() -> None:
    als = ALS(factors=8, regularization=1.0).fit(tastes(), show_progress=False)
    ids, _ = als.similar_users(4, N=10)
    assert ids[0] == 4
    assert np.mean(ids % N_TASTES == 4 % N_TASTES) > 0.9
    with pytest.raises(UnsupportedError, match="leave user_items out"):
        als.similar_users(4, user_items=tastes())


def test_importance_weighted_bound_rises_to_the_integral() -> None:
    common: dict[str, Any] = {"hidden": (), "latent": 1, "batch_size": 50, "learning_rate": 5e-3}
    model = MultVAE(epochs=20, anneal_cap=1.0, total_anneal_steps=0, **common).fit(tastes(), show_progress=False)
    users = tastes()[:20]
    z = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    with torch.inference_mode():
        log_p = model.module_.logits(torch.from_numpy(z)).log_softmax(dim=1).double().numpy()
    log_joint = users @ log_p.T + stats.norm.logpdf(z[:, 0])
    exact = logsumexp(log_joint, axis=1) + np.log(16 / 4000)
    few, many = (model.log_likelihood(users, n_samples=n) for n in (1, 300))
    np.testing.assert_allclose(many, exact, atol=0.1)
    assert few.mean() < many.mean() < exact.mean() + 0.02
    assert_array_equal(many, model.log_likelihood(users, n_samples=300))
    with pytest.raises(ParameterError, match="n_samples is 0"):
        model.log_likelihood(users, n_samples=0)
