"""Hyperparameter search: finds what is better, goes on where it stopped, is shared, and never sees test users."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recvae.data.splitting import Holdout, Split
from recvae.errors import MissingDependencyError, ParameterError
from recvae.models.hyperparameters import RealRange, WholeRange
from recvae.models.registry import MODELS
from recvae.tuning import SAMPLERS, SearchResult, Trial, tune
from tests.contracts import one_thread as one_thread
from tests.models.autoencoders.test_variational import tastes


def split() -> Split:
    """Users of three tastes: 200 train, 50 validation; test users whose matrices raise when touched."""
    interactions = tastes()
    fold_in, held_out = interactions[200:250].copy(), interactions[200:250].copy()
    later = np.arange(fold_in.nnz) % 3 == 0
    fold_in.data = np.where(later, 0, 1).astype(np.float32)
    held_out.data = np.where(later, 1, 0).astype(np.float32)
    for matrix in (fold_in, held_out):
        matrix.eliminate_zeros()
    users = np.arange(50)
    validation = Holdout(fold_in, held_out, users, np.full(50, -1, dtype=np.int32))  # type: ignore[arg-type]
    return Split(interactions[:200], users, np.arange(60), validation, Untouchable(), {}, {})  # type: ignore[arg-type]


class Untouchable:
    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"tuning touched the test users' {name}")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_best_trial_wins(sampler: str) -> None:
    seen: list[Trial] = []
    params = {"dropout": 0.5, "user_exponent": 0.5}
    found = tune("ease", split(), trials=4, sampler=sampler, params=params, on_trial=seen.append)
    assert found.n_trials == len(seen) == 4
    assert found.value == max(trial.value or 0 for trial in seen)
    best = next(trial.params for trial in seen if trial.value == found.value)
    assert found.params == {**params, "metric": "ndcg@100", **best}


def test_a_grid_ends_when_it_is_spent() -> None:
    params = {"dropout": 0.5, "user_exponent": 0.5}
    assert tune("ease", split(), trials=50, sampler="grid", params=params).n_trials == 4


def test_the_same_seed_searches_alike() -> None:
    assert tune("ease", split(), trials=3, seed=5) == tune("ease", split(), trials=3, seed=5)


def test_fixed_hyperparameters_stay() -> None:
    found = tune("graph", split(), trials=2, params={"factors": 3})
    assert found.params["factors"] == 3
    assert set(found.params) == {*MODELS["graph"].SPACE, "metric"}


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    seen: list[Trial] = []
    tune("ease", split(), trials=2, storage=storage, on_trial=seen.append)
    found = tune("ease", split(), trials=5, storage=storage, on_trial=seen.append)
    assert [trial.number for trial in seen] == [1, 2, 3, 4, 5]
    assert [trial.best for trial in seen] == [max(one.value or 0 for one in seen[: n + 1]) for n in range(5)]
    assert tune("ease", split(), trials=5, storage=storage, on_trial=seen.append) == found
    assert len(seen) == 5


def test_an_interrupted_trial_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    with monkeypatch.context() as patched:
        patched.setattr(MODELS["ease"], "_fit", stop)
        with pytest.raises(KeyboardInterrupt):
            tune("ease", split(), trials=1, storage=storage)
    seen: list[Trial] = []
    tune("ease", split(), trials=1, storage=storage, on_trial=seen.append)
    assert [trial.number for trial in seen] == [1]


def test_two_processes_share_a_study(url: str) -> None:
    call = f"tune('ease', split(), trials=6, storage={url!r})"
    code = f"from tests.test_tuning import split, tune; print({call}.n_trials)"
    tune("ease", split(), trials=1, storage=url)
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=300)[0]) for process in both]
    assert all(6 <= count <= 7 for count in counts)


def test_a_database_needs_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql+psycopg://ann:secret@127.0.0.1:1/studies"
    with pytest.raises(MissingDependencyError, match=r"ann:\*\*\*@.*needs the driver psycopg; .*'psycopg\[binary\]'"):
        tune("ease", split(), trials=1, storage=url)


def test_a_database_that_is_not_there() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ParameterError, match=r"ann:\*\*\*@127.0.0.1:1/studies', which cannot be opened") as raised:
        tune("ease", split(), trials=1, storage="postgresql+psycopg://ann:secret@127.0.0.1:1/studies")
    assert "secret" not in str(raised.value)


@pytest.mark.usefixtures("one_thread")
def test_trials_that_lag_behind_are_pruned() -> None:
    params = {"hidden": 8, "latent": 4, "epochs": 12, "encoder": "plain", "gamma": None, "batch_size": 20}
    fixed = {**params, "dropout": 0.5, "metric": "ndcg@10"}
    seen: list[Trial] = []
    found = tune("multvae", split(), trials=14, params=fixed, sampler="random", metric="ndcg@10", on_trial=seen.append)
    assert isinstance(found, SearchResult)
    assert set(found.params) == {*fixed, "learning_rate"}
    assert found.n_pruned == sum(trial.value is None for trial in seen) > 0
    assert seen[-1].best == found.value


def test_every_models_space_is_made_of_values_that_it_takes() -> None:
    for name, model in MODELS.items():
        for parameter, values in model.SPACE.items():
            for value in values.grid():
                MODELS[name](**{parameter: value})


def test_grids() -> None:
    assert RealRange(1.0, 1000.0).grid() == [1.0, 10.0, 100.0, 1000.0]
    assert RealRange(0.0, 0.9, log=False).grid() == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert WholeRange(1, 1000).grid() == [1, 10, 100, 1000]
    assert WholeRange(1, 2).grid() == [1, 2]


def test_what_it_refuses(tmp_path: Path) -> None:
    for arguments, message in (
        ({"name": "popularity"}, "popularity has no hyperparameter to search; models that have are als, cosine, "),
        ({"name": "bpr"}, "BPR cannot fold in new users and 50 of 50 are new"),
        ({"name": "ease", "params": {"density": 7}}, "density is 7; "),
        (
            {"name": "ease", "params": {"l2": 3.0, "dropout": 0.5, "user_exponent": 0.5}},
            "l2, dropout, user_exponent of ease are set, and it has no other to search; leave one out",
        ),
        ({"name": "nonsense"}, "model is 'nonsense'"),
        ({"name": "ease", "sampler": "luck"}, "sampler is 'luck'"),
        ({"name": "ease", "trials": 0}, "trials is 0"),
        ({"name": "ease", "seed": -1}, "seed is -1"),
        ({"name": "ease", "storage": "nonsense"}, "storage is 'nonsense', which cannot be opened"),
        ({"name": "ease", "storage": f"sqlite:///{tmp_path}/no/such.db"}, "cannot be opened"),
    ):
        with pytest.raises(ParameterError, match=message):
            tune(split=split(), **{"trials": 1, **arguments})  # type: ignore[arg-type]
    storage = f"sqlite:///{tmp_path}/study.db"
    with pytest.raises(ParameterError, match="sampler is 'luck'"):
        tune("ease", split(), trials=1, sampler="luck", params={"l2": 5.0}, storage=storage)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ParameterError, match="no validation users"):
        tune("ease", replace(split(), validation=None), trials=1)


def test_models_of_known_users_are_tuned_where_there_are_no_others() -> None:
    data, rows = split(), np.arange(50, dtype=np.int32)
    assert isinstance(data.validation, Holdout)
    weak = replace(data, validation=replace(data.validation, train_rows=rows))
    assert tune("lmf", weak, trials=1, params={"iterations": 1}).n_trials == 1
    with pytest.raises(ParameterError, match="models that have are als, bpr, lmf, "):
        tune("popularity", weak, trials=1)


def test_an_error_within_a_trial_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recvae.tuning._suggest", lambda trial, name, values: -1)
    with pytest.raises(ParameterError, match="l2 is -1; "):
        tune("ease", split(), trials=1, params={"dropout": 0.5, "user_exponent": 0.5})
    assert capfd.readouterr() == ("", "")


def test_a_study_belongs_to_one_model_and_metric(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    tune("ease", split(), trials=1, storage=storage)
    with pytest.raises(ParameterError, match="has model 'ease', not 'graph'"):
        tune("graph", split(), trials=1, storage=storage)


def test_a_study_keeps_its_fixed_hyperparameters(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    tune("graph", split(), trials=1, storage=storage)
    with pytest.raises(ParameterError, match="expected another storage for a new study"):
        tune("graph", split(), trials=1, storage=storage, params={"factors": 3})


@pytest.mark.usefixtures("one_thread")
def test_a_trial_that_diverges_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1e30, 1e-3, 1e-3])
    monkeypatch.setattr("recvae.tuning._suggest", lambda trial, name, values: next(rates))
    fixed = {"latent": 4, "epochs": 2, "batch_size": 20, "dropout": 0.5, "l2": 0.0}
    found = tune("multdae", split(), trials=3, params=fixed)
    assert (found.n_trials, found.n_pruned) == (3, 1)
