"""Models behind one contract, `recvae.models.base.Recommender`."""

import inspect
from typing import Any

from recvae.errors import ParameterError
from recvae.models.base import Recommender
from recvae.models.blend import Blend
from recvae.models.ease import EASE
from recvae.models.graph_filter import GraphFilter
from recvae.models.implicit import ALS, BPR, LMF
from recvae.models.implicit_knn import BM25KNN, TFIDFKNN, CosineKNN
from recvae.models.multvae import MultDAE, MultVAE
from recvae.models.popularity import Popularity
from recvae.models.recvae import RecVAE

MODELS: dict[str, type[Recommender]] = {
    "popularity": Popularity,
    "als": ALS,
    "bpr": BPR,
    "lmf": LMF,
    "cosine": CosineKNN,
    "tfidf": TFIDFKNN,
    "bm25": BM25KNN,
    "ease": EASE,
    "graph": GraphFilter,
    "multvae": MultVAE,
    "multdae": MultDAE,
    "recvae": RecVAE,
    "blend": Blend,
}
"""Every model by the name that the command line knows it by."""

BLENDED = ("ease", "graph", "als", "multvae")
"""What a blend is made of unless told otherwise."""


def create(name: str, preset: str | None = None, **params: Any) -> Recommender:
    """A model by name, with hyperparameters from a preset and then from `params`.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    preset : str, optional
        A key of the class's `PRESETS`: "paper" for a publication's settings, "recommended" for what wins on
        validation, MultVAE's "fast" for nearly that in a fraction of the time. None is "recommended" where there is
        one.
    **params
        Hyperparameters; a blend's `models` may be names.

    Raises
    ------
    ParameterError
        For an unknown model, preset, hyperparameter or value.
    """
    if name not in MODELS:
        raise ParameterError(f"model is {name!r}; expected one of {', '.join(MODELS)}")
    model = MODELS[name]
    if preset is not None and preset not in model.PRESETS:
        raise ParameterError(f"preset is {preset!r}; {name} has {', '.join(model.PRESETS) or 'none'}")
    known = list(inspect.signature(model).parameters)
    for parameter in params:
        if parameter not in known:
            raise ParameterError(f"{name} has no hyperparameter {parameter!r}; it has {', '.join(known) or 'none'}")
    if model is Blend:
        params["models"] = [
            part if isinstance(part, Recommender) else create(part) for part in parts_of(params.get("models"))
        ]
    return model(**{**model.PRESETS.get(preset or "recommended", {}), **params})


def parts_of(models: Any) -> list[Any]:
    """What a blend is made of: those given, as a list or as names separated by commas, or the usual ones."""
    if isinstance(models, str):
        return models.split(",")
    return list(BLENDED if models is None else models)


def seed_of(name: str, seed: int) -> dict[str, int]:
    """The seed as a hyperparameter, for models that have one."""
    return {"seed": seed} if name in MODELS and "seed" in inspect.signature(MODELS[name]).parameters else {}
