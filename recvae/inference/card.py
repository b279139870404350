"""`describe_artifact`: the card of a model, with what it was made of, its figures, and its limits."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from recvae.inference.rules.metadata import Metadata
from recvae.models.registry import Artifact


def describe_artifact(loaded: Artifact) -> dict[str, Any]:
    """Describe a loaded artifact.

    Returns
    -------
    dict
        `model`, `trained_at`, `fit_seconds`, `settings` as used, `data`, `figures` on validation and test users,
        `catalogue` and `users`, `versions` of packages, and `limits`, a list of sentences. All of it can be written as
        JSON.
    """
    manifest, items = loaded.manifest, loaded.item_table
    titles = items["title"].length() - items["title"].null_count if "title" in items.column_names else 0
    return {
        "model": manifest["class"],
        "trained_at": manifest.get("trained_at"),
        "fit_seconds": manifest.get("fit_seconds"),
        "settings": manifest.get("fitted_with") or manifest["hyperparameters"],
        "data": manifest["data"],
        "figures": manifest["metrics"],
        "catalogue": {"items": len(items), "titles": titles, "columns": Metadata(items).kinds()},
        "users": 0 if loaded.user_table is None else len(loaded.user_table),
        "versions": manifest.get("versions", {}),
        "limits": list(_list_limits(loaded)),
    }


def format_card(card: Mapping[str, Any]) -> Iterator[str]:
    """Write a card as lines for people."""
    from recvae.evaluation.tables import join_settings  # with rich, which a service does without

    seconds = f", fitted in {card['fit_seconds']:.1f} s" if card["fit_seconds"] is not None else ""
    yield f"{card['model']}, trained {card['trained_at'] or 'at an unknown time'}{seconds}"
    yield f"settings: {join_settings(card['settings'], _shorten) or 'none'}"
    yield f"data: {join_settings(card['data'], _shorten) or 'unknown'}"
    for side, figures in card["figures"].items():
        yield f"{side}: {_join_figures(figures)}"
    catalogue = card["catalogue"]
    columns = ", ".join(f"{name} ({kind})" for name, kind in catalogue["columns"].items())
    yield f"items: {catalogue['items']:,}, {catalogue['titles']:,} with a title; columns: {columns}"
    yield f"users: {card['users']:,} with a history"
    yield f"made with: {', '.join(f'{name} {version}' for name, version in card['versions'].items()) or 'unknown'}"
    for limit in card["limits"]:
        yield f"limit: {limit}"


def _list_limits(loaded: Artifact) -> Iterator[str]:
    model, manifest = loaded.model, loaded.manifest
    if not model.folds_in:
        yield "ranks only for users it was trained on; new users get the popular items"
    if loaded.user_table is None:
        yield "was saved without users, so it ranks by histories, not by user ids"
    if unseen := int((np.asarray(model.item_counts_) == 0).sum()):
        yield f"{unseen:,} items had no interaction in training, so nothing is known of them"
    if manifest["data"].get("fitted_on") == "all":
        yield "was fitted on test users too; its figures are of the model before that, with the same settings"
    if not manifest["metrics"]:
        yield "has no figures: nothing was measured when it was saved"
    elif "test" not in manifest["metrics"]:
        yield "has figures of validation users only, on whom choices were made; `recvae evaluate` measures others"
    if "weights" in (manifest["data"].get("filters") or {}):
        yield "was trained on weights; its figures are binary: an item was found or not"


def _join_figures(figures: Any) -> str:
    if not isinstance(figures, Mapping):
        return _shorten(figures)
    return "  ".join(f"{name} {_format_figure(figure)}" for name, figure in figures.items())


def _format_figure(figure: Any) -> str:
    """Write a mean with its standard error, if it has one: figures of the whole catalogue, such as coverage, do not."""
    if not isinstance(figure, Mapping) or not isinstance(figure.get("mean"), int | float):
        return _shorten(figure)
    error = figure.get("stderr", 0.0)
    return f"{figure['mean']:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _shorten(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
