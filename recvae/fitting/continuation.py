"""`read_continuation`: the training set after a model, of its own histories and of what a store has gathered since."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recvae.data.delimited import WHOLE_NUMBER
from recvae.datasets import Dataset
from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference.ids import IdIndex, decode_ids, is_text
from recvae.inference.rules.item_column import WHOLE, RuleError, is_number
from recvae.inference.rules.metadata import Metadata
from recvae.inference.titles import read_titles, replace_titles
from recvae.preparation.pipeline import OWN_DATA, Options
from recvae.preparation.weights import LEAST, WeightOptions
from recvae.storage.artifact import StoredModel, read_artifact
from recvae.storage.files import check_path
from recvae.store.database import Database
from recvae.store.events import EventWeights, UserEvent

ENTRY = "store"
"""Entry of a manifest's `data` that says what of a store a model has learned."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """The training set after a model.

    Attributes
    ----------
    dataset : Dataset
        Rows with `user_id`, `item_id`, `timestamp`, and `weight` where there are weights; its items with the metadata
        that clients have set. The timestamp of the model's histories is before that of every event.
    options : Options
        Filters as they were for the model.
    entries : dict
        Entries of the next manifest's `data`: the model's filters, and what of the store was read.
    note : str
        Summary for people.
    """

    dataset: Dataset
    options: Options
    entries: dict[str, Any]
    note: str


def read_continuation(url: str, model: str | Path) -> Continuation:
    """Read the histories of an artifact and the events of a store as one training set.

    An event counts once: one that the model has learned, because it was read from the store for it, is left out where
    the model's histories have its user and item. Erased users' histories in the artifact are left out; events that came
    after the erasure are new. Events weigh what the model's weights have for their type, and both they and the
    histories age by its half-life.

    Parameters
    ----------
    url : str
        SQLAlchemy's URL of the store of the service.
    model : path of an artifact

    Raises
    ------
    ArtifactError
        If the artifact cannot be read.
    ParameterError
        If it has no histories, or the URL is none of a store.
    DataError
        If the store has no events.
    StoreUnavailableError
        If the database cannot be reached.
    """
    path = check_path(model)
    stored = read_artifact(path)
    if stored.users is None or not pc.sum(pc.list_value_length(stored.users["history"])).as_py():
        raise ParameterError(f"since is {path}, which has no histories; expected a model that was saved with users")
    with Database(url) as database:
        batches = [pd.DataFrame(batch, columns=UserEvent._fields) for batch in database.read_events()]
        erased, changed = database.read_erased(), database.read_items()
    if not batches:
        raise DataError(f"{database.name} has no events; expected some to learn from")
    try:
        return _combine(stored, stored.users, pd.concat(batches, ignore_index=True), erased, changed, path.name)
    except ArtifactError as error:
        raise ArtifactError(f"{path}{error}") from None


def _combine(
    stored: StoredModel,
    users: pa.Table,
    events: pd.DataFrame,
    erased: Mapping[str, float],
    changed: Mapping[str, Mapping[str, Any]],
    name: str,
) -> Continuation:
    users, known = _write_ids(users, "user_id"), _write_ids(stored.items, "item_id")
    data = stored.manifest["data"]
    filters, before = _read_object(data, "filters"), _read_object(data, ENTRY)
    rules, until = EventWeights.of(stored.manifest), _read_number(before, "until_seconds", 0)
    entry = {"until_seconds": max(until, float(events["stored_at"].max())), "events": len(events)}
    events, counts = _select_events(events, erased, rules)
    histories = _list_histories(users, erased)
    events, user_ids, item_ids = _number_events(events, users, known, counts)
    events = _drop_learned(events, histories, len(item_ids), until, counts)
    if "weights" in filters or "weights" in users.column_names or (events["weight"] != 1).any():
        weights = filters["weights"] = {"column": True, **_read_object(filters, "weights")}
        if rules.half_life is not None and len(events):
            _age(histories, events, rules.half_life, weights, stored.manifest)
    histories["time"] = events["time"].min() - 1 if len(events) else 0.0
    rows = pd.concat([histories, events[histories.columns]], ignore_index=True)
    table = {"user_id": user_ids[rows["user"]], "item_id": item_ids[rows["item"]], "timestamp": rows["time"]}
    if "weights" in filters:
        table["weight"] = rows["weight"]
    options = Options(
        split="auto",
        min_user_items=int(_read_number(filters, "min_user_items", 0)),
        min_item_users=int(_read_number(filters, "min_item_users", 0)),
        weights=WeightOptions(repeats="sum" if rules.sums_repeats else "once"),
    )
    items, origin = _lay_over(known, item_ids, changed), f"{name} and its store"
    return Continuation(
        Dataset(str(data.get("dataset", name)), pd.DataFrame(table), items, origin, {}, OWN_DATA),
        options,
        {"filters": filters, ENTRY: entry},
        _describe(entry, counts, erased, changed),
    )


def _write_ids(table: pa.Table, name: str) -> pa.Table:
    """Write ids as 64-bit numbers, which new ones fit, or as the texts that clients know, such as 1.0 of a float."""
    ids = decode_ids(table[name])
    if is_text(ids.type) or pa.types.is_uint64(ids.type):
        return table
    ids = ids.cast(pa.int64()) if pa.types.is_integer(ids.type) else pa.array(IdIndex(ids).ids)
    return _set_column(table, name, ids)


def _read_object(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    if not isinstance(value, dict | None):
        raise ArtifactError(f": {name} of the data are {value!r}; expected an object")
    return dict(value or {})


def _read_number(found: Mapping[str, Any], name: str, default: float) -> float:
    value = default if found.get(name) is None else found[name]
    if not is_number(value):
        raise ArtifactError(f": {name} of the data is {value!r}; expected a number")
    return float(value)


def _select_events(
    events: pd.DataFrame, erased: Mapping[str, float], rules: EventWeights
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Weigh events by their types; leave out those that weigh nothing, and what an erased user had before."""
    at = events["user"].map(erased).fillna(-np.inf)
    weight = events["weight"].astype(np.float64)
    if rules.types is not None:
        weight = weight * events["type"].map(rules.types).fillna(0.0)
    with np.errstate(over="ignore", under="ignore"):
        held = weight.to_numpy().astype(np.float32)  # as matrices hold them
    weighs = (held > 0) & np.isfinite(held)
    kept = events.assign(weight=weight)[weighs & (events["stored_at"] > at)]
    return kept, {"that weigh nothing": int((~weighs).sum())}


