"""Names of the columns in a user's own table."""

from dataclasses import dataclass

from recvae.errors import DataError

_MOVIELENS = ["userId", "movieId", "rating", "timestamp"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; `rating` and `timestamp` need not be there when they are None.

    Weights and kinds of events are read only where their columns are named. A column `rating` or `timestamp` that is
    named for something else, such as weights, is that alone.

    In a header of exactly `userId,movieId,rating,timestamp`, as MovieLens has it, the first two need not be named.
    """

    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = None
    timestamp: str | None = None
    weight: str | None = None
    event: str | None = None

    def map_names(self, names: list[str], where: str) -> dict[str, str]:
        """Map the table's own column names to `user_id`, `item_id`, `rating`, `timestamp`, `weight` and
        `event`.

        Parameters
        ----------
        names : list of str
            The table's columns.
        where : str
            The table's name in messages.

        Raises
        ------
        DataError
            If a column is missing, is there twice, or is named for two purposes.
        """
        user, item = self.user, self.item
        if names == _MOVIELENS and (user, item) == (Columns.user, Columns.item):
            user, item = _MOVIELENS[:2]
        wanted = {"user_id": user, "item_id": item, "rating": self.rating, "timestamp": self.timestamp}
        wanted |= {name: given for name in ("weight", "event") if (given := getattr(self, name)) is not None}
        mapping: dict[str, str] = {}
        for standard, given in wanted.items():
            if given is None:
                if standard not in names or standard in wanted.values():
                    continue
                given = standard
            if given not in names:
                option = f"--{standard.removesuffix('_id')}-column"
                raise DataError(f"{where} has no column {given!r} ({option}); it has: {', '.join(names)}")
            if names.count(given) > 1:
                raise DataError(f"{where} has {names.count(given)} columns named {given!r}; expected one")
            if given in mapping:
                raise DataError(f"column {given!r} of {where} is named for both {mapping[given]} and {standard}")
            mapping[given] = standard
        return mapping
