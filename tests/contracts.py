"""The contract of every `Recommender`. A test class inherits it and gives the fixtures that its tests ask for.

The checkerboard gives each personal model one right answer: even users have all even items but the one with their own
number, odd users all odd ones, so a user's best new item is the user's own number.
"""

import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone

from recvae.errors import ArtifactError, NotFittedError, ParameterError, UnsupportedError
from recvae.models.base import Recommender
from recvae.types import FloatArray, IntArray, UserItems

Factory = Callable[[], Recommender]

SIZE = 30
N_USERS, N_ITEMS = 40, 25


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these gain nothing by threads, which on a busy machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def checkerboard(size: int = SIZE) -> sparse.csr_matrix:
    """Users and items of the same parity, without the diagonal."""
    numbers = np.arange(size)
    same = (numbers[:, None] % 2 == numbers % 2) & (numbers[:, None] != numbers)
    return sparse.csr_matrix(same.astype(np.float32))


def random_interactions(n_users: int = N_USERS, n_items: int = N_ITEMS, seed: int = 0) -> sparse.csr_matrix:
    """Interactions without structure, popular items first; every user and every item has some."""
    rng = np.random.default_rng(seed)
    played = rng.random((n_users, n_items)) < np.linspace(0.5, 0.1, n_items)
    played[np.arange(n_users), np.arange(n_users) % n_items] = True
    return sparse.csr_matrix(played.astype(np.float32))


def fit(make: Factory, user_items: UserItems) -> Recommender:
    return make().fit(user_items, show_progress=False)


def recommend(model: Recommender, users: Any, histories: UserItems, **options: Any) -> tuple[IntArray, FloatArray]:
    """From the histories where the model can, from what it stores of its training users where not."""
    return model.recommend(users, histories, recalculate_user=model.folds_in, **options)


def all_scores(model: Recommender, user_items: UserItems) -> FloatArray:
    """(n_users, n_items) scores in item order, by the one call that every model answers."""
    ids, scores = recommend(
        model, np.arange(user_items.shape[0]), user_items, N=model.n_items_, filter_already_liked_items=False
    )
    return np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)


def without_interactions(user_items: sparse.csr_matrix, users: list[int]) -> sparse.csr_matrix:
    kept = np.ones(user_items.shape[0], dtype=np.float32)
    kept[users] = 0
    emptied = sparse.csr_matrix(sparse.diags_array(kept) @ user_items, dtype=np.float32)
    emptied.eliminate_zeros()
    return emptied


