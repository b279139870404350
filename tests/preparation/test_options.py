"""The options of `prepare` by themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recvae.data.columns import Columns
from recvae.data.prepared import read_prepared
from recvae.datasets.synthetic import generate
from recvae.errors import ParameterError
from recvae.preparation.pipeline import Options, prepare


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "weekly"}, "split is 'weekly'; expected one of strong, given, temporal, leave-last"),
        ({"split": ["auto"]}, r"split is \['auto'\]; expected one of strong"),
        ({"min_user_items": -1}, "min_user_items is -1; expected a whole number of at least 0"),
        ({"min_user_items": 1.5}, "min_user_items is 1.5; expected a whole number of at least 0"),
        ({"min_item_users": None}, "min_item_users is None; expected a whole number of at least 0"),
        ({"min_rating": float("nan")}, "min_rating is nan; expected a number"),
        ({"min_rating": "x"}, "min_rating is 'x'; expected a number"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 2**32}, "seed is 4294967296; expected at most 4,294,967,295"),
    ],
)
def test_wrong_options_fail_before_there_is_a_source(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Options(**options)


def test_columns_of_a_data_set_in_memory_are_fixed(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="user_column is 'who', but the source is of class Dataset, whose columns"):
        prepare(generate(60, 40), tmp_path, Options(columns=Columns("who")))


def test_numbers_of_numpy_are_options(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"min_rating": np.float32(1), "min_user_items": np.int64(2), "min_item_users": np.int8(1)}
    numbers["seed"] = np.int64(3)
    prepare(generate(60, 40), tmp_path, Options(**numbers))
    assert read_prepared(tmp_path).manifest["filters"] == {"min_rating": 1.0, "min_user_items": 2, "min_item_users": 1}
