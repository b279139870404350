"""Unusual histories are what their names say, and users are held out whole."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from benchmarks.anomalies import compare
from benchmarks.synthetic_users import shuffle
from benchmarks.unusual import ATTACKS, PROFILE_SIZES, REPLACED, Attack, count_items, make_unusual
from benchmarks.whole_users import read_whole_users
from recvae.data.split import Holdout
from tests.models.generative.test_anomaly import draw_users


def test_kinds_of_unusual_histories() -> None:
    train, test = draw_users(200, seed=0), draw_users(30, seed=1)
    made = make_unusual(test, train, np.random.default_rng(0))
    assert len(made) == 3 + len(REPLACED) + len(ATTACKS) * len(PROFILE_SIZES)
    lengths = np.diff(test.indptr)
    for name in ("popularity draws", "uniform draws", *REPLACED):
        assert_array_equal(np.diff(made[name].indptr), lengths)
    for name, share in REPLACED.items():
        foreign = 1 - made[name].multiply(test).sum() / test.nnz
        assert foreign == pytest.approx(share, abs=0.05)
    assert (made["two users in one"] - test).min() >= 0


@pytest.mark.parametrize("kind", ATTACKS)
def test_profiles_have_the_target_and_the_size(kind: str) -> None:
    train = draw_users(200, seed=0)
    attack = Attack.prepare(train, np.random.default_rng(0))
    profiles = attack.profiles(kind, 20, 15)
    counts = count_items(train)
    assert counts[attack.target] <= np.quantile(counts[counts > 0], 0.3)
    assert_array_equal(profiles[:, [attack.target]].toarray(), np.ones((15, 1)))
    assert_array_equal(np.diff(profiles.indptr), np.full(15, 20))


def test_a_detector_that_knows_has_auc_1() -> None:
    figures = compare(np.zeros(20), np.ones(20))
    assert (figures["auc"], figures["ap"], figures["auc_error"]) == (1, 1, 0)


def test_shuffled_interactions_keep_popularity() -> None:
    train = draw_users(300, seed=0)
    shuffled = shuffle(train, np.random.default_rng(0))
    assert np.corrcoef(count_items(shuffled), count_items(train))[0, 1] > 0.95
    assert (np.diff(shuffled.indptr) <= np.diff(train.indptr)).all()


def test_users_are_held_out_whole_of_a_split_that_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = draw_users(60, seed=0)
    users = np.arange(60, dtype=np.int32)
    first, second = (everything.multiply((np.arange(everything.shape[1]) % 5 == k)[None]).tocsr() for k in (0, 1))
    train = sparse.csr_matrix(everything - first - second)
    validation, test = (Holdout(train, part, pd.Index(users), users) for part in (first, second))
    split = SimpleNamespace(train=train, validation=validation, test=test)
    monkeypatch.setattr("benchmarks.whole_users.read_prepared", lambda _: SimpleNamespace(split=split))
    whole = read_whole_users(Path("data"))
    fold_in, held_out = whole.validation
    assert (whole.train.shape[0], fold_in.shape[0], whole.test.shape[0]) == (44, 6, 10)
    assert fold_in.multiply(held_out).nnz == 0
    assert whole.train.nnz + fold_in.nnz + held_out.nnz + whole.test.nnz == everything.nnz
