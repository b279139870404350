"""Speed of training beside a dense reference, other libraries, and the floor of this machine, in one run.

    python -m benchmarks.training [--only steps,peers,quality,growth,sampling]

- steps: a training step at the shapes of ML-1M, Gowalla and ML-20M against the dense reference and the floor.
- peers: seconds an epoch and peak memory at ML-1M's shape with equal layers and batches.
- quality: NDCG@100 on ML-1M's test users against seconds of training.
- growth: a step and peak memory from 20,000 to 1,000,000 items.
- sampling: what the sampled softmax costs in quality, on ML-1M and Gowalla.

Every contestant runs in a process of its own, in turn, and medians are taken. Peers are installed, pinned, into an
environment each under `--venvs` when they are first needed. ML-1M and Gowalla are found as `recvae prepare` finds them.
Writes `training.json`, and from it `training.md` and `training.svg`; a part that is measured again replaces its
earlier figures and leaves the others.
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks import floor, record, speed_report
from benchmarks.contestants import VENVS, Contestant, Outcome, Track
from benchmarks.peers.exchange import Task
from benchmarks.shapes import ML_20M, histories, load_split, make_training_task, sample
from recvae.data.splitting import Holdout, Split
from recvae.errors import RecvaeError
from recvae.evaluation.metrics import hit_matrix, ndcg_at_k
from recvae.memory import available_bytes

BATCH, HIDDEN = 500, 600
RECVAE_PASSES = 4  # over the users an epoch: three for the encoder, one for the decoder
STEP_USERS = 5 * BATCH

OURS = Contestant("recvae Mult-VAE", "recvae")
OURS_AUTO = Contestant("recvae Mult-VAE, precision auto", "recvae", {"params": {"precision": "auto"}})
OURS_RECVAE = Contestant("recvae RecVAE", "recvae", {"model": "recvae"})
OURS_RECVAE_AUTO = Contestant(
    "recvae RecVAE, precision auto", "recvae", {"model": "recvae", "params": {"precision": "auto"}}
)
DENSE = Contestant("dense PyTorch Mult-VAE", "dense")

PEERS = (
    OURS,
    OURS_AUTO,
    Contestant("RecBole MultiVAE", "recbole"),
    Contestant("Cornac VAECF", "cornac"),
    Contestant("RecPack MultVAE", "recpack"),
    Contestant("irspack MultVAE", "irspack"),
    OURS_RECVAE,
    OURS_RECVAE_AUTO,
    Contestant("RecBole RecVAE", "recbole", {"model": "recvae"}),
    Contestant("RecPack RecVAE", "recpack", {"model": "recvae"}),
)

# Epochs, and settings of the peers' own, as they did best on validation users elsewhere.
QUALITY: tuple[tuple[Contestant, int, Mapping[str, Any]], ...] = (
    (Contestant("recvae Mult-VAE, recommended", "recvae"), 100, {"preset": "recommended"}),
    (Contestant("recvae Mult-VAE, recommended, 50 epochs", "recvae"), 50, {"preset": "recommended"}),
    (Contestant("recvae Mult-VAE, fast", "recvae"), 15, {"preset": "fast"}),
    (Contestant("recvae Mult-VAE, paper", "recvae"), 100, {"total_anneal_steps": 2000}),
    (OURS_RECVAE, 50, {}),
    (DENSE, 100, {"total_anneal_steps": 2000}),
    (Contestant("RecBole MultiVAE", "recbole"), 100, {"total_anneal_steps": 2000}),
    (Contestant("Cornac VAECF", "cornac"), 100, {}),
    (Contestant("RecPack MultVAE", "recpack"), 100, {"learning_rate": 1e-3, "anneal_steps": 2000}),
    (Contestant("RecPack RecVAE", "recpack", {"model": "recvae"}), 50, {}),
    (Contestant("irspack MultVAE", "irspack"), 100, {}),
)
CHECKPOINTS = 25

CATALOGUES = (20_000, 50_000, 100_000, 300_000, 1_000_000)
GROWTH_HIDDEN = 200  # so that a million items fit into the memory of a small machine
GROWTH = (
    Contestant("softmax over all items", "recvae", {"params": {"hidden": GROWTH_HIDDEN}}),
    Contestant("sampled softmax", "recvae", {"params": {"hidden": GROWTH_HIDDEN, "n_negatives": 4096}}),
)
# Epochs, and negatives for each batch: a quarter and a seventh of the catalogues.
SAMPLED = {"ml-1m": (50, 900), "gowalla": (15, 6144)}
BYTES_A_PARAMETER = 24  # weight, gradient, two moments, the best epoch's copy and the one that replaces it


def steps(options: record.Options) -> dict[str, Any]:
    """Measure at each shape the seconds of a step, their spread, and their ratios to floor and dense reference."""
    return {
        name: step_figures(training_set, n_users, options)
        for name, (training_set, n_users) in step_shapes(options.seed).items()
    }


def step_shapes(seed: int) -> dict[str, tuple[sparse.csr_matrix, int]]:
    """Sample training users of each data set, with the number of all of them."""
    shapes = {}
    for name in ("ml-1m", "gowalla"):
        try:
            train = load_split(name).train
        except RecvaeError as error:
            print(f"{name} is left out: {error}")
            continue
        shapes[name] = sample(train, STEP_USERS, seed), train.shape[0]
    made_up = histories(STEP_USERS, ML_20M["n_items"], ML_20M["mean_interactions"], seed)
    return {**shapes, "ml-20m (made up)": (made_up, ML_20M["n_users"])}


def step_figures(train: sparse.csr_matrix, n_users: int, options: record.Options) -> dict[str, Any]:
    """Measure one shape."""
    floors: list[floor.Floor] = []
    outcomes = Track(options.venvs).race(
        with_settings((OURS, OURS_AUTO, DENSE, OURS_RECVAE), options.seed, epochs=4),
        make_training_task(train),
        options.rounds,
        between=lambda: floors.append(floor.measure(BATCH, HIDDEN, train.shape[1])),
    )
    seconds = [found.seconds(floor.n_parameters(train.shape[1])) for found in floors]
    return {
        "n_items": train.shape[1],
        "n_users": n_users,
        "mean_interactions": train.nnz / train.shape[0],
        "floor": {
            "step_seconds": record.spread(seconds),
            "gflops": record.spread([found.gflops for found in floors]),
            "gb_per_s": record.spread([found.gb_per_s for found in floors]),
        },
        "contestants": {
            name: summary(runs, updates(train.shape[0], name), updates(n_users, name))
            for name, runs in outcomes.items()
        },
    }


def updates(n_users: int, name: str) -> int:
    """Count the updates of an epoch."""
    return -(-n_users // BATCH) * (RECVAE_PASSES if "RecVAE" in name else 1)


def summary(runs: Sequence[Outcome], n_updates: int, epoch_updates: int | None = None) -> dict[str, Any] | None:
    """Summarise step, epoch and memory of a contestant's runs, without each run's first epoch, which warms up.

    Parameters
    ----------
    n_updates : int
        In each epoch that was run.
    epoch_updates : int, optional
        In an epoch over all users, where only some were trained on.
    """
    if not runs:
        return None
    step = record.spread([seconds / n_updates for run in runs for seconds in run.update_seconds[1:]])
    epoch = median(seconds for run in runs for seconds in run.epoch_seconds[1:])
    return {
        "step_seconds": step,
        "epoch_seconds": step["median"] * epoch_updates if epoch_updates else epoch,
        "peak_rss_mb": max(run.peak_rss_mb for run in runs),
        "versions": dict(runs[0].versions),
    }


def peers(options: record.Options) -> dict[str, Any]:
    """Measure seconds of an epoch and peak memory of every library on ML-1M's training users."""
    train = load_split("ml-1m").train
    outcomes = Track(options.venvs).race(
        with_settings(PEERS, options.seed, epochs=4), make_training_task(train), options.rounds
    )
    n_users, n_items = train.shape
    contestants = {name: summary(runs, updates(n_users, name)) for name, runs in outcomes.items()}
    return {"n_users": n_users, "n_items": n_items, "contestants": contestants}


