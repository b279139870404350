"""The training loop: epochs over users, early stopping on validation, the best weights kept, checkpoint and resume."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.data.csr_files import scattered_reads
from recvae.errors import ParameterError, TrainingError
from recvae.evaluation.standard_error import is_ahead
from recvae.memory import keep_freed_memory
from recvae.nn.batches import Batch, DeviceHistories
from recvae.nn.parallelism import ALONE, Parallelism
from recvae.progress import EpochProgress, write_line
from recvae.training.checkpoint import (
    Checkpoint,
    Progress,
    load_checkpoint,
    pack_tensors,
    save_checkpoint,
    unpack_tensors,
)
from recvae.training.interrupts import StopTrainingError, interrupt_flag
from recvae.training.kept_weights import KeptWeights
from recvae.training.optimizers import Optimizer
from recvae.training.schedules import learning_rate_factor
from recvae.training.threads import adapted_threads

SECONDS_TO_FIRST_CHECKPOINT, SECONDS_BETWEEN_CHECKPOINTS = 10.0, 30.0
USERS_PROBED = 8
"""Users whose scores are looked at after each epoch, for numbers that are not finite."""

Validation = tuple[sparse.csr_matrix, sparse.csr_matrix]


class Trainable(Protocol):
    """A model that the trainer can train, such as `recvae.models.autoencoders.base.Autoencoder`."""

    @property
    def module_(self) -> nn.Module: ...

    def make_optimizers(self) -> Sequence[Optimizer]:
        """Fresh optimizers of the module's parameters."""
        ...

    def begin_pass(self, number: int) -> None:
        """Prepare for a pass over the users, the epoch's `number`-th from 0; called before its first update."""
        ...

    def training_loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over some users of a batch, and its terms to report, all of them scalars on the device.

        Parameters
        ----------
        batch : Batch
            The whole batch, for which random numbers are drawn in every process.
        users : slice
            The users that this process works on.
        step : int
            Updates made before.
        number : int
            Of the pass within the epoch, from 0.
        generator : torch.Generator
        """
        ...

    def scores_are_finite(self, batch: Batch) -> bool:
        """Check that the module as it is gives these users finite scores only."""
        ...

    def validate(self, validation: Validation, parallelism: Parallelism) -> npt.NDArray[np.float64]:
        """The metric of each validation user, of the module as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Length, batches and learning rate of a training run.

    Attributes
    ----------
    epochs, batch_size : int
    last_epoch : int
        Epoch after which training ends, on the learning rates of a run of all `epochs`.
    seed : int
        Decides the order of users.
    metric : str
        Name of the validation metric.
    patience : int
        Training stops after so many epochs in a row that are behind the best; 0 never stops early.
    learning_rate : float
        Step size at the peak of the schedule.
    schedule : str
        One of `recvae.training.schedules.SCHEDULES`.
    passes : int
        Passes over the users an epoch.
    """

    epochs: int
    last_epoch: int
    batch_size: int
    seed: int
    metric: str
    patience: int
    learning_rate: float
    schedule: str
    passes: int


class Trainer:
    """One training run.

    Parameters
    ----------
    model : Trainable
    plan : TrainingPlan
    generator : torch.Generator
        Source of the model's random numbers.
    identity : dict
        Hyperparameters and data that a checkpoint must share to be resumed from.
    validation : (fold_in, held_out), optional
        Users that the epoch is chosen by; without them all epochs are trained and the last weights kept.
    checkpoint : Path, optional
        Directory to keep training's whole state in, saved after ten seconds, then every half a minute, on Ctrl-C and
        on SIGTERM; the same for all processes.
    parallelism : Parallelism
        The processes that train together. All come to the same state, which the first one reports and saves. Layers
        that are divided by items are gathered for the checkpoint, so that any number of processes can resume from it.
    """

    def __init__(
        self,
        model: Trainable,
        plan: TrainingPlan,
        *,
        generator: torch.Generator,
        identity: dict[str, Any],
        validation: Validation | None = None,
        checkpoint: Path | None = None,
        parallelism: Parallelism = ALONE,
    ) -> None:
        self.model, self.plan, self.parallelism, self.validation = model, plan, parallelism, validation
        self.generator, self.identity, self.checkpoint = generator, identity, checkpoint
        self.module, self.optimizers = model.module_, model.make_optimizers()
        self.best_weights = KeptWeights(self.module.state_dict())
        self.progress = Progress()
        self._next_save = time.monotonic() + SECONDS_TO_FIRST_CHECKPOINT
        self._permutation: tuple[int, npt.NDArray[np.int64]] | None = None

    def resume(self) -> None:
        """Continue from the checkpoint, bit for bit as if there had been no interruption.

        Where there is none yet, training starts from the beginning and says so on standard error: whatever restarts an
        interrupted run need not know whether it got as far as its first checkpoint.

        Raises
        ------
        ArtifactError
            If it is damaged.
        ParameterError
            If it belongs to other hyperparameters or data, or no checkpoint was named.
        """
        if self.checkpoint is None:
            raise ParameterError("resume needs a checkpoint to go on from; none was named")
        if not self.checkpoint.exists():
            if self.parallelism.is_first:
                write_line(f"{self.checkpoint} does not exist yet; training starts from the beginning")
            return
        saved = load_checkpoint(self.checkpoint, self.identity)
        self.best_weights.keep(unpack_tensors(saved.tensors, self.module, self.optimizers, self.generator))
        self.progress = Progress.from_manifest(saved.progress)

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
        keep_freed_memory()
        self.parallelism.start_together(self.module, f"{self.identity} {self.progress.step}")
        show = show_progress and self.parallelism.is_first
        # Where nothing would have to be saved or told to other processes, Ctrl-C may end an update at any point.
        armed = self.checkpoint is not None or self.parallelism.size > 1
        try:
            device = next(self.module.parameters()).device
            histories = DeviceHistories(user_items, device)
            with (
                scattered_reads(user_items),
                interrupt_flag(armed) as interrupted,
                adapted_threads(device.type == "cpu" and self.parallelism.size == 1) as record_update,
                EpochProgress(title, self.plan.last_epoch, show, start=self.progress.epoch) as shown,
            ):
                while self.progress.epoch < self.plan.last_epoch and not self._is_out_of_patience():
                    self._train_epoch(histories, interrupted, record_update)
                    self._finish_epoch(histories)
                    record = self.progress.history[-1]
                    figures = ("loss", "kl", "beta", self.plan.metric)
                    shown.update(self.progress.epoch, {name: record[name] for name in figures if name in record})
                    if callback is not None and self._is_ended_by(callback, record):
                        break
                    self._save_or_stop(interrupted())
        finally:
            self.best_weights.restore(self.module)

    def _train_epoch(
        self,
        histories: DeviceHistories,
        interrupted: Callable[[], bool],
        record_update: Callable[[float], None],
    ) -> None:
        """Make the updates that the running epoch still lacks; a resumed run may start within one."""
        plan, progress = self.plan, self.progress
        n_users = len(histories)
        n_batches = -(-n_users // plan.batch_size)
        n_updates = n_batches * plan.passes
        started = time.monotonic()
        for update in range(progress.step - progress.epoch * n_updates, n_updates):
            number, batch = divmod(update, n_batches)
            if batch == 0:
                self.model.begin_pass(number)
            order = self._order(progress.epoch * plan.passes + number, n_users)
            users = order[batch * plan.batch_size : (batch + 1) * plan.batch_size]
            rate = self._learning_rate(progress.step, n_updates)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            self._update(histories.gather(users), number)
            now = time.monotonic()
            record_update(now - started)
            progress.seconds, started = progress.seconds + now - started, now
            self._save_or_stop(interrupted(), now > self._next_save)

    def _learning_rate(self, step: int, updates_an_epoch: int) -> float:
        plan = self.plan
        return plan.learning_rate * learning_rate_factor(plan.schedule, step / (updates_an_epoch * plan.epochs))

    def _order(self, number: int, n_users: int) -> npt.NDArray[np.int64]:
        """The order of users in the run's pass `number`.

        It follows from the seed and the number alone, so that a resumed run needs no memory of it.
        """
        if self._permutation is None or self._permutation[0] != number:
            self._permutation = number, np.random.default_rng([self.plan.seed, number]).permutation(n_users)
        return self._permutation[1]

    def _update(self, batch: Batch, number: int) -> None:
        """One gradient step on a batch, in the epoch's pass `number`."""
        progress, weight = self.progress, self.parallelism.weight(len(batch))
        users = self.parallelism.own_users(len(batch))
        loss, terms = self.model.training_loss(batch, users, progress.step, number, self.generator)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        figures = self.parallelism.sum_gradients(self.module, {"loss": loss.detach(), **terms}, weight)
        for optimizer in self.optimizers:
            optimizer.step()
        progress.step += 1
        progress.add(figures, len(batch))

    def _finish_epoch(self, histories: DeviceHistories) -> None:
        """Record the epoch, validate, and keep the weights unless those of an earlier epoch are better."""
        progress, started = self.progress, time.monotonic()
        self._refuse_divergence()  # which waits for a device that still works on the last updates
        progress.seconds += time.monotonic() - started
        probed = np.arange(min(USERS_PROBED, len(histories)))
        if not self.model.scores_are_finite(histories.gather(probed)):  # the last update may have spoilt the weights
            raise self._divergence_error("scores are no longer finite")
        progress.epoch += 1
        record = {"epoch": progress.epoch, **progress.take_means()}
        record["learning_rate"] = self._learning_rate(progress.step - 1, progress.step // progress.epoch)
        record["seconds"], progress.seconds = progress.seconds, 0.0
        progress.history.append(record)
        if self.validation is not None:
            values = self.model.validate(self.validation, self.parallelism)
            record[self.plan.metric] = float(values.mean())
            if not self._is_taken(values):
                return
        progress.best_epoch = progress.epoch
        self.best_weights.keep(self.module.state_dict())

    def _is_taken(self, values: npt.NDArray[np.float64]) -> bool:
        """Tell if the finished epoch takes the place of the one that is kept, by each validation user's metric.

        Every epoch does unless the best so far is ahead by more than one standard error. By the highest mean alone a
        few validation users would choose a lucky epoch, which may come before anything is learned.
        """
        progress = self.progress
        if not progress.best or values.mean() > np.mean(progress.best):
            progress.best = values.tolist()
        return not is_ahead(np.array(progress.best), values)

    def _refuse_divergence(self) -> None:
        loss = self.progress.total_loss()
        if not math.isfinite(loss):
            raise self._divergence_error(f"loss became {loss}")

    def _divergence_error(self, problem: str) -> TrainingError:
        return TrainingError(
            f"the {problem} in epoch {self.progress.epoch + 1}; the model keeps the weights of epoch "
            f"{self.progress.best_epoch}; a lower learning_rate may help"
        )

    def _save_or_stop(self, interrupted: bool, due: bool = False) -> None:
        """Save if a checkpoint is due, save and stop if interrupted; one process's signal or clock counts for all."""
        stop, save = self.parallelism.any_process(interrupted, due)
        if stop or save:
            self._save()
        if stop:
            raise KeyboardInterrupt

    def _is_ended_by(self, callback: Callable[[int, float, float], None], record: dict[str, Any]) -> bool:
        """Call the callback after an epoch, and tell if it ends training."""
        try:
            callback(self.progress.epoch - 1, record["seconds"], record["loss"])
        except StopTrainingError:
            return True
        return False

    def _is_out_of_patience(self) -> bool:
        return 0 < self.plan.patience <= self.progress.epoch - self.progress.best_epoch

    def _save(self) -> None:
        if self.checkpoint is not None:
            self._refuse_divergence()  # a checkpoint must be worth resuming from
            # Every process gathers, since each has some of the rows; the first one writes.
            tensors = pack_tensors(self.module, self.optimizers, self.generator, self.best_weights.tensors())
            if self.parallelism.is_first:
                save_checkpoint(self.checkpoint, Checkpoint(tensors, self.progress.to_manifest(), self.identity))
        self._next_save = time.monotonic() + SECONDS_BETWEEN_CHECKPOINTS
