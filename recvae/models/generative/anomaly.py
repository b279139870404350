"""`AnomalyDetector`: base of the models that say how unusual a history is."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import check_csr
from recvae.errors import ParameterError, UnsupportedError
from recvae.models import hyperparameters as check
from recvae.models.autoencoders.decoder import Decoder
from recvae.models.generative.calibration import (
    FEWEST_USERS,
    GAIN,
    MOST_USERS,
    RARE,
    USERS,
    Calibration,
)
from recvae.models.generative.held_out_likelihood import HeldOutLikelihood, predict_held_out
from recvae.topn import top_n
from recvae.types import FloatArray, IntArray, UserItems

Explanation = tuple[IntArray, FloatArray]
Anomalies = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


class AnomalyDetector(Decoder):
    """Base of models whose scores are the logits of a softmax over all items.

    Attributes
    ----------
    calibration_ : Calibration, optional
        Histories of users that the model was not trained on: the validation users of `fit`, or those given to
        `calibrate_anomalies`. None where there were none.
    """

    calibration_: Calibration | None = None
    likelihood: str = "multinomial"

    def calibrate_anomalies(self, user_items: UserItems) -> None:
        """Set what is usual, by histories of users that the model was not trained on.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
            Whole histories; those of fewer than two interactions are left out, and of more than 1,000 users some are
            drawn.

        Raises
        ------
        ParameterError
            If fewer than 20 users are left.
        UnsupportedError
            If the likelihood is not multinomial.
        """
        self._refuse_other_likelihoods()
        histories = choose_users(self._check_histories(user_items))
        if histories.shape[0] < FEWEST_USERS:
            raise ParameterError(
                f"user_items has {histories.shape[0]} users with two interactions or more; expected at least "
                f"{FEWEST_USERS}, to know by them what is usual"
            )
        self.calibration_ = self._measure(histories)

    def anomaly_score(self, user_items: UserItems) -> npt.NDArray[np.float64]:
        """The score of `find_anomalies` for each history, (n_users,): the higher, the more unusual."""
        return self.find_anomalies(user_items)[0]

    def anomaly_p_value(self, user_items: UserItems) -> npt.NDArray[np.float64]:
        """The p-value of `find_anomalies` for each history, (n_users,): the lower, the more unusual."""
        return self.find_anomalies(user_items)[1]

    def smallest_p_value(self) -> float:
        """The smallest p-value that histories of more than one interaction can have.

        Raises
        ------
        UnsupportedError
            If nothing says what is usual: see `calibrate_anomalies`.
        """
        self._refuse_other_likelihoods()
        return 1 / (len(self._calibration()) + 1)

    def find_anomalies(self, user_items: UserItems) -> Anomalies:
        """Compare histories with those of real users, by how well each part follows from the rest.

        A history is cut into five folds, and each is predicted from the other four: the mean log-likelihood of an
        interaction by the model, less that by popularity alone, tells users from collections of items that do not
        belong together, whatever the model has learned to reproduce. Items that are rarer than a user's usually are
        add to the score. It is compared with real users of the same length, see `Calibration`. An item counts once,
        whatever its weight.

        A history of one interaction has nothing to be predicted from: its score is by the item's popularity alone, and
        its p-value is the share of training interactions with items as rare as that one. An empty history has neither,
        but NaN.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)

        Returns
        -------
        (scores, p_values) : (n_users,) float64 each
            Scores are in mean deviations of real users, higher for more unusual ones. P-values are in (0, 1], and those
            of real users are uniform.

        Raises
        ------
        UnsupportedError
            If the likelihood is not multinomial, or nothing says what is usual: see `calibrate_anomalies`.
        """
        self._refuse_other_likelihoods()
        calibration, histories = self._calibration(), self._check_histories(user_items)
        lengths = np.diff(histories.indptr)
        scores, p_values = np.full((2, len(lengths)), np.nan)
        longer, single = lengths > 1, lengths == 1
        if longer.any():
            some = histories[longer]
            summary = calibration.summarize(self._predict(some), some.indptr)
            scores[longer] = calibration.scores(summary)
            p_values[longer] = calibration.p_values(scores[longer])
        if single.any():
            scores[single], p_values[single] = self._rank_by_rarity(histories[single].indices)
        return scores, p_values

    def explain_anomaly(self, user_items: UserItems, N: int = 5) -> Explanation:  # noqa: N803
        """Find the interactions of each history that fit the rest of it least.

        Parameters
        ----------
        user_items : csr_matrix or csr_array, shape (n_users, n_items)
        N : int

        Returns
        -------
        (ids, surprises) : int32 and float32, shape (n_users, N)
            Items, most unusual first, and the nats by which popularity alone predicts each better than the model does
            from the rest of the history; negative for what belongs there. Padded with -1 and -inf.
        """
        self._refuse_other_likelihoods()
        check.whole("N", N)
        histories = self._check_histories(user_items)
        likelihood = self._predict(histories)
        surprises = (likelihood.popularity - likelihood.model).astype(np.float32)
        ids = np.full((histories.shape[0], N), -1, dtype=np.int32)
        most = np.full(ids.shape, -np.inf, dtype=np.float32)
        for user, (first, last) in enumerate(zip(histories.indptr, histories.indptr[1:], strict=False)):
            n = min(N, last - first)
            if n:
                columns, values = top_n(surprises[None, first:last], n)
                ids[user, :n], most[user, :n] = histories.indices[first:last][columns[0]], values[0]
        return ids, most

    def _refuse_other_likelihoods(self) -> None:
        if self.likelihood != "multinomial":
            raise UnsupportedError(
                f"likelihood is {self.likelihood}; expected multinomial, whose scores are logits of a softmax"
            )

    def _calibration(self) -> Calibration:
        if self.calibration_ is None:
            raise UnsupportedError(
                "the model does not know what is usual, since it was fitted without validation users or by an earlier "
                "version; call calibrate_anomalies with histories of users that it was not trained on"
            )
        return self.calibration_

    def _calibrate_on(self, validation: tuple[sparse.csr_matrix, sparse.csr_matrix] | None) -> None:
        """Calibrate at the end of `fit`, where there are enough validation users."""
        self.calibration_ = None
        if validation is not None and self.likelihood == "multinomial":
            fold_in, held_out = validation
            histories = choose_users(check_csr(fold_in.maximum(held_out), "validation"))
            if histories.shape[0] >= FEWEST_USERS:
                self.calibration_ = self._measure(histories)

    def _measure(self, histories: sparse.csr_matrix) -> Calibration:
        return Calibration.measure(self._predict(histories), histories.indptr)

    def _predict(self, histories: sparse.csr_matrix) -> HeldOutLikelihood:
        return predict_held_out(self.score, histories, self._popularity_prior())

    def _rank_by_rarity(self, items: npt.NDArray[np.int32]) -> Anomalies:
        """Score and p-value of single interactions, by the items' popularity."""
        log_share = self._popularity_prior().astype(np.float64)
        share, rarity = np.exp(log_share), -log_share[items]
        usual = -float(share @ log_share)
        deviation = max(float(share @ np.abs(log_share + usual)), 1e-6)
        ordered = np.sort(log_share)
        as_rare = np.exp(ordered).cumsum()[np.searchsorted(ordered, log_share[items], side="right") - 1]
        return np.maximum((rarity - usual) / deviation - RARE, 0), np.minimum(as_rare, 1.0)

    def _calibration_state(self) -> dict[str, FloatArray]:
        return {} if self.calibration_ is None else self.calibration_.state()

    def _restore_calibration(self, state: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Take what belongs to the calibration out of a model's arrays; return the others."""
        rest = dict(state)
        users, gain = rest.pop(USERS, None), rest.pop(GAIN, None)
        self.calibration_ = None if users is None or gain is None else Calibration.from_state(users, gain)
        return rest


def choose_users(histories: sparse.csr_matrix) -> sparse.csr_matrix:
    """The histories of two interactions or more; `MOST_USERS` of them, always the same, where there are more."""
    users = np.flatnonzero(np.diff(histories.indptr) > 1)
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(0).choice(users, MOST_USERS, replace=False))
    return histories[users]
