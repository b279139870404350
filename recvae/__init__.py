"""Top-N recommendations with variational autoencoders for collaborative filtering."""

from recvae.artifact import Artifact, load, save
from recvae.comparison import compare
from recvae.datasets import load as load_dataset
from recvae.errors import RecvaeError
from recvae.evaluation import evaluate
from recvae.interactions import Interactions
from recvae.models import create
from recvae.models.base import Recommender
from recvae.models.implicit import ALS, BPR, LMF
from recvae.models.implicit_knn import BM25KNN, TFIDFKNN, CosineKNN
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.popularity import Popularity
from recvae.splits import Holdout, Split, given, leave_last_out, strong_generalization, temporal

__version__ = "0.1.0"

__all__ = [
    "ALS",
    "BM25KNN",
    "BPR",
    "LMF",
    "TFIDFKNN",
    "Artifact",
    "CosineKNN",
    "Holdout",
    "Interactions",
    "MultDAE",
    "MultVAE",
    "Popularity",
    "Recommender",
    "RecvaeError",
    "Split",
    "compare",
    "create",
    "evaluate",
    "given",
    "leave_last_out",
    "load",
    "load_dataset",
    "save",
    "strong_generalization",
    "temporal",
]
