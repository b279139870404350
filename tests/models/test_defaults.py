"""Defaults on made-up data that nobody tuned for: no model ranks significantly worse than popularity."""

from functools import cache

import pytest

from recvae.data.interactions import Interactions
from recvae.data.splitting import Split, strong_generalization
from recvae.datasets.synthetic import generate
from recvae.evaluation.evaluate import EvalResult, evaluate
from recvae.evaluation.significance import paired_test
from recvae.models.registry import MODELS, create
from tests.contracts import one_thread as one_thread

MODELS_THAT_FOLD_IN = [name for name in MODELS if MODELS[name].folds_in and name not in ("popularity", "blend")]
SHAPES = {"dense": (450, 60), "sparse": (450, 700)}


@cache
def split(shape: str) -> Split:
    n_users, n_items = SHAPES[shape]
    ratings = generate(n_users=n_users, n_items=n_items, seed=5).ratings.drop_duplicates(["user_id", "item_id"])
    return strong_generalization(Interactions.from_frame(ratings), val_users=100, test_users=150)


@cache
def evaluate_default(name: str, shape: str, validated: bool) -> EvalResult:
    data = split(shape)
    model = create(name).fit(data.train, show_progress=False, validation=data.validation if validated else None)
    return evaluate(model, data.test, ["ndcg@100"])


@pytest.mark.parametrize("validated", [True, False], ids=["validated", "alone"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS_THAT_FOLD_IN)
def test_defaults_are_no_worse_than_popularity(name: str, shape: str, validated: bool) -> None:
    test = paired_test(
        evaluate_default(name, shape, validated), evaluate_default("popularity", shape, False), "ndcg@100"
    )
    assert test.difference > 0 or test.p_value > 0.05
