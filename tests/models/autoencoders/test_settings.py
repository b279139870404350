"""Settings left to the data: the rules, and that a fit is as if their values had been given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError, UnsupportedError
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.autoencoders.settings import (
    EpochRule,
    MatrixSize,
    choose_batch_size,
    choose_dropout,
    choose_gamma,
    choose_patience,
)
from recvae.models.registry import create
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions
from tests.training.test_trainer import assert_same, holdout

LEFT_TO_THE_DATA: dict[str, dict[str, Any]] = {
    "multvae": {"gamma": None, "total_anneal_steps": None, "latent": None, "hidden": (8,), "encoder": "dense"},
    "multdae": {"latent": 4},
    "recvae": {"gamma": None, "hidden": (8,), "latent": 4},
}
CLASSES: dict[str, type[MultVAE] | type[MultDAE] | type[RecVAE]] = {
    "multvae": MultVAE,
    "multdae": MultDAE,
    "recvae": RecVAE,
}


def test_the_size_counts_what_has_interactions() -> None:
    matrix = sparse.csr_matrix([[1, 0, 1, 0], [0, 0, 0, 0], [5, 0, 0, 0]], dtype=np.float32)
    assert MatrixSize.of(matrix, np.array([2, 0, 1, 0], np.float32)) == MatrixSize(users=2, items=2, interactions=3)


@pytest.mark.parametrize(
    ("users", "items", "interactions", "gamma"),
    [
        (100, 10, 5_000, 0.005),  # 50 interactions a user, 500 an item
        (100, 100, 5_000, 0.005),
        (100, 1_000, 5_000, 0.0122),  # 5 an item: √6 times as much
    ],
)
def test_the_kl_weight_is_a_share_of_the_mean_history(users: int, items: int, interactions: int, gamma: float) -> None:
    assert choose_gamma(MatrixSize(users, items, interactions)) == gamma


@pytest.mark.parametrize(("share", "gamma"), [(0.1, 0.001), (0.25, 0.0025), (0.5, 0.005), (2.0, 0.005)])
def test_the_kl_weight_is_smaller_in_short_trainings(share: float, gamma: float) -> None:
    assert choose_gamma(MatrixSize(100, 10, 5_000), share) == gamma


@pytest.mark.parametrize(("interactions", "dropout"), [(299, 0.7), (300, 0.5), (50_000, 0.5)])
def test_sparse_histories_lose_more(interactions: int, dropout: float) -> None:
    assert choose_dropout(MatrixSize(100, 1_000, interactions)) == dropout


@pytest.mark.parametrize(
    ("users", "epochs", "batch_size"),
    [(700, 100, 125), (4_838, 100, 125), (12_000, 75, 300), (29_858, 30, 500), (116_677, 30, 500)],
)
def test_epochs_and_batches_fit_the_users(users: int, epochs: int, batch_size: int) -> None:
    assert EpochRule(900_000, 30, 100).choose(MatrixSize(users, 1_000, 50_000)) == epochs
    assert choose_batch_size(users) == batch_size


@pytest.mark.parametrize(("interactions", "epochs"), [(3_000, 100), (1_000, 173), (100, 548)])
def test_training_is_longer_where_items_have_few_interactions(interactions: int, epochs: int) -> None:
    assert EpochRule(900_000, 30, 100).choose(MatrixSize(700, 100, interactions)) == epochs


@pytest.mark.parametrize(
    ("name", "params", "spectral"),
    [
        ("multvae", {}, True),
        ("recvae", {}, True),
        ("multdae", {}, False),
        ("multvae", {"initial": "random"}, False),
        ("recvae", {"initial": "random"}, False),
        ("multvae", {"n_negatives": 5}, False),
        ("multvae", {"n_negatives": 5, "initial": "spectral"}, True),
        ("multvae", {"parallel": "items"}, False),
        ("recvae", {"parallel": "items"}, False),
    ],
)
def test_fewer_epochs_are_enough_from_singular_vectors(name: str, params: dict[str, Any], spectral: bool) -> None:
    model: Any = create(name, latent=8, **params)
    model.item_counts_ = np.ones(500, np.float32)
    few_users, many_users = MatrixSize(600, 500, 30_000), MatrixSize(90_000, 500, 1_000_000)
    all_epochs, fewer, fewest = {"multvae": (100, 50, 30), "recvae": (25, 15, 15), "multdae": (100, 50, 30)}[name]
    assert model._choose(few_users)["epochs"] == (fewer if spectral else all_epochs)
    assert model._choose(many_users)["epochs"] == fewest


def test_fewer_users_than_columns_have_no_singular_vectors_to_start_from() -> None:
    model = MultVAE(hidden=(41,), latent=4, initial=None, epochs=None)
    model.fit(random_interactions(), show_progress=False)
    assert model.fitted_params()["initial"] == "random"
    narrower = MultVAE(hidden=(40,), latent=4, initial=None, epochs=None).fit(
        random_interactions(), show_progress=False
    )
    assert narrower.fitted_params()["initial"] == "spectral"
    assert narrower.fitted_params()["epochs"] < model.fitted_params()["epochs"]
    assert narrower.count_epochs(random_interactions()) == narrower.fitted_params()["epochs"]


@pytest.mark.parametrize(("epochs", "patience"), [(100, 33), (30, 10), (8, 5), (1, 5)])
def test_patience_is_a_share_of_the_epochs(epochs: int, patience: int) -> None:
    assert choose_patience(epochs) == patience


@pytest.mark.parametrize("name", CLASSES)
def test_a_fit_is_as_if_the_values_had_been_given(name: str) -> None:
    rules: dict[str, Any] = {"dropout": None, "batch_size": None, "patience": None, **LEFT_TO_THE_DATA[name]}
    model = CLASSES[name](**rules, epochs=3, metric="ndcg@5")
    model.fit(random_interactions(), show_progress=False, validation=holdout())
    found = model.fitted_params()
    assert {key for key, value in found.items() if value is None} <= {"n_negatives", "total_anneal_steps"}
    assert (found["dropout"], found["batch_size"], found["patience"]) == (0.5, 125, 5)
    size = MatrixSize(40, 25, random_interactions().nnz)
    gamma = choose_gamma(size, 3 / CLASSES[name].EPOCHS.choose(size))
    assert found.get("gamma") == (None if name == "multdae" else gamma)
    assert all(value == rules[key] for key, value in model.get_params().items() if key in rules)
    assert_same(CLASSES[name](**found).fit(random_interactions(), show_progress=False, validation=holdout()), model)


@pytest.mark.parametrize("name", CLASSES)
def test_given_values_are_used(name: str) -> None:
    params: dict[str, Any] = {**LEFT_TO_THE_DATA[name], "dropout": 0.1, "batch_size": 7, "patience": 1, "epochs": 2}
    params |= {key: 0.3 for key in ("gamma",) if key in params}
    model = CLASSES[name](**params).fit(random_interactions(), show_progress=False)
    found = model.fitted_params()
    given = {key: value for key, value in params.items() if value is not None}
    assert {key: found[key] for key in given} == given


def test_epochs_are_chosen_by_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    few = EpochRule(histories=40, fewest=1, most=100)
    epochs = few.choose(MatrixSize(40, 25, random_interactions().nnz))
    for kind in CLASSES.values():
        monkeypatch.setattr(kind, "EPOCHS", few)
        model = kind(hidden=(8,), latent=4, epochs=None).fit(random_interactions(), show_progress=False)
        assert len(model.history_) == model.fitted_params()["epochs"] == epochs
        assert kind(hidden=(8,), latent=4, epochs=None).count_epochs(random_interactions()) == epochs
        assert kind(hidden=(8,), latent=4, epochs=7).count_epochs(random_interactions()) == 7


def test_annealing_takes_the_place_of_gamma() -> None:
    model = MultVAE(hidden=(8,), latent=4, epochs=2, total_anneal_steps=10)
    model.fit(random_interactions(), show_progress=False)
    assert model.fitted_params()["gamma"] is None
    assert model.history_[0]["beta"] < model.history_[1]["beta"]


@pytest.mark.parametrize("name", CLASSES)
def test_presets(name: str) -> None:
    recommended, paper = create(name).get_params(), create(name, "paper").get_params()
    assert {key: recommended[key] for key in ("dropout", "epochs", "batch_size", "patience")} == dict.fromkeys(
        ("dropout", "epochs", "batch_size", "patience")
    )
    assert None not in {paper[key] for key in ("dropout", "epochs", "batch_size")}
    if name != "multdae":
        assert recommended["gamma"] is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_loaded_model_knows_what_was_chosen_and_can_be_fitted_again(name: str, tmp_path: Path) -> None:
    interactions = random_interactions()
    model = CLASSES[name](**LEFT_TO_THE_DATA[name], dropout=None, epochs=20, learning_rate=0.05, metric="ndcg@5")
    model.fit(interactions, show_progress=False, validation=holdout())
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    assert loaded.fitted_params() == model.fitted_params()
    assert loaded.best_epoch_ == model.best_epoch_
    assert_same(loaded.refit(interactions, show_progress=False), model.refit(interactions, show_progress=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda numbers: numbers[:-2], r"fit_numbers is float64 \(6,\)"),
        (lambda numbers: numbers.astype(np.float32), r"fit_numbers is float32 \(8,\)"),
        (lambda numbers: np.append(numbers[:-1], 0.5), "spectral 0.5; expected 0 or 1"),
        (lambda numbers: numbers * 0, "best_epoch 0.0; expected a whole number"),
        (lambda numbers: numbers + 0.5, "best_epoch 2.5; expected a whole number"),
        (lambda numbers: numbers + np.inf, "best_epoch inf; expected a whole number"),
        (lambda numbers: numbers + np.array([0, 0, 0, 0, 0, 3, 0, 0]), "dropout is 3.5; expected"),
    ],
)
def test_damaged_numbers_are_refused(change: Any, message: str) -> None:
    model = MultDAE(latent=4, dropout=None, epochs=2).fit(random_interactions(), show_progress=False)
    state = model._state()
    loaded = MultDAE(latent=4, dropout=None, epochs=2)
    loaded.item_counts_ = model.item_counts_
    with pytest.raises((ArtifactError, ParameterError), match=message):
        loaded._restore({**state, "fit_numbers": change(state["fit_numbers"])})


@pytest.mark.parametrize("columns", [8, 600], ids=["spectral", "random"])
def test_a_loaded_model_knows_how_it_started(columns: int) -> None:
    interactions = random_interactions()
    model = MultVAE(initial=None, hidden=(columns,), latent=4, epochs=2).fit(interactions, show_progress=False)
    state = model._state()
    for packed, initial in (
        (state["fit_numbers"], "spectral" if columns == 8 else "random"),
        (state["fit_numbers"][:-1], None),  # as saved before it was kept
    ):
        loaded = MultVAE(initial=None, hidden=(columns,), latent=4, epochs=2)
        loaded.item_counts_ = model.item_counts_
        loaded._restore({**state, "fit_numbers": packed})
        assert loaded.fitted_params()["initial"] == initial


def test_without_its_numbers_a_loaded_model_ranks_but_is_not_fitted_again() -> None:
    model = MultDAE(latent=4, epochs=2).fit(random_interactions(), show_progress=False)
    state = {name: array for name, array in model._state().items() if name != "fit_numbers"}  # as in version 0.1
    loaded = MultDAE(latent=4, epochs=2)
    loaded.item_counts_ = model.item_counts_
    loaded._restore(state)
    assert (loaded.score(random_interactions()) == model.score(random_interactions())).all()
    with pytest.raises(UnsupportedError, match=r"was saved without its best epoch; fit it again first$"):
        loaded.refit(random_interactions())
