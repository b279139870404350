"""Top-N recommendations with variational autoencoders for collaborative filtering."""

from typing import TYPE_CHECKING

from recvae.lazy import lazy_names
from recvae.machine.cores import adapt_threads

if TYPE_CHECKING:
    from recvae.data.interactions import Interactions
    from recvae.data.splitting import Holdout, Split, cold_items, given, leave_last_out, strong_generalization, temporal
    from recvae.datasets import load as load_dataset
    from recvae.errors import RecvaeError
    from recvae.evaluation.compare import compare
    from recvae.evaluation.evaluate import evaluate
    from recvae.fitting.fit import fit
    from recvae.fitting.fitted_model import FittedModel
    from recvae.inference.batch_recommender import BatchRecommender
    from recvae.models.als import ALS
    from recvae.models.autoencoders.multdae import MultDAE
    from recvae.models.autoencoders.multvae import MultVAE
    from recvae.models.autoencoders.recvae import RecVAE
    from recvae.models.base import Recommender
    from recvae.models.factorization import BPR, LMF
    from recvae.models.item_knn import BM25KNN, TFIDFKNN, CosineKNN
    from recvae.models.linear.ease import EASE
    from recvae.models.linear.graph_filter import GraphFilter
    from recvae.models.popularity import Popularity
    from recvae.models.registry import Artifact, create, load, save
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
    "FittedModel",
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
    "cold_items",
    "compare",
    "create",
    "evaluate",
    "fit",
    "given",
    "leave_last_out",
    "load",
    "load_dataset",
    "save",
    "strong_generalization",
    "temporal",
    "tune",
]

_HOMES: dict[str, str | tuple[str, str]] = {
    "ALS": "recvae.models.als",
    "BM25KNN": "recvae.models.item_knn",
    "BPR": "recvae.models.factorization",
    "EASE": "recvae.models.linear.ease",
    "LMF": "recvae.models.factorization",
    "TFIDFKNN": "recvae.models.item_knn",
    "Artifact": "recvae.models.registry",
    "BatchRecommender": "recvae.inference.batch_recommender",
    "Blend": "recvae.models.blending.blend",
    "CosineKNN": "recvae.models.item_knn",
    "FittedModel": "recvae.fitting.fitted_model",
    "GraphFilter": "recvae.models.linear.graph_filter",
    "Holdout": "recvae.data.splitting",
    "Interactions": "recvae.data.interactions",
    "MultDAE": "recvae.models.autoencoders.multdae",
    "MultVAE": "recvae.models.autoencoders.multvae",
    "Popularity": "recvae.models.popularity",
    "RecVAE": "recvae.models.autoencoders.recvae",
    "Recommender": "recvae.models.base",
    "RecvaeError": "recvae.errors",
    "Split": "recvae.data.splitting",
    "cold_items": "recvae.data.splitting",
    "compare": "recvae.evaluation.compare",
    "create": "recvae.models.registry",
    "evaluate": "recvae.evaluation.evaluate",
    "fit": "recvae.fitting.fit",
    "given": "recvae.data.splitting",
    "leave_last_out": "recvae.data.splitting",
    "load": "recvae.models.registry",
    "load_dataset": ("recvae.datasets", "load"),
    "save": "recvae.models.registry",
    "strong_generalization": "recvae.data.splitting",
    "temporal": "recvae.data.splitting",
    "tune": "recvae.tuning",
}


adapt_threads()  # before a numerical library is loaded, which reads the environment only then
__getattr__ = lazy_names(__name__, _HOMES)
