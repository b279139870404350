"""Data sets by name: found or fetched, checked, parsed, with the protocol's defaults."""

from recvae.datasets.loading import Dataset, load
from recvae.datasets.recipes import NAMES, Recipe

__all__ = ["NAMES", "Dataset", "Recipe", "load"]
