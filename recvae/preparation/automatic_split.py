"""The split of data whose user names none: by time where that leaves enough users, else by users."""

from dataclasses import replace

import numpy as np

from recvae.data.interactions import Interactions
from recvae.data.split import TEST, TRAIN, VALIDATION, Split
from recvae.data.split_backend import MemoryBackend, SplitBackend, find_times
from recvae.data.splitting import strong_generalization, temporal

FEWEST_KNOWN_USERS = 100
FEWEST_HELD_OUT_USERS, MOST_HELD_OUT_USERS = 50, 5000


def split_automatically(data: Interactions | SplitBackend, seed: int) -> Split:
    """Split by time where every interaction has a timestamp and enough users come back; else hold users out.

    Enough are 100 users, or a tenth where that is fewer, who have interactions in training and in validation, and as
    many with interactions before the test time and after it. Held out are a tenth of the users each for validation and
    for test, at most 5,000, and at least 50 unless that is more than a fifth. Where some interactions have a timestamp
    and others none, the protocol's `missing_timestamps` says how many have none.

    Raises
    ------
    ParameterError, DataError
        If nothing can be held out.
    """
    backend = MemoryBackend.from_interactions(data) if isinstance(data, Interactions) else data
    n_users = len(backend.user_ids)
    n_missing = 0 if backend.timestamp_type is None else backend.count_missing_timestamps()
    if not n_missing and _count_known_users(backend) >= max(1, min(FEWEST_KNOWN_USERS, n_users // 10)):
        return temporal(backend)
    n_held_out = count_held_out_users(n_users)
    split = strong_generalization(backend, val_users=n_held_out, test_users=n_held_out, seed=seed)
    return replace(split, protocol={**split.protocol, "missing_timestamps": n_missing}) if n_missing else split


def count_held_out_users(n_users: int) -> int:
    """Number of users to hold out for validation, and as many for test."""
    return max(1, min(MOST_HELD_OUT_USERS, max(n_users // 10, min(FEWEST_HELD_OUT_USERS, n_users // 5))))


def _count_known_users(data: SplitBackend) -> int:
    """Count the users that a split by time could ask, in validation or in test, whichever is fewer; 0 without times."""
    if data.timestamp_type is None:
        return 0
    sided = data.assign_by_time(*find_times(data))
    if not all(sided.count_sides()):
        return 0
    asked = (([TRAIN], VALIDATION), ([TRAIN, VALIDATION], TEST))
    return min(
        len(np.intersect1d(sided.find_users(earlier), sided.find_users([side]), assume_unique=True))
        for earlier, side in asked
    )