def quality(options: record.Options) -> dict[str, Any]:
    """Measure NDCG@100 of validation and test users against seconds of training, once for each contestant."""
    split = load_split("ml-1m")
    if split.validation is None:
        raise RuntimeError("ml-1m comes without validation users")
    task = Task(split.train, split.validation.fold_in, split.test.fold_in)
    contestants = [
        with_settings([one], options.seed, epochs=epochs, params=params, checkpoints=checkpoints(epochs))[0]
        for one, epochs, params in QUALITY
    ]
    outcomes = Track(options.venvs).race(contestants, task)
    curves = {name: curve(runs[0], split) for name, runs in outcomes.items() if runs}
    return {"protocol": dict(split.protocol), "contestants": curves}


def checkpoints(epochs: int) -> list[int]:
    """Choose about `CHECKPOINTS` epochs, the last among them."""
    return sorted({round(epochs * (number + 1) / CHECKPOINTS) for number in range(CHECKPOINTS)} - {0})


def curve(run: Outcome, split: Split) -> dict[str, Any]:
    """Make the curve of a run: seconds and NDCG@100 of both kinds of users at each checkpoint, and its cost."""
    holdouts = {"validation": split.validation, "test": split.test}
    elapsed = np.cumsum(run.epoch_seconds)
    points: dict[int, dict[str, float]] = {}
    for key, ids in run.lists.items():
        part, _, epoch = key.partition("/")
        point = points.setdefault(int(epoch), {"epoch": int(epoch), "seconds": float(elapsed[int(epoch) - 1])})
        if (holdout := holdouts[part]) is not None:
            point[part] = mean_ndcg(ids, holdout)
    return {
        "points": [points[epoch] for epoch in sorted(points)],
        "peak_rss_mb": run.peak_rss_mb,
        "versions": dict(run.versions),
    }


