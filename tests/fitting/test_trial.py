"""The order of a search's models."""

import pytest

from recvae.fitting.trial import Leader, Trial, rank
from recvae.models.base import Recommender
from recvae.models.popularity import Popularity


class Unable(Popularity):
    """A model that cannot be a part of a blend."""

    folds_in = False


def leader(name: str, value: float, model: Recommender | None = None) -> Leader:
    return Leader(Trial(name, {}, {}, value, 1.0, 1.0, 0.1), model or Popularity())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"ease": 0.3, "als": 0.4}, ["als", "ease"]),
        ({"ease": 0.3, "als": 0.4, "blend": 0.35}, ["blend", "als", "ease"]),
        ({"blend": 0.35}, ["blend"]),
        ({}, []),
    ],
)
def test_a_blend_comes_before_its_parts(values: dict[str, float], expected: list[str]) -> None:
    assert [one.trial.name for one in rank(leader(name, value) for name, value in values.items())] == expected


def test_a_model_that_is_no_part_comes_first_where_it_is_better() -> None:
    models = [leader("bpr", 0.5, Unable()), leader("ease", 0.4), leader("lmf", 0.2, Unable()), leader("blend", 0.3)]
    assert [one.trial.name for one in rank(models)] == ["bpr", "blend", "ease", "lmf"]
