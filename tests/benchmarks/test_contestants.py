"""The files that a benchmark and a contestant exchange, and the race itself."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks.contestants import PEERS, Contestant, ContestantError, Outcome, Track
from benchmarks.peers.exchange import LIST_LENGTH, Run, Settings, Task, best
from benchmarks.shapes import histories, make_training_task

PINNED = re.compile(r"[A-Za-z0-9._-]+==[^=<>~ ]+")


@pytest.fixture
def task() -> Task:
    interactions = histories(60, 40, mean_interactions=8)
    return Task(interactions[:40], interactions[40:50], interactions[50:])


def test_task_survives_the_file(task: Task, tmp_path: Path) -> None:
    task.write(tmp_path / "task.npz")
    read = Task.read(tmp_path / "task.npz")
    for part in ("train", "validation", "test"):
        written, found = getattr(task, part), getattr(read, part)
        assert found.shape == written.shape
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.toarray(), written.toarray())


def test_a_task_without_ranked_users_keeps_its_columns(task: Task, tmp_path: Path) -> None:
    make_training_task(task.train).write(tmp_path / "task.npz")
    assert Task.read(tmp_path / "task.npz").test.shape == (0, 40)


def test_best_lists_unseen_items_only() -> None:
    seen = sparse.csr_matrix(np.array([[0, 1, 0, 0], [1, 1, 1, 0]], dtype=np.float32))
    scores = np.array([[0.1, 9.0, 0.3, 0.2], [9.0, 8.0, 7.0, -5.0]])
    np.testing.assert_array_equal(best(scores, seen, 3), [[2, 3, 0], [3, -1, -1]])
    np.testing.assert_array_equal(best(scores, seen, 6)[0], [2, 3, 0, -1, -1, -1])
    assert scores[0, 1] == 9.0


def test_ranking_is_off_the_clock(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.peers.exchange.perf_counter", lambda: now[0])

    def rank(fold_in: sparse.csr_matrix) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
        now[0] += 100.0
        return np.full((fold_in.shape[0], LIST_LENGTH), 7, dtype=np.int32)

    run = Run(task, Settings(epochs=3, checkpoints=[2]))
    run.start()
    for update_seconds in (None, None, 1.25):
        now[0] += 1.5
        run.epoch_done(rank, update_seconds)
    assert run.epoch_seconds == [1.5, 1.5, 1.5]
    assert run.update_seconds == [1.5, 1.5, 1.25]
    assert set(run.lists) == {"validation/2", "test/2"}
    run.write(tmp_path, ["numpy"])
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["settings"]["checkpoints"] == [2]
    assert written["peak_rss_mb"] > 1
    assert written["versions"]["numpy"] == np.__version__


def test_race_takes_turns_and_goes_on_without_the_fallen(task: Task) -> None:
    class Scripted(Track):
        def run(self, contestant: Contestant, task: Path) -> Outcome:
            ran.append((contestant.name, Task.read(task).train.nnz))
            if contestant.name == "fallen":
                raise ContestantError("out of breath")
            return Outcome([2.0, 1.0], [1.5, 0.5], 300.0, {}, {})

    ran: list[tuple[str, int]] = []
    told: list[str] = []
    rounds: list[int] = []
    contestants = [Contestant(name, "any") for name in ("a", "fallen", "b")]
    outcomes = Scripted(show=told.append).race(contestants, task, rounds=2, between=lambda: rounds.append(len(ran)))
    assert ran == [(name, task.train.nnz) for name in ("a", "fallen", "b", "a", "b")]
    assert rounds == [0, 3]
    assert {name: len(runs) for name, runs in outcomes.items()} == {"a": 2, "fallen": 0, "b": 2}
    assert "fallen did not finish: out of breath" in told


@pytest.mark.parametrize(
    "contestant",
    [
        Contestant("ours", "recvae", {"epochs": 2, "checkpoints": [2], "params": {"hidden": 8, "latent": 3}}),
        Contestant("dense", "dense", {"epochs": 2, "checkpoints": [2], "batch_size": 20, "hidden": 8, "latent": 3}),
    ],
    ids=lambda contestant: contestant.name,
)
def test_a_contestant_runs_in_a_process_of_its_own(contestant: Contestant, task: Task, tmp_path: Path) -> None:
    task.write(tmp_path / "task.npz")
    outcome = Track().run(contestant, tmp_path / "task.npz")
    assert len(outcome.epoch_seconds) == 2
    assert all(0 < a <= b for a, b in zip(outcome.update_seconds, outcome.epoch_seconds, strict=True))
    assert set(outcome.lists) == {"validation/2", "test/2"}
    assert outcome.peak_rss_mb > 50
    assert outcome.versions["torch"]
    assert outcome.lists["validation/2"].shape == outcome.lists["test/2"].shape == (10, LIST_LENGTH)
    seen = task.test.toarray() > 0
    assert not any(seen[row, item] for row, ids in enumerate(outcome.lists["test/2"]) for item in ids if item >= 0)


def test_what_went_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match=r"No module named .*none_adapter"):
        Track().run(Contestant("none", "none"), tmp_path / "task.npz")


def test_a_peer_is_installed_once_for_its_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    fails = [True]

    def call(command: list[str], directory: Path) -> None:
        if "pip" in command and fails[0]:
            raise ContestantError("no such version")
        called.append(command[1:3])

    monkeypatch.setattr("benchmarks.contestants.PEERS", tmp_path)
    monkeypatch.setattr("benchmarks.contestants._run", call)
    pins = tmp_path / "peer.txt"
    pins.write_text("package==1\n")
    track = Track(venvs=tmp_path / "venvs", show=lambda line: None)
    with pytest.raises(ContestantError, match="no such version"):
        track.call("peer", "peer_adapter", [])
    called.clear()
    fails[0] = False
    for _ in range(2):
        track.call("peer", "peer_adapter", [])
    install, run = [["-m", "venv"], ["-m", "pip"]], [["-W", "ignore"]]
    assert called == [*install, *run, *run]
    pins.write_text("package==2\n")
    track.call("peer", "peer_adapter", [])
    assert called[4:] == [*install, *run]


@pytest.mark.parametrize("requirements", sorted(PEERS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_package_of_a_peer_is_pinned(requirements: Path) -> None:
    lines = [line for line in requirements.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []
    modules = [PEERS / f"{requirements.stem}_{purpose}.py" for purpose in ("adapter", "tuning")]
    assert any(module.exists() for module in modules)


def test_histories_are_binary_interactions_of_about_the_length_asked_for() -> None:
    interactions = histories(2000, 20_000, mean_interactions=73)
    assert interactions.shape == (2000, 20_000)
    assert set(interactions.data) == {1.0}
    assert 60 < interactions.nnz / 2000 < 80
    counts = np.sort(interactions.sum(axis=0).A1)[::-1]
    assert counts[:200].sum() > 0.25 * counts.sum()
    once, again, other = (histories(50, 100, seed=seed).toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
