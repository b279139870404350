"""The epoch whose weights are kept, and the end of training: by the figures of each validation user."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae.evaluation.metrics import hit_matrix, ndcg_at_k
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multvae import MultVAE
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.training.test_trainer import assert_same, holdout, small, weights


def ndcg(model: Autoencoder, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> float:
    ids, _ = model.recommend(np.arange(fold_in.shape[0]), fold_in, N=5)
    return float(np.nanmean(ndcg_at_k(hit_matrix(ids, held_out), np.diff(held_out.indptr), 5)))


def patch_validation(monkeypatch: pytest.MonkeyPatch, by_epoch: Iterable[Sequence[float]]) -> None:
    """Let validation users have these figures after each epoch."""
    figures = iter(by_epoch)
    monkeypatch.setattr(MultVAE, "validate", lambda *_: np.array(next(figures)))


def test_the_kept_weights_are_those_of_the_epoch_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_validation(monkeypatch, [[0.1, 0.1], [0.2, 0.3], [0.4, 0.5], [0.2, 0.3], [0.3, 0.4], [0.1, 0.2]])
    seen: list[dict[str, torch.Tensor]] = []
    model = small(epochs=6)

    def callback(*_: float) -> None:
        seen.append({name: tensor.clone() for name, tensor in weights(model).items()})

    model.fit(random_interactions(), show_progress=False, validation=holdout(), callback=callback)
    assert model.best_epoch_ == 3
    assert all(torch.equal(tensor, seen[2][name]) for name, tensor in weights(model).items())
    assert not all(torch.equal(tensor, seen[5][name]) for name, tensor in weights(model).items())


def test_history_has_the_validation_users_mean() -> None:
    fold_in, held_out = holdout()
    model = small().fit(random_interactions(), show_progress=False, validation=(fold_in, held_out))
    figure = model.history_[model.best_epoch_ - 1]["ndcg@5"]
    assert ndcg(model, fold_in, held_out) == pytest.approx(figure, rel=1e-12)


@pytest.mark.parametrize(
    ("by_epoch", "kept"),
    [
        ([[0.0, 1.0, 0.0], [0.5, 0.0, 0.4], [0.3, 0.0, 0.5]], 3),  # the first is best by one user's luck
        ([[0.5, 0.5, 0.6], [0.1, 0.2, 0.1], [0.1, 0.1, 0.2]], 1),  # all are better off after the first
        ([[0.1, 0.1, 0.2], [0.5, 0.5, 0.6], [0.2, 0.2, 0.2], [0.5, 0.4, 0.6], [0.1, 0.2, 0.1]], 4),
        ([[0.5], [0.1]], 2),  # of one user nothing is clear
        ([[0.0, 0.0], [0.0, 0.0]], 2),
    ],
)
def test_an_epoch_is_kept_unless_the_best_is_ahead(
    by_epoch: list[list[float]], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_validation(monkeypatch, by_epoch)
    model = small(epochs=len(by_epoch)).fit(random_interactions(), show_progress=False, validation=holdout())
    assert model.best_epoch_ == kept


def test_few_users_choose_as_the_whole_history_would(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = np.random.default_rng(2).random((40, 12))
    best = int(figures.mean(axis=1).argmax())
    leads = figures[best] - figures
    errors = leads.std(axis=1, ddof=1) / 12**0.5
    patch_validation(monkeypatch, figures.tolist())
    model = small(epochs=40).fit(random_interactions(), show_progress=False, validation=holdout())
    assert model.best_epoch_ == 1 + int(np.flatnonzero(leads.mean(axis=1) <= errors).max())


def test_without_validation_the_last_epochs_weights_stay() -> None:
    seen: dict[str, torch.Tensor] = {}
    model = small()

    def callback(*_: float) -> None:
        seen.update(weights(model))

    model.fit(random_interactions(), show_progress=False, callback=callback)
    assert all(torch.equal(tensor, seen[name]) for name, tensor in weights(model).items())


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_refit_ends_where_the_best_epoch_was(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_interactions()
    options = {"epochs": 30, "learning_rate": 0.05, "schedule": schedule}
    with monkeypatch.context() as patch:
        patch_validation(patch, [[0.5 - abs(epoch - 17) / 100] * 3 for epoch in range(30)])
        model = small(**options).fit(interactions, show_progress=False, validation=holdout())
    assert model.best_epoch_ == 18
    again = model.refit(interactions, show_progress=False)
    assert len(again.history_) == again.best_epoch_ == model.best_epoch_
    mine, its = weights(model), weights(again)
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    assert_same(again.refit(interactions, show_progress=False), again)
    assert len(again.fit(interactions, show_progress=False).history_) == 30


def test_patience_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_validation(monkeypatch, [[0.1, 0.2], [0.4, 0.5], [0.3, 0.4], [0.4, 0.4], [0.3, 0.4], [0.2, 0.3], [0.1, 0.2]])
    model = small(epochs=60, patience=3).fit(random_interactions(), show_progress=False, validation=holdout())
    assert (model.best_epoch_, len(model.history_)) == (4, 7)  # the fourth is within a standard error of the second


@pytest.mark.parametrize(("epochs", "patience"), [(60, 20), (8, 5), (3, 5)])
def test_patience_left_to_the_data_is_a_share_of_the_epochs(
    epochs: int, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_validation(monkeypatch, ([1 - epoch / 100] * 2 for epoch in range(epochs)))
    model = small(epochs=epochs, patience=None)
    model.fit(random_interactions(), show_progress=False, validation=holdout())
    assert model.best_epoch_ == 1
    assert len(model.history_) == min(epochs, 1 + patience)
    assert model.fitted_params()["patience"] == patience
    assert model.patience is None


@pytest.mark.parametrize("patience", [None, 1])
def test_no_patience_without_validation(patience: int | None) -> None:
    model = small(patience=patience, epochs=9, learning_rate=0.05)
    assert len(model.fit(random_interactions(), show_progress=False).history_) == 9
