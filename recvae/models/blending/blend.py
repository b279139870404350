"""Blend: a weighted sum of fitted models' scores, with weights chosen on validation users."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ParameterError, UnsupportedError
from recvae.machine.blas import ONE_BLAS_THREAD
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.blending.weights import choose_weights, collect_candidates, standardise
from recvae.models.estimator import Estimator
from recvae.models.fit_context import FitContext
from recvae.models.stored_arrays import take_array
from recvae.models.validation import ValidationUsers, check_metric, hold_out_users
from recvae.types import FloatArray, UserItems

DEFAULT_MODELS = ("ease", "graph", "als", "multdae", "multvae")


class Blend(Recommender):
    """A weighted sum of models' scores, Σ_m w_m·s_m, where s_m is standardised over the items for each user.

    Weights are chosen on validation users, each part's with those of all others: see
    `recvae.models.blending.weights.choose_weights`. A weight is one number for all users, so that a few hundred
    validation users are enough. Parts that earn no weight take no part in scoring and are not saved. A part that is
    clearly better than the blend is taken alone; being ahead by less than two standard errors is no reason to.

    Parameters
    ----------
    models : sequence of Recommender or str, or str, optional
        Models, or their names in the registry, which may stand in one string with commas between them. Models already
        fitted on the same matrix are kept as they are, the others are fitted. None takes `DEFAULT_MODELS`, without
        "als" where `implicit` is not installed.
    weights : sequence of float, optional
        One for each model; one with a weight of 0 is not fitted. None chooses them on the validation users. Without
        any, users are held out of the training matrix, and the parts are fitted without these first; with too few
        users for that the weights are equal.
    metric : str
        Metric by which the weights are chosen.
    seed : int
        Handed to the models that are given by name and have a seed; decides which users are held out.

    Attributes
    ----------
    weights_ : (n_models,) float64, summing to 1
        0 for models that were left out.
    cross_fitted_ : float, optional
        The mean metric of users that were ranked by weights chosen without them; None where weights were not chosen.
    """

    consists_of_models: ClassVar[bool] = True
    weights: tuple[float, ...] | None
    weights_: npt.NDArray[np.float64]
    cross_fitted_: float | None = None

    def __init__(
        self,
        models: Sequence[Recommender | str | Mapping[str, Any]] | str | None = None,
        weights: Sequence[float] | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        self.seed = check.whole("seed", seed, minimum=0)
        given = [model if isinstance(model, Recommender) else self._create(model) for model in _split(models)]
        self.models = check.keep_tuple(models, given)
        if not self.models or not all(isinstance(model, Recommender) and model.folds_in for model in self.models):
            raise ParameterError(f"models is {models!r}; expected one or more models that fold in new users")
        self.weights = None
        if weights is not None:
            if not isinstance(weights, Sequence):
                raise ParameterError(f"weights is {weights!r}; expected a number for each model")
            self.weights = check.keep_tuple(weights, [check.real("weights", weight) for weight in weights])
        if self.weights is not None and (len(self.weights) != len(self.models) or not sum(self.weights)):
            raise ParameterError(f"weights is {weights}; expected {len(self.models)} numbers, not all 0")
        self.metric = check_metric(metric)

    @classmethod
    def build(cls, params: Mapping[str, Any], beside: Mapping[str, Estimator]) -> Self:
        models = [
            beside.get(model, model) if isinstance(model, str) else model for model in _split(params.get("models"))
        ]
        return cls(**{**params, "models": models})

    def _create(self, model: Any) -> Any:
        """Create a model by name, with the blend's seed if it has one, or as `fitted_params` describes it."""
        if isinstance(model, Mapping):
            found = self.registry.find_class(str(model.get("class")))
            try:
                return None if found is None else found(**model.get("hyperparameters", {}))
            except TypeError as error:
                raise ParameterError(f"models holds {model!r}: {error}; expected hyperparameters by name") from None
        if not isinstance(model, str):
            return model
        created = self.registry.create(model)
        return created.set_params(seed=self.seed) if "seed" in created.get_params(deep=False) else created

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            self.cross_fitted_ = None
            self.weights_ = np.full(len(self.models), 1 / len(self.models))
            if self.weights is not None:
                self.weights_ = np.asarray(self.weights) / sum(self.weights)
            elif context.validation is None and (held := hold_out_users(user_items, self.seed)) is not None:
                rest, validation = held
                self._choose_weights(
                    [self._fit_trial(m, user_items, rest, validation) for m in self.models], validation
                )
            for model in self._parts():
                if not model.fitted_on(user_items):
                    model.fit(user_items, context.show_progress, validation=context.validation)
            if self.weights is None and context.validation is not None:
                self._choose_weights(self.models, context.validation)

    def _fit_trial(
        self,
        model: Recommender,
        user_items: sparse.csr_matrix,
        rest: sparse.csr_matrix,
        validation: ValidationUsers,
    ) -> Recommender:
        """Fit a copy of a part without the users that are held out; with the settings it found if it is fitted."""
        if model.fitted_on(user_items):
            return model.refit(rest, show_progress=False)
        return deepcopy(model).fit(rest, show_progress=False, validation=validation)

    def _choose_weights(self, models: Sequence[Recommender], validation: ValidationUsers) -> None:
        candidates = collect_candidates(models, validation, self.metric, self.seed)
        with ONE_BLAS_THREAD:
            choice = choose_weights(candidates)
        self.weights_, self.cross_fitted_ = choice.weights, choice.cross_fitted

    def _parts(self) -> list[Recommender]:
        """The models that have a weight, the heaviest first."""
        return [self.models[number] for number in np.argsort(-self.weights_, kind="stable") if self.weights_[number]]

    def refit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit the parts that have a weight again on other data, and keep the weights; see `Recommender.refit`."""
        self.n_items_  # noqa: B018 refuses before fit
        kept = np.flatnonzero(self.weights_)
        models = [self.models[number].refit(user_items, show_progress) for number in kept]
        model = type(self)(models, self.weights_[kept].tolist(), self.metric, self.seed)
        return model.fit(user_items, show_progress, checkpoint=checkpoint, resume=resume)

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        total = np.zeros(user_items.shape, dtype=np.float32)
        for model, weight in zip(self.models, self.weights_, strict=True):
            if weight:
                # Histories are checked, and `score` has set empty ones apart.
                scores = standardise(model._score_histories(user_items))
                scores *= np.float32(weight)
                total += scores
        return total

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        """Ask the model with the largest weight that has item vectors."""
        for model in self._parts():
            try:
                similarity: FloatArray = model._item_similarity(queries)
            except UnsupportedError:
                continue
            return similarity
        return super()._item_similarity(queries)

    def fitted_params(self) -> dict[str, Any]:
        models = [
            {"class": type(m).__name__, "hyperparameters": m.fitted_params()} if weight else m.describe()
            for m, weight in zip(self.models, self.weights_, strict=True)  # without a weight it may not be fitted
        ]
        return {**self._own_params(), "models": models, "weights": self.weights_.tolist()}

    def _state(self) -> State:
        parts = {
            f"{i}.{name}": array
            for i, (model, weight) in enumerate(zip(self.models, self.weights_, strict=True))
            if weight
            for name, array in model._state().items()
        }
        return {"weights": self.weights_, **parts}

    def _restore(self, state: State) -> None:
        self.weights_ = take_array(state, "weights", len(self.models), dtype="float64")
        for i, (model, weight) in enumerate(zip(self.models, self.weights_, strict=True)):
            if weight:
                model.item_counts_ = self.item_counts_
                prefix = f"{i}."
                model._restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _split(models: Any) -> list[Any]:
    """Models, names and descriptions as a list."""
    if models is not None and not isinstance(models, Sequence):
        raise ParameterError(f"models is {models!r}; expected models, or their names")
    if isinstance(models, str):
        return [name.strip() for name in models.split(",")]
    if models is None:
        return [name for name in DEFAULT_MODELS if name != "als" or find_spec("implicit")]
    return list(models)
