"""`Query`: one list to make."""

from collections.abc import Sequence
from dataclasses import dataclass

from recvae.inference.rules.selection import Rules


@dataclass(frozen=True)
class Query:
    """One list to make.

    Attributes
    ----------
    history : item indices
        Without repetition; an empty history gives the popular items.
    n : int
        Length of the list; it is shorter where fewer items remain.
    exclude : item indices
        Items that are left out, besides those of the history.
    only : item indices, optional
        The candidates; every item when None.
    user : int, optional
        Row among the artifact's users, for models that rank only for users they were trained on.
    rules : Rules, optional
        Filters, boosts, caps and diversity by the items' metadata.
    weights : sequence of float, optional
        Weight of each item of the history, above 0; 1 each when None.
    """

    history: Sequence[int]
    n: int = 10
    exclude: Sequence[int] = ()
    only: Sequence[int] | None = None
    user: int | None = None
    rules: Rules | None = None
    weights: Sequence[float] | None = None
