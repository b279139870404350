"""`forget_users`: the users named are gone from every file of the artifact, and everything else is as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference import forgetting
from recvae.inference.forgetting import forget_users
from recvae.inference.recommend import recommend
from recvae.models import registry
from recvae.models.als import ALS
from recvae.models.base import Recommender
from recvae.models.blending.blend import Blend
from recvae.models.factorization import BPR, Factorization
from recvae.models.linear.ease import EASE
from recvae.storage.artifact import StoredModel, read_artifact, write_artifact
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 30, 20


def save(model: Recommender, path: Path, **belongings: Any) -> None:
    interactions = random_interactions(N_USERS, N_ITEMS)
    users = pd.DataFrame(
        {"user_id": [f"u{i}" for i in range(N_USERS)], "history": [row.indices for row in interactions]}
    )
    model.fit(interactions, show_progress=False)
    registry.save(model, path, **{"users": users, "data": {"dataset": "made up"}, **belongings})


def write(path: Path, *ids: object) -> Path:
    path.write_text("".join(f"{one}\n" for one in ("user_id", *ids)), encoding="utf-8")
    return path


@pytest.mark.parametrize("model", [EASE(), BPR(factors=4, iterations=3), ALS(factors=4, iterations=3)], ids=repr)
def test_the_users_are_gone_and_the_others_keep_their_lists(model: Recommender, tmp_path: Path) -> None:
    save(model, tmp_path / "model")
    before = {user: recommend(tmp_path / "model", user=user).items for user in ("u0", "u29")}
    loaded = registry.load(tmp_path / "model")
    lines = forget_users(tmp_path / "model", write(tmp_path / "who.csv", "u3", "u11", "u3", "stranger"))
    assert lines[0].startswith("forgot 2 users with ")
    assert lines[0].endswith("28 users are left")
    assert "1 ids of " in lines[1]
    assert {user: recommend(tmp_path / "model", user=user).items for user in before} == before
    with pytest.raises(ParameterError, match="does not know"):
        recommend(tmp_path / "model", user="u3")
    after = registry.load(tmp_path / "model")
    assert after.users is not None
    assert after.users["user_id"].tolist() == [f"u{i}" for i in range(N_USERS) if i not in (3, 11)]
    assert {**after.manifest, "sha256": None} == {**loaded.manifest, "sha256": None}
    assert after.manifest["sha256"] != loaded.manifest["sha256"]
    if isinstance(after.model, Factorization) and isinstance(loaded.model, Factorization):
        assert np.array_equal(after.model.user_factors_, np.delete(loaded.model.user_factors_, [3, 11], axis=0))


def test_users_whose_vectors_are_not_all_there(tmp_path: Path) -> None:
    """Of an ALS that was saved with new users too, and of one in a blend, the vectors of those named go."""
    users = pd.DataFrame({"user_id": [f"u{i}" for i in range(40)], "history": [[1, 2]] * 40})
    als = ALS(factors=4, iterations=3)
    save(als, tmp_path / "model", users=users)
    save(Blend([ALS(factors=4, iterations=3), EASE()], [0.5, 0.5]), tmp_path / "blend", users=users)
    for path in (tmp_path / "model", tmp_path / "blend"):
        before = read_artifact(path).arrays
        forget_users(path, write(tmp_path / "who.csv", "u3", "u35"))
        after = read_artifact(path).arrays
        (name,) = (name for name in before if name.endswith("user_factors"))
        assert np.array_equal(after[name], np.delete(before[name], 3, axis=0))
        assert len(read_artifact(path).users or ()) == 38


def test_vectors_of_more_users_than_there_are(tmp_path: Path) -> None:
    save(ALS(factors=4, iterations=3), tmp_path / "model")
    stored = read_artifact(tmp_path / "model")
    assert stored.users is not None
    write_artifact(tmp_path / "model", replace(stored, users=stored.users[:20]))  # as earlier versions would save
    registry.load(tmp_path / "model")
    with pytest.raises(ArtifactError, match="has 20 users and user_factors of 30, so it does not tell whose they are"):
        forget_users(tmp_path / "model", write(tmp_path / "who.csv", "u3"))


def test_a_model_that_is_fitted_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, who = tmp_path / "model", write(tmp_path / "who.csv", "u3")
    save(EASE(), path)

    def read(path: Path) -> StoredModel:
        stored = read_artifact(path)
        save(EASE(), path, data={"dataset": "newer"})
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "read_artifact", read)
        with pytest.raises(ArtifactError, match="model was replaced meanwhile, and is left as it is; try again"):
            forget_users(path, who)
    assert registry.load(path).manifest["data"] == {"dataset": "newer"}
    assert forget_users(path, who)[0].startswith("forgot 1 users")


def test_numbers_and_parquet(tmp_path: Path) -> None:
    users = pd.DataFrame({"user_id": range(100, 100 + N_USERS), "history": [[1, 2]] * N_USERS})
    save(EASE(), tmp_path / "model", users=users)
    pd.DataFrame({"user_id": [100, 129], "why": ["asked", "asked"]}).to_parquet(tmp_path / "who.parquet")
    forget_users(tmp_path / "model", tmp_path / "who.parquet")
    forget_users(tmp_path / "model", write(tmp_path / "who.csv", 101, "102"))
    left = registry.load(tmp_path / "model").users
    assert left is not None
    assert left["user_id"].tolist() == list(range(103, 129))
    forget_users(tmp_path / "model", write(tmp_path / "who.csv", *range(90, 140)))
    left = registry.load(tmp_path / "model").users
    assert left is not None
    assert left.empty


def test_refused_with_nothing_changed(tmp_path: Path) -> None:
    save(EASE(), tmp_path / "model")
    manifest = (tmp_path / "model" / "manifest.json").read_bytes()
    (tmp_path / "other.csv").write_text("customer,when\nu1,2024\n")
    (tmp_path / "not.parquet").write_text("x")
    for given, said in (
        (tmp_path / "nowhere.csv", "is missing; expected a file of user ids"),
        (tmp_path, "is a folder"),
        (tmp_path / "other.csv", "has no column 'user_id'; it has: customer, when"),
        (tmp_path / "not.parquet", "is not a readable Parquet file"),
        (write(tmp_path / "none.csv"), "has no rows"),
        (write(tmp_path / "blank.csv", "u1", '" "'), "user_id is missing in 1 of 2 rows"),
    ):
        with pytest.raises(DataError, match=said):
            forget_users(tmp_path / "model", given)
    assert (tmp_path / "model" / "manifest.json").read_bytes() == manifest
    save(EASE(), tmp_path / "without", users=None)
    with pytest.raises(ParameterError, match="saved without users"):
        forget_users(tmp_path / "without", write(tmp_path / "who.csv", "u1"))
