"""Run the tests of the library `implicit` against this project's models, and list every failure with its reason.

    git clone https://github.com/benfred/implicit
    python -m benchmarks.implicit_tests implicit/tests

The tests are read where they are and are no part of this repository. Before they run, `implicit`'s classes in them are
replaced by ours, and the arguments that have another name here are translated (`TRANSLATED`) or dropped (`DROPPED`).
"""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import implicit
import pytest

import recvae
from recvae.models.base import Recommender

FILES = ("recommender_base_test.py", "als_test.py", "bpr_test.py", "knn_test.py", "evaluation_test.py")
CLASSES: dict[str, type[Recommender]] = {
    "AlternatingLeastSquares": recvae.ALS,
    "BayesianPersonalizedRanking": recvae.BPR,
    "LogisticMatrixFactorization": recvae.LMF,
    "CosineRecommender": recvae.CosineKNN,
    "TFIDFRecommender": recvae.TFIDFKNN,
    "BM25Recommender": recvae.BM25KNN,
}
DEFAULTS = {"ALS": {"alpha": 1.0}}
"""Defaults of `implicit` on which its tests rely and that ours choose from the matrix."""

TRANSLATED = {"random_state": "seed"}
DROPPED = {"use_gpu", "use_native", "use_cg", "dtype", "num_threads", "calculate_training_loss"}

REASONS = {
    "test_fit_non_csr_matrix": "any sparse matrix is taken, without a warning",
    "test_invalid_user_items": "any sparse matrix is taken; for a scalar userid its row is ranked from",
    "test_rank_items": "filtered items, and items without a score, are never listed: the list is padded with -1",
    "test_rank_items_batch": "filtered items, and items without a score, are never listed: the list is padded with -1",
    "test_similar_items_filter": "items without similarity are not listed: the list is padded with -1",
    "test_serialization": "an artifact is a directory, not an open file",
    "test_serialization_without_fit": "a model that is not fitted is not saved",
    "test_zero_iterations_with_loss": "at least one iteration",
    "test_explain": "explain returns (ids, contributions): what the score loses without each item",
    "test_incremental_retrain": "no partial_fit_users: new users are folded in without training",
    "test_fit_empty_matrix": "a matrix without interactions is refused",
    "test_fit_callback": "callback(epoch, seconds, loss) is the same for every model",
}
"""Known differences, by the name of the test that shows them."""


def translate(model: type[Recommender]) -> Callable[..., Recommender]:
    """Make a stand-in for a class of `implicit` that creates one of ours."""
    known = inspect.signature(model).parameters

    def create(*arguments: Any, **named: Any) -> Recommender:
        ours = {TRANSLATED.get(name, name): value for name, value in named.items() if name not in DROPPED}
        ours = DEFAULTS.get(model.__name__, {}) | ours
        return model(*arguments, **{name: value for name, value in ours.items() if name != "seed" or "seed" in known})

    return create


def replace_classes(package: ModuleType) -> SimpleNamespace:
    """Copy a package's names with our models in place of its own; the package itself, which ours use, stays."""
    names = {}
    for name, value in vars(package).items():
        inner = isinstance(value, ModuleType) and value.__name__.startswith(f"{package.__name__}.")
        names[name] = replace_classes(value) if inner else translate(CLASSES[name]) if name in CLASSES else value
    return SimpleNamespace(**names)


class Plugin:
    """Replaces the classes in the test modules, and keeps the outcome of each test."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: dict[str, str] = {}
        self.skipped: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for module in {item.module for item in items if isinstance(item, pytest.Function)}:
            for name, value in vars(module).copy().items():
                if name in CLASSES:
                    setattr(module, name, translate(CLASSES[name]))
                elif value is implicit:
                    setattr(module, name, replace_classes(implicit))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failed[report.nodeid] = str(crash.message if crash else report.longrepr).splitlines()[0]
        elif report.when == "call":
            self.passed.append(report.nodeid)


def run(folder: Path) -> Plugin:
    """Run the tests in a folder.

    Raises
    ------
    SystemExit
        If it holds none of them.
    """
    files = [str(folder / name) for name in FILES if (folder / name).is_file()]
    if not files:
        raise SystemExit(f"{folder} holds none of {', '.join(FILES)}; expected the tests of implicit")
    sys.path.insert(0, str(folder))  # the tests import one another
    plugin = Plugin()
    pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder), *files], plugins=[plugin])
    return plugin


def report(outcome: Plugin) -> str:
    """Markdown: the counts, and a row for each failure."""
    counts = f"{len(outcome.passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"
    rows = []
    for name, error in outcome.failed.items():
        test = name.split("/")[-1]
        reason = REASONS.get(test.split("::")[-1].split("[")[0], "**not known**")
        rows.append(f"| {test} | {reason} | {error.replace('|', '/')} |")
    return "\n".join([counts, "", "| test | reason | error |", "|---|---|---|", *rows]) + "\n"


def main() -> None:
    """Run the tests and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of implicit's tests")
    sys.stdout.write(report(run(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
