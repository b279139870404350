"""Copies of weights, in memory and in a file, are what was kept last."""

import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from recvae.models.autoencoders.multvae import MultVAE
from recvae.training import kept_weights
from recvae.training.kept_weights import KeptWeights
from tests.contracts import random_interactions


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4))


def change(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)


@pytest.mark.parametrize("limit", [10**6, 0], ids=["memory", "file"])
def test_the_copy_is_what_was_kept_last(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_weights, "LARGEST_IN_MEMORY", limit)
    module = network()
    kept = KeptWeights(module.state_dict())
    assert (kept._file is None) == (limit > 0)
    for _ in range(2):
        expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        change(module)
        copies = kept.tensors()
        kept.keep({name: copies[name].clone() for name in reversed(copies)})  # the order does not matter
        assert copies.keys() == expected.keys()
        assert all(torch.equal(copies[name], tensor) for name, tensor in expected.items())
        kept.restore(module)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())
        change(module)
        kept.keep(module.state_dict())


def test_weights_that_find_no_room_in_a_file_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_weights, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "w+b", buffering=0))
    module = network()
    before = module[0].weight.clone()  # type: ignore[index]
    kept = KeptWeights(module.state_dict())
    change(module)
    assert torch.equal(kept.tensors()["0.weight"], before)


def test_training_ends_with_the_same_weights_wherever_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_interactions()

    def train(checkpoint: Path) -> dict[str, torch.Tensor]:
        model = MultVAE(hidden=4, latent=2, epochs=3, n_negatives=5)
        return model.fit(data, show_progress=False, checkpoint=checkpoint).module_.state_dict()

    expected = train(tmp_path / "memory")
    monkeypatch.setattr(kept_weights, "LARGEST_IN_MEMORY", 0)
    found = train(tmp_path / "file")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
