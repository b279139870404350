"""Time of offline evaluation, against the scoring matrix products alone, and against other evaluators.

    python -m benchmarks.evaluation [--only floor,evaluators]

10,000 users with made-up histories, 20,108 items, recall@20, recall@50 and ndcg@100 of Mult-VAE in the paper's
architecture after one epoch. Everything is measured in turn, in one run. Writes `evaluation.json` and `evaluation.md`.

- floor: the whole of `recvae.evaluate`, the stages it consists of, and the matrix products alone.
- evaluators: `implicit`'s evaluator, and irspack's in its own environment, on the same scores.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse

from benchmarks import record
from benchmarks.contestants import VENVS, ContestantError, Track
from benchmarks.shapes import ML_20M, histories
from benchmarks.speed_report import describe_source, format_table
from recvae.data.splitting import Holdout
from recvae.evaluation.evaluate import PRIMARY_METRICS, evaluate
from recvae.models.base import Recommender
from recvae.models.registry import create
from recvae.storage.files import write_text

N_USERS, BATCH = 10_000, 500
TRAINING_USERS = 2_500
HELD_OUT = 0.2
DEPTH = 100

Work = Callable[[], object]


def hold_out_fifth(interactions: sparse.csr_matrix, seed: int) -> Holdout:
    """Hold out a fifth of every history."""
    held = np.random.default_rng(seed).random(interactions.nnz) < HELD_OUT

    def part(mask: npt.NDArray[np.bool_]) -> sparse.csr_matrix:
        kept = interactions.copy()
        kept.data = kept.data * mask
        kept.eliminate_zeros()
        return kept

    n_users = interactions.shape[0]
    return Holdout(part(~held), part(held), pd.Index(np.arange(n_users)), np.full(n_users, -1, dtype=np.int32))


def make_setting(options: record.Options) -> tuple[Recommender, Holdout]:
    """Make the model and the users that it is evaluated on."""
    n_items, mean = ML_20M["n_items"], ML_20M["mean_interactions"]
    interactions = histories(TRAINING_USERS + N_USERS, n_items, mean, options.seed)
    model = create("multvae", "paper", epochs=1, seed=options.seed)
    model.fit(interactions[:TRAINING_USERS], show_progress=False)
    return model, hold_out_fifth(interactions[TRAINING_USERS:], options.seed)


def make_products(n_users: int, n_items: int, hidden: int = 600, latent: int = 200) -> Work:
    """Make the dense matrix products that every way of scoring needs, into memory that is used again.

    mu from the encoder's hidden layer, the decoder's hidden layer, and the scores.
    """
    sizes = ((hidden, latent), (latent, hidden), (hidden, n_items))
    layers = [(torch.randn(BATCH, a), torch.randn(b, a).T, torch.empty(BATCH, b)) for a, b in sizes]

    def work() -> None:
        for _ in range(0, n_users, BATCH):
            for x, weight, out in layers:
                torch.mm(x, weight, out=out)

    return work


def score_in_batches(call: Callable[[sparse.csr_matrix], object], fold_in: sparse.csr_matrix) -> Work:
    """Make a function that calls another for every batch of users."""

    def work() -> None:
        for start in range(0, fold_in.shape[0], BATCH):
            call(fold_in[start : start + BATCH])

    return work


def measure_floor(options: record.Options) -> dict[str, Any]:
    """Measure the seconds of the matrix products alone, with the scores, with the lists, and with the metrics."""
    model, holdout = make_setting(options)
    fold_in = sparse.csr_matrix(holdout.fold_in)
    works: dict[str, Work] = {
        "matrix products": make_products(*fold_in.shape),
        "scores": score_in_batches(model.score, fold_in),
        "lists": score_in_batches(lambda rows: model.recommend(np.arange(rows.shape[0]), rows, N=DEPTH), fold_in),
        "recvae.evaluate": lambda: evaluate(model, holdout, PRIMARY_METRICS, batch_size=BATCH),
        "recvae.evaluate, its own batches": lambda: evaluate(model, holdout, PRIMARY_METRICS),
    }
    return {
        "n_users": N_USERS,
        "n_items": fold_in.shape[1],
        "batch": BATCH,
        "seconds": time_in_turn(works, options.rounds),
    }


def measure_evaluators(options: record.Options) -> dict[str, Any]:
    """Measure the seconds of each evaluator with the scores that it needs, on the same model and users."""
    from implicit.evaluation import ranking_metrics_at_k

    model, holdout = make_setting(options)
    fold_in, held_out = (sparse.csr_matrix(part) for part in (holdout.fold_in, holdout.held_out))
    scored = np.flatnonzero(np.diff(held_out.indptr))
    fold_in, held_out = fold_in[scored], held_out[scored]
    track = Track(options.venvs)
    with tempfile.TemporaryDirectory() as scratch:
        task = Path(scratch) / "evaluation.npz"
        write_task(task, model, fold_in, held_out)
        own: list[float] = []
        works: dict[str, Work] = {
            "recvae: recall@20, recall@50, ndcg@100": lambda: evaluate(model, holdout, PRIMARY_METRICS),
            "implicit: precision, map, ndcg, auc @100": lambda: ranking_metrics_at_k(
                model, fold_in, held_out, K=DEPTH, show_progress=False, num_threads=torch.get_num_threads()
            ),
            "irspack": lambda: own.extend(time_irspack(track, task)),
        }
        seconds = time_in_turn(works, options.rounds)
    del seconds["irspack"]
    seconds["irspack: its metrics @20, 50, 100"] = record.spread(own)
    return {"n_users": len(scored), "n_items": fold_in.shape[1], "seconds": seconds}


def write_task(path: Path, model: Recommender, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> None:
    """Write the task of an evaluator in another environment: the layers that score, and the users."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save(Path(scratch) / "model")
        from safetensors.numpy import load_file

        weights = load_file(Path(scratch) / "model" / "model.safetensors")
    arrays: dict[str, Any] = {"n_items": np.int64(fold_in.shape[1]), **weights}
    for name, matrix in (("fold_in", fold_in), ("held_out", held_out)):
        arrays |= {f"{name}.indices": matrix.indices, f"{name}.indptr": matrix.indptr}
    np.savez(path, **arrays)


