"""Validation users that `fit` takes, and those that it refuses."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recvae.data.split import Holdout
from recvae.errors import ParameterError
from recvae.models.fit_context import check_validation
from recvae.models.popularity import Popularity

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
