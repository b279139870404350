"""ALS: settings that follow the data, and those chosen on validation users."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import recvae
from recvae.data.interactions import Interactions
from recvae.data.splitting import Holdout, strong_generalization
from recvae.datasets import load
from recvae.errors import ArtifactError, ParameterError, TrainingError
from recvae.evaluation.evaluate import evaluate
from recvae.models.als import ALS, REGULARIZATIONS, fold_in, whiten
from tests.contracts import random_interactions
from tests.test_tuning import split


@pytest.mark.parametrize(
    ("shape", "n_interactions", "factors", "alpha", "regularization"),
    [((4838, 3600), 673_678, 256, 5.0, 60.0), ((29_858, 40_981), 779_208, 512, 20.0, 19.0)],
    ids=["movielens-1m", "gowalla"],
)
def test_defaults_follow_size_and_density(
    shape: tuple[int, int],
    n_interactions: int,
    factors: int,
    alpha: float,
    regularization: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recvae.models.als.ALS._train", lambda *_: None)
    interactions = sparse.csr_matrix(
        (
            np.ones(n_interactions),
            np.arange(n_interactions) % shape[1],
            np.linspace(0, n_interactions, shape[0] + 1).astype(int),
        ),
        shape=shape,
    )
    model = ALS().fit(interactions, show_progress=False)
    assert model.fitted_params()["factors"] == factors
    assert model.fitted_params()["alpha"] == pytest.approx(alpha, rel=0.02)
    assert model.fitted_params()["regularization"] == pytest.approx(regularization, rel=0.02)


def test_what_is_given_stays() -> None:
    data = split()
    assert isinstance(data.validation, Holdout)
    model = ALS(factors=3, alpha=2.0, regularization=0.0).fit(
        data.train, show_progress=False, validation=data.validation
    )
    assert model.fitted_params() == model.get_params()
    assert model.item_factors_.shape == (60, 3)


def test_regularization_is_chosen_on_validation_users() -> None:
    data = split()
    assert isinstance(data.validation, Holdout)
    heard: list[int] = []
    model = ALS(factors=5, metric="ndcg@10")
    model.fit(
        data.train, show_progress=False, validation=data.validation, callback=lambda epoch, *_: heard.append(epoch)
    )
    quality = {
        value: evaluate(
            ALS(factors=5, alpha=model.alpha_, regularization=value).fit(data.train, show_progress=False),
            data.validation,
            ["ndcg@10"],
        ).mean("ndcg@10")
        for value in REGULARIZATIONS
    }
    assert quality[model.regularization_] == max(quality.values())
    assert heard == list(range(15))


def test_choosing_takes_few_factors_and_fitting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = split()
    monkeypatch.setattr("recvae.models.als.FACTORS_TO_CHOOSE_BY", 2)
    model = ALS(factors=7).fit(data.train, show_progress=False, validation=data.validation)
    assert model.item_factors_.shape == (60, 7)
    assert model.factors_ == 7


def test_chosen_settings_are_saved(tmp_path: Path) -> None:
    model = ALS().fit(random_interactions(), show_progress=False)
    model.save(tmp_path / "model")
    assert ALS.load(tmp_path / "model").fitted_params() == model.fitted_params()


def test_factors_that_are_not_those_asked_for() -> None:
    state = ALS(factors=3).fit(random_interactions(), show_progress=False)._state()
    model = ALS(factors=4)
    model.item_counts_ = np.ones(25, dtype=np.float32)
    with pytest.raises(ArtifactError, match="item_factors has 3 columns; expected factors=4"):
        model._restore(state)


def test_defaults_suit_small_data(data_dir: Path) -> None:
    interactions, _ = Interactions.from_frame(load("ml-100k", data_dir).ratings).filter(min_rating=4, min_user_items=5)
    data = strong_generalization(interactions, val_users=100, test_users=100)
    assert data.validation is not None
    model = ALS().fit(data.train, show_progress=False, validation=data.validation)
    assert evaluate(model, data.validation).mean("ndcg@100") > 0.52


def test_als_warns_of_nothing_in_a_new_process() -> None:
    program = "import recvae, scipy.sparse as s; recvae.ALS(2, 1, 1).fit(s.eye_array(5, format='csr', dtype='float32'))"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize("name", ["alpha", "regularization"])
def test_settings_beyond_what_float32_holds(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} is 1e\+300; expected a number .* and at most 1e\+06"):
        recvae.create("als", None, **{name: 1e300})


def test_weights_beyond_what_float32_holds() -> None:
    interactions = random_interactions() * np.float32(1e38)
    with pytest.raises(
        TrainingError, match=r"^ALS\(factors=4, .* failed: NaN encountered in factors; expected smaller settings"
    ):
        ALS(factors=4, alpha=1e6).fit(interactions, show_progress=False)


def solve_by_implicit(
    item_factors: npt.NDArray[np.float32], histories: sparse.csr_matrix, alpha: float, regularization: float
) -> npt.NDArray[np.float32]:
    model = AlternatingLeastSquares(item_factors.shape[1], alpha=alpha, regularization=regularization)
    model.item_factors = item_factors
    users: npt.NDArray[np.float32] = model.recalculate_user(np.arange(histories.shape[0]), histories)
    return users


@pytest.mark.parametrize("alpha", [0.3, 1.0, 40.0])
@pytest.mark.parametrize("density", [0.02, 0.3], ids=["fewer items than factors", "more items than factors"])
@pytest.mark.filterwarnings("ignore:OpenBLAS is configured:RuntimeWarning")
def test_users_are_folded_in_as_by_implicit(alpha: float, density: float) -> None:
    rng = np.random.default_rng(0)
    item_factors = rng.standard_normal((200, 16)).astype(np.float32)
    weights = rng.uniform(0.01, 2, (30, 200)) * (rng.random((30, 200)) < density)
    histories = sparse.csr_matrix(weights.astype(np.float32))
    whitened = whiten(item_factors, 2.0)
    expected = solve_by_implicit(item_factors, histories, alpha, 2.0) @ item_factors.T
    assert_allclose(fold_in(whitened, histories, alpha) @ whitened.T, expected, rtol=1e-3, atol=1e-4)


def test_factors_without_length_score_nothing() -> None:
    """A factorization of rank 2 with no regularization leaves systems that have many solutions."""
    rng = np.random.default_rng(0)
    item_factors = (rng.standard_normal((50, 2)) @ rng.standard_normal((2, 6))).astype(np.float32)
    histories = random_interactions(50)
    same = whiten(np.ascontiguousarray(np.linalg.qr(item_factors)[0][:, :2]), 0.0)
    whitened = whiten(item_factors, 0.0)
    assert_allclose(fold_in(whitened, histories, 3.0) @ whitened.T, fold_in(same, histories, 3.0) @ same.T, atol=1e-4)
    assert_array_equal(whiten(np.zeros((5, 3), dtype=np.float32), 0.0), np.zeros((5, 3)))


def test_histories_with_weights_beyond_reason_have_finite_scores() -> None:
    model = ALS(factors=4, regularization=1.0).fit(random_interactions(), show_progress=False)
    for histories in (random_interactions(), random_interactions()[:, ::-1]):
        assert np.isfinite(model.score(sparse.csr_matrix(histories * np.float32(1e36)))).all()


def test_a_user_without_history_has_no_factors() -> None:
    assert_array_equal(
        fold_in(np.ones((5, 3), dtype=np.float32), sparse.csr_matrix(np.zeros((2, 5), dtype=np.float32)), 2.0), 0
    )
