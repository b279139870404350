"""No update waits for the device: an epoch runs on torch's "meta" device, which has no numbers to read.

Whatever would have to read one there, and so wait on a GPU, is an error: `.item()`, `float()`, `bool()`, `.cpu()`,
`nonzero`, `unique`, and indexing by a mask. Code that asks for the kind of device takes the branch of a GPU.

The sampled softmax is left out: it must know how many different items a batch has.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn.batches import DeviceHistories
from recvae.training.trainer import Trainer
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions

META = torch.device("meta")
MODELS = [
    MultVAE(hidden=(8,), latent=4, epochs=2, batch_size=9, patience=0),
    MultVAE(hidden=(8,), latent=4, epochs=2, batch_size=9, patience=0, likelihood="logistic"),
    MultVAE(hidden=(8, 8), latent=4, epochs=2, batch_size=9, patience=0, encoder="dense", gamma=0.01),
    MultDAE(latent=4, epochs=2, batch_size=9, patience=0),
    RecVAE(hidden=(8, 8), latent=4, epochs=2, batch_size=9, patience=0),
]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast knows no meta device."""
    monkeypatch.setattr("recvae.models.autoencoders.base.matmul_precision", lambda *_: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


def train_an_epoch(model: Autoencoder) -> int:
    interactions = random_interactions()
    model.module_ = model._build(interactions.shape[1], torch.Generator()).to(META)
    trainer = Trainer(model, model._plan(), generator=torch.Generator(), identity={})
    trainer._train_epoch(DeviceHistories(interactions, META), lambda: False, lambda _: None)
    assert all(p.device == META for p in trainer.module.parameters())
    return trainer.progress.step


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{type(model).__name__}-{len(model.hidden)}")
def test_an_epoch_never_waits_for_the_device(model: Autoencoder) -> None:
    assert train_an_epoch(model) == 5 * model.passes


@pytest.mark.parametrize(
    "read",
    [
        lambda loss: loss.item(),
        float,
        lambda loss: loss.cpu(),
        lambda loss: loss.tolist(),
        lambda loss: loss.numpy(),
        lambda loss: "large" if loss > 1 else "small",
        lambda loss: loss.reshape(1).nonzero(),
        lambda loss: loss.reshape(1).unique(),
        lambda loss: loss.reshape(1)[loss.reshape(1) > 0],
        np.asarray,
    ],
)
def test_reading_a_number_in_an_update_is_noticed(read: object, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = MultDAE._loss

    def reading(*arguments: object) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = loss(*arguments)  # type: ignore[arg-type]
        read(total.detach())  # type: ignore[operator]
        return total, terms

    monkeypatch.setattr(MultDAE, "_loss", reading)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError, ValueError)):
        train_an_epoch(MultDAE(latent=4, epochs=2, batch_size=9, patience=0))
