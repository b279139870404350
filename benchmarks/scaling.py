"""Seconds of a training step in one, two and four processes, and the forecast for catalogues of millions of items.

    python benchmarks/scaling.py

Where processes divide the users of a batch, a step takes `fixed + user·(users of the process)` to compute, fitted to
one process at two batch sizes, longer where processes share cores, and `bytes on the wire / bandwidth` to sum the
gradients, fitted to two processes. Where they divide the items, each computes its part of both terms. So the step of
two and four processes is predicted, and compared with the measured one. The same sums with the data-sheet figures of
named hardware give the time for 100 million users and 10 million items. Writes `benchmarks/results/scaling.md`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from scipy import sparse
from torch.multiprocessing.spawn import start_processes

from benchmarks import record
from recvae.models.autoencoders.multvae import MultVAE
from recvae.nn.parallelism import DIVIDED, Parallelism
from recvae.storage.manifest import versions
from recvae.training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "scaling.md"
SIZES = (1, 2, 4)
SEED, WARM_UP = 0, 2
LATENT = 64
ADAM_TRAFFIC = 7 * 4  # bytes a number: gradient, weight and both moments read, the last three written
ADAM_MEMORY = 4 * 4  # bytes a number: weight, gradient, both moments
SPARSE_MEMORY = 3 * 4  # bytes a number: the gradient has only the rows of the batch
HISTORY_MEMORY = 2 * 4  # bytes an interaction: item and value
MATRIX_SHARE, STREAM_SHARE, MEMORY_SHARE = 0.4, 0.7, 0.9  # of the data sheet's figures that can be had
USERS_A_DEVICE = 1000


@dataclass(frozen=True)
class Data:
    """Random interactions, popular items first."""

    users: int
    items: int
    interactions: int
    width: int
    batch_size: int

    def matrix(self) -> sparse.csr_matrix:
        rng = np.random.default_rng(SEED)
        items = (rng.random((self.users, self.interactions)) ** 3 * self.items).astype(np.int32)
        rows = np.repeat(np.arange(self.users), self.interactions)
        ones = np.ones(items.size, dtype=np.float32)
        matrix = sparse.csr_matrix((ones, (rows, items.ravel())), shape=(self.users, self.items))
        matrix.data[:] = 1
        return matrix

    @property
    def numbers(self) -> int:
        """Weights of the input and the output layer, all but a few of the model's."""
        return 2 * self.items * self.width


@dataclass(frozen=True)
class Step:
    """Medians of a step: seconds to compute, to wait for the slowest process, to communicate; numbers summed."""

    compute: float
    wait: float
    communicate: float
    numbers: float

    @property
    def total(self) -> float:
        return self.compute + self.wait + self.communicate


@dataclass(frozen=True)
class Hardware:
    """`devices` with bfloat16 FLOP/s, bytes/s of memory, bytes/s each way on the wire, and bytes of memory, each."""

    name: str
    devices: int
    flops: float
    stream: float
    wire: float
    memory: float


HARDWARE = (
    Hardware("8 H100 SXM5 80 GB, NVLink 4", 8, 989e12, 3.35e12, 450e9, 80e9),
    Hardware("8 B200 SXM 180 GB, NVLink 5", 8, 2250e12, 8e12, 900e9, 180e9),
    Hardware("64 B200 SXM 180 GB, 400 Gbit/s InfiniBand each", 64, 2250e12, 8e12, 50e9, 180e9),
)


