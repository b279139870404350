"""Item-based neighbours: settings that validation users choose, and those of former versions."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.data.splitting import Holdout
from recvae.errors import ArtifactError, TrainingError
from recvae.evaluation.evaluate import evaluate
from recvae.models import item_knn
from recvae.models.item_knn import BM25KNN, TFIDFKNN, CosineKNN
from tests.contracts import random_interactions
from tests.test_tuning import split


@pytest.mark.parametrize("kind", [CosineKNN, TFIDFKNN, BM25KNN])
def test_the_chosen_settings_are_the_best_of_those_tried(
    kind: type[CosineKNN | TFIDFKNN | BM25KNN], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = split()
    assert isinstance(data.validation, Holdout)
    numbers = 2, 5, 60
    monkeypatch.setitem(kind.TRIED, "K", numbers)
    model = kind(metric="ndcg@10").fit(data.train, show_progress=False, validation=data.validation)
    settings = [
        {"K": k, **({"B": b} if kind is BM25KNN else {})} for b in item_knn.LENGTH_NORMALISATIONS for k in numbers
    ]
    quality = [
        evaluate(kind(**one).fit(data.train, show_progress=False), data.validation, ["ndcg@10"]).mean("ndcg@10")  # type: ignore[arg-type]
        for one in settings
    ]
    assert quality[settings.index(model.settings_)] == pytest.approx(max(quality), abs=0.01)
    assert {name: model.fitted_params()[name] for name in model.settings_} == model.settings_


def test_many_neighbours_are_preferred_within_a_standard_error() -> None:
    few, many = np.array([0.5, 0.0, 0.0, 0.1]), np.array([0.1, 0.2, 0.1, 0.1])  # means .15 and .125
    assert item_knn.prefer_many([({"K": 20}, few), ({"K": 500}, many)]) == {"K": 500}
    clear = np.array([0.3, 0.4, 0.3, 0.2])
    assert item_knn.prefer_many([({"K": 20}, clear), ({"K": 500}, many), ({"K": 100}, many)]) == {"K": 20}
    better = [({"K": 500, "B": 0.2}, many), ({"K": 500, "B": 0.5}, many + 0.01), ({"K": 200, "B": 0.8}, many + 0.02)]
    assert item_knn.prefer_many(better[:2]) == {"K": 500, "B": 0.5}
    assert item_knn.prefer_many(better) == {"K": 200, "B": 0.8}  # each user has more, so that the lead is no chance


def test_users_are_held_out_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CosineKNN.TRIED, "K", (1, 60))
    assert CosineKNN().fit(split().train, show_progress=False).settings_ == {"K": 60}
    assert CosineKNN(K=3).fit(split().train, show_progress=False).settings_ == {"K": 3}


def test_too_few_users_have_the_customary_settings() -> None:
    assert CosineKNN().fit(random_interactions(20), show_progress=False).settings_ == {"K": 20}
    assert BM25KNN().fit(random_interactions(20), show_progress=False).settings_ == {"K": 50, "B": 0.5}


def test_what_is_kept_of_more_neighbours_is_a_fit_with_fewer() -> None:
    data = random_interactions(200, 40)
    most = TFIDFKNN(K=30).fit(data, show_progress=False).similarity_
    few = TFIDFKNN(K=5).fit(data, show_progress=False).similarity_
    kept = item_knn._keep(most, item_knn._rank_neighbours(most) < 5)
    assert_allclose(kept.toarray(), few.toarray())


def test_chosen_settings_are_saved(tmp_path: Path) -> None:
    model = BM25KNN().fit(random_interactions(20), show_progress=False)
    model.save(tmp_path / "model")
    assert BM25KNN.load(tmp_path / "model").fitted_params() == model.fitted_params()


def test_settings_of_artifacts() -> None:
    fitted = BM25KNN(K=7, B=0.3).fit(random_interactions(20), show_progress=False)
    state = fitted._state()
    model = BM25KNN(K=7, B=0.3)
    model.item_counts_ = fitted.item_counts_
    model._restore({name: array for name, array in state.items() if name != "settings"})
    assert model.fitted_params() == fitted.fitted_params()
    assert_array_equal(model.score(random_interactions(20)), fitted.score(random_interactions(20)))
    with pytest.raises(ArtifactError, match=r"settings is float64 \(1,\); expected float64 \(2,\)"):
        model._restore({**state, "settings": np.ones(1)})


@pytest.mark.parametrize(
    ("kind", "interactions", "weights"),
    [
        (CosineKNN, random_interactions(20) * np.float32(1e-30), "1e-30 to 1e-30"),
        (BM25KNN, random_interactions(20) * np.float32(3e38), "3e[+]38 to 3e[+]38"),
        (TFIDFKNN, sparse.csr_matrix(1 - np.eye(4)), "1 to 1"),  # users of all items but one weigh nothing
    ],
)
def test_similarities_that_are_not_finite(
    kind: type[CosineKNN | TFIDFKNN | BM25KNN], interactions: sparse.csr_matrix, weights: str
) -> None:
    with pytest.raises(TrainingError, match=rf"^{kind.__name__}\(.* from {weights}; expected weights nearer to 1"):
        kind().fit(interactions, show_progress=False)


def test_items_are_compared_by_cosines_whatever_the_weighting() -> None:
    data = random_interactions(40)
    model = BM25KNN(K=data.shape[1], B=0.5).fit(data, show_progress=False)
    products = model.similarity_.toarray()
    lengths = np.sqrt(products.diagonal())
    assert (lengths > 2).all()
    cosines = model.compare_items(np.arange(len(lengths)))
    assert_allclose(cosines, products / lengths / lengths[:, None], rtol=1e-6)
    assert cosines.max() == 1


def test_an_item_comes_first_in_its_list_where_more_than_k_are_equal() -> None:
    model = CosineKNN(K=2).fit(sparse.csr_matrix([[1, 1, 1, 1, 0], [0, 0, 0, 0, 1]]), show_progress=False)
    ids, scores = model.similar_items(np.arange(5), N=2)
    assert_array_equal(ids[:, 0], np.arange(5))
    assert_array_equal(scores[:, 0], np.ones(5))
    assert_allclose(scores[:4, 1], 1)
