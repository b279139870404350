"""Arguments of `recommend`, `similar_items` and `explain`: numbers that nobody meant are refused in one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recvae.errors import ParameterError
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.factorization import BPR, LMF
from recvae.models.linear.ease import EASE
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions

USERS = random_interactions(30, 12)


@pytest.fixture(scope="module")
def model() -> EASE:
    return EASE(l2=1).fit(USERS, False)


@pytest.mark.parametrize("given", [2.7, [7.9], "a", [True, False], np.ones(12, bool), float("nan"), {1, 2}, 10**30])
def test_rows_and_items_are_whole_numbers(model: EASE, given: Any) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "userid": lambda: model.recommend(given, USERS),
        "items": lambda: model.recommend(0, USERS, items=given),
        "filter_items": lambda: model.recommend(0, USERS, filter_items=given),
        "itemid": lambda: model.similar_items(given),
    }
    for name, call in calls.items():
        with pytest.raises(ParameterError, match=f"{name} is .*; expected a whole number or a row of them"):
            call()


def test_users_and_several_rows(model: EASE) -> None:
    with pytest.raises(ParameterError, match="userid is None"):
        model.recommend(None, USERS)  # type: ignore[arg-type]
    for wrong in ([[1, 2]], [[1], [2, 3]]):
        with pytest.raises(ParameterError, match="itemid is"):
            model.similar_items(wrong)


@pytest.mark.parametrize("given", [np.array([1, 2], np.uint8), [1.0, 2.0], (1, 2), range(1, 3)])
def test_whole_numbers_of_any_type(model: EASE, given: Any) -> None:
    assert sorted(model.recommend(0, USERS, items=given, filter_already_liked_items=False)[0]) == [1, 2]


@pytest.mark.parametrize("n", [0, 2.0, "2", None, True])
def test_lengths_of_lists(model: EASE, n: Any) -> None:
    with pytest.raises(ParameterError, match=r"N is .*; expected a whole number of at least 1"):
        model.recommend(0, USERS, N=n)


@pytest.mark.parametrize(
    "model", [BPR(4, iterations=2), LMF(4, iterations=2), MultVAE(hidden=8, latent=4, epochs=1)], ids=repr
)
def test_matrices_that_cannot_be_written_to(model: Recommender) -> None:
    given = USERS.copy()
    for array in (given.data, given.indices, given.indptr):
        array.setflags(write=False)
    expected = model.fit(USERS, False).recommend([0, 1], USERS[:2])
    for mine, theirs in zip(model.fit(given, False).recommend([0, 1], given[:2]), expected, strict=True):
        assert np.array_equal(mine, theirs)
