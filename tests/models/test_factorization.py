"""Factorizations that `implicit` trains: their arguments."""

import pytest

from recvae.models.als import ALS
from recvae.models.factorization import BPR, LMF


def test_arguments_stand_in_the_order_of_implicit() -> None:
    model = ALS(3, 0.2, 4.0)
    assert (model.factors, model.regularization, model.alpha) == (3, 0.2, 4.0)
    for kind in (ALS, BPR, LMF):
        with pytest.raises(TypeError, match=r"positional arguments? but 5 were given"):
            kind(3, 0.2, 4.0, 5)  # type: ignore[call-arg]
