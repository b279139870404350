"""Settings that are left to the data: rules that follow the numbers of users, items and interactions.

Each was checked on seven data sets of 900 to 55,000 users (`benchmarks/results/tried.md`). A search by short runs was
tried and misleads: in them a small KL weight looks better than it is at the end of a whole run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.errors import ArtifactError

KL_SHARE = 0.25
"""KL weight of the mean user, where items have many interactions."""
FEW_EPOCHS = 0.5
"""Share of the rule's epochs below which the KL weight is smaller."""
MANY_INTERACTIONS = 30
"""Interactions an item from which on items are not scarce: with fewer the KL weight is larger, and training longer."""
SPARSE_DENSITY, SPARSE_DROPOUT, DROPOUT = 0.003, 0.7, 0.5
FEWEST_PATIENT = 5

WHOLE_NUMBERS = ("best_epoch", "epochs", "batch_size", "patience", "latent")
NUMBERS = (*WHOLE_NUMBERS, "dropout", "gamma", "spectral")
"""Order of the best epoch and the chosen settings in an artifact; the last, 1 or 0, says what `initial` is."""
WITHOUT_INITIAL = len(NUMBERS) - 1
"""As many as artifacts of before `initial` was kept have."""


@dataclass(frozen=True)
class MatrixSize:
    """Numbers of users and items that have interactions, and of these."""

    users: int
    items: int
    interactions: int

    @classmethod
    def of(cls, user_items: sparse.csr_matrix, item_counts: npt.NDArray[np.float32]) -> Self:
        """The size of a matrix, given the interactions of each item, (n_items,)."""
        users = int(np.count_nonzero(np.diff(user_items.indptr)))
        return cls(users, int(np.count_nonzero(item_counts)), user_items.nnz)

    @property
    def scarcity(self) -> float:
        """max(1, √(30 / mean interactions an item)): the scarcer they are, the later a network overfits."""
        return max(1.0, math.sqrt(MANY_INTERACTIONS * self.items / self.interactions))


@dataclass(frozen=True)
class EpochRule:
    """Number of epochs in which about so many `histories` are seen, from `fewest` to `most`, times the scarcity.

    From singular vectors on half of `most` is enough, as it is not of `fewest`, with 50,000 users.
    """

    histories: int
    fewest: int
    most: int

    def choose(self, size: MatrixSize, spectral: bool = False) -> int:
        """Epochs for a matrix, at random or from singular vectors on."""
        most = self.most // 2 if spectral else self.most
        return round(size.scarcity * max(self.fewest, min(most, round(self.histories / size.users))))


def choose_batch_size(users: int) -> int:
    """A fortieth of the users, from 125 to 500."""
    return max(125, min(500, round(users / 40)))


def choose_gamma(size: MatrixSize, epochs_share: float = 1.0) -> float:
    """KL weight for each interaction: c / (mean interactions a user), c = ¼·scarcity.

    The mean user's KL weight is so a quarter of the likelihood's, and more where items have few interactions. Training
    of less than half the rule's epochs has a weight that is smaller in proportion: it has no time to overfit.

    Parameters
    ----------
    size : MatrixSize
    epochs_share : float
        Epochs of the training, as a share of those of the rule.
    """
    share = KL_SHARE * min(1.0, epochs_share / FEW_EPOCHS)
    return float(f"{share * size.scarcity * size.users / size.interactions:.3g}")


def choose_dropout(size: MatrixSize) -> float:
    """0.7 where fewer than 0.3% of all pairs of user and item are interactions, else 0.5."""
    return SPARSE_DROPOUT if size.interactions < SPARSE_DENSITY * size.users * size.items else DROPOUT


def choose_patience(epochs: int) -> int:
    """A third of the epochs, at least five.

    A learning rate that rises and falls makes validation dip in between: a good run must not end there.
    """
    return max(FEWEST_PATIENT, round(epochs / 3))


def pack_numbers(chosen: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The best epoch and the chosen settings in the order of `NUMBERS`, NaN where there is none."""
    numbers = {**chosen, "spectral": float(chosen["initial"] == "spectral")} if "initial" in chosen else chosen
    return np.array([numbers.get(name, np.nan) for name in NUMBERS], dtype=np.float64)


def unpack_numbers(packed: npt.NDArray[Any]) -> dict[str, Any]:
    """The inverse of `pack_numbers`; raises `ArtifactError` for anything that it does not give."""
    if packed.dtype != np.float64 or packed.shape not in ((len(NUMBERS),), (WITHOUT_INITIAL,)):
        raise ArtifactError(f"fit_numbers is {packed.dtype} {packed.shape}; expected float64 ({len(NUMBERS)},)")
    numbers = {name: float(value) for name, value in zip(NUMBERS, packed, strict=False) if not np.isnan(value)}
    for name in WHOLE_NUMBERS:
        if name in numbers and not (numbers[name].is_integer() and numbers[name] >= 1):
            raise ArtifactError(f"fit_numbers has {name} {numbers[name]}; expected a whole number of at least 1")
    chosen: dict[str, Any] = {name: int(x) if name in WHOLE_NUMBERS else x for name, x in numbers.items()}
    if (spectral := chosen.pop("spectral", None)) is not None:
        if spectral not in (0, 1):
            raise ArtifactError(f"fit_numbers has spectral {spectral}; expected 0 or 1")
        chosen["initial"] = "spectral" if spectral else "random"
    return chosen
