"""Blend: a weighted sum of fitted models' scores, with weights chosen on validation users."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.stored_arrays import take_array
from recvae.errors import ParameterError
from recvae.evaluation.metrics import parse_metric
from recvae.models import hyperparameters as check
from recvae.models.base import Recommender, State
from recvae.models.estimator import Estimator
from recvae.models.fit_context import FitContext
from recvae.models.validation import check_metric, mean_metric
from recvae.topn import mask_seen, top_n
from recvae.types import FloatArray

DEFAULT_MODELS = ("ease", "graph", "als", "multvae")
FACTORS = (0.0, 0.5, 0.7, 1.4, 2.0)
MIN_GAIN = 1e-5
VALIDATION_BYTES = 2**30


class Blend(Recommender):
    """A weighted sum of models' scores, Σ_m w_m·s_m, where s_m is standardised over the items for each user.

    Weights are chosen by coordinate search on the validation metric: from equal weights on, one weight at a time is
    scaled or set to 0 as long as that helps. A weight is one number for all users, so that a few hundred validation
    users are enough.

    Parameters
    ----------
    models : sequence of Recommender or str, or str, optional
        Models, or their names in the registry, which may stand in one string with commas between them. Models already
        fitted on the same matrix are kept as they are, the others are fitted. None takes `DEFAULT_MODELS`.
    weights : sequence of float, optional
        One for each model. None chooses them on the validation users, or takes equal weights if there are none.
    metric : str
        Metric by which the weights are chosen.
    seed : int
        Handed to the models that are given by name and have a seed.

    Attributes
    ----------
    weights_ : (n_models,) float64, summing to 1
    """

    consists_of_models: ClassVar[bool] = True
    weights: tuple[float, ...] | None
    weights_: npt.NDArray[np.float64]

    def __init__(
        self,
        models: Sequence[Recommender | str] | str | None = None,
        weights: Sequence[float] | None = None,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        self.seed = check.whole("seed", seed, minimum=0)
        given = [self._create(model) if isinstance(model, str) else model for model in _split(models)]
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

    def _create(self, name: str) -> Recommender:
        """Create a model by name, with the blend's seed if it has one."""
        model = self.registry.create(name)
        return model.set_params(seed=self.seed) if "seed" in model.get_params(deep=False) else model

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        with context.report_end():
            for model in self.models:
                if not model.fitted_on(user_items):
                    model.fit(user_items, context.show_progress, validation=context.validation)
            self.weights_ = np.full(len(self.models), 1 / len(self.models))
            if self.weights is not None:
                self.weights_ = np.asarray(self.weights) / sum(self.weights)
            elif context.validation is not None:
                self.weights_ = self._choose_weights(*context.validation)

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        total = np.zeros(user_items.shape, dtype=np.float32)
        for model, weight in zip(self.models, self.weights_, strict=True):
            if weight:
                total += np.float32(weight) * _standardise(model.score(user_items))
        return total

    def _choose_weights(self, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> npt.NDArray[np.float64]:
        """Find the weights that rank best, by coordinate search on as many validation users as memory allows."""
        n_users = max(1, VALIDATION_BYTES // (4 * fold_in.shape[1] * len(self.models)))
        fold_in, held_out = fold_in[:n_users], held_out[:n_users]
        scores = np.empty((len(self.models), *fold_in.shape), dtype=np.float32)
        for model, model_scores in zip(self.models, scores, strict=True):
            model_scores[:] = _standardise(model.score(fold_in))
            mask_seen(model_scores, fold_in)
        blended, weighted = np.empty((2, *fold_in.shape), dtype=np.float32)
        _, k = parse_metric(self.metric)

        def quality(weights: npt.NDArray[np.float64]) -> float:
            blended[:] = 0
            for model_scores, weight in zip(scores, weights.astype(np.float32), strict=True):
                if weight:
                    np.add(blended, np.multiply(model_scores, weight, out=weighted), out=blended)
            return mean_metric(top_n(blended, k)[0], held_out, self.metric)

        best = np.ones(len(self.models))
        best_quality, before = quality(best), -np.inf
        while best_quality > before + MIN_GAIN:
            before = best_quality
            for number in range(len(best)):
                for factor in FACTORS:
                    trial = best.copy()
                    trial[number] *= factor
                    if trial.any() and (value := quality(trial)) > best_quality + MIN_GAIN:
                        best, best_quality = trial, value
        weights: npt.NDArray[np.float64] = best / best.sum()
        return weights

    def _item_similarity(self, queries: npt.NDArray[np.int64]) -> FloatArray:
        """Ask the model with the largest weight."""
        heaviest = self.models[int(np.argmax(self.weights_))]
        similarity: FloatArray = heaviest._item_similarity(queries)
        return similarity

    def fitted_params(self) -> dict[str, Any]:
        models = [{"class": type(m).__name__, "hyperparameters": m.fitted_params()} for m in self.models]
        return {**self.get_params(deep=False), "models": models, "weights": self.weights_.tolist()}

    def _state(self) -> State:
        parts = {f"{i}.{name}": array for i, model in enumerate(self.models) for name, array in model._state().items()}
        return {"weights": self.weights_, **parts}

    def _restore(self, state: State) -> None:
        self.weights_ = take_array(state, "weights", len(self.models), dtype="float64")
        for i, model in enumerate(self.models):
            model.item_counts_ = self.item_counts_
            prefix = f"{i}."
            model._restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _standardise(scores: FloatArray) -> FloatArray:
    """Subtract each row's mean and divide by its standard deviation, in place."""
    scores -= scores.mean(axis=1, keepdims=True)
    deviation = scores.std(axis=1, keepdims=True)
    scores /= np.where(deviation > 0, deviation, 1)
    return scores


def _split(models: Sequence[Recommender | str] | str | None) -> list[Recommender | str]:
    """Models and names as a list."""
    if models is not None and not isinstance(models, Sequence):
        raise ParameterError(f"models is {models!r}; expected models, or their names")
    if isinstance(models, str):
        return [name.strip() for name in models.split(",")]
    return list(DEFAULT_MODELS if models is None else models)
