"""Types of arrays and matrices that the whole package uses."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
Scores: TypeAlias = "FloatArray | torch.Tensor"
"""(n_users, n_items) float32; a tensor stays on the device where the scores were made."""

UserItems = sparse.csr_matrix | sparse.csr_array
"""(n_users, n_items) interactions, binary or with non-negative weights."""
