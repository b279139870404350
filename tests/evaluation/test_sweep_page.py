"""sweep.html: means over the seeds, every figure, nothing executed and nothing requested."""

import re
from typing import Any

import pytest

from recvae.evaluation.sweep_page import render_sweep, summarise

HOSTILE = "</script><script>alert(1)</script>&\"'"


def sweep() -> dict[str, Any]:
    points: list[dict[str, Any]] = [
        {
            "value": value,
            "seed": seed,
            "ndcg@10": 0.3 + seed / 100 - value,
            "stderr": 0.01,
            "seconds": 2.0,
            "best_epoch": 5,
            "kl": 1 / value,
            "nll": 100.0,
            "active_units": 4,
            "anomaly_auc": 0.875,
            "warnings": [HOSTILE],
        }
        for seed in (0, 1)
        for value in (0.1, 0.01)
    ]
    points.append({"value": 9.0, "seed": 0, "diverged": "loss became nan"})
    named = {"dataset": HOSTILE, "model": "multvae", "knob": "gamma", "metric": "ndcg@10"}
    return {"format_version": 1, **named, "fixed": {"a": HOSTILE}, "protocol": {}, "versions": {}, "points": points}


def test_seeds_are_averaged() -> None:
    low, high = summarise(sweep())
    assert (low.value, high.value) == (0.01, 0.1)
    assert low.means["ndcg@10"] == pytest.approx(0.295)
    assert high.means["kl"] == pytest.approx(10)
    assert low.warnings == (HOSTILE,)


def test_the_page_shows_every_figure_and_runs_nothing() -> None:
    page = render_sweep(sweep())
    assert page == render_sweep(sweep())
    assert page.count("<svg") == 1
    for title in ("validation ndcg@10", "KL, nats a user", "anomaly AUC", "active latent dimensions", "best epoch"):
        assert title in page
    assert "<b>0.2950 ± 0.0100</b>" in page
    assert "<b>9</b>: loss became nan." in page
    assert page.count("alert(1)") == 5  # title, heading, a remark for each value, settings
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)


def test_a_model_without_latent_dimensions_has_fewer_panels() -> None:
    bare = [{k: p[k] for k in ("value", "seed", "ndcg@10", "seconds")} for p in sweep()["points"][:4]]
    page = render_sweep({**sweep(), "points": bare})
    assert "seconds to fit" in page
    assert "KL, nats" not in page
    assert "Remarks" not in page


def test_nothing_but_diverged_trainings() -> None:
    page = render_sweep({**sweep(), "points": sweep()["points"][-1:]})
    assert "<svg" not in page
    assert "loss became nan" in page
