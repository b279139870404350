"""Models behind one contract, `recvae.models.base.Recommender`."""

from recvae.models.base import Recommender
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.popularity import Popularity

MODELS: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "multvae": MultVAE,
    "multdae": MultDAE,
}
"""Every model by the name that the command line knows it by."""
