"""The contract of every model: a drop-in for `implicit`'s `RecommenderBase`, with fold-in of new users."""

import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr, fingerprint, iter_chunks
from recvae.errors import ArtifactError, ParameterError, UnsupportedError
from recvae.memory import row_batches
from recvae.models.estimator import Estimator
from recvae.models.explanation import Explainer
from recvae.models.fit_context import Callback, FitContext, Validation, check_validation
from recvae.models.hyperparameters import SearchSpace
from recvae.models.similarity import check_indices, check_request, check_rows
from recvae.topn import mask_seen, top_n
from recvae.types import FloatArray, IntArray, Scores, UserItems

if TYPE_CHECKING:
    from recvae.data.splitting import Holdout

State = dict[str, npt.NDArray[Any]]


class Registry(Protocol):
    """The part of `recvae.models.registry.ModelRegistry` that models use themselves."""

    def create(self, name: str) -> "Recommender":
        """Create an unfitted model by name."""

    def find_class(self, class_name: str) -> "type[Recommender] | None":
        """The model whose class has this name, if there is one."""

    def save(self, model: "Recommender", path: str | Path, **content: Any) -> None:
        """Write an artifact directory."""

    def load(self, path: str | Path) -> "Recommender":
        """Read the model of an artifact directory."""


class Recommender(Explainer, Estimator):
    """Base of every model.

    Constructor arguments are hyperparameters, stored under their own names; attributes that `fit` sets end in `_`.

    Attributes
    ----------
    folds_in : bool
        Whether `score` can rank for a user from the history alone, without having been fitted on that user.
    stores_users : bool
        Whether `recommend` ranks for `userid` by what training learned of that user.
    resumable : bool
        Whether `fit` keeps checkpoints.
    SPACE : dict
        The range of each hyperparameter that tuning may change.
    PRESETS : dict
        Hyperparameters by the name of a preset.
    registry : Registry
        Looks up model classes; set by `recvae.models.registry`.
    item_counts_ : (n_items,) float32
        Interactions of each item in training: the popularity prior, used for users without a history.
    fit_seconds_, refit_seconds_ : float
        Time of the last `fit`, and of the part of it that did not choose settings; the second is not saved.
    """

    folds_in: ClassVar[bool] = True
    stores_users: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    SPACE: ClassVar[SearchSpace] = {}
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    registry: ClassVar[Registry]
    trained_on_: str | None = None
    fit_seconds_: float | None = None
    refit_seconds_: float | None = None

    @abstractmethod
    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> None:
        """Learn from a checked matrix."""

    @abstractmethod
    def _state(self) -> State:
        """Give the arrays that `fit` learned, by name."""

    @abstractmethod
    def _restore(self, state: State) -> None:
        """Set the arrays that `_state` gave; raise `ArtifactError` if one does not fit."""

    def fit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        callback: Callback | None = None,
        validation: "Validation | Holdout | None" = None,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on a user-item matrix.

        A model whose `fit` fails or is interrupted is what it was before; an autoencoder keeps the weights of the best
        epoch so far, and a blend is not fitted.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
            Binary, or non-negative weights.
        show_progress : bool
            A progress bar on a terminal, plain lines elsewhere.
        callback : callable, optional
            Called as `callback(epoch, seconds, loss)` after each epoch, as in `implicit`, or once at the end with a
            loss of NaN. It ends an autoencoder's training by `recvae.training.interrupts.StopTrainingError`.
        validation : Holdout or (fold_in, held_out), optional
            Two matrices of the same users, for models that choose their epoch or settings.
        checkpoint : path, optional
            Directory where models that train in epochs keep their state, so that Ctrl-C or a crash loses little.
        resume : bool
            Continue from `checkpoint`.

        Raises
        ------
        ParameterError
            If a matrix is empty, not sparse, or has negative or non-finite values, or the two do not fit each other.
        """
        train = check_csr(user_items, "user_items")
        if train.nnz == 0:
            raise ParameterError(f"user_items has no interactions; its shape is {train.shape}")
        held = None if validation is None else check_validation(validation, train)
        if resume and not self.resumable:
            raise ParameterError(f"{type(self).__name__} does not train in epochs, so there is nothing to resume")
        # Networks and parts of a blend are changed in place, so that nothing could be put back.
        before = None if self.resumable or self.consists_of_models else dict(self.__dict__)
        self._take_changes()
        self.trained_on_ = None
        counts = [np.bincount(part, minlength=train.shape[1]) for part in iter_chunks(train.indices)]
        self.item_counts_ = np.sum(counts, axis=0).astype(np.float32)
        where = None if checkpoint is None else Path(checkpoint)
        context = FitContext(show_progress, callback, held, where, resume, fingerprint(train))
        started = time.monotonic()
        try:
            self._fit(train, context)
        except BaseException as error:
            if before is not None:
                self.__dict__ = before
            elif not self._keeps_training(error):
                del self.item_counts_  # without which it is not fitted
            raise
        self.trained_on_, self.fit_seconds_ = context.fingerprint, time.monotonic() - started
        self.refit_seconds_ = self.fit_seconds_ - sum(context.choosing_seconds)
        return self

    def _keeps_training(self, error: BaseException) -> bool:
        """Tell if what an interrupted `fit` has learned is a model."""
        return False

    def refit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        *,
        checkpoint: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit a new model on other data with the settings that this fit found, choosing nothing again.

        So a model whose settings validation users have chosen is fitted on everybody, these users included; one that
        trains in epochs ends with `best_epoch_`, on the learning rates that led there.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
        show_progress, checkpoint, resume
            As in `fit`.

        Returns
        -------
        Recommender
            Of the same class; this model stays as it is.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self.n_items_  # noqa: B018 refuses before fit
        model = type(self)(**self.fitted_params())
        return model.fit(user_items, show_progress, checkpoint=checkpoint, resume=resume)

    def save(self, path: str | Path, **content: Any) -> None:
        """Write an artifact directory: `recvae.save(model, path, items=…, users=…, data=…, metrics=…)`."""
        self.registry.save(self, path, **content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the model of an artifact directory; `recvae.load` also gives its items, users and manifest.

        Raises
        ------
        ArtifactError
            If it is damaged, or holds a model of another class.
        """
        model = cls.registry.load(path)
        if not isinstance(model, cls):
            raise ArtifactError(f"{path} holds a {type(model).__name__}, not a {cls.__name__}")
        return model

    def score(self, user_items: UserItems) -> FloatArray:
        """Score every item for each history; an empty history gets the popularity prior.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)

        Returns
        -------
        (n_users, n_items) float32, all finite
        """
        histories = self._check_histories(user_items)
        empty = np.diff(histories.indptr) == 0
        if not empty.any():
            return self._score_histories(histories)
        scores = np.empty(histories.shape, dtype=np.float32)
        scores[empty] = self._popularity_prior()
        if not empty.all():
            scores[~empty] = self._score_histories(histories[~empty])
        return scores

    def score_on_device(self, user_items: UserItems) -> Scores:
        """`score`, with the scores left on the device where they are made, for `mask_seen` and `top_n`.

        Only a list for each user then leaves the device, instead of a score for each item.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)

        Returns
        -------
        (n_users, n_items) float32, array or tensor
            The caller may change it.
        """
        return self.score(user_items)

    def score_items(self, user_items: UserItems, items: npt.ArrayLike) -> FloatArray:
        """Score only some items for each history, which is faster for models that need not score all.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
        items : (m,) int
            May repeat.

        Returns
        -------
        (n_users, m) float32
        """
        histories = self._check_histories(user_items)
        columns = self._check_items(items, "items", unique=False)
        scores = np.empty((histories.shape[0], len(columns)), dtype=np.float32)
        for batch in row_batches(histories.shape[0], 4 * self.n_items_):
            scores[batch] = self._score_some_items(histories[batch], columns)
        return scores

    def recommend(
        self,
        userid: int | npt.ArrayLike,
        user_items: UserItems,
        N: int = 10,  # noqa: N803 implicit's name
        filter_already_liked_items: bool = True,
        filter_items: npt.ArrayLike | None = None,
        recalculate_user: bool = False,
        items: npt.ArrayLike | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank the N best items for one user or for many, as in `implicit`.

        Parameters
        ----------
        userid : int or (n_users,) int
            Row of the training matrix. Models that store no users rank from `user_items` and ignore it.
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
            One history for each userid; for a single userid also everybody's, of which that row is taken.
        N : int
        filter_already_liked_items : bool
            Leave out the items of the user's row of `user_items`.
        filter_items : (m,) int, optional
            Items to leave out for everybody.
        recalculate_user : bool
            For models that store users: rank from `user_items` instead of the stored user.
        items : (m,) int, optional
            Rank only these.

        Returns
        -------
        (ids, scores) : int32 and float32
            Shape (N,) for one userid, else (n_users, N); N shrinks to the number of `items` where these are
            given. Short lists are padded with id -1 and score -inf.

        Raises
        ------
        ParameterError
            If the shapes do not fit, or both `items` and `filter_items` are given.
        ItemIndexError
            If an item lies outside the catalogue.
        """
        check_request(N, items, filter_items)
        users = check_indices(userid, "userid")
        histories = self._check_histories(user_items)
        if np.ndim(userid) == 0 and histories.shape[0] > 1:  # all histories, for a user who is one of the rows
            histories = histories[check_rows(userid, "userid", histories.shape[0])]
        if (n_rows := histories.shape[0]) != len(users):
            raise ParameterError(f"user_items has {n_rows} rows for {len(users)} userids; expected one each")
        left_out = self._check_items(filter_items, "filter_items")
        candidates = None if items is None else self._check_items(items, "items")
        n = N if candidates is None else min(N, len(candidates))
        ids = np.empty((len(users), n), dtype=np.int32)
        best = np.empty((len(users), n), dtype=np.float32)
        from_user = self.stores_users and not recalculate_user
        for batch in row_batches(len(users), 4 * self.n_items_):
            scores = self._score_users(users[batch]) if from_user else self.score_on_device(histories[batch])
            if filter_already_liked_items:
                mask_seen(scores, histories[batch])
            scores[:, left_out] = -np.inf
            if candidates is None:
                ids[batch], best[batch] = top_n(scores, n)
            else:
                columns, best[batch] = top_n(scores[:, candidates], n)
                ids[batch] = np.where(columns < 0, -1, candidates[columns])
        return (ids[0], best[0]) if np.ndim(userid) == 0 else (ids, best)

    def fitted_on(self, user_items: UserItems) -> bool:
        """Check that the model was fitted on a matrix with the same content, and not changed since."""
        return not self._is_changed() and self.trained_on_ == fingerprint(check_csr(user_items, "user_items"))

    def _score_users(self, users: npt.NDArray[np.int64]) -> FloatArray:
        """(n_users, n_items) scores for users of the training matrix, by its rows; for models that store users."""
        raise UnsupportedError(f"{type(self).__name__} stores no users")

    def _score_some_items(self, histories: sparse.csr_matrix, items: npt.NDArray[np.int64]) -> FloatArray:
        """(n_users, m) scores of some items; overridden by models that can do it without scoring all items."""
        scores: FloatArray = self.score(histories)[:, items]
        return scores

    def _popularity_prior(self) -> FloatArray:
        """Scores for a user without a history: log((count + 1) / (interactions + n_items)), (n_items,)."""
        smoothed = self.item_counts_.astype(np.float64) + 1
        prior: FloatArray = np.log(smoothed / smoothed.sum()).astype(np.float32)
        return prior
