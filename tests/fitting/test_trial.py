"""The order of a search's models."""

import pytest

from recvae.fitting.trial import Leader, Trial, rank
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.blending.weights import MOST_USERS
from recvae.models.popularity import Popularity


def leader(name: str, value: float, model: Recommender | None = None) -> Leader:
    return Leader(Trial(name, {}, {}, value, 1.0, 1.0, 0.1), model or Popularity())


@pytest.mark.parametrize(
    ("blended", "expected"),
    [
        (["ease", "als"], ["blend", "als", "graph", "ease"]),
        (["ease", "graph"], ["als", "blend", "graph", "ease"]),  # this ALS is newer
        (["ease"], ["als", "graph", "blend", "ease"]),
    ],
)
def test_a_blend_comes_before_what_it_was_chosen_from(blended: list[str], expected: list[str]) -> None:
    singles = {name: leader(name, value) for name, value in {"ease": 0.2, "als": 0.4, "graph": 0.3}.items()}
    blend = leader("blend", 0.25, Blend([singles[name].model for name in blended]))
    assert [one.trial.name for one in rank([*singles.values(), blend], MOST_USERS)] == expected


@pytest.mark.parametrize("n_users", [10, MOST_USERS + 1])
def test_without_a_blend_figures_decide(n_users: int) -> None:
    assert [one.trial.name for one in rank([leader("ease", 0.3), leader("als", 0.4)], n_users)] == ["als", "ease"]
    assert rank([], n_users) == []


def test_by_many_users_figures_decide_about_a_blend_too() -> None:
    singles = [leader("ease", 0.2), leader("als", 0.4)]
    blend = leader("blend", 0.3, Blend([one.model for one in singles]))
    ranked = rank([*singles, blend], MOST_USERS + 1)
    assert [one.trial.name for one in ranked] == ["als", "blend", "ease"]
