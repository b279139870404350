"""Samples of the data sets' users, prepared as a user's own small file would be, and measured one after the other."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks import kept, record
from recvae.errors import RecvaeError
from recvae.evaluation.results import write_results
from recvae.preparation.pipeline import Options, prepare

Figures = TypeVar("Figures")

SETS = ("ml-1m", "lastfm", "citeulike", "gowalla", "yelp2018", "ml-10m-likes")
MOST_SCORED = 800


@dataclass(frozen=True)
class Sample:
    """The making of a sample.

    Attributes
    ----------
    learn_from, choose_by : int
        Training and validation users; up to `MOST_SCORED` more are test users.
    min_item_users : int
        Of an item in the sample, as the catalogue would be too large for so few users.
    """

    learn_from: int
    choose_by: int
    min_item_users: int = 0

    @contextmanager
    def prepare(self, matrix: sparse.csr_matrix, number: int) -> Iterator[Path]:
        """Draw users of a training matrix with all their interactions, and prepare them as a file of their own.

        Yields
        ------
        Path
            A prepared directory, there until the block ends.
        """
        n_users = self.learn_from + self.choose_by
        users = np.random.default_rng(number).permutation(matrix.shape[0])[: n_users + MOST_SCORED]
        pairs = matrix[users].tocoo()
        table = pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col})
        options = Options(
            split="strong",
            val_users=self.choose_by,
            test_users=table["user_id"].nunique() - n_users,
            min_item_users=self.min_item_users,
            seed=number,
        )
        with tempfile.TemporaryDirectory() as folder:
            file, directory = Path(folder) / "sample.csv", Path(folder) / "prepared"
            table.to_csv(file, index=False)
            prepare(file, directory, options)
            yield directory


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of what all benchmarks on samples are told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=record.split_names, default=list(SETS), help="data sets, by commas")
    parser.add_argument("--samples", type=record.parse_count, default=3, help="samples of each data set")
    parser.add_argument("--data", type=Path, default=kept.PREPARED, help="prepared directories, by name")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    return parser


def measure_samples(
    name: str,
    arguments: argparse.Namespace,
    sample: Sample,
    measure: Callable[[Path, int], Figures],
    write: Callable[[Mapping[str, Sequence[Figures]], str, str], str],
    *options: str,
) -> None:
    """Measure samples of each data set, and write the results as each is done.

    Parameters
    ----------
    name : str
        Of the benchmark and its results.
    arguments : Namespace
        As of `make_parser`.
    sample : Sample
    measure : callable
        Called with a prepared directory and the sample's number.
    write : callable
        Called with the figures by data set, the command and the machine; gives the page.
    *options : str
        What the command is told besides.
    """
    given = [f"--sets {','.join(arguments.sets)}", f"--samples {arguments.samples}", *options]
    command = " ".join([f"python -m benchmarks.{name}", *given])
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Figures]] = {}
    for data in arguments.sets:
        found[data] = []
        try:
            matrix = kept.open_data(data, arguments.data).split.train
            for number in range(arguments.samples):
                with sample.prepare(matrix, number) as directory:
                    found[data].append(measure(directory, number))
                print(data, number, found[data][-1], flush=True)
        except RecvaeError as error:
            sys.exit(f"not run: {error}")
        write_results(arguments.out / f"{name}.json", {**record.provenance(command, 0), "data": found})
        text = write(found, command, kept.describe_machine())
        (arguments.out / f"{name}.md").write_text(text, encoding="utf8")