def measured(data: Data, size: int, batch_size: int, parallel: str = "users") -> Step:
    """One thread for each process, as torchrun starts them."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (size, data, batch_size, parallel, folder)
        start_processes(_measure, arguments, nprocs=size)  # type: ignore[no-untyped-call]
        return Step(**json.loads((Path(folder) / "step.json").read_text()))


def _measure(rank: int, size: int, data: Data, batch_size: int, parallel: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    steps: list[tuple[float, ...]] = []
    update, spent = Trainer._update, np.zeros(3)  # seconds of waiting and of communication, numbers

    def marked_update(trainer: Trainer, *arguments: Any) -> None:
        spent[:] = 0
        began = time.perf_counter()
        update(trainer, *arguments)
        steps.append((time.perf_counter() - began - spent[0] - spent[1], *spent))

    setattr(Trainer, "_update", marked_update)  # noqa: B010 mypy knows no patches
    for name in ("sum_gradients", "sum_over_items_", "logsumexp_over_items"):
        _mark(Parallelism, name, spent)
    for name in ("all_reduce", "all_gather"):
        _count(name, spent)
    model = MultVAE(hidden=data.width, latent=LATENT, epochs=1, batch_size=batch_size, device="cpu", parallel=parallel)
    model.fit(data.matrix(), show_progress=False)
    if rank == 0:
        step = dict(zip(("compute", "wait", "communicate", "numbers"), np.median(steps[WARM_UP:], axis=0), strict=True))
        (Path(folder) / "step.json").write_text(json.dumps(step))
    dist.destroy_process_group()


def _mark(owner: type, name: str, spent: npt.NDArray[np.float64]) -> None:
    """Take the time of a method, once all processes have come to it."""
    method = getattr(owner, name)

    def marked(*arguments: Any) -> Any:
        came = time.perf_counter()
        dist.barrier()
        began = time.perf_counter()
        result = method(*arguments)
        spent[:2] += began - came, time.perf_counter() - began
        return result

    setattr(owner, name, marked)


def _count(name: str, spent: npt.NDArray[np.float64]) -> None:
    """Count the numbers of a collective by its tensors."""
    collective = getattr(dist, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        spent[2] += sum(tensor.numel() for tensor in arguments if isinstance(tensor, torch.Tensor))
        return collective(*arguments, **options)

    setattr(dist, name, counted)


def on_the_wire(numbers: float, size: int) -> float:
    """Bytes that each process sends to sum so many float32 numbers in a ring."""
    return 2 * (size - 1) / size * 4 * numbers


WAITING = """\
Predictions are without waiting: at every sum each process waits for the slowest, the longer the more of them share a
core, and processes that divide the items have a sum for every chunk of users and one for every layer by item."""


def check(data: Data) -> list[str]:
    """Predicted and measured steps on this machine."""
    whole, quarter = (measured(data, 1, batch) for batch in (data.batch_size, data.batch_size // 4))
    user = (whole.compute - quarter.compute) / (data.batch_size - data.batch_size // 4)
    fixed = whole.compute - user * data.batch_size
    several = [(size, parallel) for parallel in DIVIDED for size in SIZES if size > 1]
    steps = {(1, "-"): whole} | {
        (size, parallel): measured(data, size, data.batch_size, parallel) for size, parallel in several
    }
    two = steps[2, "users"]
    bandwidth = on_the_wire(two.numbers, 2) / two.communicate
    lines = [
        f"Compute: {1e3 * fixed:.1f} ms a step and {1e6 * user:.1f} µs a user (one process, batches of "
        f"{data.batch_size} and {data.batch_size // 4}). Wire: {bandwidth / 1e9:.2f} GB/s (two processes, by users).",
        "",
        "| processes | divided | sent MB | compute ms | wait ms | sum ms | step ms | predicted step ms | users/s |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (size, parallel), step in steps.items():
        crowding = max(1, size / len(os.sched_getaffinity(0)))
        parts = fixed / (size if parallel == "items" else 1) + user * data.batch_size / size
        sent = on_the_wire(step.numbers, size)
        predicted = crowding * parts + sent / bandwidth
        figures = [1e3 * seconds for seconds in (step.compute, step.wait, step.communicate, step.total, predicted)]
        shown = " | ".join(f"{figure:.1f}" for figure in figures)
        lines.append(f"| {size} | {parallel} | {sent / 1e6:.1f} | {shown} | {data.batch_size / step.total:,.0f} |")
    return [*lines, "", WAITING]


def predict(hardware: Hardware, data: Data, negatives: int | None, parallel: str) -> str:
    """A row of the table: memory, the parts of a step, and an epoch."""
    local = data.batch_size / hardware.devices
    items = data.items if negatives is None else min(data.items, data.batch_size * data.interactions + negatives)
    rows = 2 * data.items if negatives is None else local * data.interactions + items
    matrices = 6 * local * data.width * items / (MATRIX_SHARE * hardware.flops)
    layers = (ADAM_MEMORY if negatives is None else SPARSE_MEMORY) * data.numbers
    if parallel == "items":
        layers //= hardware.devices
        updated, sent = rows / hardware.devices, on_the_wire(2 * data.batch_size * data.width, hardware.devices)
    elif negatives is None:
        updated, sent = rows, on_the_wire(rows * data.width, hardware.devices)
    else:
        updated = 2 * items
        sent = (hardware.devices - 1) * rows * data.width * 4
    adam = ADAM_TRAFFIC * updated * data.width / (STREAM_SHARE * hardware.stream)
    wire = sent / (STREAM_SHARE * hardware.wire)
    step = matrices + adam + wire
    histories = HISTORY_MEMORY * data.users * data.interactions
    fits = "yes" if layers + histories < MEMORY_SHARE * hardware.memory else "no"
    parts = " | ".join(f"{1e3 * seconds:.2f}" for seconds in (matrices, adam, wire, step))
    epoch = step * data.users / data.batch_size / 60
    softmax = "all" if negatives is None else f"{negatives:,} drawn"
    return (
        f"| {hardware.name} | {softmax} | {parallel} | {data.width} | {layers / 1e9:.0f} + {histories / 1e9:.0f} "
        f"| {fits} | {parts} | {epoch:.1f} |"
    )


def predictions() -> list[str]:
    """The table for 100 million users and 10 million items."""
    lines = [
        "| devices | items | divided | width | layers + histories GB | fits | matrices ms | Adam ms | wire ms "
        "| step ms | epoch min |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for hardware in HARDWARE:
        for width, negatives, parallel in (
            (600, None, "users"),
            (600, None, "items"),
            (200, None, "users"),
            (200, None, "items"),
            (200, 10_000, "users"),
        ):
            data = Data(100_000_000, 10_000_000, 100, width, USERS_A_DEVICE * hardware.devices)
            lines.append(predict(hardware, data, negatives, parallel))
    return lines


ARITHMETIC = f"""\
For b users a device, D devices, width w, and I items of the softmax (all, or those drawn and one for each interaction
of the batch):

