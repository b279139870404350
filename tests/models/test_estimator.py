"""Hyperparameters of a fitted model that are changed: nothing happens to it before the next fit, which takes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from recvae.errors import ParameterError
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.linear.ease import EASE
from recvae.models.registry import load
from tests.contracts import random_interactions


def ease(l2: float) -> EASE:
    return EASE(l2, dropout=0.0, user_exponent=0.0)


def small(latent: int) -> MultVAE:
    return MultVAE(hidden=16, latent=latent, epochs=1, batch_size=20)


def blend(l2: float) -> Blend:
    return Blend([ease(l2), Blend([ease(2 * l2), "popularity"], weights=[1, 1])], weights=[1, 1])


@pytest.mark.parametrize(
    ("make", "old", "new", "name"),
    [
        (ease, 10.0, 1000.0, "l2"),
        (lambda density: EASE(10.0, density=density, dropout=0.0, user_exponent=0.0), None, 0.5, "density"),
        (small, 8, 4, "latent"),
        (blend, 10.0, 1000.0, "models__0__l2"),
    ],
)
def test_changes_wait_for_the_next_fit(
    tmp_path: Path, make: Callable[[Any], Recommender], old: Any, new: Any, name: str
) -> None:
    data = random_interactions()
    model = make(old).fit(data, show_progress=False)
    before, used, description = model.score(data), model.fitted_params(), model.describe()
    assert model.set_params(**{name: new}) is model
    assert model.get_params()[name] == new
    assert not model.fitted_on(data)
    assert_array_equal(model.score(data), before)
    assert model.fitted_params() == used
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model").model
    assert loaded.describe() == description
    assert_array_equal(loaded.score(data), before)
    model.fit(data, show_progress=False)
    assert model.fitted_on(data)
    expected = make(old).set_params(**{name: new}).fit(data, show_progress=False)
    assert_array_equal(model.score(data), expected.score(data))
    assert model.describe() == expected.describe() != description


def test_a_part_that_was_changed_is_fitted_again() -> None:
    data, part = random_interactions(), ease(10.0)
    model = Blend([part], weights=[1]).fit(data, show_progress=False)
    part.set_params(l2=1000.0)
    assert not model.fitted_on(data)
    model.fit(data, show_progress=False)
    assert_array_equal(part.weights_, ease(1000.0).fit(data, show_progress=False).weights_)
    assert model.fitted_on(data)


@pytest.mark.parametrize("fitted", [False, True])
def test_new_models_and_their_hyperparameters_are_set_together(fitted: bool) -> None:
    model = Blend("ease,popularity", weights=[1, 1])
    if fitted:
        model.fit(random_interactions(), show_progress=False)
    model.set_params(models__0__l2=3.0, models="ease,bm25")
    params = model.get_params()
    assert [type(part).__name__ for part in params["models"]] == ["EASE", "BM25KNN"]
    assert params["models__0__l2"] == 3.0
    with pytest.raises(ParameterError, match="Blend has no hyperparameter 'models__1__l2'"):
        model.set_params(models__0__l2=4.0, models__1__l2=3.0)
    assert model.get_params()["models__0__l2"] == 3.0
