"""Architecture of the autoencoders: layers, their order, their names and shapes in an artifact.

Both the torch networks that are trained and the NumPy ones that serve are built from this description, which needs
neither library.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from recvae.errors import ArtifactError
from recvae.models.hyperparameters import MOST_LAYERS

ENCODERS = ("plain", "dense")
LAYER_NORM_EPSILON = 0.1
"""The value of the authors' code for RecVAE; PyTorch's default is 1e-5."""

VARIATIONAL = {"MultVAE": True, "MultDAE": False, "RecVAE": True}
"""By the name of a class, whether its encoder gives a mean and a variance instead of the code itself."""

INPUT, OUTPUT = "encoder.input", "output"
HISTORY_LENGTHS = "history_lengths"
"""Name of an array beside the weights: quantiles of the training users' numbers of interactions."""
FIT_NUMBERS = "fit_numbers"
"""Name of an array beside the weights: the best epoch, and the settings that were chosen for the data."""
DENSITY = ("density_weights", "density_means", "density_cholesky")
"""Names of arrays beside the weights: where the training users are, a mixture of Gaussians."""
TEMPERATURE = "temperature"
"""Name of an array beside the weights: what logits are divided by where histories are drawn."""
_PLAIN, _DENSE, _DENSE_NORMS, _DENSE_CODE = "encoder.layers", "encoder.hidden", "encoder.norms", "encoder.code"
_DECODER = "decoder"

Array = TypeVar("Array")  # a torch tensor or a NumPy array
Layer = Callable[[Any], Any]


@dataclass(frozen=True)
class Architecture:
    """Sizes of an autoencoder's layers.

    Attributes
    ----------
    encoder : "plain" or "dense"
        Mult-VAE's, with a decoder that mirrors it, or RecVAE's, with a linear decoder.
    hidden : tuple of int
        Sizes of the encoder's hidden layers; all the same for a dense one.
    latent : int
        Size of z.
    variational : bool
        Whether the encoder's output is mu and logvar, twice as long as z.
    """

    encoder: str
    hidden: tuple[int, ...]
    latent: int
    variational: bool

    @property
    def code(self) -> int:
        """Size of the encoder's output."""
        return 2 * self.latent if self.variational else self.latent

    @property
    def decoder(self) -> tuple[int, ...]:
        """Sizes of the decoder's hidden layers."""
        return self.hidden[::-1] if self.encoder == "plain" else ()

    @property
    def encoder_layers(self) -> list[str]:
        """Names of the encoder's linear layers after its input layer, in their order."""
        if self.encoder == "plain":
            return [f"{_PLAIN}.{number}" for number in range(len(self.hidden))]
        return [*(f"{_DENSE}.{number}" for number in range(len(self.hidden) - 1)), _DENSE_CODE]

    @property
    def encoder_norms(self) -> list[str]:
        """Names of the encoder's layer normalisations, in their order."""
        return [f"{_DENSE_NORMS}.{number}" for number in range(len(self.hidden))] if self.encoder == "dense" else []

    @property
    def decoder_layers(self) -> list[str]:
        """Names of the decoder's linear layers before the output layer, in their order."""
        return [f"{_DECODER}.{number}" for number in range(len(self.decoder))]

    def shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by their names in an artifact, which are those of a torch module's state."""
        encoder, decoder = [*self.hidden, self.code], [self.latent, *self.decoder, n_items]
        # The input layer's weight has a row for each item, so that the rows of a history lie together in memory.
        shapes: dict[str, tuple[int, ...]] = {f"{INPUT}.weight": (n_items, encoder[0]), f"{INPUT}.bias": (encoder[0],)}
        linear = [*zip(self.encoder_layers, pairwise(encoder), strict=True)]
        linear += zip([*self.decoder_layers, OUTPUT], pairwise(decoder), strict=True)
        for name, (size_in, size_out) in linear:
            shapes.update({f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)})
        for name, size in zip(self.encoder_norms, self.hidden, strict=False):
            shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})
        return shapes

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], variational: bool) -> Self:
        """The only architecture that may have these weights, as far as names and biases show; see `check_state`."""

        def size_of(layer: str) -> int:
            """Size of a layer's output."""
            bias = state.get(f"{layer}.bias")
            return 1 if bias is None or bias.ndim == 0 else len(bias)

        def count(layers: str) -> int:
            numbers = range(MOST_LAYERS)
            return next((number for number in numbers if f"{layers}.{number}.bias" not in state), MOST_LAYERS)

        width, depth = size_of(INPUT), count(_DENSE_NORMS)
        if depth:
            encoder, hidden, code = "dense", (width,) * depth, size_of(_DENSE_CODE)
        else:
            sizes = [width, *(size_of(f"{_PLAIN}.{number}") for number in range(count(_PLAIN)))]
            encoder, hidden, code = "plain", tuple(sizes[:-1]), sizes[-1]
        return cls(encoder, hidden, code // 2 if variational else code, variational)


def check_state(state: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights that are not float32 arrays of exactly these names and shapes.

    Raises
    ------
    ArtifactError
        The message names the first one that is missing, left over, or different.
    """
    for name in sorted(expected.keys() | state.keys()):
        array, shape = state.get(name), expected.get(name)
        if array is None or array.dtype != np.float32 or array.shape != shape:
            given = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise ArtifactError(f"{name} is {given}; expected {'none' if shape is None else f'float32 {shape}'}")


def encode_plain(h: Array, layers: Sequence[Layer], tanh: Callable[[Array], Array]) -> Array:
    """Output of Mult-VAE's encoder, from that of its input layer: tanh before each layer, none after the last."""
    for layer in layers:
        h = layer(tanh(h))
    return h


def encode_dense(h: Array, layers: Sequence[Layer], norms: Sequence[Layer], swish: Callable[[Array], Array]) -> Array:
    """Output of RecVAE's encoder (Shenbin et al. 2020, figure 2), from that of its input layer.

    To the output of each hidden layer the sum of all before it is added; then come swish and layer normalisation. The
    last layer gives the code.
    """
    *hidden, code = layers
    h = norms[0](swish(h))
    total: Any = h
    for layer, norm in zip(hidden, norms[1:], strict=True):
        h = norm(swish(layer(h) + total))
        total = total + h
    encoded: Array = code(h)
    return encoded


def decode(z: Array, layers: Sequence[Layer], tanh: Callable[[Array], Array]) -> Array:
    """Input of the output layer, from z: tanh after each hidden layer."""
    for layer in layers:
        z = tanh(layer(z))
    return z
