"""Adam against torch's own, bit for bit."""

import subprocess
import sys

import torch
from torch import Tensor, nn

from recvae.optimizers import Adam


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), (3,))]


def gradients(step: int) -> list[Tensor | None]:
    """None for the last parameter in every other step."""
    generator = torch.Generator().manual_seed(step)
    drawn: list[Tensor | None] = [torch.randn(p.shape, generator=generator) for p in parameters()]
    return [*drawn[:-1], drawn[-1] if step % 2 else None]


def update(optimizer: Adam | torch.optim.Adam, step: int) -> None:
    (group,) = optimizer.param_groups
    group["lr"] = 0.01 * (1 + step)
    for parameter, gradient in zip(group["params"], gradients(step), strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in group["params"])


def assert_same(found: Adam, expected: torch.optim.Adam) -> None:
    for ours, theirs in zip(found.param_groups[0]["params"], expected.param_groups[0]["params"], strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = found.state_dict()["state"], expected.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number in theirs:
        assert ours[number].keys() == theirs[number].keys()
        assert all(torch.equal(ours[number][name], theirs[number][name]) for name in theirs[number])


def test_every_update_is_that_of_torch() -> None:
    ours, theirs = Adam(parameters(), 0.1), torch.optim.Adam(parameters(), 0.1, fused=True)
    for step in range(5):
        update(ours, step)
        update(theirs, step)
        assert_same(ours, theirs)


def test_going_on_from_a_state() -> None:
    first, theirs = Adam(parameters(), 0.1), torch.optim.Adam(parameters(), 0.1, fused=True)
    for step in range(3):
        update(first, step)
        update(theirs, step)
    ours = Adam(first.param_groups[0]["params"], 0.1)
    ours.load_state_dict(first.state_dict())
    for step in range(3, 6):
        update(ours, step)
        update(theirs, step)
    assert_same(ours, theirs)


def test_training_needs_no_compiler() -> None:
    """Nor what else torch, pandas or Arrow would take of memory and of the time to start."""
    code = """
import sys
import numpy as np
from scipy import sparse
from recvae.models.multvae import MultVAE
MultVAE(hidden=4, latent=2, epochs=2).fit(sparse.csr_matrix(np.eye(6, dtype=np.float32)), show_progress=False)
print(*sorted({"torch._dynamo", "sympy", "pandas", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
