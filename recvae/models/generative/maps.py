"""Maps of an autoencoder: items by its output layer, users by their codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recvae.evaluation.maps import choose_popular, place_points
from recvae.models.autoencoders.decoder import Decoder
from recvae.topn import top_n

MOST_USERS = 400
N_TITLES = 3
"""Items that a user is described by."""


def draw_maps(model: Decoder, user_items: sparse.csr_matrix, titles: Sequence[str]) -> Mapping[str, Any]:
    """Map the most popular items and some users, always the same.

    Parameters
    ----------
    model : Decoder
    user_items : csr_matrix, shape (n_users, n_items)
        Histories that the model was trained on.
    titles : sequence of str
        One for each item.

    Returns
    -------
    dict
        "item_map", by the rows of the output layer, and "user_map", by the posterior means of variational autoencoders,
        or else the output layer's input. Users have no titles but the popular items that the model expects of them most
        beyond their popularity; their histories do not show. A map of too few points is left out.
    """
    items = choose_popular(model.item_counts_)
    lengths = np.diff(user_items.indptr)
    users = np.flatnonzero(lengths)
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(0).choice(users, MOST_USERS, replace=False))
    if not len(items) or not len(users):
        return {}
    histories = user_items[users]
    lift = model.score(histories)[:, items] - np.log(model.item_counts_[items])
    names = np.asarray(titles, dtype=object)
    expected = ["; ".join(names[items[best]]) for best in top_n(lift, min(N_TITLES, len(items)))[0]]
    rows: npt.NDArray[Any] = getattr(model, "embed", model.queries)(histories)
    maps = {
        "item_map": place_points(model.output_layer()[0][items], model.item_counts_[items], names[items].tolist()),
        "user_map": place_points(rows, lengths[users], expected),
    }
    return {name: placed for name, placed in maps.items() if placed}
