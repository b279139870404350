"""A model whose `fit` fails or is interrupted is what it was before, or is not fitted: never a mixture of two fits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.errors import NotFittedError, ParameterError
from recvae.models import registry
from recvae.models.als import ALS
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.factorization import BPR
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions

FIRST, OTHER = random_interactions(60, 20), random_interactions(30, 12, seed=1)


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def interrupt(model: Recommender) -> None:
    with pytest.raises(KeyboardInterrupt):
        model.fit(OTHER, False, callback=stop)


@pytest.mark.parametrize("model", [ALS(4, iterations=1), BPR(4, iterations=1), EASE(l2=1), Popularity()], ids=repr)
def test_the_earlier_fit_stays(model: Recommender, tmp_path: Path) -> None:
    model = type(model)(**model.get_params())
    interrupt(model)
    with pytest.raises(NotFittedError):
        model.recommend(0, FIRST)
    before = model.fit(FIRST, False).recommend([0, 1], FIRST[:2])
    changed = {} if isinstance(model, Popularity) else {"l2": 5.0} if isinstance(model, EASE) else {"factors": 6}
    model.set_params(**changed)
    interrupt(model)
    model.save(tmp_path / "model")
    for kept in (model, registry.load(tmp_path / "model").model):
        for mine, theirs in zip(kept.recommend([0, 1], FIRST[:2]), before, strict=True):
            assert np.array_equal(mine, theirs)
    assert model.get_params().items() >= changed.items()  # for the next fit


def test_parts_of_a_blend_may_be_fitted_anew() -> None:
    blend = Blend([EASE(l2=1), Popularity()], [0.5, 0.5]).fit(FIRST, False)
    interrupt(blend)
    with pytest.raises(NotFittedError):
        blend.recommend(0, FIRST)


def test_interrupted_training_keeps_nothing_of_the_fit_before(tmp_path: Path) -> None:
    model = MultVAE(hidden=8, latent=4, epochs=3).fit(FIRST, False, validation=(FIRST, FIRST))
    assert model.density_ is not None
    model.set_params(latent=6)
    interrupt(model)
    assert model.calibration_ is model.density_ is None  # type: ignore[comparison-overlap]
    assert model.module_.architecture.latent == 6
    with pytest.warns(UserWarning, match="its training was interrupted"):
        assert model.sample(2).shape == (2, 12)
    model.save(tmp_path / "model")
    loaded = registry.load(tmp_path / "model").model
    assert np.array_equal(loaded.recommend(0, OTHER)[0], model.recommend(0, OTHER)[0])


def test_training_that_never_began_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MultVAE(hidden=8, latent=4, epochs=1).fit(FIRST, False)
    monkeypatch.setattr("recvae.models.autoencoders.network.available_bytes", lambda: 0)
    with pytest.raises(ParameterError, match="GB are free"):
        model.fit(OTHER, False)
    with pytest.raises(NotFittedError):
        model.recommend(0, OTHER)
