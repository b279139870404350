"""Top-N recommendations with variational autoencoders for collaborative filtering."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.artifact import Artifact, load, save
    from recvae.batch_recommender import BatchRecommender
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
    "BatchRecommender",
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

_HOMES = {
    "ALS": "recvae.models.implicit",
    "BM25KNN": "recvae.models.implicit_knn",
    "BPR": "recvae.models.implicit",
    "EASE": "recvae.models.ease",
    "LMF": "recvae.models.implicit",
    "TFIDFKNN": "recvae.models.implicit_knn",
    "Artifact": "recvae.artifact",
    "BatchRecommender": "recvae.batch_recommender",
    "Blend": "recvae.models.blend",
    "CosineKNN": "recvae.models.implicit_knn",
    "GraphFilter": "recvae.models.graph_filter",
    "Holdout": "recvae.splits",
    "Interactions": "recvae.interactions",
    "MultDAE": "recvae.models.multvae",
    "MultVAE": "recvae.models.multvae",
    "Popularity": "recvae.models.popularity",
    "RecVAE": "recvae.models.recvae",
    "Recommender": "recvae.models.base",
    "RecvaeError": "recvae.errors",
    "Split": "recvae.splits",
    "compare": "recvae.comparison",
    "create": "recvae.models",
    "evaluate": "recvae.evaluation",
    "given": "recvae.splits",
    "leave_last_out": "recvae.splits",
    "load": "recvae.artifact",
    "save": "recvae.artifact",
    "strong_generalization": "recvae.splits",
    "temporal": "recvae.splits",
    "tune": "recvae.tuning",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line need not wait for torch."""
    if name == "load_dataset":
        return import_module("recvae.datasets").load
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'recvae' has no attribute {name!r}")
