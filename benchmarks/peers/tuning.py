"""Search for a peer's best model, in the peer's own environment: it needs numpy and scipy only.

A library without fold-in knows the users it was fitted on. So every peer is fitted on the training interactions and the
histories of the users it ranks for: the validation users' while it is tuned, the test users' in the end.
"""

import argparse
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from benchmarks.peers.exchange import Ids, Parts, best, list_versions

BATCH = 500
K = 100
AT_RANDOM = 2 / 3
STEP = 0.15
SMALLEST_LEFT = 1.0

Params = Mapping[str, Any]
Score = Callable[[npt.NDArray[np.intp]], Any]
"""Scores of users, given as rows of the matrix that was fitted on: (n_users, n_items)."""
Fit = Callable[[str, Params, sparse.csr_matrix], Score]
Space = Mapping[str, tuple[float, float, str]]
"""Ranges: lowest, highest and "log", "linear", "whole" or "whole log"."""


class OutOfTimeError(Exception):
    """The time for the search is over."""


@dataclass(frozen=True, eq=False)
class Inputs(Parts):
    """The data of one search; the test users' held-out interactions are not in it.

    Attributes
    ----------
    train : csr_matrix, float32, shape (n_users, n_items)
    validation, held_out, test : csr_matrix, float32
        Histories of validation users, what is held out of them, and histories of test users.
    validation_rows, test_rows : (n,) int
        The users' rows in `train`, -1 for those who are not in it.
    """

    train: sparse.csr_matrix
    validation: sparse.csr_matrix
    held_out: sparse.csr_matrix
    test: sparse.csr_matrix
    validation_rows: npt.NDArray[np.int32]
    test_rows: npt.NDArray[np.int32]

    def together(self, side: str) -> tuple[sparse.csr_matrix, npt.NDArray[np.intp]]:
        """Training interactions with the histories of one side's users, and these users' rows."""
        histories: sparse.csr_matrix = getattr(self, side)
        rows = np.array(getattr(self, f"{side}_rows"), dtype=np.intp)
        new = rows < 0
        rows[new] = self.train.shape[0] + np.arange(int(new.sum()))
        whole = sparse.vstack([self.train, sparse.csr_matrix((int(new.sum()), self.train.shape[1]))]).tocoo()
        added = histories.tocoo()
        row = np.concatenate([whole.row, rows[added.row]])
        column = np.concatenate([whole.col, added.col])
        matrix = sparse.csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=whole.shape)
        matrix.data[:] = 1.0  # a known user's history has the training interactions in it
        return matrix, rows


