"""New histories of models whose users have known tastes."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from recvae.errors import ArtifactError, ParameterError, UnsupportedError
from recvae.machine import blas
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.generative.density import Density
from recvae.models.generative.held_out_likelihood import predict_held_out
from recvae.models.generative.sampling import HistorySampler
from tests.contracts import one_thread as one_thread
from tests.models.generative.test_anomaly import COMMON, N_ITEMS, N_TASTES, draw_users

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS: dict[str, HistorySampler] = {
    "multvae": MultVAE(hidden=32, epochs=30, anneal_cap=1.0, total_anneal_steps=0, **COMMON),
    "a small KL weight": MultVAE(hidden=(32, 32), encoder="dense", gamma=1e-4, epochs=20, **COMMON),
    "recvae": RecVAE(hidden=(32, 32), epochs=15, gamma=0.05, **COMMON),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> HistorySampler:
    return MODELS[request.param].fit(draw_users(400, seed=0), show_progress=False)


@pytest.fixture(scope="module")
def vae() -> HistorySampler:
    return MultVAE(hidden=16, epochs=5, **COMMON).fit(draw_users(200, seed=0), show_progress=False)


def count_items(user_items: sparse.csr_matrix) -> npt.NDArray[np.int64]:
    return np.bincount(user_items.indices, minlength=N_ITEMS)


def share_of_own_taste(user_items: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """The share of each history's items that are of its commonest taste."""
    by_taste = user_items.toarray().reshape(-1, N_ITEMS // N_TASTES, N_TASTES).sum(axis=1)
    share: npt.NDArray[np.float64] = by_taste.max(axis=1) / by_taste.sum(axis=1)
    return share


def test_a_density_needs_a_history(vae: HistorySampler) -> None:
    density = vae.density_
    with pytest.raises(ParameterError, match=r"^user_items has 3 rows without interactions; expected some"):
        vae.fit_density(sparse.csr_matrix((3, N_ITEMS)))
    assert vae.density_ is density


def test_samples_are_like_the_training_data(model: HistorySampler) -> None:
    samples, train = model.sample(1000, seed=3), draw_users(400, seed=0)
    assert samples.shape == (1000, N_ITEMS)
    assert samples.has_canonical_format
    assert set(samples.data.tolist()) == {1.0}
    assert np.corrcoef(count_items(samples), count_items(train))[0, 1] > 0.9
    lengths = [np.diff(matrix.indptr) for matrix in (samples, train)]
    assert lengths[0].mean() == pytest.approx(lengths[1].mean(), rel=0.05)
    assert lengths[0].std() == pytest.approx(lengths[1].std(), rel=0.25)
    assert share_of_own_taste(samples).mean() > 0.75


def test_the_standard_normal_is_far_from_the_users_of_a_small_kl_weight() -> None:
    model = MODELS["a small KL weight"].fit(draw_users(400, seed=0), show_progress=False)
    fitted, standard = (share_of_own_taste(model.sample(500, prior=prior)).mean() for prior in ("fitted", "standard"))
    assert fitted > standard + 0.05


def test_samples_follow_the_seed(vae: HistorySampler) -> None:
    once, again, other = (vae.sample(20, seed=seed).toarray() for seed in (1, 1, 2))
    assert_array_equal(once, again)
    assert (once != other).any()


def test_batches_come_to_the_same(vae: HistorySampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.generative.sampling.rows_at_once", lambda _: 7)
    batches = list(vae.sample_batches(20, seed=1))
    assert [batch.shape[0] for batch in batches] == [7, 7, 6]
    assert_array_equal(sparse.vstack(batches).toarray(), vae.sample(20, seed=1).toarray())


def test_made_up_users_are_as_coherent_as_real_ones(tmp_path: Path) -> None:
    vae = MultVAE(hidden=(32, 32), encoder="dense", gamma=0.2, epochs=20, **COMMON)
    users = draw_users(400, seed=1)
    folds = sparse.csr_matrix(users.multiply((np.arange(N_ITEMS) % 5 > 0)[None]))
    vae.fit(draw_users(300, seed=0), show_progress=False, validation=(folds, users - folds))
    assert vae.calibration_ is not None
    assert vae.temperature_ < 0.9
    with_it, without = vae.sample(1000, seed=9), draw_at_one(vae, 1000)
    misfits = []
    for histories in (with_it, without, users):
        likelihood = predict_held_out(vae.score, histories, vae._popularity_prior())
        misfits.append(vae.calibration_.summarize(likelihood, histories.indptr).misfit.mean())
    assert abs(misfits[0] - misfits[2]) < 0.5 * abs(misfits[1] - misfits[2])
    assert vae.refit(users, show_progress=False).temperature_ == vae.temperature_
    vae.save(tmp_path / "model")
    loaded = MultVAE.load(tmp_path / "model")
    assert_array_equal(loaded.sample(10).toarray(), vae.sample(10).toarray())
    vae.temperature_ = 0.0
    vae.save(tmp_path / "broken")
    with pytest.raises(ArtifactError, match=r"temperature is 0\.0; expected a number above 0 and at most 1"):
        MultVAE.load(tmp_path / "broken")


def test_a_density_is_fitted_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would wait for each other: where something else keeps a core busy, that took fifteen times as long."""
    choose, threads = Density.choose, set[int]()

    def watch(*given: Any) -> Density:
        threads.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return choose(*given)

    monkeypatch.setattr(Density, "choose", watch)
    blas._find_blas.cache_clear()  # an earlier test may have looked before the last library was loaded
    with threadpool_limits(2, "blas"):
        MultVAE(hidden=8, epochs=1, **COMMON).fit(draw_users(50, seed=0), show_progress=False)
    assert threads == {1}


def draw_at_one(vae: MultVAE, n: int) -> sparse.csr_matrix:
    chosen, vae.temperature_ = vae.temperature_, 1.0
    try:
        return vae.sample(n, seed=9)
    finally:
        vae.temperature_ = chosen


def test_samples_like_one_history(model: HistorySampler) -> None:
    history = draw_users(6, seed=5)[4]
    samples = model.sample(50, like=history)
    assert (np.diff(samples.indptr) == history.nnz).all()
    assert (samples.indices % N_TASTES == 4 % N_TASTES).mean() > 0.75


def test_a_history_goes_on(model: HistorySampler) -> None:
    history = draw_users(6, seed=5)[4]
    history = sparse.csr_matrix(history.toarray() * (np.arange(N_ITEMS) < 30))
    longer = model.complete(history, 40, seed=1)
    assert (longer[:, history.indices].toarray() == 1).all()
    assert np.diff(longer.indptr).min() > history.nnz
    added = np.setdiff1d(np.arange(N_ITEMS), history.indices)
    assert longer[:, added[added % N_TASTES == 1]].sum() > 0.7 * longer[:, added].sum()
    everything = np.ones((1, N_ITEMS))
    with pytest.raises(ParameterError, match="user_items has all 60 items; expected a history that can go on"):
        model.complete(sparse.csr_matrix(everything))
    everything[0, 0] = 0
    assert model.complete(sparse.csr_matrix(everything)).nnz == N_ITEMS


def test_the_way_from_one_user_to_another(model: HistorySampler) -> None:
    first, second = draw_users(6, seed=5)[3], draw_users(6, seed=5)[4]
    way = model.interpolate(first, second, 7)
    assert np.diff(way.indptr)[[0, -1]].tolist() == [first.nnz, second.nnz]
    tastes = np.array([[way[step, taste::N_TASTES].sum() for taste in (0, 1)] for step in (0, -1)])
    assert (np.diag(tastes) > 0.75 * tastes.sum(axis=1)).all()
    assert_array_equal(way.toarray(), model.interpolate(first, second, 7).toarray())


def test_the_artifact_gives_the_same_samples(model: HistorySampler, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert_array_equal(loaded.sample(10).toarray(), model.sample(10).toarray())


def test_without_a_density_a_line_says_so(vae: HistorySampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "density_", None)
    with pytest.warns(UserWarning, match=r"has no density of its users .*: z is from N\(0, I\)"):
        samples = vae.sample(3)
    assert_array_equal(samples.toarray(), vae.sample(3, prior="standard").toarray())


REFUSALS: dict[str, dict[str, Any]] = {
    "n is 0": {"n": 0},
    "seed is -1": {"n": 1, "seed": -1},
    "prior is 'normal'; expected": {"n": 1, "prior": "normal"},
    "n is 2,000,000,000, whose histories take about": {"n": 2 * 10**9},
    "like has 2 rows with": {"n": 1, "like": draw_users(2, seed=0)},
    "like has 1 rows with 0 interactions; expected one history, not empty": {
        "n": 1,
        "like": sparse.csr_matrix(np.zeros((1, N_ITEMS))),
    },
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refusals(message: str, vae: HistorySampler) -> None:
    with pytest.raises(ParameterError, match=message):
        vae.sample(**REFUSALS[message])
    with pytest.raises(ParameterError, match="n is 1"):
        vae.interpolate(draw_users(1, seed=0), draw_users(1, seed=0), 1)


def test_other_likelihoods_are_refused() -> None:
    model = MultVAE(hidden=16, epochs=1, likelihood="logistic", **COMMON).fit(draw_users(50, seed=0), False)
    with pytest.raises(UnsupportedError, match="likelihood is logistic; expected multinomial"):
        model.sample(1)
