"""`Ranker`: every kind of filter gives the lists of `Recommender.recommend`, for a whole batch at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recvae.inference.batch_recommender import BatchRecommender
from recvae.inference.ranker import Query, Ranker
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.linear.ease import EASE
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 40, 25


@pytest.fixture(scope="module", params=[EASE(), MultVAE(hidden=16, latent=8, epochs=2, batch_size=20)], ids=repr)
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    path = tmp_path_factory.mktemp("ranker") / "model"
    registry.save(request.param.fit(random_interactions(N_USERS, N_ITEMS), show_progress=False), path)
    return Ranker(registry.load(path, frozen=True))


def mixed_queries() -> list[Query]:
    generator = np.random.default_rng(0)

    def some(most: int) -> list[int]:
        chosen: list[int] = generator.choice(N_ITEMS, generator.integers(most + 1), replace=False).tolist()
        return chosen

    queries = []
    for _ in range(60):
        kind = generator.integers(4)
        exclude, only = (some(20) if kind in (1, 3) else ()), (some(25) if kind >= 2 else None)
        queries.append(Query(some(15), int(generator.integers(1, 30)), exclude, only))
    return queries


def expected(model: Recommender, ranker: Ranker, query: Query) -> list[int]:
    history = ranker.user_items([query.history])
    hidden = {*query.history, *query.exclude}
    ids, _ = model.recommend(0, history, N=N_ITEMS, recalculate_user=True)
    return [int(i) for i in ids if i >= 0 and i not in hidden and (query.only is None or i in query.only)][: query.n]


def test_filters_of_a_mixed_batch(ranker: Ranker) -> None:
    queries = mixed_queries()
    for query, ranked in zip(queries, ranker.rank(queries), strict=True):
        assert [index for index, _ in ranked] == expected(ranker.model, ranker, query)
        alone = ranker.rank([query])[0]
        assert [score for _, score in ranked] == pytest.approx([score for _, score in alone], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"exclude": [1, 2]}, {"only": [3, 4, 5]}])
def test_a_batch_is_scored_at_once(ranker: Ranker, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    rows: list[int] = []
    score = ranker.model.score_on_device

    def count(user_items: Any) -> Any:
        rows.append(user_items.shape[0])
        return score(user_items)

    monkeypatch.setattr(ranker.model, "score_on_device", count)
    histories: Sequence[list[int]] = [[index, index + 1] for index in range(20)]
    assert len(ranker.rank([Query(history, 5, **options) for history in histories])) == 20
    assert rows == [20]


@pytest.mark.parametrize("weights", [None, [[1.0, 2.0, 0.5, 3.0]]])
def test_repeated_items_of_a_stored_user_count_as_those_of_a_table(
    tmp_path: Path, weights: list[list[float]] | None
) -> None:
    """Plays that were grouped into lists repeat items: by its id a user has the list of its history."""
    model = EASE(l2=1).fit(random_interactions(60, 12), show_progress=False)
    users = pa.table({"user_id": [7], "history": [[5, 2, 5, 3]], **({"weights": weights} if weights else {})})
    registry.save(model, tmp_path / "model", users=users)
    ranker = Ranker(registry.load(tmp_path / "model"))
    row, history = ranker.find_user(7) or (0, [])
    assert history == [2, 3, 5]
    assert ranker.find_weights(row) == (None if weights is None else [2.0, 3.0, 1.5])
    (ranked,) = ranker.rank([Query(history, weights=ranker.find_weights(row), n=5)])
    given = users.set_column(1, "history", [[[5, 2, 5, 3]]])
    assert [item for item, _ in ranked] == BatchRecommender(tmp_path / "model", 5)(given)["items"][0].as_py()
