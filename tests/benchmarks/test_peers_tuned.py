"""The search for a peer's best model, and the table that its lists are put into."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from benchmarks import kept, peers_tuned
from benchmarks.contestants import Track
from benchmarks.peers import tuning
from benchmarks.peers.tuning import Inputs, OutOfTimeError, Score, Search, draw, ndcg
from recvae.data.prepared import read_prepared
from recvae.evaluation.evaluate import evaluate
from recvae.evaluation.results import read_results
from recvae.models.popularity import Popularity
from tests.benchmarks.test_quality import prepared

__all__ = ["prepared"]


@pytest.fixture
def inputs() -> Inputs:
    """Three training users, the second of whom is also the validation user, and a new test user."""

    def matrix(rows: list[list[int]]) -> sparse.csr_matrix:
        dense = np.zeros((len(rows), 5), dtype=np.float32)
        for row, columns in enumerate(rows):
            dense[row, columns] = 1
        return sparse.csr_matrix(dense)

    return Inputs(
        matrix([[0, 1], [1, 2], [3]]),
        matrix([[1, 2, 3]]),
        matrix([[4]]),
        matrix([[0, 4]]),
        np.array([1], dtype=np.int32),
        np.array([-1], dtype=np.int32),
    )


def test_inputs_survive_the_file(inputs: Inputs, tmp_path: Path) -> None:
    inputs.write(tmp_path / "inputs.npz")
    read = Inputs.read(tmp_path / "inputs.npz")
    for name in ("train", "validation", "held_out", "test"):
        np.testing.assert_array_equal(getattr(read, name).toarray(), getattr(inputs, name).toarray())
    assert (read.validation_rows.tolist(), read.test_rows.tolist()) == ([1], [-1])


def test_histories_join_the_training_interactions(inputs: Inputs) -> None:
    matrix, rows = inputs.together("validation")
    assert matrix.toarray().tolist() == [[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 0]]
    assert rows.tolist() == [1]
    matrix, rows = inputs.together("test")
    assert matrix.toarray()[rows].tolist() == [[1, 0, 0, 0, 1]]
    assert matrix.shape == (4, 5)


def popular(model: str, params: Any, matrix: sparse.csr_matrix) -> Score:
    """A library whose only model ranks by popularity, weighted by `weight`; "broken" fails, "slow" never ends."""
    if model == "broken":
        raise ValueError("singular")
    if model == "slow":
        time.sleep(60)
    counts = np.asarray(matrix.sum(axis=0)).ravel() * params.get("weight", 1.0)
    return lambda rows: np.tile(counts, (len(rows), 1))


def test_the_search_notes_failures_and_keeps_the_best(inputs: Inputs) -> None:
    search = Search(inputs, popular, 60.0)
    assert search.attempt("popular", {"weight": -1.0}) > search.attempt("popular", {"weight": 1.0}) > 0
    assert np.isnan(search.attempt("broken", {}))
    assert search.best()["params"] == {"weight": -1.0}
    assert search.trials[-1]["error"] == "ValueError: singular"


def test_the_time_ends_a_fit_and_the_search(inputs: Inputs) -> None:
    before = signal.signal(signal.SIGALRM, tuning._ring)
    try:
        search = Search(inputs, popular, 1.5)
        with pytest.raises(OutOfTimeError):
            search.attempt("slow", {})
        with pytest.raises(OutOfTimeError):
            search.attempt("popular", {})
        with pytest.raises(OutOfTimeError):
            search.random({"popular": {"weight": (1.0, 2.0, "log")}}, {}, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_settings_stay_in_their_ranges() -> None:
    space = {"l2": (1.0, 100.0, "log"), "k": (5, 50, "whole"), "p": (0.0, 1.0, "linear")}
    near = {"l2": 10.0, "k": 20, "p": 0.9}
    for seed in range(100):
        for around in (None, near):
            drawn = draw(space, np.random.default_rng(seed), around)
            assert 1 <= drawn["l2"] <= 100
            assert drawn["k"] in range(5, 51)
            assert 0 <= drawn["p"] <= 1


def test_the_search_uses_the_metric_of_the_tables(prepared: Path) -> None:
    split = read_prepared(prepared / "gowalla").split
    assert split.validation is not None
    model = Popularity().fit(split.train, show_progress=False)
    lists, _ = model.recommend(np.arange(split.validation.n_users), split.validation.fold_in, N=100)
    expected = evaluate(model, split.validation, ["ndcg@100"]).mean("ndcg@100")
    assert ndcg(lists, split.validation.held_out) == pytest.approx(expected)


def test_a_table_with_a_peer(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(_: Track, peer: str, module: str, arguments: list[str]) -> None:
        """Stand for the peer's environment."""
        assert (peer, module) == ("irspack", "irspack_tuning")
        inputs, out = Inputs.read(Path(arguments[0])), Path(arguments[1])
        n_users, n_items = inputs.test.shape
        lists: npt.NDArray[np.int32] = np.full((n_users, 100), -1, dtype=np.int32)
        lists[:, :n_items] = np.arange(n_items)
        np.savez(out / "lists.npz", test=lists)
        found = {"model": "iALS", "params": {"reg": 0.5}, "validation": 0.1, "seconds": 7.0}
        trials = [{"model": "iALS", "validation": 0.1}, {"model": "IPS", "error": "no"}]
        (out / "found.json").write_text(json.dumps({**found, "trials": trials, "versions": {"irspack": "0.5"}}))

    monkeypatch.setattr(Track, "call", call)
    arguments = peers_tuned.parse(["gowalla", "--peers", "irspack", "--data", str(prepared), "--out", str(tmp_path)])
    arguments.keep = tmp_path / "keep"
    entries = [entry for entry in peers_tuned.list_entries(arguments) if entry.row != kept.OURS]
    for entry in entries:
        peers_tuned.measure(entry)
    peers_tuned.write("gowalla", entries, {kept.OURS: "no time"}, arguments)
    results = read_results(tmp_path / "peers-gowalla.json")
    assert results["models"].keys() == {"popularity", "irspack"}
    assert results["refused"] == {kept.OURS: "no time"}
    page = (tmp_path / "peers-gowalla.md").read_text(encoding="utf8")
    assert "- irspack 0.5: iALS (reg 0.5, validation 0.1, trials 1, failed IPS)" in page
