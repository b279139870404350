import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytrec_eval
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse

from recvae.errors import ParameterError
from recvae.evaluation import metrics
from recvae.evaluation.metrics import ACCURACY_METRICS, METRICS, hit_matrix, parse_metric

Lists = list[list[int]]
HeldOut = list[set[int]]
Case = tuple[Lists, HeldOut, int]

thoroughly = settings(max_examples=100, deadline=None, derandomize=True)

# Two users, five items listed: hits at ranks 1 and 3 of three held out; a hit at rank 4 of one held out.
IDS = np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, -1]], dtype=np.int32)
HELD_OUT = [{0, 2, 9}, {2}]
N_HELD_OUT = np.array([3, 1])
HITS = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)


def matrix(rows: HeldOut, n_items: int = 10) -> sparse.csr_matrix:
    user_items = sparse.lil_matrix((len(rows), n_items), dtype=np.float32)
    for user, items in enumerate(rows):
        for item in items:
            user_items[user, item] = 1
    return sparse.csr_matrix(user_items)


@st.composite
def cases(draw: st.DrawFn, users_without: bool = True) -> Case:
    """Padded lists, held-out items, and the number of items."""
    n_items = draw(st.integers(1, 9))
    n = draw(st.integers(1, 12))
    lists, held_out = [], []
    for _ in range(draw(st.integers(1, 5))):
        ranked = draw(st.permutations(range(n_items)))[: draw(st.integers(0, n_items))][:n]
        lists.append(ranked + [-1] * (n - len(ranked)))
        held_out.append(draw(st.sets(st.integers(0, n_items - 1), min_size=0 if users_without else 1)))
    return lists, held_out, n_items


def arrays(case: Case) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    ids = np.array(case[0], dtype=np.int32)
    return ids, hit_matrix(ids, matrix(case[1], case[2])), np.array([len(items) for items in case[1]])


def literal_recall(top: list[bool], n_held_out: int, k: int) -> float:
    return sum(top) / min(k, n_held_out)


def literal_recall_full(top: list[bool], n_held_out: int, k: int) -> float:
    del k
    return sum(top) / n_held_out


def literal_precision(top: list[bool], n_held_out: int, k: int) -> float:
    del n_held_out
    return sum(top) / k


def literal_ndcg(top: list[bool], n_held_out: int, k: int) -> float:
    dcg = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(top, start=1) if hit)
    return dcg / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, n_held_out) + 1))


def literal_average_precision(top: list[bool], n_held_out: int, k: int) -> float:
    return sum(sum(top[:rank]) / rank for rank in range(1, k + 1) if top[rank - 1]) / min(k, n_held_out)


def literal_reciprocal_rank(top: list[bool], n_held_out: int, k: int) -> float:
    del n_held_out, k
    return 1 / (top.index(True) + 1) if True in top else 0.0


def literal_hit_rate(top: list[bool], n_held_out: int, k: int) -> float:
    del n_held_out, k
    return float(any(top))


LITERAL: dict[str, Callable[[list[bool], int, int], float]] = {
    "recall": literal_recall,
    "recall_full": literal_recall_full,
    "precision": literal_precision,
    "ndcg": literal_ndcg,
    "map": literal_average_precision,
    "mrr": literal_reciprocal_rank,
    "hit_rate": literal_hit_rate,
}


def test_hits_by_hand() -> None:
    np.testing.assert_array_equal(hit_matrix(IDS, matrix(HELD_OUT)), HITS)


def test_hits_of_padding_duplicates_stored_zeros_and_nothing_held_out() -> None:
    stored, columns, row_ends = np.array([1.0, 1.0, 0.0]), np.array([2, 2, 1]), np.array([0, 2, 3])
    held_out = sparse.csr_array((stored, columns, row_ends), shape=(2, 3))
    ids = np.array([[2, -1], [1, -1]], dtype=np.int32)
    np.testing.assert_array_equal(hit_matrix(ids, held_out), [[True, False], [False, False]])
    assert held_out.nnz == 3
    assert not hit_matrix(ids, matrix([set(), set()], 3)).any()


