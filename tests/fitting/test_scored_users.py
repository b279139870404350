"""The users that a search chooses and tests by."""

from dataclasses import replace

import numpy as np
import pytest

from recvae.data.csr import fingerprint
from recvae.data.everything import collect_everything
from recvae.data.interactions import Interactions
from recvae.data.splitting import strong_generalization
from recvae.datasets.synthetic import generate
from recvae.fitting import scored_users
from recvae.fitting.scored_users import choose_scored_users, compute_growth, describe_split

DATA = Interactions.from_frame(generate(100, 40).ratings)
SPLIT = strong_generalization(DATA, val_users=20, test_users=20)


def test_many_users_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored_users, "MOST_SCORED_USERS", 7)
    chosen = choose_scored_users(SPLIT, 0)
    assert chosen is not None
    assert chosen.validation is not None
    assert (chosen.validation.n_users, chosen.test.n_users) == (7, 7)
    assert SPLIT.validation is not None
    rows = SPLIT.validation.user_ids.get_indexer(chosen.validation.user_ids)
    assert fingerprint(chosen.validation.fold_in) == fingerprint(SPLIT.validation.fold_in[rows])
    assert fingerprint(chosen.validation.held_out) == fingerprint(SPLIT.validation.held_out[rows])
    assert describe_split(chosen).endswith("60 users to learn from, 7 to choose by, 7 to test on")


def test_few_users_stay_as_they_are() -> None:
    chosen = choose_scored_users(SPLIT, 0)
    assert chosen is not None
    assert chosen.validation is SPLIT.validation
    assert chosen.test is SPLIT.test


def test_validation_users_are_held_out_of_training_where_there_are_none() -> None:
    chosen = choose_scored_users(replace(SPLIT, validation=None), 0)
    assert chosen is not None
    assert chosen.validation is not None
    assert chosen.train.shape[0] + chosen.validation.n_users == 60
    assert (chosen.validation.train_rows == -1).all()


def test_too_few_users_to_hold_any_out() -> None:
    assert choose_scored_users(replace(SPLIT, train=SPLIT.train[:30], validation=None), 0) is None


def test_growth_is_that_of_the_interactions_or_of_the_square_of_the_items() -> None:
    everything = collect_everything(DATA)
    growth = compute_growth(everything, SPLIT)
    assert growth.usual == growth.of("als") == pytest.approx(everything.user_items.nnz / SPLIT.train.nnz)
    side = min(everything.user_items.shape) / min(SPLIT.train.shape)
    assert growth.of("ease") == pytest.approx(max(growth.usual, side**3))
    wider = replace(SPLIT, train=SPLIT.train[:, : SPLIT.train.shape[1] // 2])
    assert compute_growth(everything, wider).usual == pytest.approx(
        max(4.0, everything.user_items.nnz / wider.train.nnz), rel=0.2
    )
    fewer = replace(SPLIT, train=SPLIT.train[: SPLIT.train.shape[1] // 2])  # users, than there are items
    assert compute_growth(everything, fewer).of("ease") == pytest.approx(
        (min(everything.user_items.shape) / fewer.train.shape[0]) ** 3
    )
    assert np.isfinite(growth).all()
