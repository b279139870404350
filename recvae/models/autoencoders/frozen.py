"""Trained autoencoders that score with NumPy alone.

Torch takes 200 MB and more than a second to import, which a process that only serves can do without.
"""

from copy import copy
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from scipy import sparse

from recvae.errors import UnsupportedError
from recvae.models.autoencoders.architecture import (
    DENSITY,
    FIT_NUMBERS,
    HISTORY_LENGTHS,
    INPUT,
    LAYER_NORM_EPSILON,
    OUTPUT,
    TEMPERATURE,
    VARIATIONAL,
    Architecture,
    check_state,
    decode,
    encode_dense,
    encode_plain,
)
from recvae.models.base import State
from recvae.models.fit_context import FitContext
from recvae.models.generative.anomaly import AnomalyDetector
from recvae.types import FloatArray, UserItems

LANES = 16
"""Users are multiplied in multiples of this: OpenBLAS is faster with some columns of zeros than with few columns."""


class FrozenAutoencoder(AnomalyDetector):
    """A trained autoencoder that gives the scores of the torch network, up to rounding, and cannot be trained.

    Parameters
    ----------
    trained_as : str
        Name of the model's class, a key of `VARIATIONAL`.
    """

    def __init__(self, trained_as: str) -> None:
        self.trained_as = trained_as

    def queries(self, user_items: UserItems) -> FloatArray:
        histories = self._check_histories(user_items)
        return self._hidden(histories)[:, : histories.shape[0]].T

    def output_layer(self) -> tuple[FloatArray, FloatArray]:
        return self._output.weight, self._output.bias[:, 0]

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores = self._output.weight @ self._hidden(user_items)
        scores += self._output.bias
        return scores[:, : user_items.shape[0]].T

    def _hidden(self, histories: sparse.csr_matrix) -> FloatArray:
        """(size of the last hidden layer, n_users rounded up to `LANES`), the output layer's input.

        Users are columns here, so that scores of one item lie side by side and the weights need not be transposed.
        """
        n_users = histories.shape[0]
        width = n_users if n_users == 1 else -(-n_users // LANES) * LANES  # one column is a matrix-vector product
        h = np.repeat(self._input.bias, width, axis=1)
        h[:, :n_users] += (_normalise_rows(histories) @ self._input.weight).T
        with np.errstate(over="ignore"):  # of e^−h, whose reciprocal is 0 as it should be
            if self._encoder_norms:
                code = encode_dense(h, self._encoder_layers, self._encoder_norms, _swish)
            else:
                code = encode_plain(h, self._encoder_layers, np.tanh)
        z = code[: len(code) // 2] if VARIATIONAL[self.trained_as] else np.tanh(code)
        return decode(z, self._decoder_layers, np.tanh)

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> NoReturn:
        raise UnsupportedError(f"a frozen {self.trained_as} cannot be trained; load it with frozen=False")

    def _state(self) -> NoReturn:
        raise UnsupportedError(f"a frozen {self.trained_as} cannot be saved; load it with frozen=False")

    def _restore(self, state: State) -> None:
        state = self._restore_calibration(state)
        beside = {HISTORY_LENGTHS, FIT_NUMBERS, TEMPERATURE, *DENSITY}
        weights = {name: array for name, array in state.items() if name not in beside}
        architecture = Architecture.from_state(weights, VARIATIONAL[self.trained_as])
        check_state(weights, architecture.shapes(self.n_items_))

        def linear(name: str) -> _Linear:
            return _Linear(weights[f"{name}.weight"], weights[f"{name}.bias"][:, None])

        self._input, self._output = linear(INPUT), linear(OUTPUT)
        self._encoder_layers = [linear(name) for name in architecture.encoder_layers]
        self._encoder_norms = [
            _LayerNorm(weights[f"{name}.weight"][:, None], weights[f"{name}.bias"][:, None])
            for name in architecture.encoder_norms
        ]
        self._decoder_layers = [linear(name) for name in architecture.decoder_layers]


def _normalise_rows(histories: sparse.csr_matrix) -> sparse.csr_matrix:
    """Divide each row by its L2 norm, in float64: float32 does not hold the norm, nor sums, of the largest weights.

    Each row is summed by itself: in differences of a running sum, a user with large weights would leave the next users'
    without their last digits.
    """
    lengths = np.diff(histories.indptr)
    filled = lengths > 0  # `reduceat` would give an empty row the next row's first value
    if not filled.any():
        return histories
    squares = np.square(histories.data, dtype=np.float64)
    norms = np.sqrt(np.add.reduceat(squares, histories.indptr[:-1][filled]))
    normed = copy(histories)  # shares the places: building a matrix checks them again, in every request
    normed.data = (histories.data / np.repeat(norms, lengths[filled])).astype(np.float32)
    return normed


@dataclass(frozen=True, eq=False)
class _Linear:
    """A linear layer for users in columns: (size_in, n_users) → (size_out, n_users)."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, h: FloatArray) -> FloatArray:
        product: FloatArray = self.weight @ h
        product += self.bias
        return product


@dataclass(frozen=True, eq=False)
class _LayerNorm:
    """Layer normalisation of each column; Ba, Kiros & Hinton (2016)."""

    scale: FloatArray
    shift: FloatArray

    def __call__(self, h: FloatArray) -> FloatArray:
        normed: FloatArray = h - h.mean(axis=0)
        variance = np.einsum("ij,ij->j", normed, normed) / len(h)
        normed /= np.sqrt(variance + np.float32(LAYER_NORM_EPSILON))
        normed *= self.scale
        normed += self.shift
        return normed


def _swish(h: FloatArray) -> FloatArray:
    """h·σ(h), as h / (1 + e^−h)."""
    swish: FloatArray = np.negative(h)
    np.exp(swish, out=swish)
    swish += 1
    return np.divide(h, swish, out=swish)
