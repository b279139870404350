"""Trained autoencoders of which NumPy works out the scores: torch takes 200 MB and more than a second to import, which
a process that only ranks can do without.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.data.csr import UserItems
from recvae.errors import ArtifactError, UnsupportedError
from recvae.models.autoencoders.decoder import Decoder
from recvae.models.base import State
from recvae.models.fit_context import FitContext
from recvae.topn import FloatArray

VARIATIONAL = {"MultVAE": True, "MultDAE": False, "RecVAE": True}
"""By the name of a class, whether its encoder gives a mean and a variance."""
LANES = 16
"""Users are multiplied so many at a time: OpenBLAS is slower with fewer columns than with some of zeros."""
EPSILON = 0.1  # that of `recvae.nn.layers.DenseEncoder`

Step = Callable[[FloatArray], FloatArray]


class FrozenAutoencoder(Decoder):
    """A trained autoencoder that scores, to rounding, as it did when it was trained, and learns nothing more.

    Parameters
    ----------
    trained_as : str
        A key of `VARIATIONAL`.
    """

    def __init__(self, trained_as: str) -> None:
        self.trained_as = trained_as

    def queries(self, user_items: UserItems) -> FloatArray:
        histories = self._check_histories(user_items)
        return self._hidden(histories)[:, : histories.shape[0]].T

    def output_layer(self) -> tuple[FloatArray, FloatArray]:
        return self._weight, self._bias[:, 0]

    def _score_histories(self, user_items: sparse.csr_matrix) -> FloatArray:
        scores = self._weight @ self._hidden(user_items)
        scores += self._bias
        return scores[:, : user_items.shape[0]].T

    def _hidden(self, histories: sparse.csr_matrix) -> FloatArray:
        """(size of the last hidden layer, n_users and columns to spare), what the output layer multiplies."""
        n_users = histories.shape[0]
        sums = np.append(0.0, np.cumsum(np.square(histories.data, dtype=np.float64)))
        norms = np.sqrt(np.diff(sums[histories.indptr])).astype(np.float32)
        norms[norms == 0] = 1
        h = np.zeros((self._input.shape[1], n_users if n_users == 1 else -(-n_users // LANES) * LANES), np.float32)
        np.divide((histories @ self._input).T, norms, out=h[:, :n_users])
        with np.errstate(over="ignore"):  # of e^−h, whose reciprocal is 0 as it should be
            for step in self._steps:
                h = step(h)
        return h

    def _fit(self, user_items: sparse.csr_matrix, context: FitContext) -> NoReturn:
        raise UnsupportedError(f"a frozen {self.trained_as} cannot be trained; load it with frozen=False")

    def _state(self) -> NoReturn:
        raise UnsupportedError(f"a frozen {self.trained_as} cannot be saved; load it with frozen=False")

    def _restore(self, state: State) -> None:
        arrays = _Arrays({name: array for name, array in state.items() if name != "history_lengths"})
        n_items = self.n_items_
        self._input = arrays.take("encoder.input.weight", n_items, None)
        bias = arrays.take("encoder.input.bias", self._input.shape[1])[:, None]
        steps: list[Step] = [lambda h: h + bias]
        encoder, latent = (_dense if arrays.has("encoder.norms.0") else _plain)(arrays, len(bias))
        steps.append(encoder)
        if VARIATIONAL[self.trained_as]:
            latent //= 2
            steps.append(lambda code: code[:latent])
        else:
            steps.append(np.tanh)
        number, size = 0, latent
        while arrays.has(name := f"decoder.{number}"):
            layer, size = arrays.linear(name, size)
            steps += [layer, np.tanh]
            number += 1
        self._weight = arrays.take("output.weight", n_items, size)
        self._bias = arrays.take("output.bias", n_items)[:, None]
        self._steps = steps
        arrays.end()


class _Arrays:
    """Named float32 arrays, each of which is taken once."""

    def __init__(self, arrays: State) -> None:
        self._arrays = arrays

    def has(self, layer: str) -> bool:
        return f"{layer}.weight" in self._arrays

    def take(self, name: str, *shape: int | None) -> FloatArray:
        """The array of this shape, in which None may be any number."""
        array = self._arrays.pop(name, None)
        if array is None or array.dtype != np.float32 or not _fits(array.shape, shape):
            expected = tuple("any" if n is None else n for n in shape)
            raise ArtifactError(f"{name} is {_kind(array)}; expected float32 {expected}")
        return array

    def linear(self, name: str, size: int) -> tuple[Step, int]:
        """The layer, for columns of this size, and the size of what it gives."""
        weight = self.take(f"{name}.weight", None, size)
        bias = self.take(f"{name}.bias", len(weight))[:, None]
        return (lambda h: weight @ h + bias), len(weight)

    def norm(self, name: str, size: int) -> Step:
        """Layer normalisation of each column; Ba, Kiros & Hinton (2016)."""
        scale, shift = (self.take(f"{name}.{part}", size)[:, None] for part in ("weight", "bias"))

        def step(h: FloatArray) -> FloatArray:
            normed: FloatArray = h - h.mean(axis=0)
            normed /= np.sqrt(np.einsum("ij,ij->j", normed, normed) / size + np.float32(EPSILON))
            normed *= scale
            normed += shift
            return normed

        return step

    def end(self) -> None:
        """Raise `ArtifactError` if an array is left."""
        for name, array in self._arrays.items():
            raise ArtifactError(f"{name} is {_kind(array)}; expected none")


def _fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(n in (None, given) for n, given in zip(expected, shape, strict=True))


def _kind(array: npt.NDArray[Any] | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"


def _plain(arrays: _Arrays, size: int) -> tuple[Step, int]:
    """What follows the first layer of `recvae.nn.layers.PlainEncoder`."""
    layers: list[Step] = []
    while arrays.has(name := f"encoder.layers.{len(layers)}"):
        layer, size = arrays.linear(name, size)
        layers.append(layer)

    def encoder(h: FloatArray) -> FloatArray:
        for layer in layers:
            h = layer(np.tanh(h))
        return h

    return encoder, size


def _dense(arrays: _Arrays, size: int) -> tuple[Step, int]:
    """What follows the first layer of `recvae.nn.layers.DenseEncoder`."""
    first = arrays.norm("encoder.norms.0", size)
    hidden: list[tuple[Step, Step]] = []
    while arrays.has(name := f"encoder.hidden.{len(hidden)}"):
        layer, width = arrays.linear(name, size)
        hidden.append((layer, arrays.norm(f"encoder.norms.{len(hidden) + 1}", width)))
    code, size = arrays.linear("encoder.code", size)

    def encoder(h: FloatArray) -> FloatArray:
        h = first(_swish(h))
        total = h
        for layer, norm in hidden:
            h = norm(_swish(layer(h) + total))
            total = total + h
        return code(h)

    return encoder, size


def _swish(h: FloatArray) -> FloatArray:
    swish: FloatArray = np.negative(h)
    np.exp(swish, out=swish)
    swish += 1
    return np.divide(h, swish, out=swish)
