import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import settings
from scipy import sparse

from recvae.data.splitting import Holdout, Split
from recvae.errors import DataError, ParameterError
from recvae.evaluation.evaluate import (
    BEYOND_ACCURACY_METRICS,
    DEFAULT_METRICS,
    EvalResult,
    evaluate,
)
from recvae.memory import peak_memory

thoroughly = settings(max_examples=100, deadline=None, derandomize=True)

N_ITEMS = 6
TRAIN = [[0, 1, 2], [0, 1], [0, 3], [0]]
FOLD_IN = [[0], [1], [], [2]]
HELD_OUT = [[1, 5], [0], [4], []]


class FixedOrder:
    """Ranks every user's unseen items in one fixed order."""

    def __init__(self, order: Sequence[int], folds_in: bool = True) -> None:
        self.order = order
        self.folds_in = folds_in
        self.fitted: list[Any] = []
        self.asked: list[tuple[list[int], int, int, bool]] = []

    def fit(self, user_items: Any, *, show_progress: bool = True, callback: Any = None, validation: Any = None) -> Any:
        del callback
        self.fitted.append((user_items, show_progress, validation))
        return self

    def get_params(self) -> Mapping[str, Any]:
        return {"order": self.order, "rate": np.float32(0.5), "limit": math.inf, "kind": FixedOrder}

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        *,
        recalculate_user: bool = False,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        self.asked.append((np.asarray(userid).tolist(), user_items.shape[0], N, recalculate_user))
        ids = np.full((user_items.shape[0], N), -1, dtype=np.int32)
        for row in range(len(ids)):
            seen = set(user_items[row].indices.tolist())
            unseen = [item for item in self.order if item not in seen][:N]
            ids[row, : len(unseen)] = unseen
        return ids, np.zeros(ids.shape, dtype=np.float32)


def matrix(rows: Sequence[Sequence[int]], n_items: int = N_ITEMS) -> sparse.csr_matrix:
    indices = np.array([item for row in rows for item in row], dtype=np.int32)
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=(len(rows), n_items))


def holdout(train_rows: Sequence[int] | None = None, held_out: Sequence[Sequence[int]] = HELD_OUT) -> Holdout:
    rows = np.full(len(FOLD_IN), -1) if train_rows is None else np.array(train_rows)
    return Holdout(matrix(FOLD_IN), matrix(held_out), pd.Index(["a", "b", "c", "d"]), rows.astype(np.int32))


def split(train_rows: Sequence[int] | None = None, validation: Holdout | None = None) -> Split:
    users, items = pd.Index([f"t{n}" for n in range(len(TRAIN))]), pd.Index(range(N_ITEMS))
    return Split(matrix(TRAIN), users, items, validation, holdout(train_rows), {"split": "strong"}, {})


def result(values: Sequence[float], metric: str = "recall@20") -> EvalResult:
    return EvalResult({metric: np.array(values, dtype=np.float64)}, {}, len(values), 0, 0.0)


def test_evaluate_by_hand() -> None:
    # The lists are a: 1 2 3, b: 0 2 3, c: 0 1 2; d has nothing held out.
    metrics = ["recall@3", "recall_full@3", "precision@3", "mrr@3", "ndcg@3"]
    found = evaluate(FixedOrder(range(N_ITEMS)), holdout(), metrics)
    np.testing.assert_allclose(found.per_user["recall@3"], [1 / 2, 1, 0])
    np.testing.assert_allclose(found.per_user["precision@3"], [1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(found.per_user["mrr@3"], [1, 1, 0])
    np.testing.assert_allclose(found.per_user["ndcg@3"], [1 / (1 + 1 / math.log2(3)), 1, 0])
    assert list(found.per_user) == metrics
    assert found.mean("recall@3") == 1 / 2
    assert found.stderr("recall@3") == pytest.approx(1 / 2 / math.sqrt(3))
    assert found.score_seconds >= 0


def test_users_without_held_out_items_are_counted_not_scored() -> None:
    model = FixedOrder(range(N_ITEMS))
    found = evaluate(model, holdout(), ["recall@3"])
    assert (found.n_users, found.n_without_held_out) == (3, 1)
    assert model.asked == [([0, 1, 2], 3, 3, True)]


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array])
def test_matrices_of_any_sparse_kind_give_the_same_figures(kind: Any) -> None:
    expected = evaluate(FixedOrder(range(N_ITEMS)), holdout(), train=matrix(TRAIN))
    test = replace(holdout(), fold_in=kind(matrix(FOLD_IN)), held_out=kind(matrix(HELD_OUT)))
    found = evaluate(FixedOrder(range(N_ITEMS)), test, train=kind(matrix(TRAIN)))
    assert found.as_dict() == expected.as_dict()
    np.testing.assert_array_equal(found.history_lengths, expected.history_lengths)


def test_repeated_training_interactions_count_once() -> None:
    twice = matrix([row + row for row in TRAIN])
    found = evaluate(FixedOrder(range(N_ITEMS)), holdout(), train=twice)
    assert found.as_dict() == evaluate(FixedOrder(range(N_ITEMS)), holdout(), train=matrix(TRAIN)).as_dict()


def test_stored_zeros_are_not_held_out() -> None:
    test = holdout(held_out=[[1, 5], [0], [4], [3]])
    test.held_out.data[-1] = 0
    assert evaluate(FixedOrder(range(N_ITEMS)), test, ["recall@3"]).n_users == 3


