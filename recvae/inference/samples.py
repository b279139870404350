"""`write_samples`: made-up users of a trained model, in a Parquet file of any size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from recvae.errors import UnsupportedError
from recvae.inference.parquet import write_parquet
from recvae.models import hyperparameters as check
from recvae.models import registry
from recvae.models.generative.sampling import HistorySampler
from recvae.progress import EpochProgress

MADE_UP = "made-up-"
"""Beginning of the ids of users that do not exist."""


def write_samples(
    model: str | Path, n_users: int, out: str | Path, seed: int = 0, *, show_progress: bool = True
) -> list[str]:
    """Write made-up histories, a row for each interaction; return lines for the user.

    `out` has the columns `user_id`, sorted, and `item_id`, so that every command that reads users or interactions reads
    it. Memory is bounded by a batch of users.

    Raises
    ------
    ArtifactError
        If the model is damaged or `out` cannot be written.
    ParameterError
        If the number of users or the seed cannot be.
    UnsupportedError
        If the model draws no histories.
    """
    check.whole("users", n_users)
    loaded = registry.load(model)
    sampler, item_ids = loaded.model, loaded.item_table["item_id"].combine_chunks()
    if not isinstance(sampler, HistorySampler):
        raise UnsupportedError(f"{type(sampler).__name__} makes up no histories; MultVAE and RecVAE do")
    digits = len(str(n_users))
    n_interactions = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal n_interactions
        with EpochProgress("sample", n_users, show_progress, unit="user") as progress:
            first = 0
            for batch in sampler.sample_batches(n_users, seed):
                names = pa.array([f"{MADE_UP}{first + row + 1:0{digits}}" for row in range(batch.shape[0])])
                users = np.repeat(np.arange(batch.shape[0]), np.diff(batch.indptr))
                first += batch.shape[0]
                n_interactions += batch.nnz
                progress.update(first, {})
                yield pa.table(
                    {"user_id": names.take(pa.array(users)), "item_id": item_ids.take(pa.array(batch.indices))}
                )

    write_parquet(Path(out), tables())
    return [f"wrote {out}: {n_users:,} made-up users with {n_interactions:,} interactions"]
