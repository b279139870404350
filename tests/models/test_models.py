from typing import Any

import numpy as np
import pytest
from implicit.evaluation import ranking_metrics_at_k
from numpy.testing import assert_array_equal
from scipy import sparse

from recvae.errors import ParameterError, UnsupportedError
from recvae.evaluation.metrics import hit_matrix, ndcg_at_k
from recvae.models.als import ALS
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.factorization import BPR, LMF
from recvae.models.item_knn import BM25KNN, TFIDFKNN, CosineKNN
from recvae.models.linear.ease import EASE
from recvae.models.linear.graph_filter import GraphFilter
from recvae.models.popularity import Popularity
from recvae.models.registry import MODELS
from tests.contracts import SIZE, Factory, RecommenderContract, checkerboard, fit, random_interactions
from tests.contracts import one_thread as one_thread

FACTORIES: dict[str, Factory] = {
    "popularity": Popularity,
    "als": lambda: ALS(factors=8, alpha=2.0, regularization=0.1, iterations=5),
    "bpr": lambda: BPR(factors=8, iterations=60),
    "lmf": lambda: LMF(factors=8),
    "cosine": CosineKNN,
    "tfidf": TFIDFKNN,
    "bm25": BM25KNN,
    "ease": lambda: EASE(l2=5.0),
    "sparse ease": lambda: EASE(l2=5.0, density=0.5),
    "graph": lambda: GraphFilter(factors=2),
    "recvae": lambda: RecVAE(
        hidden=(16, 16), latent=8, encoder_passes=2, decoder_passes=2, epochs=8, batch_size=8, learning_rate=3e-2
    ),
    "blend": lambda: Blend([EASE(l2=5.0), BM25KNN(), MultDAE(latent=16, epochs=10, batch_size=8, learning_rate=1e-2)]),
    "multvae": lambda: MultVAE(
        hidden=16, latent=8, epochs=15, batch_size=8, total_anneal_steps=0, learning_rate=1e-2, metric="ndcg@5"
    ),
    "dense multvae": lambda: MultVAE(
        hidden=(16, 16), latent=8, encoder="dense", gamma=0.003, epochs=15, batch_size=8, learning_rate=1e-2
    ),
    "sampled multvae": lambda: MultVAE(
        hidden=16, latent=8, epochs=15, batch_size=8, total_anneal_steps=0, learning_rate=1e-2, n_negatives=20
    ),
    "bfloat16 multvae": lambda: MultVAE(
        hidden=16, latent=8, epochs=15, batch_size=8, total_anneal_steps=0, learning_rate=1e-2, precision="bfloat16"
    ),
    "multdae": lambda: MultDAE(latent=16, epochs=10, batch_size=8, learning_rate=1e-2, metric="ndcg@5"),
}
SAME_FOR_EVERYBODY = {"popularity"}
CANNOT_COMPARE_ITEMS = {"popularity"}
MADE_OF_MODELS = {"blend"}
FOLDING = [name for name, make in FACTORIES.items() if make().folds_in]
PERSONAL = [name for name in FACTORIES if name not in SAME_FOR_EVERYBODY]
COMPARING = [name for name in FACTORIES if name not in CANNOT_COMPARE_ITEMS]


