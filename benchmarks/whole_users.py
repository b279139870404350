"""Whole users held out of a prepared data set, whatever its split, for benchmarks of histories rather than of lists."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.record import RESULTS
from recvae.data.prepared import read_prepared

TEST_SHARE, VALIDATION_SHARE, HELD_OUT_SHARE = 1 / 6, 1 / 10, 0.2
FEWEST_INTERACTIONS = 5


@dataclass(frozen=True, eq=False)
class WholeUsers:
    """Training users, validation users as `fit` takes them, and test users with their whole histories."""

    train: sparse.csr_matrix
    validation: tuple[sparse.csr_matrix, sparse.csr_matrix]
    test: sparse.csr_matrix


def parse_named(text: str) -> tuple[str, Path]:
    """A data set's name and its prepared directory."""
    name, equals, directory = text.partition("=")
    if not (name and equals and directory):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PREPARED_DIRECTORY")
    return name, Path(directory)


def make_parser(about: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark of fitted models on prepared data sets."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=parse_named, metavar="NAME=PREPARED_DIRECTORY")
    parser.add_argument("--models", type=Path, required=True, help="folder of fitted models")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def read_whole_users(directory: Path) -> WholeUsers:
    """Read a prepared directory; where its test users were trained on, users are drawn anew from all interactions."""
    split = read_prepared(directory).split
    validation, test = split.validation, split.test
    if validation is None:
        raise SystemExit(f"{directory} has no validation users")
    if not np.isin(test.train_rows, np.arange(split.train.shape[0])).any():
        return WholeUsers(split.train, (validation.fold_in, validation.held_out), _tidy(test.fold_in + test.held_out))
    everything = split.train.copy()
    for holdout in (validation, test):
        place = sparse.csr_matrix(
            (np.ones(len(holdout.train_rows), np.float32), (holdout.train_rows, np.arange(len(holdout.train_rows)))),
            shape=(everything.shape[0], len(holdout.train_rows)),
        )
        everything = everything + place @ holdout.held_out
    everything.data[:] = 1
    return _draw(sparse.csr_matrix(everything, dtype=np.float32))


def _draw(user_items: sparse.csr_matrix) -> WholeUsers:
    generator = np.random.default_rng(0)
    order = generator.permutation(user_items.shape[0])
    n_test, n_validation = int(TEST_SHARE * len(order)), int(VALIDATION_SHARE * len(order))
    test, validation, train = np.split(order, [n_test, n_test + n_validation])
    return WholeUsers(
        user_items[np.sort(train)],
        hold_out_interactions(user_items[np.sort(validation)], generator),
        _tidy(user_items[np.sort(test)]),
    )


def hold_out_interactions(
    user_items: sparse.csr_matrix, generator: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Divide histories into what a model is given and what it is to find, about a fifth."""
    held = generator.random(user_items.nnz) < HELD_OUT_SHARE
    fold_in, held_out = user_items.copy(), user_items.copy()
    fold_in.data, held_out.data = np.where(held, 0, fold_in.data), np.where(held, held_out.data, 0)
    fold_in.eliminate_zeros()
    held_out.eliminate_zeros()
    return fold_in, held_out


def _tidy(user_items: sparse.csr_matrix) -> sparse.csr_matrix:
    """Binary, of the users with enough interactions."""
    tidy = sparse.csr_matrix(user_items[np.diff(user_items.indptr) >= FEWEST_INTERACTIONS], dtype=np.float32)
    tidy.sum_duplicates()
    tidy.data[:] = 1
    return tidy