- matrices: 6·b·w·I FLOP, also where b·D users have I/D items each, at {MATRIX_SHARE:.0%} of the bfloat16 rate;
- Adam: {ADAM_TRAFFIC} bytes for each number that is updated, at {STREAM_SHARE:.0%} of the memory's rate;
- wire: 2·(D-1)/D·4 bytes for each number of a dense gradient, or, divided by items, for two (b·D, w) matrices, and
  (D-1)·4 for each of a device's rows of a sparse gradient, at {STREAM_SHARE:.0%} of the link's rate, none of it hidden
  behind the computing;
- memory of each device: {ADAM_MEMORY} bytes for each number of the input and the output layer, {SPARSE_MEMORY} where
  gradients are sparse, a D-th of it divided by items, and {HISTORY_MEMORY} bytes for each interaction of all users; it
  fits up to {MEMORY_SHARE:.0%}.

{USERS_A_DEVICE:,} users a device and step, 100 interactions a user. Rates are the makers' data sheets'; nothing of this
table is measured.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=record.parse_count, default=20_000)
    parser.add_argument("--width", type=record.parse_count, default=200)
    parser.add_argument("--batch-size", type=record.parse_count, default=400)
    parser.add_argument("--steps", type=record.parse_count, default=10)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    users = given.batch_size * (given.steps + WARM_UP)
    data = Data(users, given.items, 100, given.width, given.batch_size)
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Scaling over processes",
        "",
        f"MultVAE, {data.items:,} items, width {data.width}, {data.interactions} interactions a user; "
        f"processes of one thread divide "
        f"batches of {data.batch_size} users, or the items, over gloo. Medians of {given.steps} steps.",
        "",
        *check(data),
        "",
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {installed}, seed {SEED}.",
        "",
        "## 100 million users and 10 million items, predicted",
        "",
        ARITHMETIC,
        *predictions(),
    ]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf8")
    print(given.out.read_text(encoding="utf8"))


if __name__ == "__main__":
    main()
