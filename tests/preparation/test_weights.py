"""Weights: from columns, kinds of events, repetition and age to the matrices, the prepared directory and the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae import workflow
from recvae.data.columns import Columns
from recvae.data.everything import read_everything
from recvae.data.interactions import Interactions
from recvae.data.prepared import find_faults, read_prepared
from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference.recommend import recommend
from recvae.models import registry
from recvae.preparation.pipeline import Options, prepare
from recvae.preparation.weights import WeightOptions, parse_event_weights, parse_half_life

DAY = 86_400


def weights(frame: pd.DataFrame, options: WeightOptions) -> dict[tuple[Any, Any], float]:
    weighed, described = options.weigh(frame)
    columns = Columns(weight="weight") if described else None
    data = Interactions.from_frame(weighed, columns, sum_repeats=options.repeats == "sum")
    matrix = data.user_items.tocoo()
    pairs = zip(data.user_ids[matrix.row], data.item_ids[matrix.col], strict=True)
    return dict(zip(pairs, matrix.data.tolist(), strict=True))


FRAME = pd.DataFrame(
    {
        "user_id": ["a", "a", "a", "b", "b"],
        "item_id": [1, 1, 2, 1, 2],
        "event": ["view", "buy", "view", "view", "look"],
        "timestamp": [0, 10 * DAY, 20 * DAY, 10 * DAY, 20 * DAY],
    }
)
EVENTS = {"view": 1.0, "buy": 5.0, "look": 0.0}


def test_kinds_repeats_and_age() -> None:
    plain = FRAME.drop(columns="event")
    assert weights(plain, WeightOptions()) == {("a", 1): 1, ("a", 2): 1, ("b", 1): 1, ("b", 2): 1}
    assert weights(plain, WeightOptions(repeats="sum")) == {("a", 1): 2, ("a", 2): 1, ("b", 1): 1, ("b", 2): 1}
    assert weights(FRAME, WeightOptions(EVENTS)) == {("a", 1): 5, ("a", 2): 1, ("b", 1): 1}
    assert weights(FRAME, WeightOptions(EVENTS, "sum")) == {("a", 1): 6, ("a", 2): 1, ("b", 1): 1}
    assert weights(plain, WeightOptions(half_life=10 * DAY)) == {
        ("a", 1): 0.5,
        ("a", 2): 1,
        ("b", 1): 0.5,
        ("b", 2): 1,
    }
    both = weights(FRAME, WeightOptions(EVENTS, "sum", 10 * DAY))
    assert both == {("a", 1): 0.25 + 2.5, ("a", 2): 1, ("b", 1): 0.5}


def test_kinds_that_are_numbers() -> None:
    coded = FRAME.assign(event=FRAME["event"].map({"view": 1, "buy": 2, "look": 3}))
    assert weights(coded, WeightOptions({1: 1, 2: 5, 3: 0})) == weights(FRAME, WeightOptions(EVENTS))  # type: ignore[dict-item]
    with pytest.raises(DataError, match="event is '3', which event_weights does not name: it has 1, 2, and the table"):
        weights(coded, WeightOptions({1: 1, 2: 5}))  # type: ignore[dict-item]


def test_dates_as_text_and_a_column_of_weights() -> None:
    dated = FRAME.drop(columns="event").assign(
        timestamp=["2024-01-01", "2024-01-11", "2024-01-21", "2024-01-11", "2024-01-21"], weight=[2, 4, 8, 16, 32]
    )
    found = weights(dated, WeightOptions(half_life=10 * DAY))
    assert found == {("a", 1): 2, ("a", 2): 8, ("b", 1): 8, ("b", 2): 32}


def test_very_old_interactions_still_count() -> None:
    found = weights(FRAME.drop(columns="event"), WeightOptions(half_life=1))
    assert found[("a", 1)] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"weight": [1, 2, np.nan, 1, 1]}, WeightOptions(), "weight is nan in row 2; expected a number above 0"),
        ({"weight": [1, 2, -1, 1, 1]}, WeightOptions(), "weight is -1 in row 2; expected a number above 0"),
        ({"weight": [1, 2, 0, 1, 1]}, WeightOptions(), "weight is 0 in row 2"),
        ({"weight": [1, 2, np.inf, 1, 1]}, WeightOptions(), "weight is inf in row 2"),
        ({"weight": ["1", "2", "many", "1", "1"]}, WeightOptions(), "weight is 'many' in row 2"),
        ({"weight": [1, 2, 1e-50, 1, 1]}, WeightOptions(), "weight is 1e-50 in row 2; expected a number above 0"),
        ({"weight": [1, 2, 1e50, 1, 1]}, WeightOptions(), r"weight is 1e\+50 in row 2"),
        ({"timestamp": [0, 1, np.inf, 1, 1]}, WeightOptions(half_life=1), "timestamp is inf in row 2; expected"),
        ({"timestamp": [1.6e12] * 5}, WeightOptions(half_life=DAY), "the latest is 1,600,000,000,000, which is after"),
        (
            {"timestamp": [20191231, 20200229] * 2 + [20201101]},
            WeightOptions(half_life=DAY),
            "20201101 .* look like",
        ),
        ({"event": ["view"] * 4 + ["steal"]}, WeightOptions(EVENTS), "event is 'steal', which event_weights does not"),
        ({"event": ["look"] * 5}, WeightOptions(EVENTS), "every kind of event weighs 0"),
        ({"timestamp": [0, 1, None, 1, 1], "event": ["view"] * 5}, WeightOptions(EVENTS, half_life=1), "1 of 5 rows"),
    ],
    ids=str,
)
def test_wrong_weights(change: dict[str, Any], options: WeightOptions, said: str) -> None:
    frame = FRAME.drop(columns="event").assign(**change)
    with pytest.raises(DataError, match=said):
        options.weigh(frame)


def test_weights_that_float32_does_not_hold_are_never_written(tmp_path: Path) -> None:
    """Each is a number above 0; the product would be 0, and the sum infinite."""
    repeated_visits().assign(event="view", weight=3e38).to_csv(tmp_path / "large.csv", index=False)
    repeated_visits().assign(event="view", weight=1e-40).to_csv(tmp_path / "small.csv", index=False)
    columns = Columns(weight="weight", event="event")
    for name, events, said in (
        ("large", {"view": 1.0}, "weights of a repeated pair sum to more than float32 holds"),
        ("small", {"view": 1e-9}, r"weight is 1\S*e-49 in row 0; expected a number above 0 that float32 holds"),
    ):
        options = Options(columns=columns, weights=WeightOptions(events, "sum"))
        with pytest.raises(DataError, match=said):
            prepare(tmp_path / f"{name}.csv", tmp_path / "data", options)
    assert not (tmp_path / "data").exists()


def test_wrong_options() -> None:
    for text, said in (
        ("view", "view=1,buy=5"),
        ("=1", "view=1,buy=5"),
        ("view=x", "view=1,buy=5"),
        ("view=1, view=2", "expected one number for view"),
    ):
        with pytest.raises(ParameterError, match=said):
            parse_event_weights(text)
    assert parse_event_weights(" view=1, buy = 5.5,") == {"view": 1, "buy": 5.5}
    for text in ("90", "d", "-1d", "1y", "1e3d"):
        with pytest.raises(ParameterError, match="expected a time such as 90d"):
            parse_half_life(text)
    assert [parse_half_life(text) for text in ("90d", "1.5h", "2w")] == [90 * DAY, 5400, 14 * DAY]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"half_life": 0.0}, "half_life is 0.0; expected a number above 0"),
        ({"half_life": pd.Timedelta(days=9)}, r"half_life is Timedelta\('9 days.*\); expected a number above 0"),
        ({"events": {"view": -1.0}}, r"event_weights\['view'\] is -1.0; expected a number of at least 0"),
        ({"events": {"view": 1e39}}, r"event_weights\['view'\] is 1e\+39; expected a number .* at most 3.4"),
        ({"events": {"view": float("nan")}}, r"event_weights\['view'\] is nan"),
        ({"events": {"view": "1"}}, r"event_weights\['view'\] is '1'; expected a number"),
        ({"events": ["view"]}, r"event_weights is \['view'\]; expected kinds and numbers"),
        ({"repeats": "mean"}, "repeats is 'mean'; expected sum or once"),
    ]
    for options, said in wrong:
        with pytest.raises(ParameterError, match=said):
            WeightOptions(**options)
    with pytest.raises(ParameterError, match="event_column is missing"):
        WeightOptions(EVENTS).weigh(FRAME.drop(columns="event"))
    with pytest.raises(ParameterError, match="event_weights is missing"):
        WeightOptions().weigh(FRAME)
    with pytest.raises(ParameterError, match="half_life needs timestamps"):
        WeightOptions(half_life=1).weigh(FRAME[["user_id", "item_id"]])


def repeated_visits(n_users: int = 200, n_items: int = 30) -> pd.DataFrame:
    """Every user sees two thirds of the items, and comes back to those of one kind: only repetition tells the kinds."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        seen = generator.choice(n_items, 20, replace=False)
        loved = seen[seen % 2 == user % 2]
        rows += [(user, item) for item in seen] + [(user, item) for item in loved for _ in range(9)]
    return pd.DataFrame(rows, columns=["user_id", "item_id"]).sample(frac=1, random_state=0)


