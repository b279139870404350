"""The state of a search: kept, read again, refused where it is another's."""

import json
from pathlib import Path

import numpy as np
import pytest

from recvae.errors import ArtifactError, ParameterError
from recvae.fitting.state import SearchState, clear_state, open_state
from recvae.fitting.trial import Trial, to_plain
from recvae.models.registry import MODELS
from tests.contracts import random_interactions

IDENTITY = {"data": "abc", "models": ["ease"], "metric": "ndcg@10", "seed": 0}


def trial(name: str, params: dict[str, object], epochs: int | None = None) -> Trial:
    return Trial(name, params, {}, 0.25, 1.5, 2.0, 0.1, epochs)


def kept(directory: Path) -> SearchState:
    directory.mkdir()
    state = SearchState(directory, dict(IDENTITY), 12.5, 60.0, [trial("ease", {"l2": 3.0})], {"als": "no implicit"})
    state.save()
    return state


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    before = kept(tmp_path / "search")
    again = SearchState(tmp_path / "search")
    assert again.resume(IDENTITY)
    assert (again.seconds, again.budget) == (12.5, 60.0)
    assert (again.trials, again.left_out) == (before.trials, before.left_out)
    assert not SearchState(tmp_path).resume(IDENTITY)


@pytest.mark.parametrize("key", IDENTITY)
def test_a_search_on_other_data_or_with_other_options(tmp_path: Path, key: str) -> None:
    kept(tmp_path / "search")
    with pytest.raises(ParameterError, match=rf"search is of a search with {key} .*; expected the same data"):
        SearchState(tmp_path / "search").resume({**IDENTITY, key: "other"})


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"format": "recvae-search", "identity": {}, "seconds": "x"}).encode(),
        json.dumps({"identity": {}, "seconds": 1, "trials": [{"name": 3}], "left_out": {}}).encode(),
        json.dumps({"identity": IDENTITY, "seconds": 1, "trials": [], "left_out": {}, "format_version": 9}).encode(),
    ],
)
def test_a_damaged_state(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "search.json").write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"search.json"):
        SearchState(tmp_path).resume(IDENTITY)


@pytest.mark.parametrize("name", ["popularity", "bm25", "ease", "graph", "als", "multdae", "multvae", "recvae"])
def test_models_are_read_again_and_can_be_fitted_again(tmp_path: Path, name: str) -> None:
    interactions, state = random_interactions(), SearchState(tmp_path)
    tiny = {"latent": 4, "epochs": 3} if MODELS[name].resumable else {}
    model = MODELS.create(name, None, tiny | ({"hidden": 8} if name in ("multvae", "recvae") else {}))
    model.fit(interactions, show_progress=False)
    state.save_model(name, model)
    done = trial(name, to_plain(model.fitted_params()), getattr(model, "best_epoch_", None))
    loaded = state.load_model(done)
    assert loaded is not None
    assert loaded.fitted_on(interactions)
    np.testing.assert_allclose(loaded.score(interactions), model.score(interactions), rtol=1e-3, atol=1e-3)
    again, expected = (m.refit(interactions, show_progress=False).score(interactions) for m in (loaded, model))
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-3)
    assert state.load_model(trial(name, {"l2": 1e9})) is None


def test_a_model_that_was_not_kept(tmp_path: Path) -> None:
    assert SearchState(tmp_path).load_model(trial("als", {})) is None


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text('{"mine": 1}')
    with pytest.raises(ArtifactError, match=r"holds something else \(search.json\)"), open_state(tmp_path, False):
        pass
    (tmp_path / "search.json").write_text('{"format": "recvae-sea')
    with pytest.raises(ArtifactError, match=r"search.json is damaged: .*; remove .* to start anew"):
        open_state(tmp_path, True).__enter__()
    (tmp_path / "search.json").unlink()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds something else \(thesis.txt\)"), open_state(tmp_path, False):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_search_was_writing_is_removed(tmp_path: Path, resume: bool) -> None:
    kept(tmp_path / "search")
    for folder in (".data.0123abcd.tmp", ".recvae.x1y2z3"):
        (tmp_path / "search" / folder).mkdir()
        (tmp_path / "search" / folder / "lock").touch()
    (tmp_path / "search" / ".search.json.0123abcd.tmp").touch()
    with open_state(tmp_path / "search", resume) as state:
        assert state.resume(IDENTITY) == resume
        assert not list((tmp_path / "search").glob(".*"))


def test_only_one_search_at_a_time_and_no_trace_of_an_empty_one(tmp_path: Path) -> None:
    with open_state(tmp_path / "search", resume=False):
        with (
            pytest.raises(ArtifactError, match="is in use by another search"),
            open_state(tmp_path / "search", resume=False),
        ):
            pass
        assert (tmp_path / "search").exists()
    assert not (tmp_path / "search").exists()


def test_a_new_search_clears_an_old_one(tmp_path: Path) -> None:
    kept(tmp_path / "search")
    with open_state(tmp_path / "search", resume=True) as state:
        assert state.resume(IDENTITY)
    with open_state(tmp_path / "search", resume=False) as state:
        assert not state.resume(IDENTITY)
    clear_state(tmp_path / "search")
    assert not (tmp_path / "search").exists()
