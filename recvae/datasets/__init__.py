"""Data sets by name: found or downloaded, verified, parsed, with a default evaluation protocol."""

from recvae.datasets.loading import Dataset, load
from recvae.datasets.recipes import NAMES, Recipe

__all__ = ["NAMES", "Dataset", "Recipe", "load"]
