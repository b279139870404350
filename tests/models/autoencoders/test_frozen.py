"""Frozen autoencoders, which score with NumPy, against the torch networks, and in processes without torch."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from recvae.errors import ArtifactError, UnsupportedError
from recvae.models import registry
from recvae.models.autoencoders.architecture import DENSITY, TEMPERATURE, VARIATIONAL
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.frozen import LANES, FrozenAutoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.models.blending.blend import Blend
from recvae.models.linear.ease import EASE
from recvae.storage import artifact
from recvae.types import FloatArray
from tests.contracts import N_ITEMS, Factory, random_interactions, without_interactions
from tests.contracts import one_thread as one_thread

SMALL: dict[str, Any] = {"latent": 4, "epochs": 2, "batch_size": 20, "learning_rate": 0.05}
BESIDE_WEIGHTS = ("history_lengths", "fit_numbers", TEMPERATURE, *DENSITY)
FACTORIES: dict[str, Factory] = {
    "multvae": lambda: MultVAE(hidden=6, **SMALL),
    "multvae without hidden layers": lambda: MultVAE(hidden=(), **SMALL),
    "multvae with two": lambda: MultVAE(hidden=(6, 5), **SMALL),
    "dense multvae": lambda: MultVAE(hidden=(6, 6, 6), encoder="dense", gamma=0.01, **SMALL),
    "multdae": lambda: MultDAE(**SMALL),
    "multdae with a hidden layer": lambda: MultDAE(hidden=6, **SMALL),
    "recvae": lambda: RecVAE(hidden=(6, 6), encoder_passes=1, **SMALL),
}
INTERACTIONS = random_interactions(N_ITEMS + LANES, N_ITEMS)
INTERACTIONS.data[:] = np.random.default_rng(1).integers(1, 6, INTERACTIONS.nnz)


@pytest.fixture(scope="module", params=FACTORIES)
def trained(request: pytest.FixtureRequest) -> Autoencoder:
    model = FACTORIES[request.param]().fit(INTERACTIONS, show_progress=False)
    assert isinstance(model, Autoencoder)
    return model


@pytest.fixture
def path(trained: Autoencoder, tmp_path: Path) -> Path:
    registry.save(trained, tmp_path / "model")
    return tmp_path / "model"


def frozen(path: Path) -> FrozenAutoencoder:
    model = registry.load(path, frozen=True).model
    assert isinstance(model, FrozenAutoencoder)
    return model


def rankable(model: FrozenAutoencoder, histories: sparse.csr_matrix) -> FloatArray:
    scores = model.score_on_device(histories)
    assert isinstance(scores, np.ndarray)
    return scores


@pytest.mark.parametrize("n_users", [1, 2, LANES, LANES + 1])
def test_scores_are_those_of_the_trained_network(n_users: int, trained: Autoencoder, path: Path) -> None:
    model, histories = frozen(path), without_interactions(INTERACTIONS, [1])[:n_users]
    expected = trained.score(histories)
    assert expected.std(axis=1).min() > 0.01
    for scores in (model.score(histories), rankable(model, histories)):
        assert scores.dtype == np.float32
        assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    weight, bias = model.output_layer()
    filled = np.diff(histories.indptr) > 0
    queries = model.queries(histories)[filled]
    assert_allclose(queries @ weight.T + bias, expected[filled], rtol=1e-5, atol=1e-5)
    assert_allclose(queries, trained.queries(histories)[filled], rtol=1e-5, atol=1e-5)


def test_it_explains_and_compares_as_the_trained_model(trained: Autoencoder, path: Path) -> None:
    model = frozen(path)
    for found, expected in zip(
        model.explain(0, INTERACTIONS[2], [0, 3]), trained.explain(0, INTERACTIONS[2], [0, 3]), strict=True
    ):
        assert_allclose(found, expected, atol=1e-5)
    for found, expected in zip(model.similar_items([1, 2]), trained.similar_items([1, 2]), strict=True):
        assert_allclose(found, expected, atol=1e-5)


def test_scores_do_not_depend_on_other_users_of_the_batch(path: Path) -> None:
    model, user = frozen(path), INTERACTIONS[3]
    alone = model.score(user)
    for weight in (1.0, 1e12):
        neighbour = sparse.csr_matrix(INTERACTIONS[5] * weight, dtype=np.float32)
        empty = sparse.csr_matrix(user.shape).astype(np.float32)
        batch = sparse.vstack([empty, neighbour, empty, user, empty, neighbour, user, empty], format="csr")
        scores = model.score(batch)
        assert_allclose(scores[[3, 6]], np.repeat(alone, 2, axis=0), rtol=1e-5, atol=1e-6)
        assert np.isfinite(scores).all()


@pytest.mark.parametrize("weight", [1e-38, 3e38])
def test_histories_of_the_least_and_the_largest_weights(trained: Autoencoder, path: Path, weight: float) -> None:
    histories = without_interactions(INTERACTIONS, [1])[:3]
    expected = trained.score((histories > 0).astype(np.float32))
    histories.data[:] = weight
    assert_allclose(frozen(path).score(histories), expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_model_can_be_pickled(path: Path) -> None:
    model = frozen(path)
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301 what this test has just pickled
    assert_array_equal(copy.score(INTERACTIONS), model.score(INTERACTIONS))
    assert_array_equal(copy.recommend(0, INTERACTIONS[0])[0], model.recommend(0, INTERACTIONS[0])[0])


def test_large_activations_are_no_warning(tmp_path: Path) -> None:
    model = FACTORIES["dense multvae"]().fit(INTERACTIONS, show_progress=False)
    assert isinstance(model, Autoencoder)
    model.module_.encoder.input.bias.data[:] = -200.0
    registry.save(model, tmp_path / "model")
    assert_allclose(frozen(tmp_path / "model").score(INTERACTIONS), model.score(INTERACTIONS), rtol=1e-5, atol=1e-5)


def test_a_blend_scores_by_frozen_parts(tmp_path: Path) -> None:
    blend = Blend([EASE(), FACTORIES["multvae"](), FACTORIES["multdae"]()]).fit(INTERACTIONS, show_progress=False)
    registry.save(blend, tmp_path / "model")
    loaded = registry.load(tmp_path / "model", frozen=True).model
    assert isinstance(loaded, Blend)
    assert [type(model) for model in loaded.models] == [EASE, FrozenAutoencoder, FrozenAutoencoder]
    assert_allclose(loaded.score(INTERACTIONS), blend.score(INTERACTIONS), rtol=1e-5, atol=1e-5)


def test_it_is_neither_trained_nor_saved(trained: Autoencoder, path: Path, tmp_path: Path) -> None:
    model, name = frozen(path), type(trained).__name__
    with pytest.raises(UnsupportedError, match=f"^a frozen {name} cannot be trained; load it with frozen=False"):
        model.fit(INTERACTIONS, show_progress=False)
    with pytest.raises(UnsupportedError, match=f"^a frozen {name} cannot be saved; load it with frozen=False"):
        registry.save(model, tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_every_array_must_be_there_and_fit(trained: Autoencoder) -> None:
    whole = trained._state() | {"extra.bias": np.zeros(3, dtype=np.float32)}
    for name, array in whole.items():
        without = {key: kept for key, kept in whole.items() if key not in (name, "extra.bias")}
        odd = without | {name: array.astype(np.float64)}
        larger = without | {name: np.concatenate([array, array[:1]])}
        for state in (odd, larger) if name in (*BESIDE_WEIGHTS, "extra.bias") else (without, odd, larger):
            model = FrozenAutoencoder(type(trained).__name__)
            model.item_counts_ = trained.item_counts_
            if name in BESIDE_WEIGHTS:
                model._restore(state)
                continue
            with pytest.raises(
                ArtifactError, match=r"^[\w.]+ is (missing|\w+ \([\d, ]+\)); expected (none|float32 \(.*\))$"
            ):
                model._restore(state)


def test_an_array_of_a_type_that_no_model_has(tmp_path: Path) -> None:
    model = EASE().fit(INTERACTIONS, show_progress=False)
    registry.save(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    state = safetensors.numpy.load_file(file)
    weights = artifact._map_arrays(file)["weights"]
    assert_array_equal(weights, state["weights"])
    assert not weights.flags.owndata
    safetensors.numpy.save_file(state | {"weights": state["weights"].astype(np.float16)}, file)
    with pytest.raises(ValueError, match=r"^weights is F16; expected F64, F32, I64, I32$"):
        artifact._map_arrays(file)


def test_every_autoencoder_can_be_frozen() -> None:
    kinds = {type(make()).__name__ for make in FACTORIES.values()}
    assert kinds == set(VARIATIONAL)


@pytest.mark.parametrize("name", ["multvae", "ease"])
def test_a_process_that_serves_does_without_torch_and_pandas(name: str, tmp_path: Path) -> None:
    model = EASE() if name == "ease" else FACTORIES[name]()
    registry.save(model.fit(INTERACTIONS, show_progress=False), tmp_path / "model")
    code = f"""
import asyncio, sys
from pathlib import Path
from typing import Any
import httpx
from recvae.serving import Settings, create_app
async def main():
    app = create_app(Settings(Path({str(tmp_path / "model")!r}), exact_items=10))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            answer = await http.post("/recommend", json={{"history": [1, 2], "n": 3, "explain": True}})
            similar = await http.get("/items/1/similar")
    return [answer.status_code, similar.status_code]
print(asyncio.run(main()), sorted({{"torch", "pandas", "implicit", "sklearn"}} & set(sys.modules)))
"""
    outcome = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert outcome.stdout == "[200, 200] []\n"
