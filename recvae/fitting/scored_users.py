"""The users that a search chooses and tests by, and the sizes of what it learns from."""

from dataclasses import replace

import numpy as np
import pandas as pd

from recvae.data.everything import Everything
from recvae.data.splitting import Holdout, Split
from recvae.fitting.cost import Growth
from recvae.models.validation import hold_out_users

MOST_SCORED_USERS = 5000
"""Validation and test users that are ranked for; of more, as many are drawn."""


def choose_scored_users(split: Split, seed: int) -> Split | None:
    """Draw the validation and test users to rank for, where there are more than `MOST_SCORED_USERS`.

    Validation users are held out of the training users where the split has none; None if these are too few.
    """
    validation = split.validation
    if validation is None:
        held = hold_out_users(split.train, seed)
        if held is None:
            return None
        train, (fold_in, held_out) = held
        n_users = fold_in.shape[0]
        rows = np.full(n_users, -1, dtype=np.int32)
        split = replace(split, train=train)
        validation = Holdout(fold_in, held_out, pd.RangeIndex(n_users), rows)
    return replace(
        split,
        validation=draw_users(validation, MOST_SCORED_USERS, seed),
        test=draw_users(split.test, MOST_SCORED_USERS, seed),
    )


def draw_users(holdout: Holdout, most: int, seed: int = 0) -> Holdout:
    """Draw some of a holdout's users at random; it stays as it is where there are no more than `most`."""
    if holdout.n_users <= most:
        return holdout
    rows = np.sort(np.random.default_rng(seed).choice(holdout.n_users, most, replace=False))
    return Holdout(holdout.fold_in[rows], holdout.held_out[rows], holdout.user_ids[rows], holdout.train_rows[rows])


def compute_growth(everything: Everything, split: Split) -> Growth:
    """Estimate the time to fit a model on everything.

    It grows with the interactions, or with the square of the items where these grow by more; with an inverse, with the
    cube of the users or of the items, whichever are fewer, where that is more.
    """
    interactions = everything.user_items.nnz / split.train.nnz
    items = everything.user_items.shape[1] / split.train.shape[1]
    usual = max(1.0, interactions, items**2)
    side = min(everything.user_items.shape) / min(split.train.shape)
    return Growth(usual, max(usual, side**3))


def describe_split(split: Split) -> str:
    """Say in one line how the data are split, and between how many users."""
    missing = split.protocol.get("missing_timestamps")
    why = f", as some interactions ({missing:,}) have no timestamp" if missing else ""
    how = {
        "temporal": "by time, since users come back: what came later is to be found",
        "strong": f"by users{why}: a fifth of each held-out user's interactions is to be found",
        "leave-last": "by time: each user's last interactions are to be found",
        "given": "as the source itself is",
        "cold-items": "by items: those that nobody has played are to be found, by their metadata",
    }.get(str(split.protocol.get("split")), "as prepared")
    n_validation = 0 if split.validation is None else split.validation.n_users
    return (
        f"split {how}; {split.train.shape[0]:,} users to learn from, {n_validation:,} to choose by, "
        f"{split.test.n_users:,} to test on"
    )
