"""A search over a small split, for the tests of its parts."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recvae.data.interactions import Interactions
from recvae.data.splitting import strong_generalization
from recvae.datasets.synthetic import generate
from recvae.fitting.budget import Clock
from recvae.fitting.cost import Growth
from recvae.fitting.search import Search
from recvae.fitting.state import SearchState
from recvae.models.registry import MODELS
from recvae.progress import StatusLine

SPLIT = strong_generalization(Interactions.from_frame(generate(120, 40).ratings), val_users=30, test_users=30)
TINY = {"hidden": 16, "latent": 8, "epochs": 6}
Make = Callable[..., Search]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setitem(MODELS["multvae"].PRESETS, "recommended", dict(TINY))
    monkeypatch.setattr("recvae.fitting.budget.read_core_time", lambda: (0.0, 0.0))  # the same on a busy machine

    def create(
        names: str, budget: float = 60.0, now: Callable[[], float] = time.monotonic, before: float = 0
    ) -> Search:
        return Search(
            SPLIT,
            tuple(names.split(",")),
            "ndcg@10",
            0,
            clock=Clock(budget, before=before, now=now),
            growth=Growth(1.5, 1.5),
            state=SearchState(tmp_path),
            status=StatusLine(True, lambda: ""),
        )

    return create
