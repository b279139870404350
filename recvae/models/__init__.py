"""Models behind one contract, `recvae.models.base.Recommender`."""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

from recvae.errors import ParameterError
from recvae.models.base import Recommender


class _Models(Mapping[str, type[Recommender]]):
    """Imports a model's class when it is first asked for, since most need torch and some `implicit`."""

    _homes: ClassVar = {
        "popularity": ("popularity", "Popularity"),
        "als": ("implicit", "ALS"),
        "bpr": ("implicit", "BPR"),
        "lmf": ("implicit", "LMF"),
        "cosine": ("implicit_knn", "CosineKNN"),
        "tfidf": ("implicit_knn", "TFIDFKNN"),
        "bm25": ("implicit_knn", "BM25KNN"),
        "ease": ("ease", "EASE"),
        "graph": ("graph_filter", "GraphFilter"),
        "multvae": ("multvae", "MultVAE"),
        "multdae": ("multvae", "MultDAE"),
        "recvae": ("recvae", "RecVAE"),
        "blend": ("blend", "Blend"),
    }

    def __getitem__(self, name: str) -> type[Recommender]:
        module, class_name = self._homes[name]
        model: type[Recommender] = getattr(import_module(f"recvae.models.{module}"), class_name)
        return model

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    @property
    def classes(self) -> list[str]:
        """Names of all models' classes, sorted."""
        return sorted(class_name for _, class_name in self._homes.values())

    def of_class(self, class_name: str) -> type[Recommender] | None:
        """The model whose class has this name."""
        return next((self[name] for name, (_, known) in self._homes.items() if known == class_name), None)


MODELS = _Models()
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
    if name == "blend":
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
