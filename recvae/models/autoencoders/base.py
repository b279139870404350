"""What the autoencoders share: fitting by the training loop, scoring in batches, weights in and out of an artifact."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recvae.data.csr import UserItems, fingerprint
from recvae.errors import ArtifactError, TrainingError
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.decoder import Decoder
from recvae.models.autoencoders.network import AutoencoderNet
from recvae.models.base import State
from recvae.models.fit_context import FitContext
from recvae.models.validation import check_metric, validate
from recvae.nn.batches import Rows
from recvae.nn.device import PRECISIONS, checked_device, device_named, multiplying
from recvae.nn.distributed import Workers
from recvae.nn.layers import release
from recvae.nn.sharding import ItemShard, dividing, gathered, item_parameters
from recvae.topn import FloatArray, Scores
from recvae.training.optimizers import Adam, Optimizer
from recvae.training.trainer import Plan, Trainer

HISTORIES_SEEN = 900_000
PARALLEL = ("users", "items")


class Autoencoder(Decoder):
    """Base of models that train a torch module on batches of users.

    Attributes
    ----------
    module_ : AutoencoderNet
        The network with its best weights.
    history_ : list of dict
        For each epoch: loss and its parts, learning rate, seconds, and the validation metric where one was given.
    """

    resumable: ClassVar[bool] = True
    module_: AutoencoderNet
    history_: list[dict[str, float]]

    schedule: str = "constant"
    passes: int = 1
    parallel: str = "users"

    def __init__(
        self,
        epochs: int | None,
        batch_size: int | None,
        learning_rate: float,
        patience: int,
        metric: str,
        seed: int,
        device: str,
        precision: str,
    ) -> None:
        self.epochs = None if epochs is None else check.whole("epochs", epochs)
        self.batch_size = None if batch_size is None else check.whole("batch_size", batch_size)
        self.learning_rate = check.real("learning_rate", learning_rate, open_low=True)
        self.patience = check.whole("patience", patience, minimum=0)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)
        self.device = checked_device(device)
        self.precision = check.one_of("precision", precision, PRECISIONS)

    @abstractmethod
    def _build(self, shard: ItemShard, generator: torch.Generator) -> AutoencoderNet:
        """A module with weights drawn from `generator`."""

    @abstractmethod
    def _loss(
        self, module: Any, rows: Rows, step: int, number: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and its parts to report; `number` is that of the pass within the epoch."""

    def _begin(self, module: Any, user_items: sparse.csr_matrix, generator: torch.Generator) -> None:
        """Let the data decide where the weights start."""

    def _begin_pass(self, module: Any, number: int) -> None:
        """Called before the first update of each pass of an epoch."""

    def _optimizers(self, module: Any) -> Sequence[Optimizer]:
        """Adam for everything."""
        return [Adam(module.parameters(), self.learning_rate)]

    @abstractmethod
    def _code(self, module: Any, rows: Rows) -> Tensor:
        """(batch, latent) what the decoder is given for whole histories, without noise."""

    def _logits(self, module: AutoencoderNet, rows: Rows) -> Tensor:
        """(batch, n_items) deterministic logits."""
        return module.logits(self._code(module, rows))

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        device = device_named(self.device)
        together, shard = dividing(self.parallel, user_items.shape[1])
        generator = torch.Generator().manual_seed(self.seed)
        self.n_users_ = user_items.shape[0]
        self.module_ = self._build(shard, generator).to(device)
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(self.seed)
        self._begin(self.module_, user_items, generator)
        metric = None if context.validation is None else self.metric
        trainer = Trainer(
            Plan(
                *self._epochs_and_batch_size(user_items.shape[0]),
                self.seed,
                metric,
                self.patience,
                self.learning_rate,
                self.schedule,
                self.passes,
            ),
            _Objective(self, self._optimizers(self.module_), generator, context, device, together),
            identity={
                "class": type(self).__name__,
                **{name: value for name, value in self.get_params().items() if name != "parallel"},
                "data": context.fingerprint,
                "validation": context.validation and [fingerprint(matrix) for matrix in context.validation],
            },
            checkpoint=context.checkpoint,
            workers=together,
        )
        if context.resume:
            trainer.resume()
        self.history_ = trainer.state.history
        try:
            trainer.run(
                user_items, title=type(self).__name__, show_progress=context.show_progress, callback=context.callback
            )
        except (KeyboardInterrupt, TrainingError):  # by which all processes end at the same update
            self._put_together()
            raise
        finally:
            release(self.module_)
        self._put_together()

    def _put_together(self) -> None:
        """Make divided layers whole, in every process."""
        shards = item_parameters(self.module_)
        if any(shard.divided for shard in shards.values()):
            whole = gathered(self.module_.state_dict(), shards)
            self.module_ = self._outline()
            self.module_.load_state_dict(whole, assign=True)

    def _outline(self) -> AutoencoderNet:
        """The whole network without storage."""
        with torch.device("meta"):
            return self._build(ItemShard(self.n_items_), torch.Generator())

    def fitted_params(self) -> dict[str, Any]:
        if not hasattr(self, "n_users_"):  # a loaded model
            return self.get_params()
        epochs, batch_size = self._epochs_and_batch_size(self.n_users_)
        return {**self.get_params(), "epochs": epochs, "batch_size": batch_size}

    def _epochs_and_batch_size(self, n_users: int) -> tuple[int, int]:
        """Those given, or what fits the number of users; see `MultVAE`."""
        batch_size = self.batch_size or max(125, min(500, round(n_users / 40)))
        epochs = self.epochs or max(20, min(100, round(HISTORIES_SEEN / n_users)))
        return epochs, batch_size

    @torch.no_grad()
    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores: FloatArray = self._logits(self.module_, self._rows(user_items)).cpu().numpy()
        return scores

    @torch.no_grad()
    def score_on_device(self, user_items: UserItems) -> Scores:
        histories = self._check_histories(user_items)
        scores = self._logits(self.module_, self._rows(histories))
        empty = np.flatnonzero(np.diff(histories.indptr) == 0)
        if len(empty):
            scores[empty] = torch.from_numpy(self._popularity_prior()).to(scores.device)
        return scores

    def _rows(self, user_items: sparse.csr_matrix) -> Rows:
        """Histories on the network's device."""
        return Rows.of(user_items, self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.module_.parameters()).device

    def queries(self, user_items: UserItems) -> FloatArray:
        with torch.inference_mode():
            code = self._code(self.module_, self._rows(self._check_histories(user_items)))
            hidden: FloatArray = self.module_.decode(code).cpu().numpy()
        return hidden

    def output_layer(self) -> tuple[FloatArray, FloatArray]:
        output = self.module_.output
        return output.weight.detach().cpu().numpy(), output.bias.detach().cpu().numpy()

    def _state(self) -> State:
        return {name: tensor.cpu().numpy() for name, tensor in self.module_.state_dict().items()}

    def _restore(self, state: State) -> None:
        self.module_ = self._outline()  # nothing is allocated before the shapes are known to be true
        expected = {name: ("float32", *tensor.shape) for name, tensor in self.module_.state_dict().items()}
        given = {name: (str(array.dtype), *array.shape) for name, array in state.items()}
        if given != expected:
            name = next(name for name in sorted(expected | given) if expected.get(name) != given.get(name))
            raise ArtifactError(f"{name} is {given.get(name, 'missing')}; expected {expected.get(name, 'none')}")
        self.module_.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, assign=True)
        self.history_ = []


@dataclass(frozen=True)
class _Objective:
    """An autoencoder as the training loop sees it."""

    model: Autoencoder
    optimizers: Sequence[Optimizer]
    generator: torch.Generator
    context: FitContext
    device: torch.device
    workers: Workers

    @property
    def module(self) -> AutoencoderNet:
        return self.model.module_

    def begin_pass(self, number: int) -> None:
        self.model._begin_pass(self.module, number)

    def loss(self, rows: Rows, step: int, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        with multiplying(self.model.precision, self.device):
            return self.model._loss(self.module, rows, step, number, self.generator)

    def finite(self, rows: Rows) -> bool:
        with torch.inference_mode():
            return bool(self.model._logits(self.module, rows).isfinite().all())

    def validate(self) -> float:
        if self.context.validation is None:
            raise RuntimeError("no validation users")
        return validate(self.model, self.context.validation, self.model.metric, self.workers)
