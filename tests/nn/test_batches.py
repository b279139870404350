import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.nn.batches import Batch, DeviceHistories


def interactions() -> sparse.csr_matrix:
    """Weighted rows; the first and the last are empty."""
    rng = np.random.default_rng(7)
    dense = (rng.random((10, 12)) < 0.4) * rng.uniform(0.2, 5, (10, 12))
    dense[[0, -1]] = 0
    return sparse.csr_matrix(dense.astype(np.float32))


def dense(batch: Batch) -> np.ndarray:
    found = np.zeros((len(batch), 12))
    np.add.at(found, (batch.users.numpy(), batch.items.numpy()), batch.values.numpy())
    return found


def test_a_batch_of_a_matrix() -> None:
    user_items = interactions()
    batch, expected = Batch.from_csr(user_items), user_items.toarray()
    assert len(batch) == 10
    assert_allclose(dense(batch), expected)
    assert batch.lengths.tolist() == (expected > 0).sum(axis=1).tolist()
    assert_allclose(batch.sum_weights().numpy(), expected.sum(axis=1), rtol=1e-6)
    norms = np.linalg.norm(dense(batch.normalise()), axis=1)
    assert_allclose(norms, [0, *[1] * 8, 0], rtol=1e-6)


@pytest.mark.parametrize("users", [[3, 0, 3, 1], [9], [], list(range(10))])
def test_batches_are_gathered_in_their_order(users: list[int]) -> None:
    user_items = interactions()
    histories = DeviceHistories(user_items, torch.device("cpu"))
    batch = histories.gather(np.array(users, dtype=np.int64))
    assert len(histories) == 10
    assert_allclose(dense(batch), user_items.toarray()[users])
    assert batch.offsets.tolist() == batch.host_offsets.tolist() == [0, *np.cumsum(batch.lengths.numpy())]
    assert batch.users.tolist() == [row for row, length in enumerate(batch.lengths.tolist()) for _ in range(length)]


def test_interactions_without_weights_have_the_value_1() -> None:
    user_items = interactions()
    user_items.data[:] = 1
    batch = DeviceHistories(user_items, torch.device("cpu")).gather(np.array([3, 0, 7]))
    assert_allclose(dense(batch), user_items.toarray()[[3, 0, 7]])
    assert batch.values.dtype == torch.float32


@pytest.mark.parametrize("users", [slice(0, 2), slice(1, 4), slice(4, 5), slice(2, 2), slice(None)])
def test_consecutive_users_are_a_view(users: slice) -> None:
    histories = DeviceHistories(interactions(), torch.device("cpu"))
    whole = histories.gather(np.array([3, 0, 7, 1, 8]))
    batch = whole[users]
    assert_allclose(dense(batch), dense(whole)[users])
    assert batch.offsets.tolist() == batch.host_offsets.tolist() == [0, *np.cumsum(batch.lengths.numpy())]
    assert batch.items.untyped_storage().data_ptr() == whole.items.untyped_storage().data_ptr()
    assert torch.equal(batch.normalise().values, whole.normalise()[users].values)


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 5), (5, 12), (4, 5), (12, 12)])
def test_interactions_of_some_items_are_numbered_from_the_first(start: int, stop: int) -> None:
    batch, expected = Batch.from_csr(interactions()).select_items(slice(start, stop)), interactions()[:, start:stop]
    assert_allclose(dense(batch)[:, : stop - start], expected.toarray())
    assert batch.offsets.tolist() == batch.host_offsets.tolist() == expected.indptr.tolist()


def test_histories_share_the_matrix() -> None:
    user_items = interactions()
    histories = DeviceHistories(user_items, torch.device("cpu"))
    user_items.data[:] = 7
    assert set(histories.gather(np.array([1])).values.tolist()) == {7}


@pytest.mark.parametrize("unit", [1e-42, 1e-25, 1e20, 1e38])
def test_weights_are_normalised_whose_squares_are_not_in_float32(unit: float) -> None:
    user_items, expected = interactions(), dense(Batch.from_csr(interactions()).normalise())
    user_items.data /= 5
    scale = np.where(np.arange(10) % 2, unit, 1)  # users with and without such weights beside each other
    user_items.data *= np.repeat(scale, np.diff(user_items.indptr)).astype(np.float32)
    rtol = 1e-2 if unit < 1e-38 else 1e-5  # there float32 has a few digits
    assert_allclose(dense(Batch.from_csr(user_items).normalise()), expected, rtol=rtol)
    histories = DeviceHistories(user_items, torch.device("cpu"))
    assert_allclose(dense(histories.gather(np.arange(10))[2:].normalise()), expected[2:], rtol=rtol)
