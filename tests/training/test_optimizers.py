"""Adam against torch's own, bit for bit; for sparse gradients up to rounding."""

import subprocess
import sys

import torch
from torch import Tensor, nn

from recvae.training.optimizers import Adam, RowAdam


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), (3,))]


def gradients(step: int) -> list[Tensor | None]:
    """Gradients of a step; in every other step the last parameter has none."""
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


def rows_touched(optimizer: RowAdam | torch.optim.SparseAdam, step: int) -> Tensor:
    """The parameter after an update of some rows, one of which has two gradients, to be added."""
    generator = torch.Generator().manual_seed(step)
    (parameter,) = optimizer.param_groups[0]["params"]
    rows = torch.tensor([[step % 7, (step + 3) % 7, step % 7]])
    values = torch.randn(3, 5, generator=generator)
    parameter.grad = torch.sparse_coo_tensor(rows, values, parameter.shape, check_invariants=False)
    optimizer.param_groups[0]["lr"] = 0.01 * (1 + step)
    optimizer.step()
    after: Tensor = parameter.detach().clone()
    return after


def test_updates_of_rows_are_those_of_torch() -> None:
    ours, theirs = RowAdam(parameters()[:1], 0.1), torch.optim.SparseAdam(parameters()[:1], 0.1)
    before = parameters()[0].detach()
    for step in range(20):
        after = rows_touched(ours, step)
        torch.testing.assert_close(after, rows_touched(theirs, step), rtol=1e-5, atol=1e-6)
        assert sorted((after != before).any(dim=1).nonzero().squeeze(1).tolist()) == sorted({step % 7, (step + 3) % 7})
        before = after
    (found,), (expected,) = ours.state_dict()["state"].values(), theirs.state_dict()["state"].values()
    assert found["step"] == expected["step"] == 20
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-9)


def test_training_needs_no_compiler() -> None:
    """Torch's compiler, pandas and Arrow would cost memory, and time at every start."""
    code = """
import sys
import numpy as np
from scipy import sparse
from recvae.models.autoencoders.multvae import MultVAE
for options in ({}, {"n_negatives": 3}):
    model = MultVAE(hidden=4, latent=2, epochs=2, **options)
    model.fit(sparse.csr_matrix(np.eye(6, dtype=np.float32)), show_progress=False)
print(*sorted({"torch._dynamo", "sympy", "pandas", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
