"""ALS: settings that follow the data, and those chosen on validation users."""

import subprocess
import sys
from pathlib import Path
from typing import Any

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
from recvae.models.als import ALS, COARSE, grow, search_line
from recvae.models.fit_context import FitContext
from recvae.models.fold_in import fold_in, whiten
from recvae.models.validation import validate
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
    monkeypatch.setattr("recvae.models.als.find_validation", lambda *_: None)
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


def test_settings_are_chosen_on_validation_users() -> None:
    data = split()
    validation = data.validation
    assert isinstance(validation, Holdout)
    heard: list[int] = []
    model = ALS(factors=5, metric="ndcg@10")
    model.fit(
        data.train, show_progress=False, validation=data.validation, callback=lambda epoch, *_: heard.append(epoch)
    )
    found = model.fitted_params()
    rules = ALS(factors=5).fit(data.train[:40], show_progress=False).fitted_params()

    def measure(**changed: float) -> float:
        other = ALS(**{**found, **changed}).fit(data.train, show_progress=False)
        return validate(other, (validation.fold_in, validation.held_out), "ndcg@10")

    assert measure() >= measure(alpha=rules["alpha"], regularization=rules["regularization"])
    assert measure() >= measure(regularization=found["regularization"] * 3**0.5)
    assert measure() >= measure(regularization=found["regularization"] / 3**0.5)
    assert heard == list(range(15))


@pytest.mark.parametrize("factors", [5, None])
def test_what_was_trained_to_choose_is_not_trained_again(monkeypatch: pytest.MonkeyPatch, factors: int | None) -> None:
    data = split()
    trained: list[dict[str, Any]] = []
    train = ALS._train

    def watch(model: ALS, user_items: sparse.csr_matrix, context: FitContext) -> None:
        trained.append(model.fitted_params())
        train(model, user_items, context)

    monkeypatch.setattr(ALS, "_train", watch)
    model = ALS(factors, seed=3).fit(data.train, show_progress=False, validation=data.validation)
    assert trained.count(model.fitted_params()) == 1
    again = ALS(**model.fitted_params()).fit(data.train, show_progress=False)
    assert_array_equal(again.user_factors_, model.user_factors_)
    assert_array_equal(again.item_factors_, model.item_factors_)
    assert_array_equal(again.whitened_factors_, model.whitened_factors_)
    trained.clear()
    model = ALS(factors, iterations=20).fit(data.train, show_progress=False, validation=data.validation)
    assert trained[-1] == model.fitted_params()  # models that choose have fewer iterations
    assert model.fitted_params() not in trained[:-1]


def test_the_trainings_of_a_fit_are_planned() -> None:
    train = split().train
    assert min(train.shape) == 60
    assert ALS(regularization=2, alpha=3, factors=7, iterations=40).plan(train) == [(7, 40, 1)]
    assert ALS(alpha=3, factors=7, iterations=10).plan(train) == [(7, 8, 4), (7, 10, 4)]
    assert ALS(regularization=3, factors=300).plan(train) == [(128, 15, 4), (300, 15, 1)]
    assert ALS(factors=300).plan(train) == [(64, 8, 4), (128, 15, 4), (300, 15, 4)]
    assert ALS().plan(train) == [(64, 8, 4), (65, 15, 4), (65, 15, 6)]  # 16.7 times the cube root of 60


def test_a_setting_that_is_given_is_not_searched() -> None:
    data = split()
    model = ALS(factors=5, alpha=2.0).fit(data.train, show_progress=False, validation=data.validation)
    assert model.alpha_ == 2
    model = ALS(factors=5, regularization=3.0).fit(data.train, show_progress=False, validation=data.validation)
    assert model.regularization_ == 3