def ndcg(lists: Ids, held_out: sparse.csr_matrix) -> float:
    """Mean NDCG@100 over users with something held out."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    values = []
    for user in np.flatnonzero(np.diff(held_out.indptr)):
        wanted = held_out.indices[held_out.indptr[user] : held_out.indptr[user + 1]]
        values.append(discounts[np.isin(lists[user, :K], wanted)].sum() / ideal[min(K, len(wanted))])
    return float(np.mean(values))


def rank(score: Score, matrix: sparse.csr_matrix, rows: npt.NDArray[np.intp]) -> Ids:
    """List the best unseen items of users, a batch at a time."""
    starts = range(0, len(rows), BATCH)
    return np.concatenate(
        [best(np.asarray(score(part)), matrix[part], K) for start in starts if len(part := rows[start : start + BATCH])]
    )


def draw(space: Space, generator: np.random.Generator, around: Params | None = None) -> dict[str, Any]:
    """Draw settings: anywhere in the space, or a step away from those of `around`."""
    drawn: dict[str, Any] = {}
    for name, (low, high, scale) in space.items():
        logarithmic = scale.endswith("log")
        first, last = (np.log(low), np.log(high)) if logarithmic else (low, high)
        share = generator.random()
        if around is not None:
            value = np.log(around[name]) if logarithmic else around[name]
            share = float(np.clip(generator.normal((value - first) / (last - first), STEP), 0, 1))
        found = first + (last - first) * share
        found = float(np.exp(found) if logarithmic else found)
        drawn[name] = round(found) if scale.startswith("whole") else found
    return drawn


class Search:
    """The search of one peer: what was tried, and the best.

    Attributes
    ----------
    trials : list of dict
        `model`, `params`, `validation` or `error`, and `seconds` since the start.
    """

    def __init__(self, inputs: Inputs, fit: Fit, seconds: float) -> None:
        self.inputs, self.fit, self.seconds = inputs, fit, seconds
        self.matrix, self.rows = inputs.together("validation")
        self.trials: list[dict[str, Any]] = []
        self.started = monotonic()

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (monotonic() - self.started)

    def attempt(self, model: str, params: Params, *, limited: bool = True) -> float:
        """Fit a model and note its figure on validation; NaN if it fails.

        Parameters
        ----------
        limited : bool
            Whether it must be done in time.

        Raises
        ------
        OutOfTimeError
            If the time is over before it is done.
        """
        note: dict[str, Any] = {"model": model, "params": dict(params)}
        if limited and self.left < SMALLEST_LEFT:
            raise OutOfTimeError
        signal.setitimer(signal.ITIMER_REAL, self.left if limited else 0)
        try:
            score = self.fit(model, params, self.matrix)
            note["validation"] = ndcg(rank(score, self.matrix, self.rows), self.inputs.held_out)
        except OutOfTimeError:
            raise
        except Exception as error:  # noqa: BLE001 - settings that a library cannot stand are part of a search
            note["error"] = f"{type(error).__name__}: {error}"[:300]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        note["seconds"] = monotonic() - self.started
        self.trials.append(note)
        print(json.dumps(note), flush=True)
        return float(note.get("validation", np.nan))

    def best(self) -> dict[str, Any]:
        """The best trial."""
        done = [trial for trial in self.trials if trial.get("validation", 0) > 0]
        if not done:
            raise RuntimeError(f"nothing was fitted in time: {self.trials[:3]}")
        return max(done, key=lambda trial: float(trial["validation"]))

    def random(self, spaces: Mapping[str, Space], defaults: Mapping[str, Params], seed: int) -> None:
        """Try the defaults of each model, then settings of all models in turn.

        The first two thirds of the time settings are drawn at random; then around the best of each of the two best
        models.
        """
        generator = np.random.default_rng(seed)
        for model in self._forever(spaces, defaults):
            if model in defaults and not any(trial["model"] == model for trial in self.trials):
                self.attempt(model, defaults[model])
                continue
            near = [trial for trial in self.trials if trial["model"] == model and "validation" in trial]
            late = self.left < self.seconds * (1 - AT_RANDOM)
            around = max(near, key=lambda trial: float(trial["validation"]))["params"] if late and near else None
            self.attempt(model, {**defaults.get(model, {}), **draw(spaces[model], generator, around)})

    def _forever(self, spaces: Mapping[str, Space], defaults: Mapping[str, Params]) -> Iterator[str]:
        models = list(dict.fromkeys([*defaults, *spaces]))
        while True:
            late = self.left < self.seconds * (1 - AT_RANDOM)
            figures = {
                m: max((t.get("validation", 0) for t in self.trials if t["model"] == m), default=0) for m in models
            }
            yield from sorted(models, key=lambda m: -figures[m])[:2] if late else models


def at_random(spaces: Mapping[str, Space], defaults: Mapping[str, Params]) -> Callable[[Search, int], None]:
    """Give the search of a library without a tuner of its own."""
    return lambda searching, seed: searching.random(spaces, defaults, seed)


def _ring(*_: Any) -> None:
    raise OutOfTimeError


def main(fit: Fit, search: Callable[[Search, int], None], *packages: str) -> None:
    """Search, fit the best on the test users' histories, and write `found.json` and `lists.npz`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _ring)
    inputs = Inputs.read(arguments.inputs)
    searching = Search(inputs, fit, arguments.seconds)
    try:
        search(searching, arguments.seed)
    except OutOfTimeError:
        print("the time is over", flush=True)
    found = searching.best()
    seconds = monotonic() - searching.started
    matrix, rows = inputs.together("test")
    score = fit(found["model"], found["params"], matrix)
    np.savez(arguments.out / "lists.npz", test=rank(score, matrix, rows))
    content = {**found, "seconds": seconds, "trials": searching.trials, "versions": list_versions(packages)}
    (arguments.out / "found.json").write_text(json.dumps(content, indent=1), encoding="utf8")
