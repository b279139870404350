"""Comparisons: who is fitted on what, the paired tests, and the plain values that reports read."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recvae.errors import ParameterError
from recvae.evaluation.compare import RECALL_CURVE, ModelRun, compare
from recvae.evaluation.evaluate import BEYOND_ACCURACY_METRICS, DEFAULT_METRICS, evaluate
from recvae.evaluation.significance import holm, paired_test
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from tests.evaluation.test_evaluate import N_ITEMS, FixedOrder, holdout, split


def test_compare_fits_on_train_with_validation_and_scores_on_test() -> None:
    validation = holdout()
    data = split(validation=validation)
    model = FixedOrder(range(N_ITEMS))
    seen: list[tuple[str, ModelRun]] = []
    comparison = compare(
        {"fixed": model}, data, show_progress=False, on_result=lambda name, run: seen.append((name, run))
    )
    (user_items, show_progress, shown), *again = model.fitted
    assert user_items is data.train
    assert not show_progress
    assert shown[0] is validation.fold_in
    assert shown[1] is validation.held_out
    assert not again
    assert seen == [("fixed", comparison.runs["fixed"])]
    assert (comparison.runs["fixed"].fit_seconds or 0) > 0
    metrics = (*DEFAULT_METRICS, *BEYOND_ACCURACY_METRICS, *RECALL_CURVE)
    alone = evaluate(model, data.test, metrics, train=data.train)
    assert comparison.runs["fixed"].result.as_dict() == alone.as_dict()


def test_seeds_of_a_model_count_with_their_mean() -> None:
    first, second = FixedOrder(range(N_ITEMS)), FixedOrder(range(N_ITEMS)[::-1])
    both = compare({"both": [first, second], "first": first}, split(), primary=("ndcg@4",))
    alone = [evaluate(model, split().test, ["ndcg@4"]) for model in (first, second)]
    mean = np.mean([result.values("ndcg@4") for result in alone], axis=0)
    np.testing.assert_allclose(both.runs["both"].result.values("ndcg@4"), mean)
    assert both.runs["both"].by_seed == {"ndcg@4": [result.mean("ndcg@4") for result in alone]}
    assert both.runs["both"].as_dict()["by_seed"] == both.runs["both"].by_seed
    assert "by_seed" not in both.runs["first"].as_dict()
    assert alone[0].mean("ndcg@4") != alone[1].mean("ndcg@4")
    (pair,) = both.pairs
    assert pair.test.difference == pytest.approx(float(np.mean(mean - alone[0].values("ndcg@4"))))


def test_a_model_that_is_fitted_already_is_taken_as_it_is() -> None:
    data = split()
    model = Popularity().fit(data.train)
    seconds, counts = model.fit_seconds_, model.item_counts_
    kinds: tuple[Any, ...] = (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix)
    for kind in kinds:
        run = compare({"popularity": model}, replace(data, train=kind(data.train))).runs["popularity"]
        assert model.item_counts_ is counts
    assert run.fit_seconds == seconds


def test_a_model_whose_hyperparameters_were_changed_is_fitted_again() -> None:
    data = split()
    model = EASE(10.0, dropout=0.0, user_exponent=0.0).fit(data.train)
    assert compare({"ease": model.set_params(l2=20.0)}, data).runs["ease"].params["l2"] == 20.0
    assert model.l2_ == 20.0


def test_history_lengths_make_groups_of_equal_size() -> None:
    groups = (
        compare({"fixed": FixedOrder(range(N_ITEMS))}, split()).runs["fixed"].result.by_history_length("recall@20", 2)
    )
    assert [(group["from"], group["to"], group["n_users"]) for group in groups] == [(0, 1, 2), (1, 1, 1)]


def test_compare_without_validation() -> None:
    model = FixedOrder(range(N_ITEMS))
    compare({"fixed": model}, split())
    assert model.fitted[0][1:] == (True, None)


def test_compare_tests_every_pair_and_corrects_within_the_metric() -> None:
    models = {
        name: FixedOrder(order) for name, order in (("a", range(6)), ("b", [5, 4, 3, 2, 1, 0]), ("c", [4, 0, 5, 1]))
    }
    comparison = compare(models, split(), ["hit_rate@1"], primary=("recall@2", "ndcg@3"))
    assert [(pair.metric, pair.a, pair.b) for pair in comparison.pairs] == [
        (metric, *names) for metric in ("recall@2", "ndcg@3") for names in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    for metric in ("recall@2", "ndcg@3"):
        pairs = [pair for pair in comparison.pairs if pair.metric == metric]
        np.testing.assert_allclose([pair.p_value for pair in pairs], holm([pair.test.p_value for pair in pairs]))
        for pair in pairs:
            results = comparison.runs[pair.a].result, comparison.runs[pair.b].result
            assert pair.test == paired_test(*results, metric)
    assert list(comparison.runs["a"].result.per_user) == ["recall@2", "ndcg@3", "hit_rate@1"]


def test_compare_reports_a_refusal_and_fits_the_others() -> None:
    stored = FixedOrder(range(N_ITEMS), folds_in=False)
    comparison = compare({"bpr": stored, "fixed": FixedOrder(range(N_ITEMS))}, split())
    assert list(comparison.runs) == ["fixed"]
    assert "cannot fold in" in comparison.refused["bpr"]
    assert stored.fitted == []
    assert list(compare({"bpr": stored}, split([0, 1, 2, 3])).runs) == ["bpr"]


def test_compare_lets_a_wrong_hyperparameter_be_heard() -> None:
    class Wrong(FixedOrder):
        def fit(self, user_items: Any, **options: Any) -> Any:
            del user_items, options
            raise ParameterError("factors is -1; expected 1 or more")

    with pytest.raises(ParameterError, match="factors is -1"):
        compare({"wrong": Wrong([0])}, split())


def test_compare_refuses_no_models_and_a_primary_metric_without_users() -> None:
    with pytest.raises(ParameterError, match="models is empty"):
        compare({}, split())
    with pytest.raises(ParameterError, match=r"'gini@20', which has no value for each user"):
        compare({"fixed": FixedOrder([0])}, split(), primary=["gini@20"])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"e": []}, r"models has \[\] as 'e'; expected a model, or one for each seed"),
        ({"e": EASE}, "models has <class .*EASE'> as 'e'; expected a model"),
        ({"e": "ease"}, "models has 'ease' as 'e'; expected a model"),
        ({"e": [Popularity(), "ease"]}, r"models has \[Popularity\(\), 'ease'\] as 'e'; expected a model"),
        ([Popularity()], "models is a list; expected a mapping of names to models"),
    ],
)
def test_compare_refuses_what_is_no_model_before_any_fit(models: Any, message: str) -> None:
    first = FixedOrder(range(N_ITEMS))
    with pytest.raises(ParameterError, match=f"^{message}"):
        compare({"first": first, **models} if isinstance(models, dict) else models, split())
    assert first.fitted == []


def test_compare_refuses_what_is_no_split() -> None:
    data: Any = split().test
    with pytest.raises(ParameterError, match="split is a Holdout; expected a Split"):
        compare({"popularity": Popularity()}, data)


def test_comparison_as_plain_values() -> None:
    models = {"a": FixedOrder(range(6)), "b": FixedOrder([5, 4, 3]), "bpr": FixedOrder([0], folds_in=False)}
    results = compare(models, split()).as_dict(dataset="toy", protocol={"split": "strong", "seed": np.int64(1)}, seed=7)
    assert list(results) == [
        *("format_version", "dataset", "protocol", "seed", "versions", "n_users", "n_without_held_out"),
        *("models", "comparisons", "refused"),
    ]
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["format_version"] == 1
    assert (results["n_users"], results["n_without_held_out"]) == (3, 1)
    assert set(results["models"]["a"]) == {
        *("metrics", "fit_seconds", "score_seconds", "peak_rss_mb", "params", "history", "by_history_length")
    }
    assert results["models"]["b"]["params"]["order"] == [5, 4, 3]
    assert results["models"]["b"]["params"]["rate"] == 0.5
    assert results["models"]["b"]["params"]["limit"] is None
    assert set(results["comparisons"][0]) == {
        *("a", "b", "metric", "difference", "ci95", "p_value", "p_value_uncorrected")
    }
    assert {"python", "recvae", "numpy", "scipy", "machine"} <= set(results["versions"])


def test_params_of_models_within_a_model() -> None:
    class Both(FixedOrder):
        def get_params(self) -> Mapping[str, Any]:
            return {"models": (FixedOrder([1]),), "weights": np.array([0.5])}

    results = compare({"both": Both([0])}, split()).as_dict(dataset="toy", protocol="strong", seed=None)
    params = results["models"]["both"]["params"]
    assert params["weights"] == [0.5]
    assert params["models"][0]["class"] == "FixedOrder"
    assert params["models"][0]["order"] == [1]


def test_compare_refuses_when_every_model_is_refused() -> None:
    with pytest.raises(ParameterError, match="bpr cannot fold in new users"):
        compare({"bpr": FixedOrder(range(N_ITEMS), folds_in=False)}, split())
