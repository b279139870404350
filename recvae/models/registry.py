"""Every model by name: the table of their classes, `create`, `save` and `load`.

A new model is one file and one line of `CLASSES`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.errors import ArtifactError, ParameterError
from recvae.models.autoencoders.architecture import VARIATIONAL
from recvae.models.autoencoders.frozen import FrozenAutoencoder
from recvae.models.base import Recommender
from recvae.storage.files import check_path
from recvae.storage.manifest import versions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from recvae.storage.artifact import StoredModel

CLASSES = {
    "popularity": ("recvae.models.popularity", "Popularity"),
    "als": ("recvae.models.als", "ALS"),
    "bpr": ("recvae.models.factorization", "BPR"),
    "lmf": ("recvae.models.factorization", "LMF"),
    "cosine": ("recvae.models.item_knn", "CosineKNN"),
    "tfidf": ("recvae.models.item_knn", "TFIDFKNN"),
    "bm25": ("recvae.models.item_knn", "BM25KNN"),
    "ease": ("recvae.models.linear.ease", "EASE"),
    "graph": ("recvae.models.linear.graph_filter", "GraphFilter"),
    "multvae": ("recvae.models.autoencoders.multvae", "MultVAE"),
    "multdae": ("recvae.models.autoencoders.multdae", "MultDAE"),
    "recvae": ("recvae.models.autoencoders.recvae", "RecVAE"),
    "blend": ("recvae.models.blending.blend", "Blend"),
}
"""Module and class of each model, by the name that the command line knows it by."""


class ModelRegistry(Mapping[str, type[Recommender]]):
    """The classes by name, each imported when it is first asked for: most need torch, and some `implicit`."""

    def __getitem__(self, name: str) -> type[Recommender]:
        module, class_name = CLASSES[name]
        model: type[Recommender] = getattr(import_module(module), class_name)
        return model

    def __contains__(self, name: object) -> bool:
        return name in CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(CLASSES)

    def __len__(self) -> int:
        return len(CLASSES)

    def find_class(self, class_name: str) -> type[Recommender] | None:
        """The model whose class has this name, if there is one."""
        return next((self[name] for name, (_, known) in CLASSES.items() if known == class_name), None)

    def create(
        self,
        name: str,
        preset: str | None = None,
        params: Mapping[str, Any] | None = None,
        beside: Mapping[str, Recommender] | None = None,
    ) -> Recommender:
        """Create an unfitted model; see `recvae.create`.

        Parameters
        ----------
        beside : mapping of name to Recommender, optional
            Models of the same comparison: a model that consists of others, such as a blend, takes them from here, so
            that each is fitted once.
        """
        params = params or {}
        if name not in self:
            raise ParameterError(f"model is {name!r}; expected one of {', '.join(self)}")
        model = self[name]
        if preset is not None and preset not in model.PRESETS:
            raise ParameterError(f"preset is {preset!r}; {name} has {', '.join(model.PRESETS) or 'none'}")
        known = model.parameter_names()
        for parameter in params:
            if parameter not in known:
                raise ParameterError(f"{name} has no hyperparameter {parameter!r}; it has {', '.join(known) or 'none'}")
        return model.build({**model.PRESETS.get(preset or "recommended", {}), **params}, beside or {})

    def save(self, model: Recommender, path: str | Path, **content: Any) -> None:
        """Write an artifact; see `recvae.models.registry.save`."""
        save(model, path, **content)

    def load(self, path: str | Path) -> Recommender:
        """Read the model of an artifact; see `recvae.models.registry.load`."""
        return load(path).model


MODELS = ModelRegistry()
"""Every model by the name that the command line knows it by."""

# The base class cannot import the registry, which imports the models: that would be a circle. It is given the registry
# here instead, whenever anything of `recvae.models` is imported.
Recommender.registry = MODELS


@dataclass(frozen=True, eq=False)
class Artifact:
    """A loaded model with its items and users.

    Attributes
    ----------
    model : Recommender
    item_table : Arrow table
        `item_id`, and `title` and more where given, one row for each item index.
    user_table : Arrow table, optional
        `user_id` and `history`, a list of item indices.
    manifest : dict
    """

    model: Recommender
    item_table: "pa.Table"
    user_table: "pa.Table | None"
    manifest: Mapping[str, Any]

    @cached_property
    def items(self) -> "pd.DataFrame":
        """`item_table` as a DataFrame."""
        frame: pd.DataFrame = self.item_table.to_pandas()
        return frame

    @cached_property
    def users(self) -> "pd.DataFrame | None":
        """`user_table` as a DataFrame, where there is one."""
        return None if self.user_table is None else self.user_table.to_pandas()


def create(name: str, preset: str | None = None, **params: Any) -> Recommender:
    """Create an unfitted model by name, with hyperparameters from a preset and then from `params`.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    preset : str, optional
        A key of the class's `PRESETS`: "paper" for a publication's settings, "recommended" for what wins on
        validation, MultVAE's "fast" for nearly that in a fraction of the time. None is "recommended" where there is
        one.
    **params
        Hyperparameters.

    Raises
    ------
    ParameterError
        For an unknown model, preset, hyperparameter or value.
    """
    return MODELS.create(name, preset, params)


def seed_params(name: str, seed: int) -> dict[str, int]:
    """The seed as a hyperparameter, for models that have one."""
    return {"seed": seed} if name in MODELS and "seed" in MODELS[name].parameter_names() else {}


def save(
    model: Recommender,
    path: str | Path,
    *,
    items: "pd.DataFrame | Iterable[Any] | None" = None,
    users: "pd.DataFrame | None" = None,
    data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact directory; an earlier artifact at `path` is replaced in one step.

    Everything is checked before anything is written.

    Parameters
    ----------
    items : DataFrame or ids, optional
        One row or id for each item index, a DataFrame with a column `item_id`; indices serve as ids when None.
    users : DataFrame, optional
        `user_id` and `history` (lists of item indices), for look-ups by user id. With a model that keeps vectors of
        users, one row for each row of the training matrix, in its order; where it folds users in, others may follow.
    data : mapping, optional
        What the model was trained on: the prepared data's manifest entries.
    metrics : mapping, optional
        Figures to carry along.

    Raises
    ------
    ParameterError
        If `items` or `users` does not fit the model, `data` or `metrics` is not JSON, or the model's class is not in
        the registry, so that the artifact could not be loaded again.
    ArtifactError
        If `path` holds something else or cannot be written.
    """
    # Arrow, which these import, takes a tenth of a second and 40 MB that training alone does not need.
    from recvae.storage.artifact import StoredModel, write_artifact
    from recvae.storage.tables import make_item_table, make_user_table

    n_items, state = model.n_items_, model._state()
    name = type(model).__name__
    if MODELS.find_class(name) is not type(model):
        raise ParameterError(f"{name} is not in recvae.models.registry, so its artifact could not be loaded again")
    manifest = {
        **model.describe(),
        "fitted_with": model.fitted_params(),
        "versions": versions(),
        "trained_on": model.trained_on_,
        "fit_seconds": model.fit_seconds_,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": _make_plain("data", data),
        "metrics": _make_plain("metrics", metrics),
    }
    tables = make_item_table(items, n_items), make_user_table(users, n_items)
    stored = StoredModel(manifest, state, model.item_counts_, *tables)
    if fault := _find_user_fault(model, stored):
        raise ParameterError(f"users {fault}")
    write_artifact(check_path(path), stored)


