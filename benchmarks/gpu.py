"""Speed on a GPU: training beside the device's own floor, closed-form models, and evaluation.

    python -m benchmarks.gpu [--only training,models,evaluation,fit]

Made-up histories in the shape of MovieLens-20M's training users (116,677 × 20,108), where no figure depends on what the
histories say.

- training: users a second of MultVAE, presets paper and recommended, and of RecVAE, at several batch sizes, beside the
  least time that the output layer's three matrix products and Adam's memory traffic take on this device.
- models: seconds to fit EASE with fixed settings, on the GPU and on the processor, and the graph filter.
- evaluation: users a second, histories to metrics.
- fit: what `recvae fit` finds on ML-10M-likes in a minute, as the test users see it.

Without a GPU it stops with a line that says so. Writes `benchmarks/results/gpu.json`; a part that is measured again
replaces its earlier figures.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import kept, record
from benchmarks.floor import BYTES_A_PARAMETER, n_parameters
from benchmarks.shapes import ML_20M, histories
from recvae.data.splitting import Holdout
from recvae.evaluation.evaluate import evaluate
from recvae.models.registry import create

HIDDEN = 600
BATCHES = (500, 4_000, 24_000)
EPOCHS = 3
COPIED_FLOATS = 2**28
FIXED: dict[str, Any] = {"l2": 500.0, "dropout": 0.5, "user_exponent": 0.5}
FIT_DATA, FIT_SECONDS = "ml-10m-likes", 60.0
NVIDIA_V100 = 219_000
"""Users a second in training that NVIDIA states for its VAE-CF on one V100, same layers and items."""


def seconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """Median seconds of some work on the device, after two rounds that do not count."""
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[2:])


def measure_floor(batch: int, n_items: int) -> dict[str, float]:
    """Measure the output layer's products in bfloat16 and a copy; give the least seconds of a training step.

    The number of items is rounded up to a multiple of eight, for which the device has faster products.
    """
    n_items += -n_items % 8
    hidden = torch.randn(batch, HIDDEN, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(n_items, HIDDEN, device="cuda", dtype=torch.bfloat16)
    logits = hidden @ weight.T
    factors = (hidden, weight.T), (logits, weight), (logits.T, hidden)
    products = [seconds(partial(torch.matmul, *pair)) for pair in factors]
    source = torch.ones(COPIED_FLOATS, device="cuda")
    target = torch.empty_like(source)
    bytes_per_second = 8 * COPIED_FLOATS / seconds(lambda: target.copy_(source))
    step = sum(products) + BYTES_A_PARAMETER * n_parameters(n_items) / bytes_per_second
    return {
        "tflops": 6 * batch * HIDDEN * n_items / sum(products) / 1e12,
        "gb_per_second": bytes_per_second / 1e9,
        "step_seconds": step,
        "users_per_second": batch / step,
    }


def measure_training(seed: int) -> dict[str, Any]:
    """Measure epochs at each batch size; the first epoch, in which memory is allocated, does not count."""
    train = histories(ML_20M["n_users"], ML_20M["n_items"], ML_20M["mean_interactions"], seed)
    rows: dict[str, Any] = {}
    for batch in BATCHES:
        floor = measure_floor(batch, train.shape[1])
        row: dict[str, Any] = {"floor": floor}
        for name, model in {
            "multvae, paper, bfloat16": create("multvae", "paper", precision="bfloat16"),
            "multvae": create("multvae", gamma=0.003, dropout=0.5),
            "recvae": create("recvae", gamma=0.005, dropout=0.5),
        }.items():
            if name == "recvae" and batch != BATCHES[1]:
                continue
            model.set_params(epochs=EPOCHS, batch_size=batch, device="cuda", seed=seed)
            torch.cuda.reset_peak_memory_stats()
            model.fit(train, show_progress=False)
            users_per_second = train.shape[0] / min(epoch["seconds"] for epoch in model.history_[1:])  # type: ignore[attr-defined]
            row[name] = {
                "users_per_second": users_per_second,
                "share_of_floor": users_per_second / floor["users_per_second"],
                "times_nvidia_v100": users_per_second / NVIDIA_V100,
                "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            }
            print(f"batch {batch}: {name} {users_per_second:,.0f} users/s", flush=True)
        rows[str(batch)] = row
    return rows


def measure_models(seed: int) -> dict[str, Any]:
    """Measure the seconds of a fit: EASE with fixed settings, on the GPU and on the processor, and the graph filter."""
    train = histories(ML_20M["n_users"], ML_20M["n_items"], ML_20M["mean_interactions"], seed)
    rows: dict[str, Any] = {}
    for row, model in {
        "ease, cuda": create("ease", **FIXED, device="cuda"),
        "ease, cpu": create("ease", **FIXED, device="cpu"),
        "graph, cpu": create("graph"),
    }.items():
        started = time.perf_counter()
        model.fit(train, show_progress=False)
        rows[row] = {"fit_seconds": time.perf_counter() - started}
        print(f"{row}: {rows[row]['fit_seconds']:.1f} s", flush=True)
    return rows


def measure_fit(_: int) -> dict[str, Any]:
    """Measure `recvae fit` with a budget, and what it chose, fitted on the training users, on the test users."""
    prepared = kept.open_data(FIT_DATA, kept.PREPARED)
    model, chosen, spent = kept.fit_within(prepared.path, prepared.split.train, FIT_SECONDS, "ndcg@100")
    result = evaluate(model, prepared.split.test, ["ndcg@100"])
    return {"data": FIT_DATA, "seconds": spent, "ndcg@100": result.mean("ndcg@100"), **chosen}


def measure_evaluation(seed: int) -> dict[str, Any]:
    """Measure an evaluation of 10,000 users."""
    rows = histories(14_000, ML_20M["n_items"], ML_20M["mean_interactions"], seed)
    model = create("multvae", gamma=0.003, dropout=0.5, epochs=1, batch_size=500, device="cuda", seed=seed)
    model.fit(rows[:4_000], show_progress=False)
    fold_in, held_out = rows[4_000:], histories(10_000, ML_20M["n_items"], 18, seed + 1)
    unseen = (held_out - held_out.multiply(fold_in > 0)).tocsr()
    unseen.eliminate_zeros()
    nobody = np.full(10_000, -1, dtype=np.int32)
    holdout = Holdout(fold_in, unseen, pd.RangeIndex(10_000), nobody)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        evaluate(model, holdout, ["ndcg@100", "recall@20", "recall@50"])
        taken.append(time.perf_counter() - started)
    return {"users_per_second": 10_000 / min(taken)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "training": measure_training,
        "models": measure_models,
        "evaluation": measure_evaluation,
        "fit": measure_fit,
    }
    record.add_parts(parser, parts)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "gpu.json")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("nothing was measured: this machine has no CUDA device")
    command = f"python -m benchmarks.gpu --only {','.join(arguments.only)}"
    for part in arguments.only:
        measured = parts[part](arguments.seed)
        origin = record.provenance(command, arguments.seed) | {"gpu": torch.cuda.get_device_name()}
        record.merge(arguments.out, part, {**measured, "origin": origin})


if __name__ == "__main__":
    main()
