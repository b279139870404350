import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

from recvae.nn.batches import Histories, Part, Rows


def interactions() -> sparse.csr_matrix:
    """Weighted rows; the first and the last are empty."""
    rng = np.random.default_rng(7)
    dense = (rng.random((10, 12)) < 0.4) * rng.uniform(0.2, 5, (10, 12))
    dense[[0, -1]] = 0
    return sparse.csr_matrix(dense.astype(np.float32))


def dense(rows: Rows, values: torch.Tensor) -> np.ndarray:
    found = np.zeros((len(rows), 12))
    np.add.at(found, (rows.users.numpy(), rows.items.numpy()), values.numpy())
    return found


def test_rows_of_a_matrix() -> None:
    user_items = interactions()
    rows, expected = Rows.of(user_items), user_items.toarray()
    assert len(rows) == 10
    assert_allclose(dense(rows, rows.values), expected)
    assert rows.lengths.tolist() == (expected > 0).sum(axis=1).tolist()
    assert_allclose(rows.sums().numpy(), expected.sum(axis=1), rtol=1e-6)
    norms = np.linalg.norm(dense(rows, rows.normalised()), axis=1)
    assert_allclose(norms, [0, *[1] * 8, 0], rtol=1e-6)


@pytest.mark.parametrize("users", [[3, 0, 3, 1], [9], [], list(range(10))])
def test_batches_are_gathered_in_their_order(users: list[int]) -> None:
    user_items = interactions()
    histories = Histories(user_items, torch.device("cpu"))
    rows = histories.rows(np.array(users, dtype=np.int64))
    assert len(histories) == 10
    assert_allclose(dense(rows, rows.values), user_items.toarray()[users])
    assert rows.offsets.tolist() == rows.starts.tolist() == [0, *np.cumsum(rows.lengths.numpy())]
    assert rows.users.tolist() == [row for row, length in enumerate(rows.lengths.tolist()) for _ in range(length)]


def test_interactions_without_weights_have_the_value_1() -> None:
    user_items = interactions()
    user_items.data[:] = 1
    rows = Histories(user_items, torch.device("cpu")).rows(np.array([3, 0, 7]))
    assert_allclose(dense(rows, rows.values), user_items.toarray()[[3, 0, 7]])
    assert rows.values.dtype == torch.float32


@pytest.mark.parametrize("part", [slice(0, 2), slice(1, 4), slice(4, 5)])
def test_a_part_of_a_batch_knows_its_place(part: slice) -> None:
    histories, users = Histories(interactions(), torch.device("cpu")), np.array([3, 0, 7, 1, 8])
    whole, rows = histories.rows(users), histories.part(users, part)
    assert (whole.of_users, whole.of_interactions) == (None, None)
    assert rows.of_users == Part(part.start, 5)
    assert rows.of_interactions == Part(int(whole.starts[part.start]), len(whole.items))
    assert torch.equal(rows.items, whole.items[whole.starts[part.start] : whole.starts[part.stop]])


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 5), (5, 12), (4, 5), (12, 12)])
def test_interactions_of_some_items_are_numbered_from_the_first(start: int, stop: int) -> None:
    rows, expected = Rows.of(interactions()).among(start, stop), interactions()[:, start:stop]
    assert_allclose(dense(rows, rows.values)[:, : stop - start], expected.toarray())
    assert rows.offsets.tolist() == rows.starts.tolist() == expected.indptr.tolist()


def test_histories_share_the_matrix() -> None:
    user_items = interactions()
    histories = Histories(user_items, torch.device("cpu"))
    user_items.data[:] = 7
    assert set(histories.rows(np.array([1])).values.tolist()) == {7}
