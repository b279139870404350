"""`add_new_items`: items that a model does not know, from a file."""

from pathlib import Path

import pyarrow as pa

from recvae.data.items import read_items
from recvae.errors import ParameterError
from recvae.inference.ids import IdIndex
from recvae.inference.ranker import Ranker


def add_new_items(ranker: Ranker, source: Path) -> Ranker:
    """Return a ranker that also lists the items of a file that its model does not know, by their metadata.

    Parameters
    ----------
    ranker : Ranker
    source : path
        See `recvae.data.items.read_items`; rows of known items are passed over.

    Raises
    ------
    DataError
        If the file cannot be read.
    ParameterError
        If no item of it can be recommended.
    """
    table = pa.Table.from_pandas(read_items(source), preserve_index=False)
    rows = table.to_pylist()
    given = {
        item: {name: value for name, value in row.items() if name != "item_id" and value not in (None, "")}
        for item, row in zip(IdIndex(table["item_id"]).ids, rows, strict=True)
        if ranker.items.get(item) is None
    }
    if not given:
        raise ParameterError(f"new_items is {source}, with {len(rows):,} items, all of which the model knows")
    extended = ranker.with_items(given)
    if extended.new is None:
        raise ParameterError(
            f"new_items is {source}, with {len(given):,} new items, none with an id and a value like those of the "
            f"model's; columns to share values of: {ranker.scorer.features.describe()}"
        )
    return extended