def _list_histories(users: pa.Table, erased: Mapping[str, float]) -> pd.DataFrame:
    """List the interactions of an artifact's users, but of the erased ones: row of the user, item index and weight."""
    history = users["history"]
    lengths = pc.list_value_length(history).to_numpy()
    n = int(lengths.sum())
    weights = pc.list_flatten(users["weights"]).to_numpy() if "weights" in users.column_names else np.ones(n)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    items = pc.list_flatten(history).to_numpy().astype(np.int64)
    histories = pd.DataFrame({"user": rows, "item": items, "weight": weights.astype(np.float64)})
    gone = IdIndex(users["user_id"]).find_column(pa.array(list(erased), pa.string()))
    return histories[~np.isin(rows, gone)]


def _number_events(
    events: pd.DataFrame, users: pa.Table, items: pa.Table, counts: dict[str, int]
) -> tuple[pd.DataFrame, pd.Index, pd.Index]:
    """Replace ids, which are texts, by their places among the artifact's ids and, after these, new ones.

    Where an artifact's ids of items are numbers, events of an item with another id are left out: the ids in answers
    stay what they are. Ids of users become texts then.
    """
    known_users, known_items = decode_ids(users["user_id"]), decode_ids(items["item_id"])
    if not (pa.types.is_integer(known_users.type) and _fits(events["user"], known_users).all()):
        known_users = known_users.cast(pa.large_string())
    if pa.types.is_integer(known_items.type):
        usable = _fits(events["item"], known_items)
        counts["of items whose ids are no numbers"] = int((~usable).sum())
        events = events[usable]
    user, user_ids = _number(known_users, events["user"])
    item, item_ids = _number(known_items, events["item"])
    return events.assign(user=user, item=item), user_ids, item_ids


