"""Numbers out of bounds are refused at once, wherever they come from, in one short line."""

import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import recvae
from recvae.errors import ArtifactError, ParameterError
from recvae.models.autoencoders.architecture import Architecture
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.network import refuse_if_too_large
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn.parallelism import ALONE
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions

HUGE = 10**400
OUT_OF_BOUNDS: list[tuple[type[Autoencoder], dict[str, Any]]] = [
    (MultVAE, {"hidden": [1] * 100_000}),
    (MultVAE, {"hidden": [600] * 101}),
    (MultVAE, {"hidden": [6] * 101, "encoder": "dense"}),
    (MultVAE, {"hidden": 100_001}),
    (MultVAE, {"hidden": [True]}),
    (MultVAE, {"latent": 100_001}),
    (MultVAE, {"n_negatives": 2_000_000_000}),
    (MultVAE, {"batch_size": 2_000_000_000}),
    (MultVAE, {"epochs": 2_000_000_000}),
    (MultVAE, {"epochs": HUGE}),
    (MultVAE, {"gamma": HUGE}),
    (MultVAE, {"learning_rate": -HUGE}),
    (MultVAE, {"seed": HUGE}),
    (MultVAE, {"metric": "ndcg@2000000000"}),
    (MultVAE, {"metric": "ndcg@" + "9" * 5000}),
    (MultVAE, {"encoder": "x" * 100_000}),
    (MultVAE, {"device": "cuda:99999999999999999999"}),
    (MultDAE, {"hidden": [1] * 100_000}),
    (MultDAE, {"l2": float("inf")}),
    (RecVAE, {"hidden": [1] * 100_000}),
    (RecVAE, {"encoder_passes": 2_000_000_000}),
    (RecVAE, {"decoder_passes": 2_000_000_000}),
    (RecVAE, {"prior_weights": [1] * 100_000}),
]


def name_of(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else str(case)[:40]


@pytest.mark.parametrize(("model", "params"), OUT_OF_BOUNDS, ids=name_of)
def test_out_of_bounds(model: type[Autoencoder], params: dict[str, Any]) -> None:
    started = time.perf_counter()
    with pytest.raises(ParameterError) as refused:
        model(**params)
    assert time.perf_counter() - started < 1
    assert str(refused.value).startswith(next(iter(params)))
    assert len(str(refused.value)) < 6000
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    MultVAE(hidden=4, latent=2, epochs=1).fit(random_interactions(), show_progress=False).save(path)
    return path


@pytest.mark.parametrize(
    "params",
    [params for model, params in OUT_OF_BOUNDS if model is MultVAE and HUGE not in params.values()],
    ids=name_of,
)
def test_out_of_bounds_in_a_manifest(params: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(saved, path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["hyperparameters"] |= params
    (path / "manifest.json").write_text(json.dumps(manifest))
    started = time.perf_counter()
    with pytest.raises(ArtifactError, match="hyperparameters do not fit MultVAE"):
        recvae.load(path)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "model",
    [
        MultVAE(hidden=[100_000] * 9, encoder="dense"),
        MultVAE(hidden=100_000, latent=100_000, n_negatives=10),
        MultDAE(hidden=[100_000] * 9),
        RecVAE(hidden=[100_000] * 9),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_network_larger_than_the_memory_is_refused(model: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recvae.models.autoencoders.network.available_bytes", lambda: 8 * 10**9)
    with pytest.raises(
        ParameterError, match=r"^hidden is .* on 5 items .* GB in training; 8.0 GB are free; use smaller"
    ):
        model.fit(sparse.csr_matrix(np.eye(5, dtype=np.float32)), show_progress=False)
    monkeypatch.setattr("recvae.models.autoencoders.network.available_bytes", lambda: None)
    MultVAE(hidden=4, latent=2, epochs=1).fit(random_interactions(), show_progress=False)


def test_a_sampled_softmax_takes_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = 25 * 4 + 4 + 4 * 4 + 4 + 2 * 4 + 4 + 25 * 4 + 25
    options: dict[str, Any] = {"hidden": 4, "latent": 2, "epochs": 1}
    monkeypatch.setattr("recvae.models.autoencoders.network.available_bytes", lambda: 10 * weights)
    MultVAE(**options, n_negatives=3).fit(random_interactions(), show_progress=False)
    monkeypatch.setattr("recvae.models.autoencoders.network.available_bytes", lambda: 10 * weights - 1)
    for n_negatives in (None, 3):
        with pytest.raises(ParameterError, match="use smaller layers"):
            MultVAE(**options, n_negatives=n_negatives).fit(random_interactions(), show_progress=False)


def test_a_network_larger_than_the_gpus_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture, interactions = Architecture("plain", (7,), 3, variational=True), random_interactions()
    weights = 25 * 7 + 7 + 7 * 6 + 6 + 3 * 7 + 7 + 7 * 25 + 25
    needed = 5 * 4 * weights + 8 * interactions.nnz
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed - 300, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 400)
    for allocated, refused in ((100, False), (101, True)):
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device, n=allocated: n)
        expected = pytest.raises(ParameterError, match=r"use smaller layers") if refused else nullcontext()
        with expected:
            refuse_if_too_large(architecture, interactions, torch.device("cuda"), ALONE)
    refuse_if_too_large(architecture, interactions, torch.device("meta"), ALONE)  # whose memory is not known
