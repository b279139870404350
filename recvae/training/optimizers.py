"""Optimizers: Adam, and Adam for sparse gradients."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
MOMENTUM_RATIO = BETA_1 / BETA_2**0.5
"""Factor of m/√v from one update to the next where the gradient is 0."""
CHUNK_NUMBERS = 2**17
"""Numbers of the rows that `RowAdam` updates at a time on a processor, so that they stay in its caches."""
MEAN_TYPE = torch.bfloat16
"""Of `RowAdam`'s first moments, which are as large as the weights."""


class Optimizer(Protocol):
    """The part of `torch.optim.Optimizer` that the trainer uses."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self) -> None: ...

    def step(self) -> object: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) in one fused operation: `torch.optim.Adam(fused=True)`, bit for bit.

    Torch's own optimizers import its compiler, which takes 70 MB, and longer than a small training run.

    ε is added to √v̂ after bias correction, as in the paper and in PyTorch. TensorFlow's Adam, which the authors' code
    for Mult-VAE used, adds it before ("ε̂" in the paper), which makes it the larger the fewer updates were made.

    Parameters
    ----------
    parameters : iterable of Parameter
    lr : float
        Step size, which may be changed in `param_groups` before each update.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": lr}]
        self._state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        (group,) = self.param_groups
        moving = [(number, p) for number, p in enumerate(group["params"]) if p.grad is not None]
        states = [self._moments(number, p) for number, p in moving]
        steps, means, squares = ([s[name] for s in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            [p for _, p in moving],
            [p.grad for _, p in moving],
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=BETA_1,
            beta2=BETA_2,
            weight_decay=0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _moments(self, number: int, parameter: nn.Parameter) -> dict[str, Tensor]:
        if number not in self._state:
            step = torch.zeros((), device=parameter.device)
            mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self._state[number] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
        return self._state[number]

    def state_dict(self) -> dict[str, Any]:
        """Under `state`, by number of the parameter: its `step` count and moments `exp_avg` and `exp_avg_sq`."""
        return {"state": self._state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore the moments that `state_dict` gave."""
        parameters = self.param_groups[0]["params"]
        self._state = {
            number: {name: tensor.to(parameters[number].device) for name, tensor in state.items()}
            for number, state in saved["state"].items()
        }


class RowAdam(Adam):
    """Adam for sparse gradients, in half the memory of the weights.

    Only the rows that a gradient has are read and written, so that the cost of an update follows the batch and not the
    catalogue. A row's updates are nevertheless those of Adam with gradient 0 in the k updates since it was last
    touched: its moments m and v have shrunk to β₁ᵏm and β₂ᵏv, and it has still to move by Σ_{j≤k} (β₁/√β₂)ʲ m/√v, which
    is made up for at the rate of the present update. `torch.optim.SparseAdam` lets m and v stand still meanwhile;
    rare rows then learn too slowly.

    The second moment is one number a row, of the mean of the gradient's squares, as in FBGEMM's partial row-wise Adam
    (`PARTIAL_ROWWISE_ADAM`); the first has bfloat16's precision.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Update the touched rows of the parameters that have a gradient."""
        (group,) = self.param_groups
        for number, parameter in enumerate(group["params"]):
            if parameter.grad is None:
                continue
            state = self._moments(number, parameter)
            state["step"] += 1
            step = int(state["step"])
            gradient = parameter.grad.coalesce()
            rate = group["lr"] * (1 - BETA_2**step) ** 0.5 / (1 - BETA_1**step)
            size = len(parameter) if parameter.device.type != "cpu" else max(1, CHUNK_NUMBERS // parameter.shape[1])
            for rows, values in zip(gradient.indices()[0].split(size), gradient.values().split(size), strict=True):
                parameter.index_add_(0, rows, _update_rows(state, rows, values, step), alpha=-rate)

    def _moments(self, number: int, parameter: nn.Parameter) -> dict[str, Tensor]:
        if number not in self._state:
            column = parameter.new_zeros((len(parameter), 1))
            self._state[number] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, dtype=MEAN_TYPE),
                "exp_avg_sq": column,
                "last_step": torch.zeros_like(column, dtype=torch.int32),
            }
        return self._state[number]

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore the moments that `state_dict` gave, or that version 0.1 gave, with second moments of each number."""
        super().load_state_dict(saved)
        for state in self._state.values():
            if "last_step" not in state:
                state["exp_avg"] = state["exp_avg"].to(MEAN_TYPE)
                state["exp_avg_sq"] = state["exp_avg_sq"].mean(dim=1, keepdim=True)
                state["last_step"] = torch.full_like(state["exp_avg_sq"], float(state["step"]), dtype=torch.int32)


def _update_rows(state: Mapping[str, Tensor], rows: Tensor, values: Tensor, step: int) -> Tensor:
    """Update the moments of rows by their gradients, (n_rows, size); returns how far each moves, but for the rate."""
    untouched = (step - 1 - state["last_step"][rows]).to(values.dtype)  # (n_rows, 1)
    mean, square = state["exp_avg"][rows].to(values.dtype), state["exp_avg_sq"][rows]
    tail = MOMENTUM_RATIO * (1 - MOMENTUM_RATIO**untouched) / (1 - MOMENTUM_RATIO)
    moved: Tensor = mean * (tail / (square.sqrt() + EPSILON))
    mean.mul_(BETA_1**untouched).lerp_(values, 1 - BETA_1)
    mean_square = torch.linalg.vector_norm(values, dim=1, keepdim=True).square() / values.shape[1]
    square = torch.lerp(square * BETA_2**untouched, mean_square, 1 - BETA_2)
    state["exp_avg"].index_copy_(0, rows, mean.to(MEAN_TYPE))
    state["exp_avg_sq"].index_copy_(0, rows, square)
    state["last_step"].index_fill_(0, rows, step)
    return moved.addcmul_(mean, 1 / (square.sqrt() + EPSILON))
