"""Leading singular vectors of a user-item matrix, against a dense singular value decomposition."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.models.autoencoders.base import INPUT_SCALE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn import spectrum
from recvae.nn.spectrum import item_vectors


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Four groups of users, each mostly with its own items, so that four singular values are large."""
    rng = np.random.default_rng(5)
    users, items = np.arange(400) % 4, np.arange(48) % 4
    chance = np.where(users[:, None] == items, 0.7, 0.01 + 0.06 * users[:, None])
    return sparse.csr_matrix(rng.random(chance.shape) < chance, dtype=np.float32)


def normalised(interactions: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    dense = interactions.toarray().astype(np.float64)
    users, items = dense.sum(axis=1, keepdims=True), dense.sum(axis=0, keepdims=True)
    return dense / np.sqrt(np.where(users, users, 1)) / np.sqrt(np.where(items, items, 1))


def test_leading_singular_vectors(interactions: sparse.csr_matrix) -> None:
    vectors = item_vectors(interactions, 4, generator()).numpy()
    values, expected = np.linalg.svd(normalised(interactions))[1:]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-5)
    found = np.linalg.norm(normalised(interactions) @ vectors, axis=0)
    np.testing.assert_allclose(found, values[:4], rtol=0.01)
    assert abs(vectors[:, 0] @ expected[0]) > 0.999


def test_all_singular_vectors_reproduce_the_matrix(interactions: sparse.csr_matrix) -> None:
    vectors = item_vectors(interactions, 100, generator()).numpy()
    assert vectors.shape == (48, 48)
    np.testing.assert_allclose(normalised(interactions) @ vectors @ vectors.T, normalised(interactions), atol=1e-5)


def test_users_and_items_without_interactions(interactions: sparse.csr_matrix) -> None:
    larger = sparse.csr_matrix(
        (interactions.data, interactions.indices, np.append(interactions.indptr, interactions.nnz)), shape=(401, 50)
    )
    vectors = item_vectors(larger, 4, generator()).numpy()
    np.testing.assert_allclose(vectors[48:], 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-5)


def test_no_interactions_at_all() -> None:
    assert torch.isfinite(item_vectors(sparse.csr_matrix(np.zeros((4, 3), np.float32)), 2, generator())).all()


def test_of_many_interactions_a_part_of_the_users_is_enough(
    interactions: sparse.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = item_vectors(interactions[::3], 4, generator())
    monkeypatch.setattr(spectrum, "MAX_INTERACTIONS", interactions.nnz // 3 + 1)
    assert torch.equal(item_vectors(interactions, 4, generator()), expected)


@pytest.mark.parametrize("create", [partial(MultVAE, encoder="dense"), RecVAE])
def test_layers_start_from_singular_vectors(
    create: Callable[..., MultVAE | RecVAE], interactions: sparse.csr_matrix
) -> None:
    modules = {}
    for initial in ("random", "spectral"):
        model = create(hidden=(60, 60), latent=5, initial=initial)
        modules[initial] = model.module_ = model._build(interactions.shape[1], generator())
        model._prepare_training(interactions, generator())
    vectors = item_vectors(interactions, 60, generator())
    for layer, columns, scale in (("encoder.input.weight", 48, INPUT_SCALE), ("output.weight", 5, 1.0)):
        random, spectral = (modules[initial].get_parameter(layer).detach() for initial in ("random", "spectral"))
        assert torch.equal(random[:, columns:], spectral[:, columns:])
        started, expected = spectral[:, :columns], vectors[:, :columns]
        torch.testing.assert_close(started / started.norm(), expected / expected.norm())
        torch.testing.assert_close(started.norm(), scale * random[:, :columns].norm())


def test_a_decoder_with_hidden_layers_starts_at_random(interactions: sparse.csr_matrix) -> None:
    model = MultVAE(hidden=7, latent=5, initial="spectral")
    module = model.module_ = model._build(interactions.shape[1], generator())
    before = module.output.weight.detach().clone()
    model._prepare_training(interactions, generator())
    assert torch.equal(module.output.weight, before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("large", "used", "expected"),
    [
        (1e9, {}, [1, 1, 1]),  # a small matrix
        (0, {1: 2.0, 2: 1.0}, [2, 1, 2]),  # a quiet machine
        (0, {1: 2.0, 2: 9.0}, [2, 1, 1]),  # beside a busy process
    ],
)
def test_a_basis_is_found_by_the_number_of_threads_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, large: float, used: dict[int, float], expected: list[int]
) -> None:
    clock, threads = [0.0], list[int]()
    find = spectrum._find_basis

    def timed(matrix: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        clock[0] += used.get(threads[-1], 1.0)
        return find(matrix)

    monkeypatch.setattr(spectrum, "LARGE", large)
    monkeypatch.setattr(spectrum, "THREADS_ARE_GIVEN", False)
    monkeypatch.setattr(spectrum, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(spectrum, "_find_basis", timed)
    orthonormalise = spectrum.Orthonormaliser()
    matrix = torch.randn(30, 5, generator=generator())
    for _ in expected:
        basis = orthonormalise(matrix)
        assert torch.get_num_threads() == 2
    assert threads == expected
    assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)
    assert_allclose(basis @ (basis.T @ matrix), matrix, atol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_a_number_of_threads_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "THREADS_ARE_GIVEN", True)
    monkeypatch.setattr(spectrum, "_find_basis", lambda _: torch.get_num_threads())
    assert spectrum.Orthonormaliser()(torch.ones(3, 2)) == 2
