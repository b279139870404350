"""Models behind one contract, `recvae.models.base.Recommender`."""

from recvae.models.base import Recommender
from recvae.models.implicit import ALS, BM25KNN, BPR, LMF, TFIDFKNN, CosineKNN
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.popularity import Popularity

MODELS: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "als": ALS,
    "bpr": BPR,
    "lmf": LMF,
    "cosine": CosineKNN,
    "tfidf": TFIDFKNN,
    "bm25": BM25KNN,
    "multvae": MultVAE,
    "multdae": MultDAE,
}
"""Every model by the name that the command line knows it by."""
