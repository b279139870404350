"""Self-check of a loaded model: the lists it makes are as they should be."""

import numpy as np

from recvae.errors import ArtifactError
from recvae.inference.ranker import Query, Ranker


def check_lists(ranker: Ranker) -> None:
    """Raise `ArtifactError` unless lists are finite for an empty history, a single interaction and a known user."""
    queries = [Query(())]
    if ranker.model.folds_in:
        popular = int(ranker.model.item_counts_.argmax())
        queries.append(Query((popular,)))
        if not np.isfinite(ranker.model.score(ranker.user_items([(popular,)]))).all():
            raise ArtifactError("the self-check failed: scores that are not finite")
    if ranker.users is not None and len(ranker.users):
        row, history = ranker.find_user(ranker.users.ids[0]) or (0, [])
        queries.append(Query(history, user=row))
    for query, ranked in zip(queries, ranker.rank(queries), strict=True):
        left = len(ranker.items) - len(query.history)
        if len(ranked) != min(query.n, left) or not np.isfinite([score for _, score in ranked]).all():
            raise ArtifactError(f"the self-check failed: {len(ranked)} items with finite scores; expected {query.n}")
