import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import recvae
from recvae.errors import ArtifactError, MissingDependencyError, ParameterError
from recvae.lazy import lazy_names
from recvae.models.als import ALS
from recvae.models.base import Recommender
from recvae.models.factorization import BPR
from recvae.models.linear.ease import EASE
from recvae.models.registry import CLASSES, MODELS, create, seed_params
from recvae.storage.artifact import read_artifact, write_artifact
from tests.contracts import random_interactions


def test_every_model_is_a_public_name() -> None:
    for name, (_, class_name) in CLASSES.items():
        assert getattr(recvae, class_name) is MODELS[name] is MODELS.find_class(class_name)
    assert MODELS.find_class("Recommender") is None


def test_every_public_name_is_there() -> None:
    for name in recvae.__all__:
        assert getattr(recvae, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'recvae' has no attribute 'nothing'$"):
        recvae.nothing  # noqa: B018


def test_a_model_loads_without_another_import(tmp_path: Path) -> None:
    EASE(l2=5.0).fit(random_interactions(), show_progress=False).save(tmp_path / "model")
    assert isinstance(Recommender.load(tmp_path / "model"), EASE)
    with pytest.raises(recvae.RecvaeError, match="holds a EASE, not a MultVAE"):
        recvae.MultVAE.load(tmp_path / "model")


def test_users_must_be_those_of_the_vectors(tmp_path: Path) -> None:
    """The lists of a model that does not fold users in go by the row of a user: one too few, and they are another's."""
    matrix, path = random_interactions(), tmp_path / "model"
    n = matrix.shape[0]
    users = pd.DataFrame({"user_id": range(n + 1), "history": [[0]] * (n + 1)})
    bpr = BPR(factors=4, iterations=1).fit(matrix, show_progress=False)
    als = ALS(factors=4, iterations=1).fit(matrix, show_progress=False)
    for model, given, expected in ((bpr, users, n), (bpr, users[1:-1], n), (als, users[1:-1], f"at least {n}")):
        with pytest.raises(ParameterError, match=rf"^users has {len(given)} rows; expected {expected}: the rows"):
            recvae.save(model, path, users=given)
    assert not path.exists()
    recvae.save(als, path, users=users)
    recvae.save(bpr, path, users=users[:-1])
    stored = read_artifact(path)
    assert stored.users is not None
    write_artifact(path, replace(stored, users=stored.users[1:]))
    with pytest.raises(ArtifactError, match=rf"model: the table of users has {n - 1} rows; expected {n}: the rows"):
        recvae.load(path)


def test_names_presets_and_hyperparameters_are_checked() -> None:
    assert create("ease", l2=3.0).get_params()["l2"] == 3.0
    with pytest.raises(ParameterError, match=r"^model is 'eas'; expected one of popularity, als, "):
        create("eas")
    with pytest.raises(ParameterError, match=r"^preset is 'paper'; ease has none$"):
        create("ease", "paper")
    with pytest.raises(ParameterError, match=r"^ease has no hyperparameter 'k'; it has l2, density, dropout"):
        create("ease", k=3)
    assert seed_params("bpr", 4) == {"seed": 4}
    assert seed_params("ease", 4) == seed_params("nothing", 4) == {}


def test_a_lazy_name_whose_dependency_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazy_home.py").write_text("import no_such_library\nthing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    get = lazy_names("package", {"thing": "lazy_home"}, extra="service")
    with pytest.raises(
        MissingDependencyError, match=r"^package needs no_such_library; install recvae with the extra 'service'$"
    ):
        get("thing")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        lazy_names("package", {"thing": "lazy_home"})("thing")
    monkeypatch.setitem(sys.modules, "no_such_library", sys)
    assert get("thing") == lazy_names("package", {"other": ("lazy_home", "thing")})("other") == 1


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("als", "factors", 2**31 - 1),
        ("bpr", "factors", 10**6),
        ("lmf", "neg_prop", 10**6),
        ("graph", "factors", 10**6),
        ("cosine", "K", 2**31 - 1),
        ("bm25", "K1", 1e300),
        ("bpr", "learning_rate", 1e300),
        ("ease", "l2", 1e300),
    ],
)
def test_numbers_that_would_fill_the_memory(name: str, parameter: str, value: float) -> None:
    with pytest.raises(ParameterError, match=rf"^{parameter} is .*; expected .*at most"):
        create(name, None, **{parameter: value})
