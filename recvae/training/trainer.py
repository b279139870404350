"""The training loop: epochs over users, early stopping on validation, the best weights kept, checkpoint and resume."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor, nn

from recvae.data.csr_files import scattered_reads
from recvae.errors import ArtifactError, ParameterError, TrainingError
from recvae.memory import keep_freed_memory
from recvae.nn.batches import Histories, Rows
from recvae.nn.distributed import ALONE, Share, Workers
from recvae.nn.sharding import ItemShard, gathered, item_parameters
from recvae.progress import EpochProgress
from recvae.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from recvae.training.interrupts import interrupt_flag
from recvae.training.objective import Objective
from recvae.training.schedules import scheduled

SECONDS_BETWEEN_CHECKPOINTS = 30.0
USERS_PROBED = 8


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    epochs, batch_size : int
    seed : int
        Decides the order of users.
    metric : str, optional
        Name of what `Objective.validate` gives; None trains all epochs and keeps the last weights.
    patience : int
        Epochs without a better validation metric after which training stops; 0 never stops early.
    learning_rate : float
    schedule : str
        One of `recvae.training.schedules.SCHEDULES`.
    passes : int
        Passes over the users an epoch.
    """

    epochs: int
    batch_size: int
    seed: int
    metric: str | None = None
    patience: int = 0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    passes: int = 1


