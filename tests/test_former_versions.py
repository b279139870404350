"""Directories written by former versions load, and give what they gave then."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.data.prepared import read_prepared
from recvae.models import registry
from recvae.models.base import Recommender
from tests.contracts import all_scores

FOLDER = Path(__file__).parent / "fixtures" / "v0_1_0"
NAMES = sorted(path.name for path in (FOLDER / "models").iterdir())


def recorded(name: str) -> np.ndarray:
    with np.load(FOLDER / "scores.npz", allow_pickle=False) as scores:
        array: np.ndarray = scores[name]
    return array


def test_every_class_of_the_version_is_there() -> None:
    classes = {registry.load(FOLDER / "models" / name).manifest["class"] for name in NAMES}
    assert classes == {
        *("ALS", "BM25KNN", "BPR", "Blend", "CosineKNN", "EASE", "GraphFilter", "LMF"),
        *("MultDAE", "MultVAE", "Popularity", "RecVAE", "TFIDFKNN"),
    }


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_the_scores_it_gave(name: str, frozen: bool) -> None:
    loaded = registry.load(FOLDER / "models" / name, frozen=frozen)
    user_items = sparse.csr_matrix(recorded("user_items").astype(np.float32))
    assert_allclose(all_scores(loaded.model, user_items), recorded(name), rtol=1e-4, atol=1e-6)
    assert loaded.items["title"].tolist() == [f"Title {i}" for i in range(10)]
    assert loaded.users is not None
    assert_array_equal(np.concatenate(loaded.users["history"].tolist()), user_items.indices)


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_is_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    model = Recommender.load(FOLDER / "models" / name)
    model.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model")
    assert again.describe() == model.describe()
    user_items = sparse.csr_matrix(recorded("user_items").astype(np.float32))
    assert_array_equal(all_scores(again, user_items), all_scores(model, user_items))


def test_a_prepared_directory() -> None:
    prepared = read_prepared(FOLDER / "prepared")
    split = prepared.split
    assert split.train.shape == (7, 10)
    assert split.train.nnz == 37
    assert split.validation is not None
    assert (split.validation.fold_in.nnz, split.validation.held_out.nnz) == (9, 2)
    assert (split.test.fold_in.nnz, split.test.held_out.nnz) == (12, 3)
    assert sorted(prepared.items["item_id"]) == [f"i{i}" for i in range(10)]
    assert len(prepared.histories()) == 12
