"""Data that training is measured on: real where they are available, else synthetic in the real shape."""

import tempfile
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.peers.exchange import Task
from recvae.data.prepared import read_prepared
from recvae.data.splitting import Split
from recvae.preparation.pipeline import Options, prepare

ML_20M = {"n_users": 116_677, "n_items": 20_108, "mean_interactions": 73}  # training users of Liang et al. (2018)
POPULARITY_EXPONENT = 1.0
MIN_INTERACTIONS = 5


def load_split(name: str) -> Split:
    """Load a data set and split it by its usual protocol, as `recvae prepare` does."""
    with tempfile.TemporaryDirectory() as scratch:
        prepare(name, Path(scratch) / name, Options())
        return read_prepared(Path(scratch) / name).split


def histories(n_users: int, n_items: int, mean_interactions: int = 73, seed: int = 0) -> sparse.csr_matrix:
    """Draw synthetic histories of about `mean_interactions`: log-normal lengths, items by a power law of popularity.

    Returns
    -------
    csr_matrix, float32, shape (n_users, n_items), binary
    """
    rng = np.random.default_rng(seed)
    lengths = (
        rng.lognormal(np.log(mean_interactions) - 0.5, 1.0, n_users)
        .astype(np.int64)
        .clip(MIN_INTERACTIONS, n_items // 2)
    )
    popularity = np.cumsum((rng.permutation(n_items) + 10.0) ** -POPULARITY_EXPONENT)
    items = np.searchsorted(popularity, rng.random(lengths.sum()) * popularity[-1])
    rows = np.repeat(np.arange(n_users), lengths)
    interactions = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (rows, items)), shape=(n_users, n_items))
    interactions.data[:] = 1  # an item drawn twice is one interaction
    return interactions


def make_training_task(train: sparse.csr_matrix) -> Task:
    """Make a task that trains and ranks for no user."""
    nobody = train[:0]
    return Task(train, nobody, nobody)


def sample(train: sparse.csr_matrix, n_users: int, seed: int = 0) -> sparse.csr_matrix:
    """Sample some of the users, for steps that cost as much as those of all users."""
    users = np.random.default_rng(seed).permutation(train.shape[0])[:n_users]
    return train[np.sort(users)]
