"""irspack's evaluator on scores of this project's Mult-VAE, computed here in NumPy."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from irspack.evaluation import Evaluator
from scipy import sparse

BATCH = 500
CUTOFFS = [20, 50, 100]

Arrays = dict[str, npt.NDArray[Any]]


def matrix(arrays: Arrays, name: str) -> sparse.csr_matrix:
    """A binary matrix of the task."""
    indices, indptr = arrays[f"{name}.indices"], arrays[f"{name}.indptr"]
    shape = (len(indptr) - 1, int(arrays["n_items"]))
    return sparse.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=shape)


def scores(arrays: Arrays, fold_in: sparse.csr_matrix) -> Iterator[npt.NDArray[np.float32]]:
    """Logits of the users, a batch at a time, (BATCH, n_items)."""
    latent = arrays["decoder.0.weight"].shape[1]
    for start in range(0, fold_in.shape[0], BATCH):
        rows = fold_in[start : start + BATCH]
        norms = np.sqrt(np.diff(rows.indptr)).clip(1)[:, None]
        h = np.tanh(rows @ arrays["encoder.input.weight"] / norms + arrays["encoder.input.bias"])
        mu = h @ arrays["encoder.layers.0.weight"][:latent].T + arrays["encoder.layers.0.bias"][:latent]
        h = np.tanh(mu @ arrays["decoder.0.weight"].T + arrays["decoder.0.bias"])
        yield (h @ arrays["output.weight"].T + arrays["output.bias"]).astype(np.float32)


def main(task: str, out: str, threads: str) -> None:
    """Write the seconds of one evaluation, after one that warms up."""
    with np.load(task, allow_pickle=False) as file:
        arrays = dict(file)
    fold_in, held_out = matrix(arrays, "fold_in"), matrix(arrays, "held_out")
    evaluator = Evaluator(held_out, masked_interactions=fold_in, n_threads=int(threads), recall_with_cutoff=True)
    seconds = []
    for _ in range(2):
        started = perf_counter()
        evaluator.get_scores_from_score_chunks(scores(arrays, fold_in), CUTOFFS)
        seconds.append(perf_counter() - started)
    Path(out).write_text(json.dumps(seconds[1:]), encoding="utf8")


if __name__ == "__main__":
    main(*sys.argv[1:])
