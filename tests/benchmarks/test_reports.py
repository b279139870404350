"""Results in parts, and the tables and plots made from them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import evaluation, record, speed_report, training
from benchmarks.contestants import Outcome
from benchmarks.shapes import histories
from recvae.data.interactions import Interactions
from recvae.data.splitting import Split, strong_generalization


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": 0.9 * median, "max": 1.1 * median, "n": 9}


def timed(step: float, epoch: float = 1.0, mb: float = 500.0) -> dict[str, Any]:
    return {"step_seconds": spread(step), "epoch_seconds": epoch, "peak_rss_mb": mb, "versions": {}}


def points(*values: tuple[int, float, float, float]) -> dict[str, Any]:
    keys = ("epoch", "seconds", "validation", "test")
    return {"points": [dict(zip(keys, point, strict=True)) for point in values], "peak_rss_mb": 1.0, "versions": {}}


STEPS = {
    "ml-20m": {
        "n_items": 20_108,
        "n_users": 116_677,
        "floor": {"step_seconds": spread(0.25)},
        "contestants": {"recvae Mult-VAE": timed(0.3), "dense PyTorch Mult-VAE": timed(0.96)},
    }
}
PEERS = {
    "n_users": 4838,
    "n_items": 3600,
    "contestants": {"recvae Mult-VAE": timed(0.05, 0.5), "slow": timed(0.2, 2.0), "fallen": None},
}
QUALITY = {
    "contestants": {
        "recvae Mult-VAE": points((1, 2.0, 0.3, 0.31), (2, 4.0, 0.46, 0.44), (3, 6.0, 0.45, 0.47)),
        "RecPack RecVAE": points((1, 50.0, 0.4, 0.41), (2, 100.0, 0.45, 0.43)),
    }
}
GROWTH = {
    "hidden": 200,
    "contestants": {
        "all items": [{"n_items": 20_000, **timed(0.1)}],
        "sampled softmax": [{"n_items": n, **timed(0.02)} for n in (20_000, 1_000_000)],
    },
}

SAMPLING = {
    "ml-1m": {
        "epochs": 50,
        "n_items": 3600,
        "contestants": {"all items": {"ndcg@100": 0.43, **timed(0.1)}, "900": {"ndcg@100": 0.42, **timed(0.1, 0.4)}},
    }
}
MEASURED = {"peers": PEERS, "growth": GROWTH, "quality": QUALITY, "steps": STEPS, "sampling": SAMPLING}


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Any]:
    for part, figures in MEASURED.items():
        content = {**record.provenance(f"measure {part}", 5), "figures": figures}
        merged = record.merge(tmp_path / "training.json", part, content)
    return merged


def row(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_parts_merge(tmp_path: Path) -> None:
    path = tmp_path / "new" / "training.json"
    record.merge(path, "steps", {"figures": 1})
    record.merge(path, "peers", {"figures": 2})
    assert record.merge(path, "steps", {"figures": 3}) == record.read(path)
    assert record.read(path)["parts"] == {"steps": {"figures": 3}, "peers": {"figures": 2}}


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text(json.dumps({"format_version": 0}))
    with pytest.raises(ValueError, match="format_version 0; expected 1"):
        record.merge(path, "steps", {})
    assert json.loads(path.read_text()) == {"format_version": 0}


def test_spread() -> None:
    assert record.spread([3.0, 1.0, 2.0, 10.0]) == {"median": 2.5, "min": 1.0, "max": 10.0, "n": 4}


def test_provenance_names_machine_versions_and_seed() -> None:
    found = record.provenance("python -m benchmarks.training", 7)
    assert found["seed"] == 7
    assert found["machine"]["cores"] >= 1
    assert {"python", "torch", "numpy"} <= set(found["versions"])


def test_step_table_has_the_ratios(results: dict[str, Any]) -> None:
    text = speed_report.format_markdown(results)
    steps = text[: text.index("## Other libraries")]
    assert row(steps, "recvae Mult-VAE")[1:4] == ["300 (270 to 330)", "1.20", ""]
    assert row(steps, "dense PyTorch Mult-VAE")[1:4] == ["960 (864 to 1056)", "3.84", "3.20"]


def test_peers_table_is_sorted_and_names_the_fallen(results: dict[str, Any]) -> None:
    text = speed_report.peers_section(PEERS)
    assert row(text, "slow")[2:] == ["2.00", "4.00", "500"]
    assert text.index("recvae Mult-VAE") < text.index("slow")
    assert "Did not finish: fallen." in text


def test_quality_table_takes_the_best_epoch_by_validation() -> None:
    text = speed_report.quality_section(QUALITY)
    assert row(text, "recvae Mult-VAE")[1:] == ["0.4400", "2", "4.0", "4.0"]
    assert row(text, "RecPack RecVAE")[1:] == ["0.4300", "2", "100.0", "100.0"]


def test_tables_and_plot_are_written(results: dict[str, Any], tmp_path: Path) -> None:
    speed_report.write(tmp_path)
    text = (tmp_path / "training.md").read_text(encoding="utf8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "A step",
        "Other libraries, ML-1M",
        "Time to quality",
        "Growth",
        "Sampled softmax",
    ]
    assert row(text, "900")[1:] == ["0.4200", "0.40", "500"]
    assert "`measure growth`, seed 5" in text
    plot = (tmp_path / "training.svg").read_text(encoding="utf8")
    for label in ("RecPack RecVAE", "sampled softmax", "seconds of training", "peak memory, GB"):
        assert label in plot
    speed_report.write(tmp_path)
    assert (tmp_path / "training.svg").read_text(encoding="utf8") == plot


def test_some_parts_are_enough(tmp_path: Path) -> None:
    record.merge(tmp_path / "training.json", "steps", {**record.provenance("some", 0), "figures": STEPS})
    speed_report.write(tmp_path)
    assert "## A step" in (tmp_path / "training.md").read_text(encoding="utf8")
    assert not (tmp_path / "training.svg").exists()


def test_summary_leaves_out_what_warms_up() -> None:
    runs = [
        Outcome([9.9, 1.5, 2.5], [9.0, 1.0, 2.0], 700.0, {"torch": "2"}, {}),
        Outcome([8.8, 3.5, 4.5], [8.0, 3.0, 4.0], 650.0, {}, {}),
    ]
    whole = training.summary(runs, n_updates=10)
    assert whole is not None
    assert whole["epoch_seconds"] == 3.0
    found = training.summary(runs, n_updates=10, epoch_updates=40)
    assert found is not None
    assert found["step_seconds"] == {"median": 0.25, "min": 0.1, "max": 0.4, "n": 4}
    assert found["epoch_seconds"] == 10.0
    assert found["peak_rss_mb"] == 700.0
    assert training.summary([], 10) is None


def test_updates_count_passes_and_the_last_short_batch() -> None:
    assert training.updates(1001, "recvae Mult-VAE") == 3
    assert training.updates(1001, "RecPack RecVAE") == 12


def test_checkpoints_end_with_the_last_epoch() -> None:
    assert training.checkpoints(100)[:3] == [4, 8, 12]
    assert training.checkpoints(100)[-1] == 100
    assert training.checkpoints(3) == [1, 2, 3]


@pytest.fixture
def split() -> Split:
    interactions = histories(40, 30, mean_interactions=12).tocoo()
    data = Interactions.from_frame(pd.DataFrame({"user_id": interactions.row, "item_id": interactions.col}))
    return strong_generalization(data, val_users=8, test_users=8)


def test_curve_scores_each_checkpoint_at_its_time(split: Split) -> None:
    assert split.validation is not None
    lists = {}
    for part, holdout in (("validation", split.validation), ("test", split.test)):
        ideal = np.argsort(-holdout.held_out.toarray(), axis=1, kind="stable").astype(np.int32)
        lists[f"{part}/1"] = padded(ideal[:, ::-1])
        lists[f"{part}/3"] = padded(ideal)
    found = training.curve(Outcome([1.0, 2.0, 4.0], [], 1.0, {}, lists), split)["points"]
    assert [(point["epoch"], point["seconds"]) for point in found] == [(1, 1.0), (3, 7.0)]
    assert found[1]["test"] == found[1]["validation"] == 1.0
    assert found[0]["test"] < 0.9


def padded(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.pad(ids, ((0, 0), (0, 100 - ids.shape[1])), constant_values=-1)


def test_a_fifth_is_held_out() -> None:
    interactions = histories(500, 1000)
    holdout = evaluation.hold_out_fifth(interactions, seed=0)
    np.testing.assert_array_equal((holdout.fold_in + holdout.held_out).toarray(), interactions.toarray())
    assert holdout.held_out.nnz == pytest.approx(0.2 * interactions.nnz, rel=0.05)
    assert holdout.fold_in.nnz + holdout.held_out.nnz == interactions.nnz


def test_evaluation_table_has_the_ratio_to_its_first_row() -> None:
    figures = {"n_users": 10, "n_items": 20, "seconds": {"matrix products": spread(2.0), "recvae": spread(2.5)}}
    text = evaluation.format_markdown({"parts": {"floor": {**record.provenance("x", 0), "figures": figures}}})
    assert row(text, "recvae")[1:] == ["2.50 (2.25 to 2.75)", "1.25"]


def test_works_are_measured_in_turn_after_a_warm_up() -> None:
    order: list[str] = []
    found = evaluation.time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert found["a"]["n"] == 2
