"""Base of the autoencoders: training, scoring in batches, and weights in and out of an artifact."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import fingerprint
from recvae.errors import ParameterError, TrainingError, UnsupportedError
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.architecture import FIT_NUMBERS, INPUT, Architecture, check_state
from recvae.models.autoencoders.network import TRAINING_COPIES, AutoencoderNetwork, refuse_if_too_large
from recvae.models.autoencoders.settings import (
    EpochRule,
    MatrixSize,
    choose_batch_size,
    choose_dropout,
    choose_patience,
    pack_numbers,
    unpack_numbers,
)
from recvae.models.base import State
from recvae.models.fit_context import FitContext
from recvae.models.generative.anomaly import AnomalyDetector
from recvae.models.validation import check_metric, validate_users
from recvae.nn.batches import Batch
from recvae.nn.device import PRECISIONS, check_device_name, find_device, matmul_precision
from recvae.nn.item_layers import find_item_layers, gather_tensors
from recvae.nn.layers import release_training_memory
from recvae.nn.parallelism import ALONE, DIVIDED, Parallelism
from recvae.nn.spectrum import item_vectors, start_from_vectors
from recvae.storage.directories import refuse_foreign
from recvae.training.checkpoint import KIND as CHECKPOINT
from recvae.training.optimizers import Adam, Optimizer
from recvae.training.trainer import Trainer, TrainingPlan, Validation
from recvae.types import FloatArray, Scores, UserItems

INITIAL = ("random", "spectral")
INPUT_SCALE = 4.0
"""Norm of the input layer's singular vectors, where it starts from them, as a multiple of the random weights' norm."""


class Autoencoder(AnomalyDetector):
    """Base of models that train a torch network on batches of users.

    Attributes
    ----------
    module_ : AutoencoderNetwork
        The network with its best weights.
    history_ : list of dict
        For each epoch: loss and its terms, learning rate, seconds, and the validation metric where users for it were
        given.
    best_epoch_ : int
        Number, from 1, of the epoch whose weights the network has: the last one, or where validation users were given
        the last that is behind the best by no more than one standard error of the paired difference over these users.
        The publications keep the best; with few users that is a lucky one, with many the two are next to the same.
    """

    resumable: ClassVar[bool] = True
    module_: AutoencoderNetwork
    history_: list[dict[str, float]]
    best_epoch_: int
    EPOCHS: ClassVar[EpochRule] = EpochRule(histories=900_000, fewest=30, most=100)
    _chosen: dict[str, Any]
    _last_epoch: int | None = None

    schedule: str = "constant"
    passes: int = 1
    parallel: str = "users"
    initial: str | None = "random"

    def __init__(
        self,
        epochs: int | None,
        batch_size: int | None,
        learning_rate: float,
        patience: int | None,
        metric: str,
        seed: int,
        device: str,
        precision: str,
    ) -> None:
        self.epochs = None if epochs is None else check.whole("epochs", epochs, maximum=check.MOST_EPOCHS)
        self.batch_size = (
            None if batch_size is None else check.whole("batch_size", batch_size, maximum=check.LARGEST_BATCH)
        )
        self.learning_rate = check.real("learning_rate", learning_rate, open_low=True)
        self.patience = None if patience is None else check.whole("patience", patience, minimum=0)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)
        self.device = check_device_name(device)
        self.precision = check.one_of("precision", precision, PRECISIONS)

    @abstractmethod
    def _architecture(self, n_items: int) -> Architecture:
        """Sizes of the network's layers."""

    @abstractmethod
    def _loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`training_loss`, in any precision of matrix products."""

    @abstractmethod
    def _code(self, batch: Batch) -> Tensor:
        """(n_users, latent) the decoder's input for whole histories, without noise."""

    def _build(self, n_items: int, generator: torch.Generator, parallelism: Parallelism = ALONE) -> AutoencoderNetwork:
        """A network with weights drawn from `generator`."""
        return AutoencoderNetwork(self._architecture(n_items), n_items, generator, parallelism)

    def _check_parallel(self, parallel: str) -> str:
        check.one_of("parallel", parallel, DIVIDED)
        if parallel == "items" and self.initial == "spectral":
            raise ParameterError("initial is 'spectral', but parallel is 'items'; expected 'users'")
        return parallel

    def _prepare_training(self, user_items: sparse.csr_matrix, generator: torch.Generator) -> None:
        """Adapt the fresh network to the data."""
        if self._setting("initial") == "spectral":
            module = self.module_
            vectors = item_vectors(user_items, module.encoder.input.weight.shape[1], generator)
            start_from_vectors(module.encoder.input.weight, vectors, INPUT_SCALE)
            if not module.decoder:
                start_from_vectors(module.output.weight, vectors, 1.0)

    def _training_copies(self) -> float:
        """Arrays as large as the weights that training holds."""
        return TRAINING_COPIES

    def _choose(self, size: MatrixSize) -> dict[str, Any]:
        """Values of the hyperparameters that are left to the data, by name."""
        initial, epochs = self.initial or self._choose_initial(size), self._choose_epochs(size)
        rules = {
            "initial": initial,
            "epochs": epochs,
            "batch_size": choose_batch_size(size.users),
            "patience": choose_patience(epochs),
            "dropout": choose_dropout(size),
        }
        return {name: value for name, value in rules.items() if getattr(self, name) is None}

    def _choose_epochs(self, size: MatrixSize) -> int:
        return self.epochs or self.EPOCHS.choose(size, (self.initial or self._choose_initial(size)) == "spectral")

    def count_epochs(self, user_items: sparse.csr_matrix) -> int:
        """Count the epochs that `fit` would train on interactions, (n_users, n_items), unless patience ends it."""
        counts = np.bincount(user_items.indices, minlength=user_items.shape[1]).astype(np.float32)
        return self._choose_epochs(MatrixSize.of(user_items, counts))

    def _choose_initial(self, size: MatrixSize) -> str:
        """Singular vectors, unless users are fewer than the first layer's columns, or processes divide the items.

        All vectors of few users are as much noise as taste: lists of 250 users are up to 14% worse, of 700 better.
        """
        _, columns = self._architecture(size.items).shapes(size.items)[f"{INPUT}.weight"]
        return "spectral" if size.users >= columns and self.parallel == "users" else "random"

    def _setting(self, name: str) -> Any:
        """The hyperparameter as given, or as chosen for the data."""
        given = getattr(self, name)
        return self._chosen[name] if given is None else given

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        if context.checkpoint is not None:
            refuse_foreign(context.checkpoint, CHECKPOINT)
        self.__dict__.pop("module_", None)
        self.calibration_ = None
        self._chosen = self._choose(MatrixSize.of(user_items, self.item_counts_))
        device, parallelism = find_device(self.device), Parallelism.current(self.parallel)
        refuse_if_too_large(self._architecture(self.n_items_), user_items, device, parallelism, self._training_copies())
        generator = torch.Generator().manual_seed(self.seed)
        self.module_ = self._build(self.n_items_, generator, parallelism).to(device)
        if device.type != "cpu":  # weights are drawn on the CPU, so that they are the same on every device
            generator = torch.Generator(device).manual_seed(self.seed)
        self._prepare_training(user_items, generator)
        trainer = Trainer(
            self,
            self._plan(),
            generator=generator,
            identity={
                "class": type(self).__name__,
                **{name: value for name, value in self.get_params().items() if name != "parallel"},
                "last_epoch": self._last_epoch,
                "data": context.fingerprint,
                "validation": context.validation and [fingerprint(matrix) for matrix in context.validation],
            },
            validation=context.validation,
            checkpoint=context.checkpoint,
            parallelism=parallelism,
        )
        if context.resume:
            trainer.resume()
        self.history_ = trainer.progress.history
        try:
            trainer.run(
                user_items, title=type(self).__name__, show_progress=context.show_progress, callback=context.callback
            )
        except (KeyboardInterrupt, TrainingError):  # both end all processes at the same update
            self._gather_weights()
            raise
        finally:
            self.best_epoch_ = trainer.progress.best_epoch
            release_training_memory(self.module_)
        self._gather_weights()
        self._calibrate_on(context.validation)

    def _keeps_training(self, error: BaseException) -> bool:
        return isinstance(error, KeyboardInterrupt | TrainingError) and hasattr(self, "module_")

    def refit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        self.n_items_  # noqa: B018 refuses before fit
        if not hasattr(self, "best_epoch_"):
            raise UnsupportedError(f"this {type(self).__name__} was saved without its best epoch; fit it again first")
        model = type(self)(**self.fitted_params())
        model._last_epoch = self.best_epoch_
        model.fit(user_items, show_progress, checkpoint=checkpoint, resume=resume)
        model._last_epoch = None
        model._take_calibration(self)
        return model

    def _take_calibration(self, earlier: Self) -> None:
        """Keep what was learned from users whom the earlier model had not seen: now they look less unusual."""
        self.calibration_ = earlier.calibration_

    def _plan(self) -> TrainingPlan:
        epochs: int = self._setting("epochs")
        return TrainingPlan(
            epochs=epochs,
            last_epoch=self._last_epoch or epochs,
            batch_size=self._setting("batch_size"),
            seed=self.seed,
            metric=self.metric,
            patience=self._setting("patience"),
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            passes=self.passes,
        )

    def make_optimizers(self) -> Sequence[Optimizer]:
        """Adam for all weights; called by the trainer."""
        return [Adam(self.module_.parameters(), self.learning_rate)]

    def begin_pass(self, number: int) -> None:
        """Called by the trainer before the first update of each pass over the users; see `Trainable`."""

    def training_loss(
        self, batch: Batch, users: slice, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over some users of a batch, and its terms; called by the trainer, see `Trainable`."""
        with matmul_precision(self.precision, self._device):
            return self._loss(batch, users, step, number, generator)

    @torch.inference_mode()
    def scores_are_finite(self, batch: Batch) -> bool:
        """Check that the network as it is gives these users finite scores only; called by the trainer."""
        return bool(self._logits(batch).isfinite().all())

    def validate(self, validation: Validation, parallelism: Parallelism) -> npt.NDArray[np.float64]:
        """`metric` of each validation user, whom several processes share; called by the trainer."""
        return validate_users(self, validation, self.metric, parallelism)

    def _gather_weights(self) -> None:
        """Make layers that processes have divided whole, in every process."""
        layers = find_item_layers(self.module_)
        if any(layer.parallelism.divides_items for layer in layers.values()):
            self._load_weights(gather_tensors(self.module_.state_dict(), layers))

    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights, without copying them, into a new network."""
        with torch.device("meta"):  # without storage of its own
            self.module_ = self._build(self.n_items_, torch.Generator())
        self.module_.load_state_dict(weights, assign=True)

    def fitted_params(self) -> dict[str, Any]:
        return {**self._own_params(), **getattr(self, "_chosen", {})}

    def _logits(self, batch: Batch) -> Tensor:
        """(n_users, n_items) deterministic logits."""
        return self.module_.logits(self._code(batch))

    @torch.no_grad()
    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = self._logits(self._batch(user_items)).cpu().numpy()
        return scores

    @torch.no_grad()
    def score_on_device(self, user_items: UserItems) -> Scores:
        histories = self._check_histories(user_items)
        scores = self._logits(self._batch(histories))
        empty = np.flatnonzero(np.diff(histories.indptr) == 0)
        if len(empty):
            scores[empty] = torch.from_numpy(self._popularity_prior()).to(scores.device)
        return scores

    def _batch(self, user_items: sparse.csr_matrix) -> Batch:
        """Histories on the network's device."""
        return Batch.from_csr(user_items, self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.module_.parameters()).device

    @torch.inference_mode()
    def queries(self, user_items: UserItems) -> FloatArray:
        code = self._code(self._batch(self._check_histories(user_items)))
        hidden: FloatArray = self.module_.decode(code).cpu().numpy()
        return hidden

    def output_layer(self) -> tuple[FloatArray, FloatArray]:
        output = self.module_.output
        return output.weight.detach().cpu().numpy(), output.bias.detach().cpu().numpy()

    def _state(self) -> State:
        state = {name: tensor.cpu().numpy() for name, tensor in self.module_.state_dict().items()}
        if hasattr(self, "best_epoch_"):
            state[FIT_NUMBERS] = pack_numbers({**self._chosen, "best_epoch": self.best_epoch_})
        return {**state, **self._calibration_state()}

    def _restore(self, state: State) -> None:
        weights = self._restore_calibration(state)
        packed = weights.pop(FIT_NUMBERS, None)
        check_state(weights, self._architecture(self.n_items_).shapes(self.n_items_))
        numbers = {} if packed is None else unpack_numbers(packed)  # version 0.1 has none
        if "best_epoch" in numbers:
            self.best_epoch_ = numbers.pop("best_epoch")
        self._chosen = {name: value for name, value in numbers.items() if getattr(self, name, 0) is None}
        type(self)(**self.fitted_params())  # refuses settings that cannot be
        self._load_weights({name: torch.from_numpy(array) for name, array in weights.items()})
        self.history_ = []