def _fits(given: pd.Series, known: pa.ChunkedArray) -> pd.Series:
    """Tell which texts are ids of the whole numbers that are known, or may be new ones beside them."""
    new = given.str.match(WHOLE_NUMBER)
    if pa.types.is_uint64(known.type):
        new &= ~given.str.startswith("-")
    return new | (IdIndex(known).find_column(pa.array(given, pa.string())) >= 0)


def _number(known: pa.ChunkedArray, given: pd.Series) -> tuple[npt.NDArray[np.int64], pd.Index]:
    """Number ids as the known ones are, and new ones after them."""
    idx = IdIndex(known).find_column(pa.array(given, pa.string()))
    codes, new = pd.factorize(given[idx < 0])
    idx[idx < 0] = len(known) + codes
    ids = pd.Index(known.to_pandas())
    return idx, ids.append(pd.Index(new).astype(ids.dtype))


def _drop_learned(
    events: pd.DataFrame, histories: pd.DataFrame, n_items: int, until: float, counts: dict[str, int]
) -> pd.DataFrame:
    """Leave out events that were read for the model, where its histories still have their user and item.

    They have not where a filter dropped the user, where the user was erased, or where the event was being stored while
    others were read.
    """
    pairs, known = (rows["user"].to_numpy() * n_items + rows["item"].to_numpy() for rows in (events, histories))
    learned = (events["stored_at"] <= until).to_numpy(copy=True)
    learned[learned] = np.isin(pairs[learned], known)
    counts["learned before"] = int(learned.sum())
    return events[~learned]


def _age(
    histories: pd.DataFrame,
    events: pd.DataFrame,
    half_life: float,
    weights: dict[str, Any],
    manifest: Mapping[str, Any],
) -> None:
    """Let the weights of histories and events halve with each half-life before the latest event."""
    latest = float(events["time"].max())
    trained_at = manifest.get("trained_at")
    trained = latest if trained_at is None else datetime.fromisoformat(trained_at).timestamp()
    before = _read_number(weights, "latest_seconds", trained)
    for rows, times in ((histories, before), (events, events["time"])):
        factors = np.exp2(np.minimum(times - latest, 0) / half_life)
        rows["weight"] = np.maximum(rows["weight"] * factors, np.minimum(rows["weight"], LEAST))
    weights["latest_seconds"] = max(latest, before)


def _lay_over(known: pa.Table, item_ids: pd.Index, changed: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Make the table of items: those of the artifact, new ones, and on both the metadata that clients have set.

    Values that do not fit their column are left out, as the service leaves them out.
    """
    new = pa.table({"item_id": pa.array(item_ids[len(known) :], known["item_id"].type)})
    table = pa.concat_tables([known, new], promote_options="default")
    find = IdIndex(table["item_id"]).get
    changes = {index: given for item, given in changed.items() if (index := find(item)) is not None}
    metadata = Metadata(table).updated(changes)
    for name in sorted({name for given in changes.values() for name in given} & metadata.names - WHOLE):
        with contextlib.suppress(RuleError):  # a column of a kind that nothing is laid over
            table = _set_column(table, name, metadata.find_column(name, name).to_arrow())
    titles = replace_titles(read_titles(table), changes)
    if any(title is not None for title in titles):
        table = _set_column(table, "title", pa.array(titles, pa.string()))
    items: pd.DataFrame = table.replace_schema_metadata().to_pandas()  # which pandas wrote of the columns before
    return items


def _set_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), name, column)


def _describe(
    entry: Mapping[str, Any], counts: Mapping[str, int], erased: Mapping[str, float], changed: Mapping[str, Any]
) -> str:
    """Say what was read, and what was left out."""
    left_out = [f"{n:,} {what}" for what, n in counts.items() if n]
    parts = [f"{entry['events']:,} events" + (f" ({', '.join(left_out)})" if left_out else "")]
    parts += [f"histories of {len(erased):,} erased users left out"] if erased else []
    parts += [f"metadata of {len(changed):,} items"] if changed else []
    return f"store: {'; '.join(parts)}"
