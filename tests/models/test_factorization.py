"""Factorizations that `implicit` trains: their arguments."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.models.als import ALS
from recvae.models.factorization import BPR, LMF, Factorization
from recvae.models.registry import load
from tests.contracts import random_interactions


def test_arguments_stand_in_the_order_of_implicit() -> None:
    model = ALS(3, 0.2, 4.0)
    assert (model.factors, model.regularization, model.alpha) == (3, 0.2, 4.0)
    for kind in (ALS, BPR, LMF):
        with pytest.raises(TypeError, match=r"positional arguments? but 5 were given"):
            kind(3, 0.2, 4.0, 5)  # type: ignore[call-arg]


@pytest.mark.parametrize("model", [ALS(8, 1.0, 2.0), BPR(8, iterations=5), LMF(8, iterations=5)])
def test_users_without_a_history_in_training_get_popular_items(tmp_path: Path, model: Factorization) -> None:
    known = random_interactions()
    nobody = sparse.csr_matrix(np.zeros((1, known.shape[1]), dtype=np.float32))
    data = sparse.csr_matrix(sparse.vstack([nobody, known, nobody]))
    model.fit(data, show_progress=False)
    model.save(tmp_path / "model")
    users = np.array([0, 1, data.shape[0] - 1])
    for one in (model, load(tmp_path / "model").model):
        ids, scores = one.recommend(users, data[users], N=5)
        popular = np.sort(model._popularity_prior())[:-6:-1]
        assert_array_equal(scores[[0, 2]], [popular, popular])
        assert (np.diff(model.item_counts_[ids[[0, 2]]]) <= 0).all()
        assert_allclose(scores[1], model.user_factors_[1] @ model.item_factors_[ids[1]].T, rtol=1e-5)
