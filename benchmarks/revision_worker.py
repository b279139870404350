"""One measurement of the recvae that stands first on the path, by its public names only, which all versions share.

    python revision_worker.py training|evaluation|model FOLDER

Reads `FOLDER/histories.npz`; prints seconds as JSON, or saves a model for the service into `FOLDER/model`.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from scipy import sparse

import recvae

EPOCHS, BATCH = 4, 500
TRAINED = {
    "multvae (paper)": ("multvae", "paper", {}),
    "multvae (recommended)": ("multvae", "recommended", {"batch_size": BATCH, "epochs": EPOCHS}),
    "multvae (paper), sampled": ("multvae", "paper", {"n_negatives": 4096}),
    "recvae": ("recvae", "paper", {}),
}


def training(histories: sparse.csr_matrix) -> dict[str, float]:
    """Seconds of an epoch, the median of those after the first, by model."""
    figures = {}
    for label, (name, preset, given) in TRAINED.items():
        seconds: list[float] = []
        model = recvae.create(name, preset, **{"epochs": EPOCHS, **given})
        model.fit(histories, show_progress=False, callback=lambda *epoch, kept=seconds: kept.append(epoch[1]))
        figures[label] = float(np.median(seconds[1:]))
    return figures


def evaluation(histories: sparse.csr_matrix) -> dict[str, float]:
    """Seconds to evaluate every user by three metrics, the median of three."""
    model = recvae.create("multvae", "paper", epochs=1).fit(histories[:BATCH], show_progress=False)
    held = np.random.default_rng(0).random(histories.nnz) < 0.2
    n_users = histories.shape[0]
    holdout = recvae.Holdout(
        _only(histories, ~held), _only(histories, held), pd.Index(range(n_users)), np.full(n_users, -1, dtype=np.int32)
    )
    seconds = []
    for _ in range(3):
        started = perf_counter()
        recvae.evaluate(model, holdout, ["recall@20", "recall@50", "ndcg@100"])
        seconds.append(perf_counter() - started)
    return {"evaluate": float(np.median(seconds))}


def _only(matrix: sparse.csr_matrix, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> sparse.csr_matrix:
    """The interactions under the mask."""
    kept = sparse.csr_matrix((mask.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape).copy()
    kept.eliminate_zeros()
    return kept


def main() -> None:
    """Measure what the command line names."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    histories = sparse.csr_matrix(sparse.load_npz(folder / "histories.npz"))
    if what == "model":
        model = recvae.create("multvae", "paper", epochs=1).fit(histories[:BATCH], show_progress=False)
        titles = [f"A title of usual length {i} (1999)" for i in range(histories.shape[1])]
        model.save(folder / "model", items=pd.DataFrame({"item_id": range(histories.shape[1]), "title": titles}))
        return
    figures = {"training": training, "evaluation": evaluation}[what](histories)
    print(json.dumps({"from": str(Path(recvae.__file__).parent), "figures": figures}))


if __name__ == "__main__":
    main()
