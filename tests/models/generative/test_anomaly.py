"""Anomaly scores on users of known tastes: real ones, random ones, and real ones with a foreign interaction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.errors import ParameterError, UnsupportedError
from recvae.models import registry
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.generative.anomaly import AnomalyDetector
from tests.contracts import one_thread as one_thread

pytestmark = pytest.mark.usefixtures("one_thread")

N_ITEMS, N_TASTES = 60, 3
COMMON: dict[str, Any] = {"latent": 8, "batch_size": 50, "learning_rate": 5e-3}
MODELS: dict[str, Autoencoder] = {
    "multvae": MultVAE(hidden=32, epochs=30, anneal_cap=1.0, total_anneal_steps=0, **COMMON),
    "a small KL weight": MultVAE(hidden=(32, 32), encoder="dense", gamma=1e-4, epochs=20, **COMMON),
    "recvae": RecVAE(hidden=(32, 32), epochs=15, gamma=0.05, **COMMON),
    "multdae": MultDAE(epochs=30, **COMMON),
}


def draw_users(n_users: int, seed: int) -> sparse.csr_matrix:
    """Users of three tastes; the items of each taste are of decreasing popularity."""
    generator = np.random.default_rng(seed)
    chance = np.zeros((N_TASTES, N_ITEMS))
    for taste in range(N_TASTES):
        chance[taste, taste::N_TASTES] = np.linspace(0.9, 0.2, N_ITEMS // N_TASTES)
    dense = generator.random((n_users, N_ITEMS)) < chance[np.arange(n_users) % N_TASTES]
    return sparse.csr_matrix(dense, dtype=np.float32)


def shuffle_items(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    """Histories of the same lengths, of items drawn by popularity."""
    generator, counts = np.random.default_rng(1), np.asarray(user_items.sum(axis=0)).ravel() + 1
    dense = np.zeros(user_items.shape, dtype=np.float32)
    for row, length in zip(dense, np.diff(user_items.indptr), strict=True):
        row[generator.choice(N_ITEMS, length, replace=False, p=counts / counts.sum())] = 1
    return sparse.csr_matrix(dense)


def fit(model: Autoencoder) -> Autoencoder:
    users = draw_users(800, seed=1)
    fold_in = sparse.csr_matrix(users.multiply((np.arange(N_ITEMS) % 5 > 0)[None]))
    return model.fit(draw_users(300, seed=0), show_progress=False, validation=(fold_in, users - fold_in))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Autoencoder:
    return fit(MODELS[request.param])


@pytest.fixture(scope="module")
def vae() -> Autoencoder:
    return fit(MODELS["multvae"])


def test_random_users_are_the_most_unusual(model: Autoencoder) -> None:
    real = draw_users(200, seed=2)
    random = shuffle_items(real)
    assert (model.anomaly_score(random)[:, None] > model.anomaly_score(real)).mean() > 0.98
    assert np.median(model.anomaly_p_value(random)) < 0.03


def test_p_values_of_real_users_are_uniform(model: Autoencoder) -> None:
    p_values = model.anomaly_p_value(draw_users(1000, seed=3))
    for level in (0.05, 0.2, 0.5):
        assert (p_values <= level).mean() == pytest.approx(level, abs=0.06)


def test_scores_need_no_whole_matrix(vae: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vae.anomaly_score(draw_users(50, seed=2))
    monkeypatch.setattr("recvae.models.generative.held_out_likelihood.rows_at_once", lambda *_: 7)
    assert_allclose(vae.anomaly_score(draw_users(50, seed=2)), whole, atol=1e-4)


def test_an_item_counts_once(vae: Autoencoder) -> None:
    users = draw_users(20, seed=2)
    assert_allclose(vae.anomaly_score(users * 3), vae.anomaly_score(users), atol=1e-4)


def test_the_foreign_item_is_named(model: Autoencoder) -> None:
    users = draw_users(60, seed=2).tolil()
    foreign = (np.arange(60) + 1) % N_TASTES + 30
    users[np.arange(60), foreign] = 1
    ids, surprises = model.explain_anomaly(users.tocsr(), N=3)
    assert (ids[:, 0] == foreign).mean() > 0.9
    assert (np.diff(surprises) <= 0).all()
    ids, surprises = model.explain_anomaly(sparse.csr_matrix(np.eye(2, N_ITEMS)), N=3)
    assert_array_equal(ids, [[0, -1, -1], [1, -1, -1]])
    assert_allclose(surprises, [[0, -np.inf, -np.inf]] * 2, atol=1e-5)


def test_short_histories(vae: Autoencoder) -> None:
    counts = vae.item_counts_ + 1
    common, rare = int(counts.argmax()), int(counts.argmin())
    dense = np.zeros((3, N_ITEMS))
    dense[1, common], dense[2, rare] = 1, 1
    scores, p_values = vae.find_anomalies(sparse.csr_matrix(dense))
    assert np.isnan([scores[0], p_values[0]]).all()
    assert scores[1] <= scores[2]
    assert p_values[1] == pytest.approx(1)
    assert p_values[2] == pytest.approx(counts[counts == counts.min()].sum() / counts.sum(), rel=1e-4)
    pair = np.zeros((1, N_ITEMS))
    pair[0, [0, 3]] = 1
    assert np.isfinite(vae.find_anomalies(sparse.csr_matrix(pair))).all()
    assert np.isfinite(vae.anomaly_score(sparse.csr_matrix(np.ones((1, N_ITEMS))))).all()


def test_the_artifact_keeps_what_is_usual(model: Autoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    users = draw_users(20, seed=2)
    for frozen in (False, True):
        loaded = registry.load(tmp_path / "model", frozen=frozen).model
        assert isinstance(loaded, AnomalyDetector)
        assert_allclose(loaded.find_anomalies(users), model.find_anomalies(users), atol=2e-3)
        assert_array_equal(loaded.explain_anomaly(users)[0][:, 0], model.explain_anomaly(users)[0][:, 0])


def test_a_fit_on_everything_keeps_what_is_usual(vae: Autoencoder) -> None:
    assert vae.refit(draw_users(320, seed=0), show_progress=False).calibration_ is vae.calibration_


def test_without_validation_users_others_must_be_given() -> None:
    model = MultVAE(hidden=16, epochs=2, **COMMON).fit(draw_users(100, seed=0), show_progress=False)
    users = draw_users(30, seed=1)
    with pytest.raises(UnsupportedError, match="call calibrate_anomalies"):
        model.anomaly_score(users)
    with pytest.raises(ParameterError, match="user_items has 19 users with two interactions or more; expected at lea"):
        model.calibrate_anomalies(users[:19])
    model.calibrate_anomalies(users)
    assert np.isfinite(model.anomaly_score(users)).all()


def test_other_likelihoods_are_refused() -> None:
    model = MultVAE(hidden=16, epochs=2, likelihood="logistic", **COMMON)
    fit(model)
    for call in (model.anomaly_score, model.explain_anomaly, model.calibrate_anomalies):
        with pytest.raises(UnsupportedError, match="likelihood is logistic; expected multinomial"):
            call(draw_users(30, seed=1))