def _make_plain(name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values as they are read again from JSON; NumPy's numbers are numbers."""

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        text = json.dumps(dict(values or {}), default=convert, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"{name} cannot be stored: {error}; expected texts, numbers, lists and mappings") from None
    plain: dict[str, Any] = json.loads(text)
    return plain


def load(path: str | Path, *, frozen: bool = False) -> Artifact:
    """Read and verify an artifact directory.

    Parameters
    ----------
    frozen : bool
        Only for ranking, as fast and in as little memory as may be: autoencoders are `FrozenAutoencoder`, without
        torch, and weights are mapped into memory instead of read, so that processes that load the same artifact
        share them. They stay what they were when another artifact takes its place, but the file must not be
        overwritten.

    Raises
    ------
    ArtifactError
        If a file is missing, truncated or altered, the version or class is unknown, or the manifest does not
        agree with what the files hold.
    """
    from recvae.storage.artifact import read_artifact  # Arrow again

    directory = check_path(path)
    stored = read_artifact(directory, mapped=frozen)
    try:
        model = _build_model(stored.manifest, frozen)
        _restore(model, stored)
    except ArtifactError as error:
        raise ArtifactError(f"{directory}{error}") from None
    return Artifact(model, stored.items, stored.users, stored.manifest)


def _build_model(description: Mapping[str, Any], frozen: bool) -> Recommender:
    """Create the model that a manifest, or an entry of a list in it, describes by `class` and `hyperparameters`."""
    name, parameters = description.get("class"), description.get("hyperparameters")
    if not isinstance(parameters, dict):
        raise ArtifactError(f": the manifest's hyperparameters are {parameters!r}; expected names and values")
    if frozen and isinstance(name, str) and name in VARIATIONAL:
        return FrozenAutoencoder(name)
    model = MODELS.find_class(name) if isinstance(name, str) else None
    if model is None:
        known = ", ".join(sorted(known for _, known in CLASSES.values()))
        raise ArtifactError(f" holds a model of class {name!r}; known are {known}")
    try:
        return model(**{key: _build_value(value, frozen) for key, value in parameters.items()})
    except (TypeError, ParameterError) as error:
        raise ArtifactError(f": the manifest's hyperparameters do not fit {name}: {error}") from None


def _build_value(value: Any, frozen: bool) -> Any:
    """A plain hyperparameter as it is, or the models that a model consists of."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [_build_model(entry if isinstance(entry, dict) else {}, frozen) for entry in value]
    return value


def _restore(model: Recommender, stored: "StoredModel") -> None:
    model.item_counts_ = stored.item_counts
    model.trained_on_, model.fit_seconds_ = stored.manifest.get("trained_on"), stored.manifest.get("fit_seconds")
    try:
        model._restore(stored.arrays)
    except (ArtifactError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtifactError(f": the weights do not fit the manifest: {error}") from None
    # Of a model that folds users in, lists come from histories, whoever the users are.
    if not model.folds_in and (fault := _find_user_fault(model, stored)):
        raise ArtifactError(f": the table of users {fault}")


def _find_user_fault(model: Recommender, stored: "StoredModel") -> str | None:
    """Say how the users cannot be those of the model's vectors, which would be taken for theirs."""
    if stored.users is None:
        return None
    n_users, least = len(stored.users), "at least " if model.folds_in else ""
    for n_rows in stored.user_rows().values():
        if n_users < n_rows or (n_users > n_rows and not model.folds_in):
            return f"has {n_users:,} rows; expected {least}{n_rows:,}: the rows of the training matrix, in its order"
    return None
