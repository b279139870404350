"""Top-N recommendations with variational autoencoders for collaborative filtering."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.data.interactions import Interactions
    from recvae.data.splitting import Holdout, Split, given, leave_last_out, strong_generalization, temporal
    from recvae.datasets import load as load_dataset
    from recvae.errors import RecvaeError
    from recvae.evaluation.compare import compare
    from recvae.evaluation.evaluate import evaluate
    from recvae.inference.batch_recommender import BatchRecommender
    from recvae.models.autoencoders.multvae import MultDAE, MultVAE
    from recvae.models.autoencoders.recvae import RecVAE
    from recvae.models.base import Recommender
    from recvae.models.blend import Blend
    from recvae.models.ease import EASE
    from recvae.models.factorization import ALS, BPR, LMF
    from recvae.models.graph_filter import GraphFilter
    from recvae.models.item_knn import BM25KNN, TFIDFKNN, CosineKNN
    from recvae.models.popularity import Popularity
    from recvae.models.registry import create
    from recvae.storage.artifact import Artifact, load, save
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
    "ALS": "recvae.models.factorization",
    "BM25KNN": "recvae.models.item_knn",
    "BPR": "recvae.models.factorization",
    "EASE": "recvae.models.ease",
    "LMF": "recvae.models.factorization",
    "TFIDFKNN": "recvae.models.item_knn",
    "Artifact": "recvae.storage.artifact",
    "BatchRecommender": "recvae.inference.batch_recommender",
    "Blend": "recvae.models.blend",
    "CosineKNN": "recvae.models.item_knn",
    "GraphFilter": "recvae.models.graph_filter",
    "Holdout": "recvae.data.splitting",
    "Interactions": "recvae.data.interactions",
    "MultDAE": "recvae.models.autoencoders.multvae",
    "MultVAE": "recvae.models.autoencoders.multvae",
    "Popularity": "recvae.models.popularity",
    "RecVAE": "recvae.models.autoencoders.recvae",
    "Recommender": "recvae.models.base",
    "RecvaeError": "recvae.errors",
    "Split": "recvae.data.splitting",
    "compare": "recvae.evaluation.compare",
    "create": "recvae.models.registry",
    "evaluate": "recvae.evaluation.evaluate",
    "given": "recvae.data.splitting",
    "leave_last_out": "recvae.data.splitting",
    "load": "recvae.storage.artifact",
    "save": "recvae.storage.artifact",
    "strong_generalization": "recvae.data.splitting",
    "temporal": "recvae.data.splitting",
    "tune": "recvae.tuning",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line need not wait for torch."""
    if name == "load_dataset":
        return import_module("recvae.datasets").load
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'recvae' has no attribute {name!r}")