@pytest.mark.parametrize("split", ["strong", "temporal"])
def test_a_prepared_directory_keeps_the_weights(tmp_path: Path, split: str) -> None:
    frame = repeated_visits().assign(timestamp=range(len(repeated_visits())))
    frame.to_csv(tmp_path / "visits.csv", index=False)
    options = Options(split=split, weights=WeightOptions(repeats="sum"))
    notes = prepare(tmp_path / "visits.csv", tmp_path / "data", options)
    assert "weights from 1 to 10 are for training and for histories; the evaluation is binary" in notes
    assert any(note.endswith("rows repeat a user's item and add to its weight") for note in notes)
    assert not any("duplicate rows" in note for note in notes)
    prepared = read_prepared(tmp_path / "data")
    assert prepared.manifest["format_version"] == 3
    assert prepared.manifest["filters"]["weights"] == {"repeats": "sum"}
    assert find_faults(tmp_path / "data") == []
    expected = frame.groupby(["user_id", "item_id"]).size()
    split_, everything = prepared.split, read_everything(prepared)
    assert split_.validation is not None
    val_time, test_time = (int(split_.protocol.get(name, len(frame))) for name in ("val_time", "test_time"))
    matrices = [(split_.train, split_.user_ids, val_time)]
    matrices += [(split_.validation.fold_in, split_.validation.user_ids, val_time)]
    matrices += [(split_.test.fold_in, split_.test.user_ids, test_time)]
    for matrix, users, end in matrices:
        known = frame[frame["timestamp"] < end].groupby(["user_id", "item_id"]).size()
        entries = matrix.tocoo()
        for user, item, weight in zip(users[entries.row], split_.item_ids[entries.col], entries.data, strict=True):
            assert weight == known[(user, item)]
    assert everything.user_items.sum() == len(frame)
    for holdout in (split_.validation, split_.test):
        assert set(holdout.held_out.data) == {1.0}
    histories = prepared.histories()
    for user, history, given in zip(histories["user_id"], histories["history"], histories["weights"], strict=True):
        assert [expected[(user, split_.item_ids[item])] for item in history] == list(given)


