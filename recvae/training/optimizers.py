"""Optimizers: Adam, and Adam for sparse gradients."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


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
    """Adam for sparse gradients, as `torch.optim.SparseAdam`.

    Only the rows that a gradient has are updated, with their moments, so that the cost of an update follows the batch
    and not the catalogue.
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
            steps = int(state["step"])
            gradient = parameter.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - BETA_1)
            square = state["exp_avg_sq"].index_select(0, rows).lerp_(values.square(), 1 - BETA_2)
            state["exp_avg"].index_copy_(0, rows, mean)
            state["exp_avg_sq"].index_copy_(0, rows, square)
            rate = group["lr"] * (1 - BETA_2**steps) ** 0.5 / (1 - BETA_1**steps)
            parameter.index_add_(0, rows, mean.div_(square.sqrt_().add_(EPSILON)), alpha=-rate)
