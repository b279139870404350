"""ALS: matrix factorization by alternating least squares, trained by the library `implicit`, folded in here."""

from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ArtifactError
from recvae.machine.blas import ONE_BLAS_THREAD
from recvae.models import hyperparameters as check
from recvae.models.base import State
from recvae.models.factorization import LARGEST_WEIGHT, Factorization, import_implicit
from recvae.models.fit_context import FitContext
from recvae.models.fold_in import fold_in, whiten
from recvae.models.hyperparameters import RealRange, SearchSpace, WholeRange
from recvae.models.stored_arrays import take_array
from recvae.models.validation import ValidationUsers, check_metric, find_validation, validate
from recvae.types import FloatArray

FACTORS_PER_CUBE_ROOT, MOST_FACTORS = 16.7, 512
ALPHA_BY_DENSITY = 1.7
REGULARIZATION_BY_INTERACTIONS = 4.4
MOST_REGULARIZATION = 0.1
"""Of alpha times sum / √(users · items), a bound of the largest singular value, which as much λ would make vanish."""
VALIDATION_USERS = 1000
ROUGH, EXACT = (64, 8), (128, 15)
"""Factors and iterations, at most, of the models that choose: first where to look, then alpha."""
COARSE, FINE = 3.0, 3.0**0.5
"""Factors by which the search for regularization and alpha goes on."""
MORE_FACTORS, LEAST_GAIN = 1.5, 0.01
"""By what the number of factors is multiplied, and the share of the metric that it must gain: it slows serving down."""
FURTHEST = 3.0**7
"""The search goes no further than this times the rule's value, or the rule's value divided by it."""
LIKELY_STEPS, LIKELY_GROWTH = 4, 2
"""Trainings that a search along a line is likely to make, three where it starts at the best, and as many with all
factors as more of them are likely to cost.
"""


class Training(NamedTuple):
    """A kind of training that a fit makes: with so many factors and iterations, and how often."""

    factors: int
    iterations: int
    times: int