@pytest.mark.parametrize("item", [-2, 10])
def test_hits_refuse_an_id_outside_the_catalogue(item: int) -> None:
    with pytest.raises(ParameterError, match=r"expected -1 to 9"):
        hit_matrix(np.array([[item]], dtype=np.int32), matrix([{0}]))


def test_hits_refuse_other_users() -> None:
    with pytest.raises(ParameterError, match="held_out has 1 rows"):
        hit_matrix(IDS, matrix([{0}]))


@given(cases())
@thoroughly
def test_hits_match_the_literal_definition(case: Case) -> None:
    _, hits, _ = arrays(case)
    expected = [[item in held_out for item in ranked] for ranked, held_out in zip(*case[:2], strict=True)]
    np.testing.assert_array_equal(hits, expected)


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("recall", 2, [1 / 2, 0]),
        ("recall", 5, [2 / 3, 1]),
        ("recall_full", 2, [1 / 3, 0]),
        ("recall_full", 5, [2 / 3, 1]),
        ("precision", 2, [1 / 2, 0]),
        ("precision", 5, [2 / 5, 1 / 5]),
        ("ndcg", 2, [1 / (1 + 1 / math.log2(3)), 0]),
        ("ndcg", 5, [1.5 / (1 + 1 / math.log2(3) + 1 / 2), 1 / math.log2(5)]),
        ("map", 2, [1 / 2, 0]),
        ("map", 5, [(1 + 2 / 3) / 3, 1 / 4]),
        ("mrr", 3, [1, 0]),
        ("mrr", 5, [1, 1 / 4]),
        ("hit_rate", 3, [1, 0]),
        ("hit_rate", 5, [1, 1]),
    ],
)
def test_accuracy_by_hand(name: str, k: int, expected: list[float]) -> None:
    np.testing.assert_allclose(ACCURACY_METRICS[name](HITS, N_HELD_OUT, k), expected)


@pytest.mark.parametrize("name", ACCURACY_METRICS)
@given(case=cases())
@thoroughly
def test_accuracy_matches_the_literal_definition(name: str, case: Case) -> None:
    ids, hits, n_held_out = arrays(case)
    for k in range(1, ids.shape[1] + 1):
        values = ACCURACY_METRICS[name](hits, n_held_out, k)
        assert values.dtype == np.float64
        for user, n in enumerate(n_held_out.tolist()):
            expected = LITERAL[name](hits[user, :k].tolist(), n, k) if n else math.nan
            assert values[user] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ACCURACY_METRICS)
def test_accuracy_refuses_lists_shorter_than_k(name: str) -> None:
    with pytest.raises(ParameterError, match="k is 6 but the lists have 5 columns"):
        ACCURACY_METRICS[name](HITS, N_HELD_OUT, 6)
    with pytest.raises(ParameterError, match="k is 0"):
        ACCURACY_METRICS[name](HITS, N_HELD_OUT, 0)
    with pytest.raises(ParameterError, match="n_held_out has shape"):
        ACCURACY_METRICS[name](HITS, N_HELD_OUT[:1], 5)


TREC = {"recall_full": "recall", "precision": "P", "ndcg": "ndcg_cut", "hit_rate": "success", "map": "map_cut"}


def trec(lists: Lists, held_out: HeldOut, measure: str) -> dict[str, dict[str, float]]:
    judged = {f"u{user}": {f"i{item}": 1 for item in items} for user, items in enumerate(held_out)}
    listed = {
        f"u{user}": {f"i{item}": float(-rank) for rank, item in enumerate(ranked) if item >= 0}
        for user, ranked in enumerate(lists)
    }
    found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(judged, {measure}).evaluate(listed)
    return found


@pytest.mark.parametrize("name", [*TREC, "mrr"])
@given(case=cases(users_without=False))
@thoroughly
def test_accuracy_agrees_with_trec_eval(name: str, case: Case) -> None:
    ids, hits, n_held_out = arrays(case)
    k = (ids.shape[1] + 1) // 2
    cut = [ranked[:k] for ranked in case[0]]
    measure, key = ("recip_rank", "recip_rank") if name == "mrr" else (f"{TREC[name]}.{k}", f"{TREC[name]}_{k}")
    values = ACCURACY_METRICS[name](hits, n_held_out, k)
    for user, found in trec(cut, case[1], measure).items():
        row = int(user[1:])
        if name != "map" or n_held_out[row] <= k:
            assert values[row] == pytest.approx(found[key], abs=1e-9)