def factory(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.fixture(scope="module", params=FACTORIES)
def make(request: pytest.FixtureRequest) -> Factory:
    return factory(request)


@pytest.fixture(params=[name for name in FACTORIES if name not in MADE_OF_MODELS])
def make_plain(request: pytest.FixtureRequest) -> Factory:
    return factory(request)


@pytest.fixture(scope="module", params=[name for name in PERSONAL if name in FOLDING])
def make_folding(request: pytest.FixtureRequest) -> Factory:
    return factory(request)


@pytest.fixture(scope="module", params=COMPARING)
def make_comparing(request: pytest.FixtureRequest) -> Factory:
    return factory(request)


@pytest.fixture(scope="module")
def fitted(make: Factory) -> Recommender:
    return fit(make, random_interactions())


@pytest.fixture(scope="module", params=PERSONAL)
def personal(request: pytest.FixtureRequest) -> Recommender:
    return fit(factory(request), checkerboard())


@pytest.fixture(scope="module", params=FOLDING)
def folding(request: pytest.FixtureRequest) -> Recommender:
    return fit(factory(request), random_interactions())


@pytest.fixture(scope="module")
def comparing(make_comparing: Factory) -> Recommender:
    return fit(make_comparing, checkerboard())


class TestContract(RecommenderContract):
    """Every model against every test of the contract."""


def test_every_model_keeps_the_contract() -> None:
    assert {type(make()) for make in FACTORIES.values()} == set(MODELS.values())


@pytest.mark.parametrize("name", sorted(set(FACTORIES) - set(FOLDING)))
def test_a_model_that_cannot_fold_in_says_so(name: str) -> None:
    model = fit(FACTORIES[name], random_interactions())
    with pytest.raises(UnsupportedError, match="cannot fold in new users"):
        model.score(random_interactions(seed=1))


@pytest.mark.parametrize("name", sorted(CANNOT_COMPARE_ITEMS))
def test_a_model_that_cannot_compare_items_says_so(name: str) -> None:
    with pytest.raises(UnsupportedError, match="has no item vectors"):
        fit(FACTORIES[name], random_interactions()).similar_items(0)


def test_popularity_ranks_by_interactions() -> None:
    interactions = random_interactions()
    ids, _ = Popularity().fit(interactions, show_progress=False).recommend(0, interactions[[0]], N=25)
    counts, own = interactions.sum(axis=0).A1, set(interactions[[0]].indices)
    order = [item for item in sorted(range(25), key=lambda item: (-counts[item], item)) if item not in own]
    assert_array_equal(ids[: len(order)], order)


def test_calls_written_for_implicit_work() -> None:
    user_items = checkerboard()
    model = FACTORIES["multvae"]()
    model.fit(user_items, show_progress=False)
    ids, scores = model.recommend(4, user_items[4], N=3)
    assert ids[0] == 4
    assert scores.shape == (3,)
    userids = np.arange(10)
    ids, scores = model.recommend(userids, user_items[userids])
    assert ids.shape == scores.shape == (10, 10)
    assert_array_equal(ids[:, 0], userids)
    ids, scores = model.similar_items(6)
    assert ids[0] == 6
    assert set(ids % 2) == {0}
    ids, _ = model.recommend(4, user_items[4], N=2, filter_already_liked_items=True, items=[3, 4, 5])
    assert ids[0] == 4


def test_implicits_own_evaluation_runs_and_agrees() -> None:
    rng = np.random.default_rng(3)
    interactions = random_interactions(60, 40, seed=2).tocoo()
    held = rng.random(interactions.nnz) < 0.3
    train, test = (
        sparse.csr_matrix(
            (interactions.data[part], (interactions.row[part], interactions.col[part])), shape=interactions.shape
        )
        for part in (~held, held)
    )
    assert (np.diff(test.indptr) == 0).any()
    model = fit(FACTORIES["multvae"], train)
    theirs = ranking_metrics_at_k(model, train, test, K=10, show_progress=False)["ndcg"]
    ids, _ = model.recommend(np.arange(60), train, N=10)
    ours = np.nanmean(ndcg_at_k(hit_matrix(ids, test), np.diff(test.indptr), 10))
    assert 0 < ours < 1
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("model", [MultVAE, MultDAE])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", "600"),
        ("hidden", (0,)),
        ("hidden", (5.0,)),
        ("latent", 0),
        ("latent", True),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("patience", -1),
        ("metric", "ndcg"),
        ("metric", "gini@5"),
        ("metric", None),
        ("seed", -1),
    ],
)
def test_hyperparameters_that_cannot_be(model: type[Recommender], name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"^{name} is {value!r}; expected".replace("(", r"\(").replace(")", r"\)")):
        model(**{name: value})


def test_a_single_hidden_layer_may_be_a_number() -> None:
    assert MultVAE(hidden=64).hidden == MultVAE(hidden=[64]).hidden == (64,)
    numpys: Any
    for numpys in (np.int64(64), (np.int64(64),)):
        assert [type(size) for size in MultVAE(hidden=numpys).hidden] == [int]


@pytest.mark.parametrize("hidden", [(), (12,), (12, 10)])
@pytest.mark.parametrize("name", ["multvae", "multdae"])
def test_autoencoders_of_any_depth_learn(name: str, hidden: tuple[int, ...]) -> None:
    parameters = FACTORIES[name]().get_params()
    model = type(FACTORIES[name]())(**parameters | {"hidden": hidden, "epochs": 30})
    model.fit(checkerboard(), show_progress=False)
    ids, _ = model.recommend(np.arange(SIZE), checkerboard(), N=1)
    assert_array_equal(ids[:, 0], np.arange(SIZE))