class ALS(Factorization):
    """Implicit-feedback matrix factorization by alternating least squares (Hu, Koren & Volinsky 2008).

    A new user is folded in exactly: one least-squares solve against the item factors.

    Parameters
    ----------
    factors : int, optional
        None takes 16.7 times the cube root of the number of users or items, whichever is smaller, but at most 512. If
        these are more than 128, and make the lists of validation users better by 1% than 128 do, half as many again are
        tried, and so on as long as each step gains 1%.
    regularization, alpha : float, optional
        Regularization, and confidence of an interaction, where a missing interaction has 1. None chooses on at most
        1,000 validation users, with few factors: the regularization, then both together, are multiplied or divided by
        3 from a rule's values on, as long as the lists get better, and at the end, with all factors, the regularization
        by √3. Without validation users some are held out of the training matrix; with too few users for that the rules
        stay.
    iterations : int
    metric : str
        Metric by which the regularization and alpha are chosen.
    seed : int
        Decides the initial factors.

    Notes
    -----
    The rules: alpha is 1.7 divided by the cube root of the matrix's density, regularization 4.4 times the root of the
    mean number of interactions of an item, less on tables so small that all factors would vanish. They are good on
    MovieLens and Gowalla; on lastfm and citeulike the best values are up to nine times as far away, and half or twice
    the best regularization costs up to .05 of NDCG on dense data, so that validation users decide.
    """

    SPACE: ClassVar[SearchSpace] = {
        "factors": WholeRange(32, 512),
        "alpha": RealRange(0.5, 50.0),
        "regularization": RealRange(1.0, 300.0),
    }

    whitened_factors_: npt.NDArray[np.float32]
    factors_: int
    alpha_: float
    regularization_: float

    def __init__(
        self,
        factors: int | None = None,
        regularization: float | None = None,
        alpha: float | None = None,
        *,
        iterations: int = 15,
        metric: str = "ndcg@100",
        seed: int = 0,
    ) -> None:
        self.factors = None if factors is None else check.whole("factors", factors, maximum=check.LARGEST_LAYER)
        self.alpha = None if alpha is None else check.real("alpha", alpha, high=LARGEST_WEIGHT, open_low=True)
        self.regularization = (
            None if regularization is None else check.real("regularization", regularization, high=LARGEST_WEIGHT)
        )
        self.iterations = check.whole("iterations", iterations)
        self.metric = check_metric(metric)
        self.seed = check.whole("seed", seed, minimum=0)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        n_users, n_items = user_items.shape
        self.factors_ = self._count_factors(user_items)
        self.alpha_ = self.alpha or ALPHA_BY_DENSITY * (n_users * n_items / user_items.nnz) ** (1 / 3)
        self.regularization_ = self._rule(user_items) if self.regularization is None else self.regularization
        if None in (self.factors, self.alpha, self.regularization):
            found = find_validation(user_items, context.validation, self.seed)
            if found is not None:
                tried = _Tried(self, *found)
                with context.choosing():
                    self._choose(tried)
                if found[0] is user_items and tried.best and tried.best.fitted_params() == self.fitted_params():
                    self._take_over(tried.best, tried.epochs, context)
                    return
        self._train(user_items, context)

    def _train(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        super()._fit(user_items, context)
        self.whitened_factors_ = whiten(self.item_factors_, self.regularization_)

    def _take_over(self, model: "ALS", epochs: list[Any], context: FitContext) -> None:
        """Take the factors of a model that was trained with this one's settings, on the same matrix."""
        self.user_factors_, self.item_factors_ = model.user_factors_, model.item_factors_
        self.whitened_factors_ = model.whitened_factors_
        context.choosing_seconds.append(-(model.fit_seconds_ or 0.0))  # as it would have taken after choosing
        if context.callback is not None:
            for epoch in epochs:
                context.callback(*epoch)

    def _count_factors(self, user_items: sparse.csr_matrix) -> int:
        return self.factors or min(MOST_FACTORS, round(FACTORS_PER_CUBE_ROOT * min(user_items.shape) ** (1 / 3)))

    def _list_sizes(self, factors: int) -> list[tuple[int, int]]:
        """Factors and iterations of the models that choose: the last as the model itself, if it has no more."""
        return [(min(n, factors), min(i, self.iterations)) for n, i in (ROUGH, EXACT, (factors, EXACT[1]))]

    def plan(self, user_items: sparse.csr_matrix) -> list[Training]:
        """List the trainings that a fit with validation users is likely to make, the smallest first."""
        factors = self._count_factors(user_items)
        if None not in (self.factors, self.alpha, self.regularization):
            return [Training(factors, self.iterations, 1)]
        by_line = LIKELY_STEPS * (self.regularization is None)
        times = by_line, LIKELY_STEPS * (self.alpha is None), max(1, by_line) + LIKELY_GROWTH * (self.factors is None)
        sizes = zip(self._list_sizes(factors), times, strict=True)
        return [Training(*size, n) for size, n in sizes if n]

    def _choose(self, tried: "_Tried") -> None:
        """Choose the regularization, alpha at its ratio, and the regularization more finely, going on while it helps.

        Models are small until the last step; then more factors are tried.
        """
        rank, (rough, exact, whole) = tried.rank, self._list_sizes(self.factors_)
        if self.regularization is None:
            self.regularization_ = search_line(lambda x: rank(rough, x, self.alpha_), self.regularization_, COARSE)
        if self.alpha is None:
            # The best regularization grows with alpha, so that both are multiplied, where both are free.
            ratio, start = self.regularization_ / self.alpha_, self.regularization
            alpha = search_line(lambda x: rank(exact, ratio * x if start is None else start, x), self.alpha_, COARSE)
            self.alpha_, self.regularization_ = alpha, ratio * alpha if start is None else start
        if self.regularization is None:  # the more factors, the larger the best may be
            self.regularization_ = search_line(lambda x: rank(whole, x, self.alpha_), self.regularization_, FINE)
        if self.factors is None:
            fewer = rank(exact, self.regularization_, self.alpha_)
            self.factors_ = grow(lambda n: rank((n, whole[1]), self.regularization_, self.alpha_), self.factors_, fewer)

    def _rule(self, user_items: sparse.csr_matrix) -> float:
        """Regularization by the mean number of interactions of an item, bounded so that not all factors vanish."""
        n_users, n_items = user_items.shape
        largest = self.alpha_ * float(user_items.sum(dtype=np.float64)) / (n_users * n_items) ** 0.5
        rule = REGULARIZATION_BY_INTERACTIONS * float(user_items.nnz / n_items) ** 0.5
        return float(min(rule, MOST_REGULARIZATION * largest))

    def fitted_params(self) -> dict[str, Any]:
        fitted = {"factors": self.factors_, "alpha": self.alpha_, "regularization": self.regularization_}
        return {**self._own_params(), **fitted}

    def _create_model(self) -> Any:
        return import_implicit("cpu.als").AlternatingLeastSquares(
            factors=self.factors_,
            alpha=self.alpha_,
            regularization=self.regularization_,
            iterations=self.iterations,
            random_state=self.seed,
        )

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        with ONE_BLAS_THREAD:
            scores: FloatArray = fold_in(self.whitened_factors_, user_items, self.alpha_) @ self.whitened_factors_.T
        return scores

    def _state(self) -> State:
        return {**super()._state(), "alpha_regularization": np.array([self.alpha_, self.regularization_])}

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.factors_ = self.item_factors_.shape[1]
        if self.factors not in (None, self.factors_):
            raise ArtifactError(f"item_factors has {self.factors_} columns; expected factors={self.factors}")
        self.alpha_, self.regularization_ = (
            float(value) for value in take_array(state, "alpha_regularization", 2, dtype="float64")
        )
        self.whitened_factors_ = whiten(self.item_factors_, self.regularization_)


class _Tried:
    """The models that an ALS trains to choose its settings: each ranks once, the best of its own size is kept.

    Parameters
    ----------
    model : ALS
    user_items : csr_matrix, shape (n_users, n_items)
    validation : (fold_in, held_out)
        Of these the first users are ranked for.

    Attributes
    ----------
    best : ALS or None
        Of those with all factors of `model`, or with more where they gain enough.
    epochs : list of tuple
        What its training told a callback.
    """

    def __init__(self, model: ALS, user_items: sparse.csr_matrix, validation: ValidationUsers) -> None:
        self.model, self.user_items = model, user_items
        self.users = validation[0][:VALIDATION_USERS], validation[1][:VALIDATION_USERS]
        self.qualities: dict[tuple[float, ...], float] = {}
        self.best: ALS | None = None
        self.epochs: list[Any] = []
        self._least = -inf

    def rank(self, size: tuple[int, int], regularization: float, alpha: float) -> float:
        """Train with so many factors and iterations, and return the metric of the lists."""
        factors, iterations = size
        settings = factors, regularization, alpha, iterations
        if settings not in self.qualities:
            metric, seed, epochs = self.model.metric, self.model.seed, list[Any]()
            model = ALS(factors, regularization, alpha, iterations=iterations, metric=metric, seed=seed)
            model.fit(self.user_items, show_progress=False, callback=lambda *epoch: epochs.append(epoch))
            quality = self.qualities[settings] = validate(model, self.users, metric)
            gain = LEAST_GAIN if factors > self.model.factors_ else 0
            whole = factors >= self.model.factors_ and iterations == self.model.iterations
            if whole and quality > (1 + gain) * self._least:
                self.best, self.epochs, self._least = model, epochs, quality
        return self.qualities[settings]


def search_line(quality: Callable[[float], float], start: float, factor: float) -> float:
    """Find the best of start, start·factor, start·factor², … and of start/factor, …, going on while it gets better."""
    best, best_quality = start, quality(start)
    for step in (factor, 1 / factor):
        while start / FURTHEST < best * step < start * FURTHEST and (value := quality(best * step)) > best_quality:
            best, best_quality = best * step, value
        if best != start:
            break
    return best


def grow(quality: Callable[[int], float], factors: int, fewer: float) -> int:
    """Multiply the number of factors by 1.5 as long as the step before gained 1%; `fewer` is the quality of fewer."""
    now = quality(factors)
    while now > (1 + LEAST_GAIN) * fewer and (more := min(MOST_FACTORS, round(MORE_FACTORS * factors))) > factors:
        fewer, now = now, quality(more)
        if now > (1 + LEAST_GAIN) * fewer:
            factors = more
    return factors
