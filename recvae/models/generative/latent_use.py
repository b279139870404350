"""`LatentUse`: which dimensions of z a trained model uses, and whether its KL weight is of the right size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ACTIVE_VARIANCE = 0.01
"""Variance of posterior means over users above which a dimension is active; Burda et al. (2016)."""
COLLAPSED_SHARE = 0.1
"""Share of active dimensions below which z has collapsed."""
IDLE_SHARE = 1e-3
"""Share of the loss below which the weighted KL does nothing."""


@dataclass(frozen=True, eq=False)
class LatentUse:
    """Use of the latent dimensions, measured on training users at the end of a fit.

    Attributes
    ----------
    kl : (latent,) float64
        KL of each dimension's posterior to N(0, 1), the mean over users, in nats.
    variance : (latent,) float64
        Variance of each dimension's posterior means over users.
    """

    kl: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]

    @classmethod
    def measure(cls, mu: npt.NDArray[np.float64], logvar: npt.NDArray[np.float64]) -> "LatentUse":
        """Measure posteriors, (n_users, latent) each."""
        kl = 0.5 * (np.exp(logvar) + mu**2 - 1 - logvar)
        return cls(kl.mean(axis=0), mu.var(axis=0))

    @property
    def active_units(self) -> int:
        """Number of dimensions whose posterior means differ between users."""
        return int((self.variance > ACTIVE_VARIANCE).sum())

    def warnings(self, epoch: Mapping[str, float]) -> Iterator[str]:
        """Lines about a KL weight that is too large or does nothing, by the terms of an epoch's loss."""
        latent = len(self.kl)
        weighted = epoch.get("beta", 0.0) * epoch.get("kl", 0.0)
        if self.active_units < COLLAPSED_SHARE * latent:
            yield (
                f"only {self.active_units} of {latent} latent dimensions differ between users: the KL weight is so "
                "large that z says little about a user; a smaller gamma or anneal_cap, or a smaller latent, helps"
            )
        elif weighted < IDLE_SHARE * epoch.get("nll", 0.0):
            yield (
                f"the weighted KL is {weighted:.2g}, against a reconstruction loss of {epoch['nll']:.4g}: the KL "
                "weight does nothing, and the model is a denoising autoencoder; MultDAE is the same without noise"
            )

    def as_dict(self, epoch: Mapping[str, float]) -> dict[str, Any]:
        """Convert to the entry in results.json: KL from the largest dimension down, active units, and `warnings`."""
        kl = [float(f"{value:.4g}") for value in np.sort(self.kl)[::-1]]
        return {"kl": kl, "active_units": self.active_units, "warnings": list(self.warnings(epoch))}