def test_choosing_takes_few_factors_and_fitting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = split()
    sizes: list[int] = []
    train = ALS._train

    def watch(model: ALS, user_items: sparse.csr_matrix, context: FitContext) -> None:
        sizes.append(model.factors_)
        train(model, user_items, context)

    monkeypatch.setattr(ALS, "_train", watch)
    monkeypatch.setattr("recvae.models.als.ROUGH", (2, 3))
    monkeypatch.setattr("recvae.models.als.EXACT", (4, 5))
    model = ALS(factors=7).fit(data.train, show_progress=False, validation=data.validation)
    assert model.item_factors_.shape == (60, 7)
    assert sizes == sorted(sizes)
    assert set(sizes) == {2, 4, 7}


@pytest.mark.parametrize(
    ("figures", "found", "asked"),
    [
        ({64: 0.5, 200: 0.502}, 200, 1),  # the rule's number gains too little to try more
        ({64: 0.5, 200: 0.52, 300: 0.523}, 200, 2),
        ({64: 0.5, 200: 0.52, 300: 0.53, 450: 0.532}, 300, 3),
        ({64: 0.5, 200: 0.52, 300: 0.53, 450: 0.54, 512: 0.56}, 512, 4),
        ({64: np.nan, 200: np.nan}, 200, 1),
    ],
)
def test_factors_grow_while_each_step_gains(figures: dict[int, float], found: int, asked: int) -> None:
    fewer, *others = figures.values()
    seen: list[int] = []

    def quality(factors: int) -> float:
        seen.append(factors)
        return figures[factors]

    assert grow(quality, 200, fewer) == found
    assert len(seen) == len(others) == asked


def test_factors_that_validation_users_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.als.EXACT", (2, 15))
    monkeypatch.setattr("recvae.models.als.MOST_FACTORS", 8)
    monkeypatch.setattr("recvae.models.als.FACTORS_PER_CUBE_ROOT", 4 / 60 ** (1 / 3))
    monkeypatch.setattr("recvae.models.als.validate", lambda model, *_: model.factors_)
    data = split()
    model = ALS(regularization=3.0, alpha=2.0).fit(data.train, show_progress=False, validation=data.validation)
    assert model.factors_ == model.item_factors_.shape[1] == 8  # 4, 6, 8
    assert model.refit(data.train, show_progress=False).factors_ == 8


def test_without_validation_users_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    train, sizes = split().train, []

    def watch(model: ALS, tried: Any) -> None:
        sizes.append(tried.user_items.shape[0] + tried.users[1].shape[0])

    monkeypatch.setattr(ALS, "_choose", watch)
    ALS(factors=5).fit(train, show_progress=False)
    ALS(factors=5, alpha=2, regularization=3).fit(train, show_progress=False)
    assert sizes == [train.shape[0]]


@pytest.mark.parametrize("best", [1.0, 3.0, 1 / 9, 81.0])
def test_a_line_is_searched_as_far_as_it_gets_better(best: float) -> None:
    asked: list[float] = []

    def quality(value: float) -> float:
        asked.append(value)
        return -abs(float(np.log(value / best)))

    assert search_line(quality, 1.0, COARSE) == pytest.approx(best)
    assert max(asked) <= max(3, 3 * best) * 1.001


def test_a_line_has_an_end() -> None:
    assert search_line(lambda value: value, 1.0, COARSE) < 3.0**8
    assert search_line(lambda value: -value, 1.0, COARSE) > 3.0**-8


@pytest.mark.parametrize(("n_users", "n_items"), [(50, 20), (10, 6), (2, 3)])
def test_factors_do_not_vanish_on_tiny_tables(n_users: int, n_items: int) -> None:
    interactions = sparse.csr_matrix(np.random.default_rng(0).random((n_users, n_items)) < 0.2, dtype=np.float32)
    interactions = interactions + sparse.csr_matrix(np.eye(n_users, n_items, dtype=np.float32))
    model = ALS().fit(interactions, show_progress=False)
    own = model.score(interactions)[interactions.nonzero()]
    assert own.mean() > 0.3


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