def mean_ndcg(ids: np.ndarray[Any, Any], holdout: Holdout, k: int = 100) -> float:
    """Compute the mean NDCG@k over users with held-out items."""
    held_out = sparse.csr_matrix(holdout.held_out)
    return float(np.nanmean(ndcg_at_k(hit_matrix(ids, held_out), np.diff(held_out.indptr), k)))


def growth(options: record.Options) -> dict[str, Any]:
    """Measure a step and peak memory by the size of the catalogue."""
    rows: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in GROWTH}
    for n_items in CATALOGUES:
        needed = BYTES_A_PARAMETER * floor.n_parameters(n_items, GROWTH_HIDDEN)
        if (available := available_bytes()) is not None and needed > available:
            print(f"{n_items:,} items are left out: they need {needed / 1e9:.0f} GB, there are {available / 1e9:.0f}")
            continue
        task = make_training_task(histories(STEP_USERS, n_items, seed=options.seed))
        outcomes = Track(options.venvs).race(with_settings(GROWTH, options.seed, epochs=3), task, options.rounds)
        for name, runs in outcomes.items():
            if (figures := summary(runs, updates(STEP_USERS, name))) is not None:
                rows[name].append({"n_items": n_items, **figures})
    return {"hidden": GROWTH_HIDDEN, "contestants": rows}


def sampling(options: record.Options) -> dict[str, Any]:
    """Measure NDCG@100 of validation users after the same number of epochs with and without sampling."""
    found: dict[str, Any] = {}
    for name, (epochs, n_negatives) in SAMPLED.items():
        split = load_split(name)
        if split.validation is None:
            raise RuntimeError(f"{name} comes without validation users")
        params: dict[str, dict[str, Any]] = {
            "all items": {},
            f"{n_negatives:,} by popularity": {"n_negatives": n_negatives},
            f"{n_negatives:,}, all alike": {"n_negatives": n_negatives, "negatives": "uniform"},
        }
        contestants = [
            Contestant(label, "recvae", {"params": {"total_anneal_steps": 2000, **given}, "checkpoints": [epochs]})
            for label, given in params.items()
        ]
        task = Task(split.train, split.validation.fold_in, split.train[:0])
        outcomes = Track(options.venvs).race(with_settings(contestants, options.seed, epochs=epochs), task)
        rows = {
            label: {
                "ndcg@100": mean_ndcg(runs[0].lists[f"validation/{epochs}"], split.validation),
                "epoch_seconds": median(runs[0].epoch_seconds),
                "peak_rss_mb": runs[0].peak_rss_mb,
            }
            for label, runs in outcomes.items()
            if runs
        }
        found[name] = {"epochs": epochs, "n_items": split.train.shape[1], "contestants": rows}
    return found


def with_settings(contestants: Sequence[Contestant], seed: int, **settings: Any) -> list[Contestant]:
    """Copy contestants with further settings."""
    return [Contestant(c.name, c.adapter, {**c.settings, **settings, "seed": seed}) for c in contestants]


PARTS = {"steps": steps, "peers": peers, "quality": quality, "growth": growth, "sampling": sampling}


def main() -> None:
    """Measure the chosen parts; write after each."""
    options = record.parse_options("benchmarks.training", __doc__, PARTS, VENVS, rounds=3)
    for part in options.only:
        try:
            content = PARTS[part](options)
        except RecvaeError as error:
            sys.exit(f"{part} was not measured: {error}")
        origin = record.provenance(options.command, options.seed)
        record.merge(options.out / "training.json", part, {**origin, "figures": content})
        speed_report.write(options.out)
    print((options.out / "training.md").read_text(encoding="utf8"))


if __name__ == "__main__":
    main()
