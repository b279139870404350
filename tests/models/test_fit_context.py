"""Validation users that `fit` takes, those that it refuses, and the time that it takes to choose by them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recvae.data.split import Holdout
from recvae.errors import ParameterError
from recvae.models.fit_context import check_validation
from recvae.models.popularity import Popularity
from recvae.models.registry import MODELS
from tests.test_tuning import split

MATRIX = sparse.csr_matrix(np.eye(3, dtype=np.float32))


def test_a_pair_and_a_holdout_are_validation_users() -> None:
    holdout = Holdout(MATRIX, MATRIX, pd.RangeIndex(3), np.full(3, -1, dtype=np.int32))
    pair: Any = [MATRIX, MATRIX]
    for validation in (holdout, (MATRIX, MATRIX), pair):
        fold_in, held_out = check_validation(validation, MATRIX)
        assert fold_in.nnz == held_out.nnz == 3


@pytest.mark.parametrize(
    ("validation", "named"),
    [(MATRIX, "csr_matrix"), ((MATRIX,), "tuple"), ([MATRIX] * 3, "list"), (3, "int")],
    ids=["matrix", "one", "three", "number"],
)
def test_what_is_no_pair_is_refused(validation: Any, named: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Popularity().fit(MATRIX, show_progress=False, validation=validation)
    assert str(refused.value) == (f"validation is a {named}; expected a Holdout, or two matrices: (fold_in, held_out)")


@pytest.mark.parametrize(
    ("name", "given", "chooses"),
    [
        ("ease", {}, True),
        ("ease", {"l2": 5.0, "dropout": 0.1, "user_exponent": 0.0}, False),
        ("graph", {}, True),
        ("bm25", {}, True),
        ("als", {"factors": 5}, True),
        ("als", {"factors": 5, "alpha": 2.0, "regularization": 3.0}, False),
        ("popularity", {}, False),
    ],
)
def test_fitting_again_takes_what_did_not_choose(name: str, given: dict[str, Any], chooses: bool) -> None:
    data = split()
    model = MODELS.create(name, None, given).fit(data.train, show_progress=False, validation=data.validation)
    assert model.fit_seconds_ is not None
    assert model.refit_seconds_ is not None
    assert 0 < model.refit_seconds_ <= model.fit_seconds_
    if chooses:
        assert model.refit_seconds_ < model.fit_seconds_
    else:
        assert model.refit_seconds_ == pytest.approx(model.fit_seconds_, rel=0.5)