def untidy(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same matrix with its columns in falling order and a stored zero in each row that has room."""
    indptr, indices, data = [0], [], []
    for row in user_items.toarray():
        played = np.flatnonzero(row)[::-1].tolist()
        zero = np.flatnonzero(row == 0)[:1].tolist()
        indices += played + zero
        data += [1.0] * len(played) + [0.0] * len(zero)
        indptr.append(len(indices))
    return sparse.csr_matrix((np.array(data, np.float32), np.array(indices), np.array(indptr)), shape=user_items.shape)


def parts(matrix: UserItems) -> list[npt.NDArray[Any]]:
    return [matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()]


class RecommenderContract:
    """Tests for any model.

    Fixtures
    --------
    make : makes the model, not fitted
    fitted : fitted on `random_interactions()`
    make_plain : makes a model whose hyperparameters are plain values
    personal : fitted on `checkerboard()`; models that rank by the user
    folding : fitted on `random_interactions()`; models that rank a history they were not fitted on
    make_folding : makes a model that does so by the user
    comparing : fitted on `checkerboard()`; models that compare items
    make_comparing : makes such a model
    """

    def test_each_users_own_number_is_the_best_new_item(self, personal: Recommender) -> None:
        users = np.arange(SIZE)
        ids, scores = recommend(personal, users, checkerboard(), N=1)
        assert_array_equal(ids[:, 0], users)
        assert np.isfinite(scores).all()

    def test_an_explanation_is_what_the_score_loses(self, folding: Recommender) -> None:
        history = random_interactions()[[4]]
        (best,), _ = folding.recommend(0, history, N=1, recalculate_user=True)
        ids, lost = folding.explain(0, history, int(best), N=history.nnz + 2)
        assert_array_equal(ids[-2:], [-1, -1])
        assert_array_equal(np.sort(ids[:-2]), history.indices)
        assert (np.diff(lost[:-2]) <= 0).all()
        without = history.copy()
        without.data[history.indices == ids[0]] = 0
        expected = folding.score(history)[0, best] - folding.score(without)[0, best]
        assert_allclose(lost[0], expected, rtol=1e-4, atol=1e-5)

    def test_one_interaction_is_explained_on_the_scale_of_the_scores(self, folding: Recommender) -> None:
        """Not against the popularity prior, which an empty history gets instead of the model's own scores."""
        history = without_interactions(random_interactions(), [])[[4]]
        history.data[1:] = 0
        history.eliminate_zeros()
        nothing = folding._score_histories(sparse.csr_matrix((1, N_ITEMS)).astype(np.float32))
        assert np.isfinite(nothing).all()
        for item in (2, 20):
            (only, _), (owed, _) = folding.explain(0, history, item, N=2)
            assert only == history.indices[0]
            assert_allclose(owed, folding.score(history)[0, item] - nothing[0, item], rtol=1e-4, atol=1e-5)

    def test_an_explanation_in_the_order_of_implicit(self, folding: Recommender) -> None:
        """`explain(userid, user_items, itemid)`, with everybody's histories or the user's alone."""
        everybody = random_interactions()
        alone = folding.explain(0, everybody[4], 0, N=3)
        for found, expected in zip(folding.explain(4, everybody, 0, N=3), alone, strict=True):
            assert_array_equal(found, expected)
        with pytest.warns(DeprecationWarning, match=r"is now explain\(userid, user_items, itemid\)"):
            former = folding.explain(everybody[4], 0, 3)
        for found, expected in zip(former, alone, strict=True):
            assert_array_equal(found, expected)

    def test_several_items_are_explained_as_each_alone(self, folding: Recommender) -> None:
        history = random_interactions()[[4]]
        ids, lost = folding.explain(0, history, [3, 0, 3], N=2)
        assert ids.shape == lost.shape == (3, 2)
        for item, of_item, owed in zip((3, 0, 3), ids, lost, strict=True):
            alone, alone_owed = folding.explain(0, history, item, N=2)
            assert_array_equal(of_item, alone)
            assert_allclose(owed, alone_owed, rtol=1e-4, atol=1e-5)

    def test_nothing_explains_an_empty_history(self, folding: Recommender) -> None:
        ids, lost = folding.explain(0, without_interactions(random_interactions()[:1], [0]), 0, N=2)
        assert_array_equal(ids, [-1, -1])
        assert_array_equal(lost, [-np.inf, -np.inf])

    def test_scores_of_some_items(self, folding: Recommender) -> None:
        interactions = without_interactions(random_interactions(), [2])
        items = [5, 0, 5, N_ITEMS - 1]
        assert_allclose(
            folding.score_items(interactions, items), folding.score(interactions)[:, items], rtol=1e-4, atol=1e-5
        )

    def test_an_explanation_needs_a_history_and_an_item(self, folding: Recommender) -> None:
        with pytest.raises(ParameterError, match="userid holds 2 to 2; expected 0 to 1"):
            folding.explain(2, random_interactions()[:2], 0)
        with pytest.raises(ParameterError, match="user_items is a int and itemid is None; expected a scipy CSR matrix"):
            folding.explain(0, 3)
        with pytest.raises(IndexError, match=f"itemid holds {N_ITEMS}"):
            folding.explain(0, random_interactions()[:1], N_ITEMS)
        with (
            pytest.warns(DeprecationWarning, match="former order"),
            pytest.raises(ParameterError, match="user_items has 2 rows"),
        ):
            folding.explain(random_interactions()[:2], 0)

    def test_fit_returns_the_model(self, make: Factory) -> None:
        model = make()
        assert model.fit(random_interactions(), show_progress=False) is model

    def test_one_user_gets_the_same_as_in_a_batch(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        users = np.array([3, 0, 39, 3])
        batch_ids, batch_scores = recommend(fitted, users, interactions[users], N=7)
        for row, user in enumerate(users):
            ids, scores = recommend(fitted, int(user), interactions[[user]], N=7)
            assert_array_equal(ids, batch_ids[row])
            assert_allclose(scores, batch_scores[row], rtol=1e-5, atol=1e-6)

    def test_batches_of_scores_do_not_change_the_answer(
        self, fitted: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interactions = random_interactions()
        whole_ids, whole_scores = recommend(fitted, np.arange(N_USERS), interactions)
        monkeypatch.setattr("recvae.memory.rows_at_once", lambda _: 7)
        ids, scores = recommend(fitted, np.arange(N_USERS), interactions)
        assert_array_equal(ids, whole_ids)
        assert_allclose(scores, whole_scores, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("userid", [5, np.int64(5), [5], np.array([5, 6, 7], dtype=np.int32), []])
    def test_shapes_and_dtypes(self, fitted: Recommender, userid: Any) -> None:
        rows = np.atleast_1d(np.asarray(userid, dtype=np.int64))
        ids, scores = recommend(fitted, userid, random_interactions()[rows], N=4)
        assert ids.shape == scores.shape == (*np.shape(userid), 4)
        assert ids.dtype == np.int32
        assert scores.dtype == np.float32

    def test_default_length_is_ten(self, fitted: Recommender) -> None:
        assert recommend(fitted, 0, random_interactions()[[0]])[0].shape == (10,)

    def test_own_items_are_left_out(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        ids, scores = recommend(fitted, np.arange(N_USERS), interactions, N=N_ITEMS)
        for user in range(N_USERS):
            listed = ids[user][ids[user] >= 0]
            assert sorted(listed) == sorted(set(range(N_ITEMS)) - set(interactions[[user]].indices))
            assert_array_equal(ids[user][len(listed) :], -1)
            assert_array_equal(scores[user][len(listed) :], -np.inf)

    def test_own_items_are_listed_when_asked_for(self, fitted: Recommender) -> None:
        ids, scores = recommend(
            fitted, np.arange(N_USERS), random_interactions(), N=N_ITEMS, filter_already_liked_items=False
        )
        assert_array_equal(np.sort(ids, axis=1), np.tile(np.arange(N_ITEMS), (N_USERS, 1)))
        assert np.isfinite(scores).all()

    def test_lists_longer_than_the_catalogue_are_padded(self, fitted: Recommender) -> None:
        ids, scores = recommend(
            fitted, [1, 2], random_interactions()[[1, 2]], N=N_ITEMS + 9, filter_already_liked_items=False
        )
        assert ids.shape == scores.shape == (2, N_ITEMS + 9)
        assert (ids[:, :N_ITEMS] >= 0).all()
        assert_array_equal(ids[:, N_ITEMS:], -1)
        assert_array_equal(scores[:, N_ITEMS:], -np.inf)

    def test_filter_items(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        plain, _ = recommend(fitted, np.arange(N_USERS), interactions, N=N_ITEMS)
        filtered, _ = recommend(fitted, np.arange(N_USERS), interactions, N=N_ITEMS, filter_items=[7, 0, 7])
        for before, after in zip(plain, filtered, strict=True):
            expected = [item for item in before if item not in (0, 7, -1)]
            assert_array_equal(after, expected + [-1] * (N_ITEMS - len(expected)))

    @pytest.mark.parametrize("items", [[2, 5, 11, 20], [20, 2, 11, 5], np.array([11, 20, 5, 2], dtype=np.int32)])
    def test_items_are_the_only_ones_ranked(self, fitted: Recommender, items: Any) -> None:
        interactions = random_interactions()
        every = all_scores(fitted, interactions)
        ids, scores = recommend(
            fitted, np.arange(N_USERS), interactions, N=10, items=items, filter_already_liked_items=False
        )
        assert_array_equal(np.sort(ids, axis=1), np.tile([2, 5, 11, 20], (N_USERS, 1)))
        assert_allclose(scores, np.take_along_axis(every, ids, axis=1), rtol=1e-5, atol=1e-6)
        assert (np.diff(scores, axis=1) <= 0).all()

    def test_own_items_among_items_are_left_out(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        own = interactions[[4]].indices[:2]
        new = np.setdiff1d(np.arange(N_ITEMS), interactions[[4]].indices)[:2]
        ids, scores = recommend(fitted, 4, interactions[[4]], N=4, items=[*own, *new])
        assert sorted(ids[:2]) == sorted(new)
        assert_array_equal(ids[2:], -1)
        assert_array_equal(scores[2:], -np.inf)

    @pytest.mark.parametrize("name", ["items", "filter_items"])
    @pytest.mark.parametrize("item", [-1, N_ITEMS])
    def test_items_outside_the_catalogue(self, fitted: Recommender, name: str, item: int) -> None:
        with pytest.raises(IndexError, match=f"^{name} holds {item}; expected 0 to {N_ITEMS - 1}$"):
            recommend(fitted, 0, random_interactions()[[0]], **{name: [3, item]})

    def test_items_and_filter_items_exclude_each_other(self, fitted: Recommender) -> None:
        with pytest.raises(ValueError, match="items and filter_items"):
            recommend(fitted, 0, random_interactions()[[0]], items=[1], filter_items=[2])

    @pytest.mark.parametrize("n", [0, -1])
    def test_no_list_length_below_one(self, fitted: Recommender, n: int) -> None:
        with pytest.raises(ParameterError, match=f"^N is {n}; "):
            recommend(fitted, 0, random_interactions()[[0]], N=n)

    @pytest.mark.parametrize(
        ("convert", "dtype"),
        [
            (sparse.csr_array, np.float32),
            (sparse.csr_matrix, np.float64),
            (sparse.csr_array, np.int64),
            (sparse.csc_matrix, np.bool_),
            (sparse.coo_array, np.int8),
            (untidy, np.float32),
        ],
    )
    def test_kinds_of_matrix(
        self, make: Factory, fitted: Recommender, convert: Callable[[Any], Any], dtype: type
    ) -> None:
        interactions = random_interactions()
        given = convert(interactions).astype(dtype)
        assert_array_equal(all_scores(fit(make, given), given), all_scores(fitted, interactions))

    def test_one_row_of_a_csr_array(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        row = sparse.csr_array(interactions)[8]
        assert row.ndim == 1
        ids, scores = recommend(fitted, 8, row)
        expected_ids, expected_scores = recommend(fitted, 8, interactions[[8]])
        assert_array_equal(ids, expected_ids)
        assert_array_equal(scores, expected_scores)

    def test_wrong_number_of_columns(self, fitted: Recommender) -> None:
        with pytest.raises(ParameterError, match=r"^user_items has 26 columns but the model was trained on 25 items$"):
            recommend(fitted, [0, 1], sparse.csr_matrix((2, 26)))

    @pytest.mark.parametrize("userid", [[0], [0, 1, 2]])
    def test_wrong_number_of_rows(self, fitted: Recommender, userid: Any) -> None:
        with pytest.raises(ParameterError, match=f"^user_items has 2 rows for {np.size(userid)} userids"):
            recommend(fitted, userid, random_interactions()[[0, 1]])

    @pytest.mark.parametrize("given", [np.eye(N_ITEMS), [[1.0] * N_ITEMS], None])
    def test_not_sparse(self, make: Factory, fitted: Recommender, given: Any) -> None:
        expected = f"^user_items is a {type(given).__name__}; expected a scipy CSR matrix$"
        with pytest.raises(ParameterError, match=expected):
            fit(make, given)
        with pytest.raises(ParameterError, match=expected):
            fitted.recommend(0, given)
        with pytest.raises(ParameterError, match=expected):
            fitted.score(given)

    @pytest.mark.parametrize("index", [N_ITEMS, 50_000_000, -1, -3])
    @pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.csr_array])
    def test_indices_out_of_range(self, make: Factory, fitted: Recommender, index: int, convert: Any) -> None:
        interactions = convert(random_interactions())
        interactions.indices[5] = index
        calls: list[Callable[[], object]] = [
            lambda: fit(make, interactions),
            lambda: recommend(fitted, np.arange(N_USERS), interactions),
            lambda: fitted.score(interactions),
            lambda: fitted.score_items(interactions, [0]),
        ]
        for call in calls:
            with pytest.raises(ParameterError, match=rf"^user_items has indices from .*{index:,}.*; expected 0 to "):
                call()

    def test_a_scalar_user_of_a_whole_matrix(self, fitted: Recommender) -> None:
        interactions = random_interactions()
        expected_ids, expected_scores = recommend(fitted, 7, interactions[[7]])
        ids, scores = recommend(fitted, 7, interactions)
        assert_array_equal(ids, expected_ids)
        assert_array_equal(scores, expected_scores)
        with pytest.raises(ParameterError, match=f"^userid holds {N_USERS} to {N_USERS}; expected 0 to {N_USERS - 1}"):
            recommend(fitted, N_USERS, interactions)

    @pytest.mark.parametrize("value", [np.nan, -1.0, np.inf, -np.inf])
    def test_bad_values(self, make: Factory, fitted: Recommender, value: float) -> None:
        interactions = random_interactions()
        interactions.data[5] = value
        with pytest.raises(ParameterError, match=r"^user_items holds negative, infinite or NaN values"):
            fit(make, interactions)
        with pytest.raises(ParameterError, match=r"^user_items holds negative, infinite or NaN values"):
            recommend(fitted, np.arange(N_USERS), interactions)

    @pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5, 5)])
    def test_nothing_to_learn_from(self, make: Factory, shape: tuple[int, int]) -> None:
        with pytest.raises(ParameterError, match=r"^user_items has no interactions; its shape is \(\d, \d\)$"):
            fit(make, sparse.csr_matrix(shape))

    def test_not_fitted(self, make: Factory, tmp_path: Path) -> None:
        model = make()
        calls: list[Callable[[], object]] = [
            lambda: model.recommend(0, random_interactions()[[0]]),
            lambda: model.score(random_interactions()),
            lambda: model.similar_items(0),
            lambda: model.save(tmp_path / "model"),
            lambda: model.refit(random_interactions()),
        ]
        for call in calls:
            with pytest.raises(
                NotFittedError, match=f"^{type(model).__name__} is not fitted; call fit first$"
            ) as error:
                call()
            assert isinstance(error.value, ValueError)
            assert isinstance(error.value, AttributeError)
        assert list(tmp_path.iterdir()) == []

    def test_validation_must_fit(self, make: Factory) -> None:
        interactions = random_interactions()
        narrow, short, nothing = interactions[:, :-1], interactions[:5], sparse.csr_matrix(interactions.shape)
        for fold_in, held_out, named in (
            (narrow, interactions, "^fold_in has 24 columns"),
            (interactions, narrow, "^held_out has 24 columns"),
            (interactions, short, "^validation has 40 fold_in rows, and 5 held_out rows"),
            (interactions, nothing, "held_out rows with 0 interactions"),
        ):
            with pytest.raises(ParameterError, match=named):
                make().fit(interactions, show_progress=False, validation=(fold_in, held_out))

    def test_scores_fall_and_ties_rank_by_item(self, fitted: Recommender) -> None:
        ids, scores = recommend(
            fitted, np.arange(N_USERS), random_interactions(), N=N_ITEMS, filter_already_liked_items=False
        )
        assert (scores[:, 1:] <= scores[:, :-1]).all()
        tied = scores[:, 1:] == scores[:, :-1]
        assert (ids[:, 1:] > ids[:, :-1])[tied].all()

    def test_everything_seen_leaves_padding_only(self, fitted: Recommender) -> None:
        ids, scores = recommend(fitted, [0, 1], sparse.csr_matrix(np.ones((2, N_ITEMS))), N=3)
        assert_array_equal(ids, -1)
        assert_array_equal(scores, -np.inf)

    def test_score_gives_what_recommend_ranks_by(self, folding: Recommender) -> None:
        interactions = random_interactions(n_users=6, seed=1)
        scores = folding.score(interactions)
        assert scores.shape == interactions.shape
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        ids, listed = recommend(folding, np.arange(6), interactions, N=N_ITEMS)
        for row in range(6):
            seen = interactions[[row]].indices
            assert_allclose(listed[row][ids[row] >= 0], scores[row, ids[row][ids[row] >= 0]], rtol=1e-5, atol=1e-6)
            assert set(ids[row]) - {-1} == set(range(N_ITEMS)) - set(seen)

    def test_scores_of_no_users(self, folding: Recommender) -> None:
        assert folding.score(sparse.csr_matrix((0, N_ITEMS))).shape == (0, N_ITEMS)

    def test_score_takes_one_row_of_a_csr_array(self, folding: Recommender) -> None:
        interactions = random_interactions()
        assert_array_equal(folding.score(sparse.csr_array(interactions)[2]), folding.score(interactions[[2]]))

    def test_score_refuses_other_columns(self, folding: Recommender) -> None:
        with pytest.raises(ParameterError, match=r"^user_items has 3 columns but the model was trained on 25 items$"):
            folding.score(sparse.csr_matrix((2, 3)))

    def test_empty_histories_get_the_popularity_prior(self, folding: Recommender) -> None:
        interactions = random_interactions()
        counts = interactions.sum(axis=0).A1.astype(np.float64)
        prior = np.log((counts + 1) / (counts.sum() + N_ITEMS))
        alone = folding.score(sparse.csr_matrix((2, N_ITEMS)))
        assert_allclose(alone, np.tile(prior, (2, 1)), rtol=1e-6)
        users = np.array([0, 5, 6, 9])
        mixed = folding.score(without_interactions(interactions, [5, 9])[users])
        assert_allclose(mixed[[1, 3]], np.tile(prior, (2, 1)), rtol=1e-6)
        assert_allclose(mixed[[0, 2]], folding.score(interactions[[0, 6]]), rtol=1e-5, atol=1e-6)
        ids, _ = recommend(folding, 0, sparse.csr_matrix((1, N_ITEMS)), N=N_ITEMS)
        assert_array_equal(ids, np.lexsort((np.arange(N_ITEMS), -alone[0])))

    def test_users_without_interactions_do_not_disturb_training(self, make: Factory) -> None:
        interactions = without_interactions(random_interactions(), [0, 17, 39])
        ids, scores = recommend(fit(make, interactions), np.arange(N_USERS), interactions, N=5)
        assert np.isfinite(scores).all()
        assert (ids >= 0).all()

    def test_new_users_are_folded_in(self, make_folding: Factory) -> None:
        interactions = checkerboard()
        new = np.arange(SIZE - 4, SIZE)
        ids, _ = fit(make_folding, interactions[: SIZE - 4]).recommend(
            new, interactions[new], N=1, recalculate_user=True
        )
        assert_array_equal(ids[:, 0], new)

    def test_an_item_is_most_similar_to_itself_and_then_to_its_kind(self, comparing: Recommender) -> None:
        items = np.arange(SIZE)
        ids, scores = comparing.similar_items(items, N=SIZE // 2)
        assert ids.dtype == np.int32
        assert scores.dtype == np.float32
        assert_array_equal(ids[:, 0], items)
        assert_array_equal(ids % 2, np.tile(items[:, None] % 2, SIZE // 2))
        assert (np.diff(scores, axis=1) <= 0).all()
        for item in (0, 13):
            alone_ids, alone_scores = comparing.similar_items(item, N=4)
            assert alone_ids.shape == alone_scores.shape == (4,)
            assert_array_equal(alone_ids[0], item)
            assert_allclose(alone_scores, scores[item, :4], rtol=1e-5)

    def test_similar_items_can_be_filtered_or_chosen(self, comparing: Recommender) -> None:
        filtered, _ = comparing.similar_items([4, 5], N=SIZE, filter_items=[4, 6, 7])
        assert not {4, 6, 7} & set(filtered.ravel().tolist())
        chosen, scores = comparing.similar_items(4, N=3, items=[8, 2])
        assert set(chosen[:2].tolist()) == {2, 8}
        assert chosen[2] == -1
        assert scores[2] == -np.inf

    def test_similar_items_refuses(self, comparing: Recommender) -> None:
        with pytest.raises(IndexError, match=f"^itemid holds {SIZE}; expected 0 to {SIZE - 1}$"):
            comparing.similar_items([0, SIZE])
        with pytest.raises(ParameterError, match=r"^N is 0; "):
            comparing.similar_items(0, N=0)
        with pytest.raises(ParameterError, match="items and filter_items"):
            comparing.similar_items(0, items=[1], filter_items=[2])
        with pytest.raises(UnsupportedError, match="cannot recalculate items"):
            comparing.similar_items(0, recalculate_item=True)

    def test_items_without_interactions_are_never_similar(self, make_comparing: Factory) -> None:
        interactions = checkerboard().toarray()
        interactions[:, [7, 8]] = 0
        model = fit(make_comparing, sparse.csr_matrix(interactions))
        ids, scores = model.similar_items(np.arange(SIZE), N=SIZE)
        assert not np.isnan(scores).any()
        assert not {7, 8} & set(ids.ravel().tolist())
        assert (ids[[7, 8]] == -1).all()
        assert (ids[[6, 9], 0] == [6, 9]).all()
        assert (model.similar_items(6, N=2, items=[7, 8])[0] == -1).all()

    def test_fit_leaves_its_input_alone(self, make: Factory) -> None:
        for given in (
            random_interactions(),
            untidy(random_interactions()),
            sparse.csr_array(random_interactions()).astype(np.float64),
        ):
            before = parts(given)
            recommend(fit(make, given), np.arange(N_USERS), given)
            for array, original in zip(parts(given), before, strict=True):
                assert array.dtype == original.dtype
                assert_array_equal(array, original)

    def test_parameters_make_the_model_again(self, make_plain: Factory) -> None:
        model = make_plain()
        parameters = model.get_params()
        assert list(parameters) == [
            name for name in inspect.signature(type(model)).parameters if name not in ("args", "kwargs")
        ]
        assert type(model)(**parameters).get_params() == parameters
        assert eval(repr(model), {type(model).__name__: type(model)}).get_params() == parameters  # noqa: S307

    def test_scikit_learn_clones_it(self, make: Factory) -> None:
        """A clone has equal hyperparameters, is not fitted, and changes without the original."""
        model = fit(make, random_interactions())
        copy = clone(model)
        assert type(copy) is type(model)
        assert copy.describe() == model.describe()
        assert copy.get_params(deep=True).keys() == model.get_params().keys()
        assert not [name for name in vars(copy) if name.endswith("_")]
        described = model.describe()
        for name, value in copy.get_params().items():
            if name.endswith("seed"):
                copy.set_params(**{name: value + 1})
                assert copy.get_params()[name] == value + 1
        assert model.describe() == described
        assert all_scores(fit(lambda: copy, random_interactions()), random_interactions()).shape == (N_USERS, N_ITEMS)

    def test_set_params_checks_as_the_constructor_does(self, make: Factory) -> None:
        model = make()
        described = model.describe()
        with pytest.raises(ParameterError, match=f"^{type(model).__name__} has no hyperparameter 'color'; it has"):
            model.set_params(color=3)
        for name in model.get_params():
            with pytest.raises(ParameterError, match=f"{name.split('__')[-1]} is <object|layer sizes|expected"):
                model.set_params(**{name: object()})
        assert model.describe() == described
        assert model.set_params(**model.get_params(deep=False)).describe() == described

    @pytest.mark.parametrize(
        ("word", "use"), [("random_state", "seed|nothing"), ("num_threads", "OMP"), ("dtype", "float")]
    )
    def test_words_of_other_libraries(self, make: Factory, word: str, use: str) -> None:
        kind = type(make())
        with pytest.raises(ParameterError, match=rf"^{kind.__name__} has no argument {word}; use .*({use})"):
            kind(**{word: 1})

    def test_callback_hears_of_each_epoch(self, make: Factory) -> None:
        heard: list[tuple[int, float, float]] = []
        make().fit(random_interactions(), show_progress=False, callback=lambda *call: heard.append(call))
        assert [epoch for epoch, _, _ in heard] == list(range(len(heard)))
        assert heard
        assert all(isinstance(seconds, float) and seconds >= 0 for _, seconds, _ in heard)
        assert all(isinstance(loss, float) for _, _, loss in heard)

    def test_the_seed_decides_everything(self, make: Factory) -> None:
        interactions = random_interactions()
        first = all_scores(fit(make, interactions), interactions)
        assert_array_equal(all_scores(fit(make, interactions), interactions), first)
        parameters = make().get_params(deep=False)
        if "seed" in parameters and not make().consists_of_models:  # these have seeds of their own
            other = type(make())(**parameters | {"seed": parameters["seed"] + 1})
            assert (all_scores(other.fit(interactions, show_progress=False), interactions) != first).any()

    def test_a_second_fit_forgets_the_first(self, make: Factory) -> None:
        interactions = random_interactions()
        model = fit(make, checkerboard()).fit(interactions, show_progress=False)
        assert_array_equal(all_scores(model, interactions), all_scores(fit(make, interactions), interactions))

    def test_refit_fits_a_new_model_with_the_settings_found(self, make_plain: Factory) -> None:
        interactions, more = random_interactions(), random_interactions(60, seed=1)
        fitted = fit(make_plain, interactions)
        before = all_scores(fitted, interactions)
        again = fitted.refit(more, show_progress=False)
        assert type(again) is type(fitted)
        assert again.fitted_on(more)
        assert fitted.fitted_on(interactions)
        assert again.describe()["class"] == fitted.describe()["class"]
        assert_array_equal(all_scores(fitted.refit(interactions, show_progress=False), interactions), before)

    def test_global_random_states_stay(self, make: Factory) -> None:
        interactions = random_interactions()
        before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
        recommend(fit(make, interactions), np.arange(N_USERS), interactions)
        after = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
        assert before[0] == after[0]
        assert str(before[1]) == str(after[1])
        assert torch.equal(before[2], after[2])

    def test_saved_and_loaded_it_is_the_same(self, fitted: Recommender, tmp_path: Path) -> None:
        interactions = random_interactions()
        fitted.save(tmp_path / "model")
        loaded = type(fitted).load(tmp_path / "model")
        assert type(loaded) is type(fitted)
        assert loaded.describe() == fitted.describe()
        assert_array_equal(loaded.item_counts_, fitted.item_counts_)
        assert_array_equal(all_scores(loaded, interactions), all_scores(fitted, interactions))

    def test_saved_and_loaded_it_compares_items_the_same(self, comparing: Recommender, tmp_path: Path) -> None:
        comparing.save(tmp_path / "model")
        loaded = type(comparing).load(tmp_path / "model")
        for mine, its in zip(loaded.similar_items([0, 7]), comparing.similar_items([0, 7]), strict=True):
            assert_array_equal(mine, its)

    def test_load_refuses_another_class(self, fitted: Recommender, tmp_path: Path) -> None:
        class Other(Recommender):
            """A class of which nothing is ever saved."""

        fitted.save(tmp_path / "model")
        with pytest.raises(ArtifactError, match=f"holds a {type(fitted).__name__}, not a Other$"):
            Other.load(tmp_path / "model")
