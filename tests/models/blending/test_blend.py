"""Blend: its parts and their weights, what it saves, and fits on other data."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.data.splitting import Holdout
from recvae.errors import ParameterError, UnsupportedError
from recvae.models.base import Recommender, State
from recvae.models.blending import blend as blend_module
from recvae.models.blending.blend import DEFAULT_MODELS, Blend
from recvae.models.fit_context import FitContext
from recvae.models.item_knn import CosineKNN
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from recvae.models.registry import load
from recvae.types import FloatArray
from tests.contracts import checkerboard, random_interactions
from tests.test_tuning import split


class Noise(Recommender):
    """Scores that know nothing of the user."""

    fits = 0

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        self.fits += 1

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        return np.random.default_rng(0).standard_normal(user_items.shape, dtype=np.float32)

    def _state(self) -> State:
        return {}

    def _restore(self, state: State) -> None:
        del state


def holdout() -> tuple[sparse.csr_matrix, Holdout]:
    data = split()
    assert isinstance(data.validation, Holdout)
    return data.train, data.validation


def test_what_does_not_help_is_left_out() -> None:
    train, validation = holdout()
    model = Blend([EASE(l2=30), Noise()], metric="ndcg@10")
    model.fit(train, show_progress=False, validation=validation)
    assert_array_equal(model.weights_, [1, 0])
    assert model.cross_fitted_ is not None
    assert 0.1 < model.cross_fitted_ < 1


def test_what_is_left_out_is_not_saved(tmp_path: Path) -> None:
    train, validation = holdout()
    model = Blend([EASE(l2=30), CosineKNN()], weights=[2, 0]).fit(train, show_progress=False, validation=validation)
    assert {name.split(".")[0] for name in model._state()} == {"weights", "0"}
    model.save(tmp_path / "model")
    for frozen in (False, True):
        loaded = load(tmp_path / "model", frozen=frozen).model
        assert_array_equal(loaded.score(train), model.score(train))
    loaded = load(tmp_path / "model").model
    loaded.save(tmp_path / "again")
    assert_array_equal(Blend.load(tmp_path / "again").score(train), model.score(train))


def test_a_model_without_weight_is_not_fitted() -> None:
    noise = Noise()
    model = Blend([EASE(), noise], weights=[1, 0]).fit(random_interactions(), show_progress=False)
    assert noise.fits == 0
    assert_allclose(model.score(random_interactions()).mean(axis=1), 0, atol=1e-5)


def test_without_validation_users_are_held_out() -> None:
    train, _ = holdout()
    noise, fitted = Noise(), EASE(l2=30).fit(train, show_progress=False)
    before = fitted.weights_
    model = Blend([fitted, noise], metric="ndcg@10").fit(train, show_progress=False)
    assert model.weights_[0] > 0.85
    assert model.cross_fitted_ is not None
    assert fitted.weights_ is before
    assert noise.fits == (model.weights_[1] > 0)


def test_few_users_have_equal_weights() -> None:
    model = Blend([EASE(), Popularity()]).fit(random_interactions(), show_progress=False)
    assert_array_equal(model.weights_, [0.5, 0.5])
    assert model.cross_fitted_ is None


def test_refit_keeps_the_weights_and_fits_the_parts() -> None:
    train, validation = holdout()
    model = Blend([EASE(), Noise(), CosineKNN()], weights=[3, 0, 1]).fit(train, show_progress=False)
    more = sparse.vstack([train, validation.fold_in + validation.held_out], format="csr")
    again = model.refit(more, show_progress=False)
    assert [type(part) for part in again.models] == [EASE, CosineKNN]
    assert_allclose(again.weights_, [0.75, 0.25])
    ease = model.models[0].refit(more, show_progress=False)
    assert isinstance(ease, EASE)
    assert isinstance(again.models[0], EASE)
    assert_allclose(again.models[0].weights_, ease.weights_)
    assert model.fitted_on(train)
    assert again.fitted_on(more)


def test_fitted_params_give_the_same_model() -> None:
    train, _ = holdout()
    model = Blend(["ease", Blend([CosineKNN(K=5), "popularity"], weights=[1, 2])], weights=[1, 3])
    model.fit(train, show_progress=False)
    again = Blend(**model.fitted_params()).fit(train, show_progress=False)
    assert_allclose(again.score(train), model.score(train), rtol=1e-4, atol=1e-5)


def test_fitted_params_of_models_that_were_left_out(tmp_path: Path) -> None:
    model = Blend(["ease", "als", "multvae"], weights=[1, 0, 0]).fit(random_interactions(), show_progress=False)
    model.save(tmp_path / "model")
    loaded = Blend.load(tmp_path / "model")
    assert loaded.fitted_params() == model.fitted_params()
    assert_array_equal(loaded.refit(random_interactions(), show_progress=False).weights_, [1])


def test_similar_items_of_the_heaviest_part_that_has_any() -> None:
    data = checkerboard()
    model = Blend([Popularity(), CosineKNN(), EASE()], weights=[3, 1, 2]).fit(data, show_progress=False)
    ease = model.models[2]
    assert_array_equal(model.similar_items(3)[0], ease.similar_items(3)[0])
    with pytest.raises(UnsupportedError, match="Blend has no item vectors"):
        Blend([Popularity()]).fit(data, show_progress=False).similar_items(3)


def test_als_is_a_part_where_implicit_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [type(model).__name__ for model in Blend().models]
    assert names == ["EASE", "GraphFilter", "ALS", "MultDAE", "MultVAE"]
    monkeypatch.setattr(blend_module, "find_spec", lambda _: None)
    assert [type(model).__name__ for model in Blend().models] == [name for name in names if name != "ALS"]
    assert [type(model).__name__ for model in Blend(DEFAULT_MODELS).models] == names


@pytest.mark.parametrize("models", [[{"class": "Nothing"}], [{}], [3], 3, [], ["bpr"]])
def test_what_is_no_model(models: object) -> None:
    with pytest.raises(ParameterError, match=r"^models is .*; expected"):
        Blend(models)  # type: ignore[arg-type]


@pytest.mark.parametrize("hyperparameters", [{"K": 5}, [5], None])
def test_hyperparameters_that_a_part_does_not_have(hyperparameters: object) -> None:
    with pytest.raises(ParameterError, match=r"^models holds .*'EASE'.*; expected hyperparameters by name$"):
        Blend([{"class": "EASE", "hyperparameters": hyperparameters}])


def test_the_search_holds_less_than_the_scores() -> None:
    rng = np.random.default_rng(0)
    interactions, held_out = (sparse.csr_matrix(rng.random((400, 5000)) < 0.01, dtype=np.float32) for _ in range(2))
    models = [Noise(), Popularity(), Noise(), Popularity(), Noise(), Popularity()]
    for model in models:
        model.fit(interactions, show_progress=False)
    blend = Blend(models)
    tracemalloc.start()
    blend.fit(interactions, show_progress=False, validation=(interactions, held_out))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (len(models) + 3) * 4 * 400 * 5000
