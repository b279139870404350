"""Adam against torch's own, bit for bit; for sparse gradients against plain float64 formulas."""

import copy
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from recvae.training import optimizers
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


def touch(optimizer: RowAdam | torch.optim.Adam, rows: list[int], values: Tensor) -> None:
    """Make an update with a gradient that has these rows only, of which one may come twice, to be added."""
    (parameter,) = optimizer.param_groups[0]["params"]
    gradient = torch.sparse_coo_tensor(torch.tensor([rows]), values, parameter.shape, check_invariants=False)
    parameter.grad = gradient if isinstance(optimizer, RowAdam) else gradient.to_dense()
    optimizer.step()


def draw_touches(n_steps: int, width: int) -> Iterator[tuple[list[int], Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for step in range(n_steps):
        rows = [0, 1 + step % 3, *([4] if step % 40 == 7 else []), 0]
        yield rows, torch.randn(len(rows), width, generator=generator, dtype=torch.float64)


def test_two_updates_of_rows_by_hand() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    optimizer = RowAdam([parameter], 0.1)
    touch(optimizer, [1], torch.tensor([[3.0, 1.0]]))
    # The moments are .1 and .001 of the gradient and of its mean square, 5; corrected for bias, 1 and 1.
    expected = -0.1 * torch.tensor([3.0, 1.0]) / 5**0.5
    torch.testing.assert_close(parameter[1].detach(), expected, rtol=3e-3, atol=0)
    assert not parameter[[0, 2]].any()
    touch(optimizer, [0], torch.tensor([[1.0, 1.0]]))
    touch(optimizer, [1], torch.tensor([[0.0, 0.0]]))
    # Row 1 was left out once, so that two steps of Adam with gradient 0 are made, at the third update's rate.
    ratio, rate = 0.9 / 0.999**0.5, 0.1 * (1 - 0.999**3) ** 0.5 / (1 - 0.9**3)
    expected -= rate * (ratio + ratio**2) * 0.1 * torch.tensor([3.0, 1.0]) / 0.005**0.5
    torch.testing.assert_close(parameter[1].detach(), expected, rtol=3e-3, atol=0)
    assert not parameter[2].any()


def test_updates_of_rows_are_those_with_gradients_of_zero_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "MEAN_TYPE", torch.float64)
    parameter = nn.Parameter(parameters()[0].detach().double())
    expected, optimizer = parameter.detach().clone(), RowAdam([parameter], 0.1)
    mean, square, moved = torch.zeros_like(expected), torch.zeros(7, 1, dtype=torch.float64), torch.zeros_like(expected)
    for step, (rows, values) in enumerate(draw_touches(200, 5), start=1):
        optimizer.param_groups[0]["lr"] = 0.001 * step
        touch(optimizer, rows, values)
        gradient = torch.zeros_like(expected).index_add_(0, torch.tensor(rows), values)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient.square().mean(dim=1, keepdim=True)
        moved += mean / (square.sqrt() + 1e-8)
        expected[rows] -= 0.001 * step * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step) * moved[rows]
        moved[rows] = 0
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7)


def test_rare_rows_move_as_far_as_in_torch() -> None:
    """With rows of one number, torch's dense Adam makes the same updates, up to bias corrections and rounding."""
    start = torch.zeros(5, 1)
    ours = RowAdam([nn.Parameter(start.clone())], 0.01)
    theirs = torch.optim.Adam([nn.Parameter(start.clone())], 0.01)
    for rows, values in draw_touches(1500, 1):
        for optimizer in (ours, theirs):
            touch(optimizer, rows, values.float() + 1)
    found, expected = (optimizer.param_groups[0]["params"][0].detach() for optimizer in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)


def test_moments_of_rows_are_restored_also_from_version_0_1() -> None:
    mean, square = torch.full((3, 2), 0.5), torch.tensor([[1.0, 3.0], [0.0, 0.0], [2.0, 2.0]])
    optimizer = RowAdam([nn.Parameter(torch.zeros(3, 2))], 0.1)
    optimizer.load_state_dict({"state": {0: {"step": torch.tensor(4.0), "exp_avg": mean, "exp_avg_sq": square}}})
    state = optimizer.state_dict()["state"][0]
    assert state["exp_avg_sq"].tolist() == [[2], [0], [2]]
    assert state["last_step"].tolist() == [[4]] * 3
    again = RowAdam([nn.Parameter(torch.zeros(3, 2))], 0.1)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for restored in (optimizer, again):
        touch(restored, [2], torch.ones(1, 2))
    assert torch.equal(*(restored.param_groups[0]["params"][0] for restored in (optimizer, again)))


def test_state_of_rows_takes_little_more_than_half_of_the_weights() -> None:
    parameter = nn.Parameter(torch.zeros(1000, 200))
    optimizer = RowAdam([parameter], 0.1)
    touch(optimizer, [5], torch.ones(1, 200))
    assert sum(tensor.nbytes for tensor in optimizer.state_dict()["state"][0].values()) < 0.511 * parameter.nbytes


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
