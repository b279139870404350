"""Top-N recommendations with variational autoencoders for collaborative filtering."""

from recvae.artifact import Artifact, load, save
from recvae.comparison import compare
from recvae.datasets import load as load_dataset
from recvae.errors import RecvaeError
from recvae.evaluation import evaluate
from recvae.interactions import Interactions
from recvae.models import create
from recvae.models.base import Recommender
from recvae.models.blend import Blend
from recvae.models.ease import EASE
from recvae.models.graph_filter import GraphFilter
from recvae.models.implicit import ALS, BPR, LMF
from recvae.models.implicit_knn import BM25KNN, TFIDFKNN, CosineKNN
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.popularity import Popularity
from recvae.models.recvae import RecVAE
from recvae.splits import Holdout, Split, given, leave_last_out, strong_generalization, temporal
from recvae.tuning import tune

__version__ = "0.1.0"

__all__ = [
    "ALS",
    "BM25KNN",
    "BPR",
    "EASE",
    "LMF",
    "TFIDFKNN",
    "Artifact",
    "Blend",
    "CosineKNN",
    "GraphFilter",
    "Holdout",
    "Interactions",
    "MultDAE",
    "MultVAE",
    "Popularity",
    "RecVAE",
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
    "tune",
]
