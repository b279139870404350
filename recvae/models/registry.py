"""Models behind one contract, `recvae.models.base.Recommender`."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import recvae as package  # whose name the submodule `recvae.models.autoencoders.recvae` takes here
from recvae.errors import ParameterError
from recvae.models.base import Recommender


class _Models(Mapping[str, type[Recommender]]):
    """Imports a model's class when it is first asked for, since most need torch and some `implicit`."""

    _classes: ClassVar = {
        "popularity": "Popularity",
        "als": "ALS",
        "bpr": "BPR",
        "lmf": "LMF",
        "cosine": "CosineKNN",
        "tfidf": "TFIDFKNN",
        "bm25": "BM25KNN",
        "ease": "EASE",
        "graph": "GraphFilter",
        "multvae": "MultVAE",
        "multdae": "MultDAE",
        "recvae": "RecVAE",
        "blend": "Blend",
    }

    def __getitem__(self, name: str) -> type[Recommender]:
        model: type[Recommender] = getattr(package, self._classes[name])
        return model

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    @property
    def classes(self) -> list[str]:
        """Names of all models' classes, sorted."""
        return sorted(self._classes.values())

    def of_class(self, class_name: str) -> type[Recommender] | None:
        """The model whose class has this name."""
        return next((self[name] for name, known in self._classes.items() if known == class_name), None)


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
