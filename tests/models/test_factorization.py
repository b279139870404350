"""ALS: settings that follow the data, and those chosen on validation users."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import recvae
from recvae.data.interactions import Interactions
from recvae.data.splitting import Holdout, strong_generalization
from recvae.datasets import load
from recvae.errors import ArtifactError, ParameterError, TrainingError
from recvae.evaluation.evaluate import evaluate
from recvae.models.factorization import ALS, BPR, LMF, REGULARIZATIONS
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
    monkeypatch.setattr("recvae.models.factorization._Factorization._fit", lambda *_: None)
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
    monkeypatch.setattr("recvae.models.factorization.FACTORS_TO_CHOOSE_BY", 2)
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


def test_arguments_stand_in_the_order_of_implicit() -> None:
    model = ALS(3, 0.2, 4.0)
    assert (model.factors, model.regularization, model.alpha) == (3, 0.2, 4.0)
    for kind in (ALS, BPR, LMF):
        with pytest.raises(TypeError, match=r"positional arguments? but 5 were given"):
            kind(3, 0.2, 4.0, 5)  # type: ignore[call-arg]


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