def test_weights_change_what_is_recommended(tmp_path: Path) -> None:
    """The made-up users' taste shows only in what they repeat: a model of repeats finds it, a binary one cannot."""
    repeated_visits().to_csv(tmp_path / "visits.csv", index=False)
    shares = {}
    for repeats in ("once", "sum"):
        prepare(tmp_path / "visits.csv", tmp_path / repeats, Options(weights=WeightOptions(repeats=repeats)))
        workflow.train(tmp_path / repeats, tmp_path / f"{repeats}-model", "ease", params={"l2": 50.0})
        artifact = registry.load(tmp_path / f"{repeats}-model")
        assert artifact.users is not None
        same = []
        for user in artifact.users["user_id"].tolist():
            listed = recommend(tmp_path / f"{repeats}-model", user=str(user), n=5).items
            same += [item["id"] % 2 == user % 2 for item in listed]
        shares[repeats] = float(np.mean(same))
    assert shares["sum"] > shares["once"] + 0.1


def test_damaged_weights(tmp_path: Path) -> None:
    repeated_visits().to_csv(tmp_path / "visits.csv", index=False)
    prepare(tmp_path / "visits.csv", tmp_path / "data", Options(weights=WeightOptions(repeats="sum")))
    prepare(tmp_path / "visits.csv", tmp_path / "plain", Options())
    assert read_prepared(tmp_path / "plain").manifest["format_version"] == 2
    (tmp_path / "plain" / "train.weights.npy").write_bytes((tmp_path / "data" / "train.weights.npy").read_bytes())
    with pytest.raises(ArtifactError, match=r"names no checksum for train\.weights\.npy"):
        read_prepared(tmp_path / "plain")


def test_an_engine_refuses_weights(tmp_path: Path) -> None:
    pytest.importorskip("ibis")
    repeated_visits().to_csv(tmp_path / "visits.csv", index=False)
    for options in (
        Options(backend="duckdb", weights=WeightOptions(repeats="sum")),
        Options(backend="duckdb", columns=Columns(weight="w")),
    ):
        with pytest.raises(ParameterError, match="weights are made in memory; leave backend out"):
            prepare(tmp_path / "visits.csv", tmp_path / "data", options)
