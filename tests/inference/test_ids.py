"""Ids as clients write them against ids as the training data had them."""

import pyarrow as pa
import pytest

from recvae.inference.ids import IdIndex, decode_ids

NUMBERS, TEXTS = pa.array([7, -3, 2**60]), pa.array(["7", "b", "007"])


@pytest.mark.parametrize(
    ("ids", "given", "index"),
    [
        (NUMBERS, 7, 0),
        (NUMBERS, "7", 0),
        (NUMBERS, "-3", 1),
        (NUMBERS, str(2**60), 2),
        (NUMBERS, "007", None),
        (NUMBERS, "7.0", None),
        (NUMBERS, "१", None),
        (NUMBERS, "9" * 5000, None),
        (TEXTS, 7, 0),
        (TEXTS, "007", 2),
        (TEXTS, "nobody", None),
    ],
)
def test_text_and_numbers_that_read_the_same_are_one_id(ids: pa.Array, given: int | str, index: int | None) -> None:
    assert IdIndex(ids).get(given) == index
    assert IdIndex(ids).find([given]) == (([], [given]) if index is None else ([index], []))


def test_find_keeps_the_order_and_drops_repetitions() -> None:
    assert IdIndex(NUMBERS).find([-3, 7, "7"]) == ([1, 0], [])
    assert IdIndex(NUMBERS).find(["x", -3, 7, 7]) == ([1, 0], ["x"])


@pytest.mark.parametrize("given", [pa.array([7, 1, None]), pa.array(["7", "x", None])])
@pytest.mark.parametrize("ids", [NUMBERS, TEXTS])
def test_a_column_is_found_at_once(ids: pa.Array, given: pa.Array) -> None:
    assert IdIndex(ids).find_column(given).tolist() == [0, -1, -1]
    assert IdIndex(ids).find_column(pa.chunked_array([given]).dictionary_encode()).tolist() == [0, -1, -1]


def test_numbers_too_large_for_json_readers_are_text() -> None:
    assert IdIndex(NUMBERS).ids == [7, -3, str(2**60)]


def test_decoded_ids_are_plain() -> None:
    assert decode_ids(TEXTS.dictionary_encode()).type == TEXTS.type


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (pa.array([1.0, 2.5, 10.0**9]), pa.array(["1.0", "2.5", "1000000000.0", "1", None])),
        (pa.array([1.0, 2.0, 10.0**9]), pa.array([1, 2, 10**9, 3, None])),
        (pa.array([1, 2, 10**9]), pa.array([1.0, 2.0, 10.0**9, 1.5, None])),
        (pa.array([1, 2, 10**9]), pa.array([1.0, 2.0, 10.0**9, float("nan"), float("inf")])),
        (pa.array(["1", "2", "1000000000"]), pa.array([1.0, 2.0, 10.0**9, 1.5, None])),
    ],
)
def test_floats_in_a_column_are_the_whole_numbers_that_they_are(known: pa.Array, given: pa.Array) -> None:
    """Clients know floats among the ids of a model as text: 1.0."""
    assert IdIndex(known).find_column(given).tolist() == [0, 1, 2, -1, -1]


def test_numbers_that_int64_does_not_hold_are_found() -> None:
    large = pa.array([7, 2**64 - 1], pa.uint64())
    assert IdIndex(large).find_column(large).tolist() == [0, 1]
    assert IdIndex(large).find_column(pa.array([7, -1])).tolist() == [0, -1]
    assert IdIndex(NUMBERS).find_column(large).tolist() == [0, -1]