def time_irspack(track: Track, task: Path) -> list[float]:
    """Measure the seconds of irspack's evaluator in its own process."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seconds.json"
        track.call("irspack", "irspack_evaluation", [str(task), str(out), str(torch.get_num_threads())])
        return [float(seconds) for seconds in json.loads(out.read_text(encoding="utf8"))]


def time_in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, dict[str, float | int]]:
    """Measure the seconds of each work in turn; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = perf_counter()
            work()
            if number:
                seconds[name].append(perf_counter() - started)
    return {name: record.spread(samples) for name, samples in seconds.items()}


PARTS = {"floor": measure_floor, "evaluators": measure_evaluators}


def format_markdown(results: Mapping[str, Any]) -> str:
    """Format every measured part as a table: seconds, and the ratio to the first row."""
    sections = ["# Evaluation"]
    for part in results["parts"].values():
        figures = part["figures"]
        first, *_ = (spread["median"] for spread in figures["seconds"].values())
        rows = [
            [
                name,
                f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})",
                f"{spread['median'] / first:.2f}",
            ]
            for name, spread in figures["seconds"].items()
        ]
        caption = f"{figures['n_users']:,} users, {figures['n_items']:,} items; median and range."
        sections += [format_table(["", "s", "ratio"], rows), caption, describe_source(part)]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    """Measure the chosen parts; write after each."""
    options = record.parse_options("benchmarks.evaluation", __doc__, PARTS, VENVS, rounds=5)
    for part in options.only:
        try:
            content = {**record.provenance(options.command, options.seed), "figures": PARTS[part](options)}
        except ContestantError as error:
            sys.exit(f"{part} was not measured: {error}")
        text = format_markdown(record.merge(options.out / "evaluation.json", part, content))
        write_text(options.out / "evaluation.md", text)
    print(text)


if __name__ == "__main__":
    main()
