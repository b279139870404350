"""Lines for people about what was prepared."""

from collections.abc import Mapping
from pathlib import Path

from recvae.data.delimited import count_lines_in_fields
from recvae.data.interactions import Interactions, RatingSummary
from recvae.data.readers import is_json_lines
from recvae.data.splitting import Split
from recvae.datasets.loading import find_parts


def note_unread(source: Path | bytes, n_rows: int) -> tuple[str, ...]:
    """Tell what else is in a folder of Parquet files, or how many lines of a text are inside fields.

    Where fields hold no texts of many lines, rows are so lost.
    """
    if isinstance(source, Path):
        if source.is_dir():
            return _note_others(source)
        if not source.is_file() or source.suffix.lower() == ".parquet" or is_json_lines(source):
            return ()
    n_lines = count_lines_in_fields(source, n_rows)
    if not n_lines:
        return ()
    return (f"{n_lines:,} lines are no rows: they are inside quoted fields, or follow a quote that is not closed",)


def _note_others(folder: Path) -> tuple[str, ...]:
    parts = set(find_parts(folder))
    others = sorted(path.name for path in folder.iterdir() if path not in parts and path.name[0] not in "._")
    more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
    return (f"only *.parquet are read, not {', '.join(others[:3])}{more}",) if others else ()


def note_weights(data: Interactions, n_dropped: int) -> list[str]:
    """Tell the range of the weights, and how many rows of kinds without weight were dropped."""
    if data.weight is None:
        return []
    dropped = f"; {n_dropped:,} rows of kinds that weigh 0 were dropped" if n_dropped else ""
    return [
        f"weights from {data.weight.min():.3g} to {data.weight.max():.3g} are for training and for histories; "
        f"the evaluation is binary{dropped}"
    ]


def note_stars(ratings: RatingSummary | None) -> list[str]:
    """Tell of the filter where ratings look like stars, of which the low ones say that a user did not like an item."""
    if ratings is None or not ratings.look_like_stars:
        return []
    return [
        f"ratings look like stars ({ratings.least:g} to {ratings.largest:g}) and every row counts as an interaction; "
        "--min-rating 4 keeps the good ones"
    ]


def summarise(counts: Mapping[str, int], split: Split, *, summed: bool = False) -> list[str]:
    """Tell what the filters dropped, and the size of each side of the split; `summed` if repeated rows add up."""
    kept = ("rows", "duplicate_rows") if summed else ("rows",)
    dropped = [f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items() if n and what not in kept]
    sizes = split.counts
    lines = [f"dropped: {', '.join(dropped)}"] if dropped else []
    if summed and counts["duplicate_rows"]:
        lines.append(f"{counts['duplicate_rows']:,} rows repeat a user's item and add to its weight")
    lines.append(
        f"train: {sizes['train_users']:,} users, {sizes['train_items']:,} items, "
        f"{sizes['train_interactions']:,} interactions"
    )
    if missing := split.protocol.get("missing_timestamps"):
        lines.append(f"interactions without a timestamp: {missing:,}, so that nothing is split by time")
    if cold := split.protocol.get("cold_items"):
        lines.append(f"cold: {cold:,} of these items, held out with all their interactions")
    lines += [_summarise_side(side, sizes) for side in ("validation", "test") if f"{side}_users" in sizes]
    if sizes["items_outside_training"]:
        lines.append(
            f"outside the training items: {sizes['items_outside_training']:,} items with "
            f"{sizes['interactions_outside_training_items']:,} interactions, dropped"
        )
    return lines


def _summarise_side(side: str, counts: Mapping[str, int]) -> str:
    users, fold_in, held_out, without = (
        counts[f"{side}_{what}"]
        for what in ("users", "fold_in_interactions", "held_out_interactions", "users_without_held_out")
    )
    unscored = f", {without:,} users without any" if without else ""
    return f"{side}: {users:,} users, {fold_in:,} interactions to fold in, {held_out:,} held out{unscored}"
