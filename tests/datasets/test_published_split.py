"""The published split's oracle: what is rebuilt, what is compared and what is said."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recvae.data.interactions import Interactions
from recvae.data.splitting import Split, leave_last_out, strong_generalization
from recvae.datasets.published_split import ML_20M, SplitFile, build_published_files, check_published, describe
from recvae.errors import DataError, ParameterError


@pytest.fixture(scope="module")
def data() -> Interactions:
    """Nine users with ten of twelve items each, rows in no order."""
    interactions = [(30 - user, item) for user in range(9) for item in range(12) if (user + item) % 6]
    frame = pd.DataFrame(interactions, columns=["user_id", "item_id"]).sample(frac=1, random_state=1)
    return Interactions.from_frame(frame.assign(timestamp=range(len(frame))))


@pytest.fixture(scope="module")
def split(data: Interactions) -> Split:
    return strong_generalization(data, val_users=2, test_users=3, seed=4)


def own_oracle(data: Interactions, split: Split) -> list[SplitFile]:
    return [finding.found for finding in check_published(data, split)]


def test_users_are_numbered_as_permuted_and_rows_follow_raw_ids_then_the_source(
    data: Interactions, split: Split
) -> None:
    csv = build_published_files(data, split)["test_te.csv"].decode()
    assert csv.startswith("uid,sid\n")
    assert csv.endswith("\n")
    permuted = data.user_ids[np.random.RandomState(4).permutation(9)].tolist()
    rows = [tuple(map(int, line.split(","))) for line in csv.splitlines()[1:]]
    named = [(permuted[uid], split.item_ids[sid]) for uid, sid in rows]

    assert {uid for uid, _ in rows} == {6, 7, 8}
    assert len(named) == split.test.held_out.nnz == 6
    assert [user for user, _ in named] == sorted(user for user, _ in named)
    source = list(zip(data.user_ids[data.user_idx], data.item_ids[data.item_idx], strict=True))
    assert named == sorted(named, key=lambda interaction: (interaction[0], source.index(interaction)))


def test_items_are_listed_in_column_order(data: Interactions, split: Split) -> None:
    lines = build_published_files(data, split)["unique_sid.txt"].decode().splitlines()
    assert lines == [str(item_id) for item_id in split.item_ids]
    assert lines != sorted(lines, key=int)


def test_a_match_is_one_line(data: Interactions, split: Split) -> None:
    findings = check_published(data, split, own_oracle(data, split))
    assert all(finding.matches for finding in findings)
    assert describe(findings) == ["the split matches the published one (3 files)"]


def test_a_difference_says_what_was_expected_and_found(data: Interactions, split: Split) -> None:
    test_te, validation_te, unique_sid = own_oracle(data, split)
    oracle = [
        replace(test_te, rows=1234),
        validation_te,
        replace(unique_sid, md5="0" * 32, first_rows=("151", "223")),
    ]
    findings = check_published(data, split, oracle)
    assert [finding.matches for finding in findings] == [False, True, False]
    starts = " ".join(map(str, split.item_ids[:2]))
    assert describe(findings) == [
        "test_te.csv differs from the published one: rows 6, expected 1,234",
        f"unique_sid.txt differs from the published one: start '{starts}', expected '151 223'; "
        f"md5 {unique_sid.md5}, expected {'0' * 32}",
    ]


def test_another_order_of_rows_is_another_split(data: Interactions, split: Split) -> None:
    frame = pd.DataFrame({"user_id": data.user_ids[data.user_idx], "item_id": data.item_ids[data.item_idx]})
    other = Interactions.from_frame(frame[::-1])
    findings = check_published(
        other, strong_generalization(other, val_users=2, test_users=3, seed=4), own_oracle(data, split)
    )
    assert not any(finding.matches for finding in findings)


def test_the_published_users_are_those_of_the_seed() -> None:
    """As many users as ML-20M has give the user numbers that its published files start with."""
    users, items = np.divmod(np.arange(136_677 * 5), 5)
    data = Interactions.from_frame(pd.DataFrame({"user_id": users, "item_id": items}))
    split = strong_generalization(data, val_users=10_000, test_users=10_000)
    findings = check_published(data, split)
    assert [finding.expected for finding in findings] == list(ML_20M)
    for finding in findings[:2]:
        found, expected = (file.first_rows[0].split(",")[0] for file in (finding.found, finding.expected))
        assert found == expected
        assert finding.found.rows == 10_000
        assert not finding.matches


def test_only_strong_generalization_was_published(data: Interactions) -> None:
    with pytest.raises(ParameterError, match="split is 'leave-last'; expected 'strong', as published"):
        check_published(data, leave_last_out(data))


def test_an_oracle_of_unknown_files_is_refused(data: Interactions, split: Split) -> None:
    with pytest.raises(
        ParameterError, match=r"oracle names train\.csv; expected test_te\.csv, validation_te\.csv, uni"
    ):
        check_published(data, split, [SplitFile("train.csv", "", 0, ())])


def test_a_split_of_other_data_is_refused(data: Interactions, split: Split) -> None:
    gone = data.user_ids.get_loc(split.test.user_ids[1])
    with pytest.raises(DataError, match=rf"user {split.test.user_ids[1]} of the split is not in the data"):
        check_published(data.select(data.user_idx != gone), split)

    user, column = (index[0] for index in split.test.held_out.nonzero())
    lacking = data.select(
        (data.user_ids[data.user_idx] != split.test.user_ids[user])
        | (data.item_ids[data.item_idx] != split.item_ids[column])
    )
    with pytest.raises(DataError, match="the split holds out 6 interactions, of which the data have 5"):
        check_published(lacking, split)
