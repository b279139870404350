"""`recommend`: the best items for one history or one known user, from the path of an artifact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recvae.errors import ParameterError
from recvae.inference.ids import Id
from recvae.inference.ranker import Query, Ranker
from recvae.inference.rules.selection import parse_rules
from recvae.models import registry


@dataclass(frozen=True)
class Recommendation:
    """A recommended list.

    Attributes
    ----------
    items : list of `{"id", "title", "score"}`
        Best first.
    unknown : list of ids
        Ids of the history, of `exclude` and of `only` that the model does not know.
    """

    items: list[dict[str, Any]]
    unknown: list[Id]


def recommend(
    model_path: Path,
    *,
    history: Sequence[str] | None = None,
    user: str | None = None,
    n: int = 10,
    exclude: Sequence[str] = (),
    only: Sequence[str] | None = None,
    new_items: Path | None = None,
    **rules: Any,
) -> Recommendation:
    """Recommend the n best items for a history of item ids, or for a user whose history the artifact holds.

    Parameters
    ----------
    exclude, only : item ids, optional
        Items to leave out, and the only items to list.
    new_items : path, optional
        Items that the model does not know, to be listed too; see `add_new_items`.
    **rules
        `filter`, `boost`, `cap` and `diversity`; see `recvae.inference.rules.selection.parse_rules`.

    Raises
    ------
    ParameterError
        If n does not fit the catalogue, no item of the history is known, the user is not, a rule does not fit the
        items, or no new item can be recommended.
    UnsupportedError
        If the model ranks only for users it was trained on and a history is given.
    """
    ranker = Ranker(registry.load(model_path, frozen=True))
    if new_items is not None:
        from recvae.inference.new_items.reading import add_new_items  # it needs pandas, which takes a while

        ranker = add_new_items(ranker, new_items)
    n_items = len(ranker.metadata)  # the new ones too
    if not 1 <= n <= n_items:
        raise ParameterError(f"n is {n}; expected 1 to {n_items:,}, the items of the catalogue")
    query, unknown = _query_history(ranker, history or []) if user is None else _query_user(ranker, user, model_path)
    left_out, unknown_left_out = ranker.find_listed(exclude)
    left_out += ranker.find_listed(unknown)[0]
    candidates, unknown_candidates = (None, []) if only is None else ranker.find_listed(only)
    parsed = parse_rules(ranker.metadata, **rules)
    (ranked,) = ranker.rank([replace(query, n=n, exclude=left_out, only=candidates, rules=parsed)])
    return Recommendation(ranker.describe(ranked), [*unknown, *unknown_left_out, *unknown_candidates])


def _query_history(ranker: Ranker, history: Sequence[str]) -> tuple[Query, list[Id]]:
    known, unknown = ranker.items.find(history)
    if not known:
        examples = ", ".join(map(str, ranker.items.ids[:3]))
        raise ParameterError(f"history is {', '.join(history) or 'empty'}; none is known: ids look like {examples}")
    return Query(known), unknown


def _query_user(ranker: Ranker, user: str, model_path: Path) -> tuple[Query, list[Id]]:
    if ranker.users is None:
        raise ParameterError(f"user is {user}, but {model_path} was saved without users; give a history instead")
    found = ranker.find_user(user)
    if found is None:
        examples = ", ".join(map(str, ranker.users.array[:3].to_pylist()))
        raise ParameterError(f"user is {user}, which {model_path} does not know; ids look like {examples}")
    row, history = found
    return Query(history, user=row, weights=ranker.find_weights(row)), []