class FixedLists:
    """The part of an `implicit` model that its evaluation calls."""

    def __init__(self, ids: npt.NDArray[np.int32]) -> None:
        self.ids = ids

    def recommend(
        self, userid: npt.NDArray[np.int32], user_items: Any, N: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        del user_items
        ids = np.ascontiguousarray(self.ids[userid, :N])
        return ids, np.zeros(ids.shape, dtype=np.float32)


@given(cases())
@thoroughly
def test_ndcg_and_map_agree_with_implicit(case: Case) -> None:
    ids, hits, n_held_out = arrays(case)
    assume(n_held_out.any())
    k = ids.shape[1]
    held_out = matrix(case[1], case[2] + 1)  # its AUC divides by zero where every item is held out
    nothing_seen = matrix([set()] * len(ids), case[2] + 1)
    found = ranking_metrics_at_k(FixedLists(ids), nothing_seen, held_out, K=k, show_progress=False, num_threads=1)
    assert np.nanmean(metrics.ndcg_at_k(hits, n_held_out, k)) == pytest.approx(found["ndcg"])
    assert np.nanmean(metrics.average_precision_at_k(hits, n_held_out, k)) == pytest.approx(found["map"])


def test_coverage_by_hand() -> None:
    assert metrics.coverage_at_k(IDS, 10, 2) == 4 / 10
    assert metrics.coverage_at_k(IDS, 10, 5) == 6 / 10


def test_gini_by_hand() -> None:
    even = np.array([[0, 1], [2, 3]], dtype=np.int32)
    assert metrics.gini_at_k(even, 4, 2) == 0
    assert metrics.gini_at_k(np.array([[2], [2]], dtype=np.int32), 4, 1) == 3 / 4
    # exposure 0, 1, 2: (-2 * 0 + 0 * 1 + 2 * 2) / (3 * 3)
    assert metrics.gini_at_k(np.array([[0, 1], [0, -1]], dtype=np.int32), 3, 2) == pytest.approx(4 / 9)
    assert math.isnan(metrics.gini_at_k(np.full((2, 2), -1, dtype=np.int32), 3, 2))


def test_novelty_by_hand() -> None:
    ids = np.array([[0, 1], [2, -1], [-1, -1]], dtype=np.int32)
    counts = np.array([8, 2, 0])
    np.testing.assert_allclose(metrics.novelty_at_k(ids, counts, 8, 2), [1, 3, np.nan])


def test_popularity_by_hand() -> None:
    ids = np.array([[0, 1], [2, -1], [-1, -1]], dtype=np.int32)
    counts = np.array([8, 2, 0])
    np.testing.assert_allclose(metrics.popularity_at_k(ids, counts, 8, 2), [5 / 8, 0, np.nan])


# Items 0 to 4 of three training users; item 2 is like 0, item 3 nobody has; one stored zero, and a weight.
TRAIN = sparse.csr_matrix(np.array([[1, 1, 1, 0, 0], [3, 0, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=np.float32))


def test_diversity_by_hand() -> None:
    item_users = metrics.find_item_users(TRAIN)
    ids = np.array([[0, 2, -1], [0, 1, 4], [3, 0, -1], [1, -1, -1], [-1, -1, -1]], dtype=np.int32)
    # The cosine of items 0 and 1 is 1 / sqrt(2 * 1); item 4 shares no user with them.
    apart = (3 - 1 / math.sqrt(2)) / 3
    np.testing.assert_allclose(metrics.diversity_at_k(ids, item_users, 3), [0, apart, 1, np.nan, np.nan], atol=1e-12)
    assert metrics.diversity_at_k(ids, item_users, 2)[1] == pytest.approx(1 - 1 / math.sqrt(2))


def test_weights_and_stored_zeros_do_not_change_diversity() -> None:
    stored = TRAIN.copy()
    stored.data[0] = 0
    absent = TRAIN.toarray()
    absent[0, 0] = 0
    np.testing.assert_array_equal(
        metrics.find_item_users(stored).toarray(), metrics.find_item_users(sparse.csr_array(absent > 0)).toarray()
    )


@given(cases(), st.data())
@thoroughly
def test_diversity_matches_the_literal_definition(case: Case, data: st.DataObject) -> None:
    ids, n_items = np.array(case[0], dtype=np.int32), case[2]
    k = data.draw(st.integers(1, ids.shape[1]))
    rows = data.draw(st.lists(st.sets(st.integers(0, n_items - 1)), min_size=1, max_size=6))
    users_of = [{user for user, items in enumerate(rows) if item in items} for item in range(n_items)]

    def distance(a: int, b: int) -> float:
        either = len(users_of[a]) * len(users_of[b])
        return 1 - len(users_of[a] & users_of[b]) / math.sqrt(either) if either else 1

    found = metrics.diversity_at_k(ids, metrics.find_item_users(matrix(rows, n_items)), k)
    for user, ranked in enumerate(case[0]):
        top = [item for item in ranked[:k] if item >= 0]
        pairs = [distance(a, b) for place, a in enumerate(top) for b in top[:place]]
        expected = sum(pairs) / len(pairs) if pairs else math.nan
        assert found[user] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(cases(), st.data())
@thoroughly
def test_beyond_accuracy_matches_the_literal_definitions(case: Case, data: st.DataObject) -> None:
    ids, n_items = np.array(case[0], dtype=np.int32), case[2]
    counts = data.draw(st.lists(st.integers(0, 20), min_size=n_items, max_size=n_items))
    k = data.draw(st.integers(1, ids.shape[1]))
    tops = [[item for item in ranked[:k] if item >= 0] for ranked in case[0]]
    exposure = [sum(item in top for top in tops) for item in range(n_items)]
    assert metrics.coverage_at_k(ids, n_items, k) == pytest.approx(sum(n > 0 for n in exposure) / n_items)
    pairs = sum(abs(a - b) for a in exposure for b in exposure)
    gini = pairs / (2 * n_items * sum(exposure)) if any(exposure) else math.nan
    assert metrics.gini_at_k(ids, n_items, k) == pytest.approx(gini, nan_ok=True)
    novelty = metrics.novelty_at_k(ids, np.array(counts), 20, k)
    popularity = metrics.popularity_at_k(ids, np.array(counts), 20, k)
    for user, top in enumerate(tops):
        bits = [-math.log2(max(counts[item], 1) / 20) for item in top]
        assert novelty[user] == pytest.approx(sum(bits) / len(top) if top else math.nan, nan_ok=True)
        shares = [counts[item] / 20 for item in top]
        assert popularity[user] == pytest.approx(sum(shares) / len(top) if top else math.nan, nan_ok=True)


def test_beyond_accuracy_refuses_what_does_not_fit() -> None:
    with pytest.raises(ParameterError, match="k is 6"):
        metrics.coverage_at_k(IDS, 10, 6)
    with pytest.raises(ParameterError, match="ids go up to 5 but n_items is 3"):
        metrics.gini_at_k(IDS, 3, 5)
    with pytest.raises(ParameterError, match="item_counts has 3 entries"):
        metrics.popularity_at_k(IDS, np.ones(3, dtype=np.int64), 5, 5)
    with pytest.raises(ParameterError, match="item_users has 3 entries"):
        metrics.diversity_at_k(IDS, sparse.csr_matrix((3, 2)), 5)


@pytest.mark.parametrize("name", METRICS)
def test_parse_metric(name: str) -> None:
    assert parse_metric(f"{name}@100") == (name, 100)


@pytest.mark.parametrize(
    "metric", ["", "ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "ndcg@²", "auc@10", "NDCG@10", 10, None]
)
def test_parse_metric_names_the_metric_given_and_those_known(metric: Any) -> None:
    with pytest.raises(ParameterError, match=r"expected one of recall@K, .*diversity@K with") as refusal:
        parse_metric(metric)
    assert repr(metric) in str(refusal.value)
