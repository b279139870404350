"""Anomalies of users in a Parquet file, and made-up users in one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recvae.errors import ArtifactError, DataError, ParameterError, UnsupportedError
from recvae.inference.anomalies import find_anomalies
from recvae.inference.samples import write_samples
from recvae.models import registry
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.linear.ease import EASE
from tests.contracts import one_thread as one_thread
from tests.models.generative.test_anomaly import COMMON, N_ITEMS, draw_users, fit, shuffle_items

pytestmark = pytest.mark.usefixtures("one_thread")

ITEMS = [f"item {i}" for i in range(N_ITEMS)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    vae = fit(MultVAE(hidden=32, epochs=20, anneal_cap=1.0, total_anneal_steps=0, **COMMON))
    registry.save(vae, path, items=ITEMS)
    return path


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """40 real users, 10 random ones, one of one item, one of an unknown item, one without items."""
    real = draw_users(50, seed=7)
    rows = [*real[:40], *shuffle_items(real[40:])]
    histories = [[ITEMS[i] for i in row.indices] for row in rows]
    histories += [[ITEMS[0]], ["another"], []]
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": np.arange(len(histories)), "history": histories}), path)
    return path


def test_anomalies_of_a_file(model: Path, users: Path, tmp_path: Path) -> None:
    out = tmp_path / "anomalies.parquet"
    lines = find_anomalies(model, users, out, 0.05, show_progress=False)
    found = pq.read_table(out).to_pandas()
    assert found.user_id.tolist() == list(range(53))
    assert found.unusual[40:50].mean() >= 0.9
    assert found.unusual[:40].mean() <= 0.2
    assert (found.p_value[found.unusual] <= 0.05).all()
    assert found[["score", "p_value"]].isna().sum(axis=1).tolist() == [0] * 51 + [2, 2]
    assert (found["items"].str.len() > 0).tolist() == found.unusual.tolist()
    assert set(np.concatenate(found["items"][found.unusual].tolist())) <= set(ITEMS)
    assert lines == [
        f"wrote {out}: {found.unusual.sum()} of 53 users are unusual at level 0.05",
        f"1 of {found.n_interactions.sum() + 1} interactions are of unknown items and were left out",
        "1 histories of one interaction were scored by its popularity alone",
        "2 histories without a known item have neither score nor p-value",
    ]


def test_batches_come_to_the_same(model: Path, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_anomalies(model, users, tmp_path / "whole.parquet", show_progress=False)
    monkeypatch.setattr("recvae.inference.histories.USERS_A_BATCH", 7)
    find_anomalies(model, users, tmp_path / "pieces.parquet", show_progress=False)
    whole, pieces = (pq.read_table(tmp_path / name).to_pandas() for name in ("whole.parquet", "pieces.parquet"))
    np.testing.assert_allclose(whole.score, pieces.score, atol=1e-4)
    assert whole["items"].map(list).tolist() == pieces["items"].map(list).tolist()


def test_refused_anomalies(model: Path, users: Path, tmp_path: Path) -> None:
    out = tmp_path / "anomalies.parquet"
    for level in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ParameterError, match=r"level is .*; expected a number between 0 and 1"):
            find_anomalies(model, users, out, level)
    with pytest.raises(ParameterError, match=r"level is 0.001; expected at least 0.00125, since the model knows 800"):
        find_anomalies(model, users, out, 0.001)
    with pytest.raises(ArtifactError, match="expected a file in a directory that exists"):
        find_anomalies(model, users, tmp_path / "missing" / "file.parquet", show_progress=False)
    registry.save(EASE().fit(draw_users(30, seed=0), show_progress=False), tmp_path / "ease")
    with pytest.raises(UnsupportedError, match="EASE gives no probability of a history; MultVAE, RecVAE and MultDAE"):
        find_anomalies(tmp_path / "ease", users, out)
    before = users.read_bytes()
    for read, written in ((users, users), (tmp_path, out)):
        with pytest.raises(ParameterError, match=r"out is .*, where users are read from; expected another file"):
            find_anomalies(model, read, written, show_progress=False)
    assert users.read_bytes() == before
    pq.write_table(pa.table({"user_id": [1, 2], "history": [["a"], ["b", "c"]]}), users)
    with pytest.raises(DataError, match="all of whose items are unknown"):
        find_anomalies(model, users, out, show_progress=False)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ease", "users.parquet"]


def test_samples_in_a_file(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "sample.parquet"
    monkeypatch.setattr("recvae.models.generative.sampling.rows_at_once", lambda _: 7)
    (line,) = write_samples(model, 20, out, seed=1, show_progress=False)
    made = pq.read_table(out).to_pandas()
    assert line == f"wrote {out}: 20 made-up users with {len(made)} interactions"
    assert made.user_id.is_monotonic_increasing
    assert made.user_id.unique().tolist() == [f"made-up-{i:02}" for i in range(1, 21)]
    assert set(made.item_id) <= set(ITEMS)
    assert not made.duplicated().any()
    loaded = registry.load(model).model
    assert isinstance(loaded, MultVAE)
    assert len(made) == loaded.sample(20, seed=1).nnz
    lines = find_anomalies(model, out, tmp_path / "anomalies.parquet", show_progress=False)
    assert "of 20 users" in lines[0]


def test_refused_samples(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="users is 0"):
        write_samples(model, 0, tmp_path / "sample")
    for name in ("sample", "sample.csv", "manifest.json"):
        with pytest.raises(ParameterError, match=r"out is .*; expected a name that ends in \.parquet"):
            write_samples(model, 1, tmp_path / name)
    with pytest.raises(ArtifactError, match=r"is inside of .*, a recvae-model directory; expected another place"):
        write_samples(model, 1, model / "sample.parquet")
    with pytest.raises(ArtifactError, match=r"out is .*missing.*; expected a file in a directory that exists"):
        write_samples(model, 1, tmp_path / "missing" / "sample.parquet")
    registry.save(EASE().fit(draw_users(30, seed=0), show_progress=False), tmp_path / "ease")
    with pytest.raises(UnsupportedError, match="EASE makes up no histories; MultVAE and RecVAE do"):
        write_samples(tmp_path / "ease", 1, tmp_path / "sample")
    assert [path.name for path in tmp_path.iterdir()] == ["ease"]