def test_beyond_accuracy_by_hand() -> None:
    metrics = ["coverage@3", "gini@3", "novelty@3", "popularity@3", "diversity@3"]
    found = evaluate(FixedOrder(range(N_ITEMS)), holdout(), metrics, train=matrix(TRAIN))
    assert found.mean("coverage@3") == 4 / 6
    # Items are listed 2, 2, 3, 2, 0 and 0 times.
    assert found.mean("gini@3") == pytest.approx((-5 * 0 - 3 * 0 - 1 * 2 + 1 * 2 + 3 * 2 + 5 * 3) / (6 * 9))
    np.testing.assert_allclose(found.per_user["popularity@3"], [4 / 12, 6 / 12, 7 / 12])
    np.testing.assert_allclose(found.per_user["novelty@3"], [5 / 3, 4 / 3, 1])
    # Cosines, from all users but one having item 0: of 0 and 1 2/√8, of 0 and 2 or 3 1/2, of 1 and 2 1/√2, others 0.
    a, b, c = 2 / math.sqrt(8), 1 / 2, 1 / math.sqrt(2)
    np.testing.assert_allclose(found.per_user["diversity@3"], [1 - c / 3, 1 - 2 * b / 3, 1 - (a + b + c) / 3])
    assert found.stderr("coverage@3") is None


def test_default_metrics_with_and_without_training_interactions() -> None:
    model = FixedOrder(range(N_ITEMS))
    assert tuple(evaluate(model, holdout()).as_dict()) == DEFAULT_METRICS
    everything = evaluate(model, holdout(), train=matrix(TRAIN)).as_dict()
    assert set(everything) == {*DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS}
    assert DEFAULT_METRICS[:3] == ("recall@20", "recall@50", "ndcg@100")
    assert model.asked[0][2] == 100


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    model = FixedOrder([3, 1, 5, 0, 2, 4])
    whole = evaluate(model, holdout(), train=matrix(TRAIN))
    batched = evaluate(model, holdout(), train=matrix(TRAIN), batch_size=batch_size)
    assert batched.as_dict() == whole.as_dict()
    for metric, values in whole.per_user.items():
        np.testing.assert_array_equal(batched.per_user[metric], values)
    assert sum(n for _, n, _, _ in model.asked[1:]) == 3


def test_a_model_of_training_users_is_asked_by_training_row() -> None:
    model = FixedOrder(range(N_ITEMS), folds_in=False)
    evaluate(model, holdout([3, 1, 0, 2]), ["recall@3"])
    assert model.asked == [([3, 1, 0], 3, 3, False)]


def test_a_model_of_training_users_refuses_new_ones() -> None:
    model = FixedOrder(range(N_ITEMS), folds_in=False)
    with pytest.raises(
        ParameterError, match=r"FixedOrder cannot fold in new users and 2 of 4 are new; .*weak"
    ) as refusal:
        evaluate(model, holdout([3, -1, 0, -1]))
    assert "\n" not in str(refusal.value)
    assert model.asked == []


def test_evaluate_refuses_what_it_cannot_score() -> None:
    model = FixedOrder(range(N_ITEMS))
    with pytest.raises(ParameterError, match="metric is 'auc@10'"):
        evaluate(model, holdout(), ["auc@10"])
    whole: Any = split()
    with pytest.raises(ParameterError, match=r"holdout is a Split; expected a Holdout, such as `split\.test`"):
        evaluate(model, whole)
    with pytest.raises(ParameterError, match="metrics is empty"):
        evaluate(model, holdout(), [])
    with pytest.raises(ParameterError, match=r"metrics is 'ndcg@10'; expected a list such as \['ndcg@100'\]"):
        evaluate(model, holdout(), "ndcg@10")
    no_model: Any
    for no_model in ("ease", FixedOrder):
        with pytest.raises(ParameterError, match=r"model is .*; expected a fitted model"):
            evaluate(no_model, holdout())
    with pytest.raises(ParameterError, match="novelty@20 needs train"):
        evaluate(model, holdout(), ["novelty@20"])
    with pytest.raises(ParameterError, match="diversity@20 needs train"):
        evaluate(model, holdout(), ["diversity@20"])
    with pytest.raises(ParameterError, match="train has 7 columns but holdout has 6 items"):
        evaluate(model, holdout(), train=matrix(TRAIN, 7))
    with pytest.raises(ParameterError, match="batch_size is 0"):
        evaluate(model, holdout(), batch_size=0)
    with pytest.raises(DataError, match="none of the 4 users has held-out items"):
        evaluate(model, holdout(held_out=[[], [], [], []]))


def test_a_metric_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ParameterError, match=r"metric is 'ndcg@5'.* recall@20"):
        result([1.0]).mean("ndcg@5")


def test_figures_of_one_user_and_of_users_without_a_value() -> None:
    assert result([0.5]).as_dict() == {"recall@20": {"mean": 0.5, "stderr": None, "n_users": 1}}
    some = result([1, math.nan, 3], "novelty@20").as_dict()
    assert some == {"novelty@20": {"mean": 2, "stderr": pytest.approx(1), "n_users": 2}}
    none = result([math.nan], "novelty@20").as_dict()
    assert none == {"novelty@20": {"mean": None, "stderr": None, "n_users": 0}}


def test_peak_memory_holds_what_the_block_held() -> None:
    megabytes = 200
    with peak_memory() as peak:
        np.ones(megabytes * 10**6 // 8)
    assert peak.mb is not None
    assert peak.mb >= megabytes


def test_peak_memory_starts_the_high_water_mark_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.memory.PROCESS", tmp_path)
    (tmp_path / "status").write_text("VmPeak:\t 9999 kB\nVmHWM:\t    2000 kB\n")
    with peak_memory() as peak:
        assert (tmp_path / "clear_refs").read_text() == "5"
    assert peak.mb == 2.048


def test_peak_memory_without_a_process_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.memory.PROCESS", tmp_path / "absent")
    with peak_memory() as peak:
        pass
    assert peak.mb is not None
    assert peak.mb > 1
