"""`Rules`: filters, boosts, caps and diversity give the lists of a plain loop over all items."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.errors import UnsupportedError
from recvae.inference.ranker import Query, Ranker
from recvae.inference.rules.item_column import RuleError
from recvae.inference.rules.selection import Rules, parse_rules
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.factorization import BPR
from recvae.models.item_knn import CosineKNN
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 60, 240
GENRES = [["Drama"], ["Comedy", "Crime"], ["Drama", "Crime"], [], ["Western"]]
ITEMS = pd.DataFrame(
    {
        "item_id": range(1000, 1000 + N_ITEMS),
        "genre": ["|".join(GENRES[i % len(GENRES)]) for i in range(N_ITEMS)],
        "year": [1950 + i // 4 for i in range(N_ITEMS)],
    }
)


def make(model: Recommender, folder: Path) -> Ranker:
    interactions = random_interactions(N_USERS, N_ITEMS)
    users = pd.DataFrame({"user_id": range(N_USERS), "history": [row.indices for row in interactions]})
    registry.save(model.fit(interactions, show_progress=False), folder / "model", items=ITEMS, users=users)
    return Ranker(registry.load(folder / "model", frozen=True))


@pytest.fixture(scope="module", params=[EASE(), MultVAE(hidden=16, latent=8, epochs=2, batch_size=20)], ids=repr)
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    return make(request.param, tmp_path_factory.mktemp("rules"))


def rules(ranker: Ranker, **given: Any) -> Rules:
    found = parse_rules(ranker.metadata, **given)
    assert found is not None
    return found


def ids(ranked: list[tuple[int, float]]) -> list[int]:
    return [item for item, _ in ranked]


def everything(ranker: Ranker, history: list[int]) -> list[int]:
    return ids(ranker.rank([Query(history, N_ITEMS)])[0])


HISTORY = [3, 50, 77, 120]


def test_a_filter_in_a_mixed_batch(ranker: Ranker) -> None:
    late = rules(ranker, filter={"genre": ["Drama"], "year": {"ge": 1990}})
    queries = [
        Query(HISTORY, 7),
        Query(HISTORY, 7, rules=late),
        Query([1], 5, exclude=[162], rules=late),
        Query(HISTORY, 9, only=[2, 160, 162, 165], rules=late),
        Query([], 4, rules=late),
        Query([2], 3),
    ]
    allowed = {i for i in range(N_ITEMS) if "Drama" in GENRES[i % 5] and 1950 + i // 4 >= 1990}
    lists = list(map(ids, ranker.rank(queries)))
    whole = everything(ranker, HISTORY)
    assert lists[0] == whole[:7]
    assert lists[1] == [i for i in whole if i in allowed][:7]
    assert lists[2] == [i for i in everything(ranker, [1]) if i in allowed - {162}][:5]
    assert lists[3] == [i for i in whole if i in allowed & {2, 160, 162, 165}]
    assert lists[4] == [i for i in everything(ranker, []) if i in allowed][:4]
    assert lists[5] == everything(ranker, [2])[:3]
    alone = [ids(ranker.rank([query])[0]) for query in queries]
    assert alone == lists


def test_a_boost_adds_standard_deviations(ranker: Ranker) -> None:
    given = rules(ranker, boost=[{"filter": {"genre": "Western"}, "by": 0.5}, {"filter": {"year": 1950}, "by": -2}])
    scores = ranker.model.score(ranker.user_items([HISTORY]))[0]
    western, early = np.arange(N_ITEMS) % 5 == 4, np.arange(N_ITEMS) < 4
    expected = scores + scores.std() * (0.5 * western - 2.0 * early)
    expected[HISTORY] = -np.inf
    ranked = ranker.rank([Query(HISTORY, 12, rules=given)])[0]
    assert ids(ranked) == np.argsort(-expected, kind="stable")[:12].tolist()
    assert [score for _, score in ranked] == pytest.approx(expected[ids(ranked)], abs=1e-4)


@pytest.mark.parametrize("n", [10, 50, N_ITEMS])
def test_caps_are_greedy_and_exact(ranker: Ranker, n: int) -> None:
    given = rules(ranker, cap={"genre": 3, "year": 2})
    expected: list[int] = []
    for item in everything(ranker, HISTORY):
        listed = [name for other in expected for name in GENRES[other % 5]]
        years = [other // 4 for other in expected]
        if all(listed.count(name) < 3 for name in GENRES[item % 5]) and years.count(item // 4) < 2:
            expected.append(item)
    assert ids(ranker.rank([Query(HISTORY, n, rules=given)])[0]) == expected[:n]


def test_a_cap_that_most_of_the_best_items_break(ranker: Ranker) -> None:
    """The pool grows until the list is full."""
    boosted = [{"filter": {"genre": "Drama"}, "by": 1000}]
    ranked = ranker.rank([Query([], 30, rules=rules(ranker, boost=boosted, cap={"genre": 1}))])[0]
    assert len(ranked) == 30
    assert sum("Drama" in GENRES[i % 5] for i in ids(ranked)) == 1


def marginal_relevance(ranker: Ranker, history: list[int], n: int, diversity: float) -> list[int]:
    pool = ranker.rank([Query(history, max(100, 5 * n))])[0]
    scores = np.array([score for _, score in pool])
    relevance = (scores - scores.min()) / np.ptp(scores)
    vectors = np.asarray(ranker.model._item_vectors())
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen: list[int] = []
    while len(chosen) < n:
        best, place = -np.inf, -1
        for i, (item, _) in enumerate(pool):
            if i not in chosen:
                nearest = max((float(units[item] @ units[pool[j][0]]) for j in chosen), default=0.0)
                if (value := (1 - diversity) * relevance[i] - diversity * nearest) > best + 1e-9:
                    best, place = value, i
        chosen.append(place)
    return [pool[i][0] for i in chosen]


@pytest.mark.parametrize("diversity", [0.2, 0.7, 1])
def test_diversity_is_maximal_marginal_relevance(ranker: Ranker, diversity: float) -> None:
    ranked = ranker.rank([Query(HISTORY, 10, rules=rules(ranker, diversity=diversity))])[0]
    assert ids(ranked) == marginal_relevance(ranker, HISTORY, 10, diversity)
    scores = dict(ranker.rank([Query(HISTORY, N_ITEMS)])[0])
    assert [score for _, score in ranked] == pytest.approx([scores[item] for item in ids(ranked)], abs=1e-5)


def test_diverse_lists_keep_the_caps(ranker: Ranker) -> None:
    given = rules(ranker, diversity=0.5, cap={"genre": 2}, filter={"year": {"ge": 1960}})
    listed = ids(ranker.rank([Query(HISTORY, 8, rules=given)])[0])
    assert len(listed) == 8
    assert all(i >= 40 for i in listed)
    genres = [name for i in listed for name in GENRES[i % 5]]
    assert max(map(genres.count, genres)) == 2


def test_the_more_diversity_the_less_alike(ranker: Ranker) -> None:
    def alike(diversity: float) -> float:
        given = parse_rules(ranker.metadata, diversity=diversity)
        cosines = ranker.model.compare_items(ids(ranker.rank([Query(HISTORY, 10, rules=given)])[0]))
        return float(cosines[np.triu_indices(10, 1)].mean())

    assert alike(0) >= alike(0.5) >= alike(1)
    assert alike(0) > alike(1)


def test_rules_for_a_model_of_known_users(tmp_path: Path) -> None:
    ranker = make(BPR(factors=4, iterations=5), tmp_path)
    row, history = ranker.find_user(7) or (0, [])
    whole = ids(ranker.rank([Query(history, N_ITEMS, user=row)])[0])
    given = rules(ranker, filter={"genre": "Crime"}, cap={"year": 1})
    expected: list[int] = []
    for item in whole:
        if "Crime" in GENRES[item % 5] and item // 4 not in [other // 4 for other in expected]:
            expected.append(item)
    assert ids(ranker.rank([Query(history, 6, user=row, rules=given)])[0]) == expected[:6]


def test_diversity_by_similarity_of_neighbours(tmp_path: Path) -> None:
    ranker = make(CosineKNN(), tmp_path)
    assert len(ranker.rank([Query(HISTORY, 10, rules=rules(ranker, diversity=0.5))])[0]) == 10


def test_diversity_needs_vectors(tmp_path: Path) -> None:
    ranker = make(Popularity(), tmp_path)
    with pytest.raises(UnsupportedError, match="Popularity has no item vectors"):
        ranker.rank([Query([], 10, rules=rules(ranker, diversity=0.5))])
    assert len(ranker.rank([Query([], 10, rules=rules(ranker, cap={"genre": 2}))])[0]) == 10


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"diversity": 1.5}, "diversity", "is 1.5; expected a number from 0 to 1"),
        ({"diversity": True}, "diversity", "expected a number"),
        ({"diversity": float("nan")}, "diversity", "expected a number"),
        ({"cap": {"genre": 0}}, "cap.genre", "is 0; expected a whole number of at least 1"),
        ({"cap": {"genre": 1.5}}, "cap.genre", "is 1.5"),
        ({"cap": {"genres": 2}}, "cap.genres", "expected one of genre, item_id, year"),
        ({"cap": 3}, "cap", "is 3; expected an object"),
        ({"boost": {"genre": 2}}, "boost", "is no list"),
        ({"boost": [{}] * 9}, "boost", "at most 8"),
        ({"boost": [{"filter": {"genre": "Drama"}}]}, "boost[0]", "is no object with filter and by"),
        ({"boost": [{"filter": {"genre": 1}, "by": 1}]}, "boost[0].filter.genre", "is 1; expected text"),
        ({"boost": [{"filter": {}, "by": float("inf")}]}, "boost[0].by", "expected a number from -1000 to 1000"),
        ({"filter": {"genre": {"none": 1}}}, "filter.genre", "has 'none'"),
    ],
    ids=str,
)
def test_wrong_rules(ranker: Ranker, given: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rules(ranker.metadata, **given)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_no_rules(ranker: Ranker) -> None:
    assert parse_rules(ranker.metadata, filter=None, boost=[], cap={}, diversity=0.0) is None
