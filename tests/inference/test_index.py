"""The approximate index: what it lists against exact lists, and when it gives way to them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recvae.errors import MissingDependencyError
from recvae.inference.index import ItemIndex
from recvae.inference.ranker import Query, Ranker
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.serving import Settings
from tests.contracts import one_thread as one_thread
from tests.http_service import asked, item_id, save
from tests.models.autoencoders.test_variational import tastes

N_ITEMS = 60


@pytest.fixture(scope="module")
def model() -> MultVAE:
    return MultVAE(hidden=16, latent=8, epochs=6, batch_size=50).fit(tastes(), show_progress=False)


@pytest.fixture(scope="module")
def path(model: MultVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "model"
    registry.save(model, path)
    return path


def queries(model: MultVAE, **options: Any) -> list[Query]:
    return [Query(row.indices.tolist(), **options) for row in tastes()[:40]]


def test_its_recall_is_what_it_says(model: MultVAE) -> None:
    histories = tastes()[:50]
    index = ItemIndex.build(model, histories)
    exact, _ = model.recommend(np.arange(50), histories)
    index_lists = index.search(histories, [set(row.indices) for row in histories], [10] * 50)
    hits = [len(np.intersect1d(a, found[0])) for a, found in zip(exact, index_lists, strict=True) if found]
    assert index.recall == pytest.approx(sum(hits) / 500)
    assert index.recall >= 0.99
    assert 1 <= index.probes <= index.clusters
    assert index.describe() == {"clusters": index.clusters, "probes": index.probes, "recall@10": index.recall}


def test_lists_through_it_are_the_exact_ones(path: Path, model: MultVAE) -> None:
    exact, indexed = Ranker(registry.load(path)), Ranker(registry.load(path), exact_items=10)
    assert exact.index is None
    assert indexed.index is not None
    some = [*queries(model, n=5), *queries(model, n=3, exclude=[1, 2, 3]), *queries(model, only=[4, 5, 6]), Query(())]
    for by_all, by_index in zip(exact.rank(some), indexed.rank(some), strict=True):
        assert [i for i, _ in by_all] == [i for i, _ in by_index]
        assert [s for _, s in by_all] == pytest.approx([s for _, s in by_index], abs=1e-5)


def test_what_may_not_be_listed_never_is(path: Path, model: MultVAE) -> None:
    ranker = Ranker(registry.load(path), exact_items=10)
    history = tastes()[0].indices.tolist()
    left = [i for i in range(N_ITEMS) if i not in history][:4]
    exclude = [i for i in range(N_ITEMS) if i not in left]
    (ranked,) = ranker.rank([Query(history, n=10, exclude=exclude)])
    assert {i for i, _ in ranked} == set(left)


def test_it_gives_way_where_it_finds_too_few(model: MultVAE) -> None:
    index = ItemIndex.build(model, tastes()[:50])
    index._file.nprobe = 1
    histories = sparse.csr_matrix(tastes()[:1])
    assert index.search(histories, [set()], [N_ITEMS]) == [None]


def test_who_has_played_everything_gets_an_empty_list(path: Path) -> None:
    ranker = Ranker(registry.load(path), exact_items=10)
    assert ranker.rank([Query(range(N_ITEMS))]) == [[]]


def test_made_up_users_leave_items_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "model", users=None)  # with fewer items than a made-up history has at most
    given: list[sparse.csr_matrix] = []
    monkeypatch.setattr(ItemIndex, "build", lambda model, histories: given.append(histories))
    Ranker(registry.load(tmp_path / "model"), exact_items=5)
    (histories,) = given
    assert set(np.diff(histories.indptr)) == {13}
    assert histories.shape[1] == 25


def test_small_catalogues_and_other_models_have_none(path: Path, tmp_path: Path) -> None:
    assert Ranker(registry.load(path), exact_items=N_ITEMS).index is None


def test_it_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "model")

    async def question(http: Any) -> tuple[Any, str, Any]:
        about, figures = (await http.get("/model")).json(), (await http.get("/metrics")).text
        return about["index"], figures, (await http.post("/recommend", json={"history": [item_id(1)]})).json()

    index, figures, answer = asked(Settings(tmp_path / "model", exact_items=5), question)
    assert index["recall@10"] >= 0.99
    assert f"recvae_index_recall {index['recall@10']}" in figures
    assert len(answer["items"]) == 10


def test_without_faiss_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match="extra 'ann'"):
        Ranker(registry.load(path), exact_items=10)
