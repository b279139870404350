"""Names of candidates, and variations of their settings."""

from typing import Any

import numpy as np
import pytest

from recvae.errors import ParameterError
from recvae.fitting.candidates import DEFAULT_MODELS, check_names, run_params, vary
from recvae.models.hyperparameters import RealRange, WholeRange
from recvae.models.popularity import Popularity
from recvae.models.registry import MODELS


def test_names_are_put_in_order_and_the_blend_last() -> None:
    assert check_names(None) == DEFAULT_MODELS
    assert check_names("blend, ease,popularity") == ("popularity", "ease", "blend")
    assert check_names(["blend", "lmf", "als", "als"]) == ("lmf", "als", "blend")


@pytest.mark.parametrize("wrong", ["asl", "ease,asl", "", [], 3, Popularity])
def test_unknown_names(wrong: Any) -> None:
    with pytest.raises(ParameterError, match="models"):
        check_names(wrong)


def test_a_blend_of_nothing() -> None:
    with pytest.raises(ParameterError, match="models is 'blend'; expected one or more models beside the blend"):
        check_names("blend")


def test_seed_and_metric_go_to_models_that_have_them() -> None:
    assert run_params("als", "ndcg@10", 3) == {"metric": "ndcg@10", "seed": 3}
    assert run_params("popularity", "ndcg@10", 3) == {}


def middle(values: RealRange | WholeRange) -> float | int:
    value = (values.low * values.high) ** 0.5 if values.log else (values.low + values.high) / 2
    return round(value) if isinstance(values, WholeRange) else value


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].SPACE])
def test_variations_stay_near_the_best_and_in_range(name: str) -> None:
    space, generator = MODELS[name].SPACE, np.random.default_rng(0)
    best: dict[str, Any] = {key: middle(values) for key, values in space.items()}
    seen = set[str]()
    for _ in range(50):
        candidate = vary(name, best, generator)
        assert candidate is not None
        assert candidate.varies
        assert dict(candidate.params) == {**best, **candidate.varies}
        seen |= candidate.varies.keys()
        for key, value in candidate.varies.items():
            assert space[key].low <= value <= space[key].high
            if space[key].log:
                assert 0.49 <= value / best[key] <= 2.01
        candidate.create()
    assert seen == space.keys()


def test_a_setting_that_is_no_number_is_drawn_from_the_whole_range() -> None:
    generator = np.random.default_rng(0)
    drawn = [vary("multvae", {"gamma": None}, generator) for _ in range(200)]
    values = [candidate.params["gamma"] for candidate in drawn if candidate]
    assert max(values) / min(values) > 20


def test_nothing_to_vary() -> None:
    assert vary("popularity", {}, np.random.default_rng(0)) is None