@dataclass
class Progression:
    """Where training stands, all of it in a checkpoint.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    step : int
        Updates made.
    sums : dict
        For the loss and each of its parts, in the running epoch: the sum over users, and their number. Sums are
        read only at an epoch's end, so that nothing waits for the device before.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, tuple[Tensor | float, int]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = -np.inf
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """One training run.

    Parameters
    ----------
    plan : Plan
    objective : Objective
    identity : dict
        Hyperparameters and data that a checkpoint must share to be resumed from.
    checkpoint : Path, optional
        Directory to keep training's whole state in, saved every half a minute, on Ctrl-C and on SIGTERM; the same for
        all processes.
    workers : Workers
        The processes that share the work; all come to the same state, which the first one reports and saves. What is
        divided by items is put together for the checkpoint, so that any number of processes can go on from it.
    """

    def __init__(
        self,
        plan: Plan,
        objective: Objective,
        identity: dict[str, Any],
        checkpoint: Path | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.plan, self.objective, self.workers = plan, objective, workers
        self.identity, self.checkpoint = identity, checkpoint
        self.state = Progression()
        self.good = _snapshot(objective.module)
        self._saved_at = time.monotonic()
        self._permutation: tuple[int, npt.NDArray[np.int64]] | None = None

    def resume(self) -> None:
        """Go on from the checkpoint, bit for bit as if there had been no interruption.

        Raises
        ------
        ArtifactError
            If there is none, or it is damaged.
        ParameterError
            If it belongs to other hyperparameters or data.
        """
        if self.checkpoint is None:
            raise ParameterError("resume needs a checkpoint to go on from; none was named")
        saved = load_checkpoint(self.checkpoint, self.identity)
        self.state, self.good = _restored(saved, self.objective)

    def run(
        self,
        user_items: sparse.csr_matrix,
        *,
        title: str,
        show_progress: bool = False,
        callback: Callable[[int, float, float], None] | None = None,
    ) -> None:
        """Train to the end, then put the best weights into the module.

        Raises
        ------
        TrainingError
            If the loss is no longer finite; the module then holds the last good weights.
        KeyboardInterrupt
            On Ctrl-C, after the state is saved where a checkpoint is kept; the module then holds the best weights.
        """
        state = self.state
        keep_freed_memory()
        self.workers.begin(self.objective.module, f"{self.identity} {state.step}")
        try:
            histories = Histories(user_items, self.objective.device)
            with (
                scattered_reads(user_items),
                interrupt_flag(armed=self.checkpoint is not None or self.workers.size > 1) as interrupted,
                EpochProgress(
                    title, self.plan.epochs, show_progress and self.workers.leads, start=state.epoch
                ) as progress,
            ):
                while state.epoch < self.plan.epochs and not self._out_of_patience():
                    self._train_epoch(histories, interrupted)
                    self._finish_epoch(histories)
                    record = state.history[-1]
                    progress.update(state.epoch, {k: record[k] for k in self._reported() if k in record})
                    if callback is not None:
                        callback(state.epoch - 1, record["seconds"], record["loss"])
                    self._heed(interrupted())
        finally:
            self.objective.module.load_state_dict(self.good)

    def _train_epoch(self, histories: Histories, interrupted: Callable[[], bool]) -> None:
        """The updates that the running epoch still lacks."""
        plan, state = self.plan, self.state
        n_users = len(histories)
        n_batches = -(-n_users // plan.batch_size)
        n_updates = n_batches * plan.passes
        started = time.monotonic()
        for update in range(state.step - state.epoch * n_updates, n_updates):
            number, batch = divmod(update, n_batches)
            if batch == 0:
                self.objective.begin_pass(number)
            order = self._order(state.epoch * plan.passes + number, n_users)
            users = order[batch * plan.batch_size : (batch + 1) * plan.batch_size]
            rate = self._rate(state.step, n_updates)
            for optimizer in self.objective.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            share = self.workers.share(len(users))
            self._update(histories.part(users, share.users), number, share)
            now = time.monotonic()
            state.seconds, started = state.seconds + now - started, now
            self._heed(interrupted(), now - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS)

    def _rate(self, step: int, updates_an_epoch: int) -> float:
        """The learning rate of an update."""
        plan = self.plan
        return plan.learning_rate * scheduled(plan.schedule, step / (updates_an_epoch * plan.epochs))

    def _order(self, number: int, n_users: int) -> npt.NDArray[np.int64]:
        """The users in the order of the run's pass `number`, drawn anew so that a resumed run needs no memory of it."""
        if self._permutation is None or self._permutation[0] != number:
            self._permutation = number, np.random.default_rng([self.plan.seed, number]).permutation(n_users)
        return self._permutation[1]

    def _update(self, rows: Rows, number: int, share: Share) -> None:
        state, optimizers = self.state, self.objective.optimizers
        loss, parts = self.objective.loss(rows, state.step, number)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (loss * share.weight).backward()  # type: ignore[no-untyped-call]
        figures = {"loss": loss.detach(), **parts}
        figures = self.workers.sum_gradients(self.objective.module, figures, share.weight)
        for optimizer in optimizers:
            optimizer.step()
        state.step += 1
        for name, value in figures.items():
            total, users = state.sums.get(name, (0.0, 0))
            state.sums[name] = (total + value.double() * share.total, users + share.total)

    def _finish_epoch(self, histories: Histories) -> None:
        """Record the epoch, validate, and keep the weights if they are the best so far."""
        state, metric = self.state, self.plan.metric
        self._refuse_divergence()
        probed = np.arange(min(USERS_PROBED, len(histories)))
        if not self.objective.finite(histories.rows(probed)):  # the last update may have spoilt the weights
            raise self._diverged("scores are no longer finite")
        state.epoch += 1
        record = {"epoch": state.epoch, **{name: float(total) / users for name, (total, users) in state.sums.items()}}
        record["learning_rate"] = self._rate(state.step - 1, state.step // state.epoch)
        record["seconds"] = state.seconds
        state.sums, state.seconds = {}, 0.0
        state.history.append(record)
        value = float(state.epoch)
        if metric is not None:
            value = record[metric] = self.objective.validate()
        if value > state.best:
            state.best, state.best_epoch = value, state.epoch
            for name, tensor in self.objective.module.state_dict().items():
                self.good[name].copy_(tensor)

    def _refuse_divergence(self) -> None:
        loss = float(self.state.sums["loss"][0]) if self.state.sums else 0.0
        if not math.isfinite(loss):
            raise self._diverged(f"loss became {loss}")

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"the {what} in epoch {self.state.epoch + 1}; the model keeps the weights of epoch "
            f"{self.state.best_epoch}; a lower learning_rate may help"
        )

    def _heed(self, interrupted: bool, due: bool = False) -> None:
        """Save where a process has been told to stop or a checkpoint is due, and stop all in the former case."""
        stop, save = self.workers.any(interrupted, due)
        if stop or save:
            self._save()
        if stop:
            raise KeyboardInterrupt

    def _out_of_patience(self) -> bool:
        return 0 < self.plan.patience <= self.state.epoch - self.state.best_epoch

    def _reported(self) -> list[str]:
        return ["loss", "kl", "beta"] + ([] if self.plan.metric is None else [self.plan.metric])

    def _save(self) -> None:
        if self.checkpoint is not None:
            self._refuse_divergence()
            state = _checkpoint(self.state, self.objective, self.good, self.identity)
            if self.workers.leads:
                save_checkpoint(self.checkpoint, state)
        self._saved_at = time.monotonic()


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _checkpoint(
    state: Progression, objective: Objective, good: dict[str, Tensor], identity: dict[str, Any]
) -> Checkpoint:
    moments = {
        f"optimizer.{place}.{number}.{name}": value
        for place, optimizer in enumerate(objective.optimizers)
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    sums = {name: [float(total), users] for name, (total, users) in state.sums.items()}
    tensors = {f"module.{name}": tensor for name, tensor in objective.module.state_dict().items()}
    tensors |= {f"good.{name}": tensor for name, tensor in good.items()}
    tensors = gathered(tensors | moments, _shards(objective))
    return Checkpoint(tensors | {"generator": objective.generator.get_state()}, {**vars(state), "sums": sums}, identity)


def _shards(objective: Objective) -> dict[str, ItemShard]:
    """Those of a checkpoint's tensors that have a row for each item."""
    shards: dict[str, ItemShard] = {}
    for name, shard in item_parameters(objective.module).items():
        shards |= {f"module.{name}": shard, f"good.{name}": shard}
        for place, optimizer in enumerate(objective.optimizers):
            for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
                if parameter is objective.module.get_parameter(name):
                    shards |= {f"optimizer.{place}.{number}.{moment}": shard for moment in ("exp_avg", "exp_avg_sq")}
    return shards


def _restored(saved: Checkpoint, objective: Objective) -> tuple[Progression, dict[str, Tensor]]:
    shards = _shards(objective)
    tensors = {name: shards[name].part(t) if name in shards else t for name, t in saved.tensors.items()}

    def named(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    objective.module.load_state_dict(named("module."))
    for place, optimizer in enumerate(objective.optimizers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in named(f"optimizer.{place}.").items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    objective.generator.set_state(saved.tensors["generator"])
    try:
        return Progression(**saved.progress), named("good.")
    except TypeError as error:
        raise ArtifactError(f"the checkpoint's progress is not what training writes: {error}") from None
