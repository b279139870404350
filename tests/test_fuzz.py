"""Readers under fire: whatever the bytes, a reader gives its answer or the package's own error, and nothing else.

Each reader gets $RECVAE_FUZZ_INPUTS inputs, 60 when it is not set: random bytes, and true files that were cut, spliced
and overwritten, signed anew where a checksum would refuse them before they are read. What was found stands at the end;
after that 1,000 inputs for each (`make long`) found nothing more.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.prepared import KIND, VERSION, read_prepared, write_prepared
from recvae.data.readers import read_lists, read_table
from recvae.data.splitting import strong_generalization
from recvae.datasets import load
from recvae.datasets.unzip import unzip
from recvae.errors import ArtifactError, DataError, RecvaeError
from recvae.inference.ranker import Query, Ranker
from recvae.models import registry
from recvae.models.popularity import Popularity
from recvae.storage.manifest import MANIFEST, read_manifest, write_manifest
from tests.test_former_versions import FOLDER

INPUTS = int(os.environ.get("RECVAE_FUZZ_INPUTS", "60"))
CSV = b'user_id,item_id,rating,timestamp\n1,20,4.5,100\n2,"10",3,\n\n007, 5,nan,1e9\n'
LISTS = b"0 1 2 3\n1 5\n\n2\n"

fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A true file with up to four stretches overwritten, cut out, doubled or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(0, 12)))
        new = draw(st.one_of(st.binary(max_size=12), st.just(content[start:stop] * 2), st.sampled_from(TOKENS)))
        content = content[:start] + new + content[stop:]
    return content


TOKENS = [
    *(b"\n", b"\r\n", b"\r", b",", b"\t", b'"', b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"nan", b"inf", b"-0", b"1e999"),
    *(b"9" * 30, b"{", b"}", b"[", b"null", b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"../", b"PK\x03\x04"),
]


def either(read: Callable[[], object], error: type[RecvaeError]) -> None:
    """The reader's answer, or its own error in one line that says something."""
    told = "an answer"
    try:
        read()
    except error as found:
        told = str(found)
    assert told.strip()
    assert "\n" not in told


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.tsv", "interactions", "interactions.parquet"])
@fuzzed
@given(st.one_of(st.binary(max_size=200), damaged(CSV), damaged(CSV.replace(b",", b"\t"))))
def test_ratings_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    either(lambda: Interactions.from_frame(read_table(tmp_path / name)), DataError)


def parquet() -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"user_id": ["a", "b"], "item_id": [1, 2], "rating": [4.5, 3.0]}).to_parquet(file)
    return file.getvalue()


@fuzzed
@given(damaged(parquet()))
def test_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "interactions.parquet").write_bytes(content)
    either(lambda: Interactions.from_frame(read_table(tmp_path / "interactions.parquet")), DataError)


@fuzzed
@given(st.one_of(st.binary(max_size=200), damaged(LISTS)))
def test_id_lists(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    either(lambda: read_lists(tmp_path / "train.txt"), DataError)


FOLDERS: dict[str, dict[str, bytes]] = {
    "u.data": {"u.data": b"1\t2\t5\t881250949\n2\t3\t4\t8\n", "u.item": b"2|Film (1995)|01-Jan-1995||" + b"|0" * 19},
    "ratings.dat": {"ratings.dat": b"1::2::5::978300760\n", "movies.dat": b"2::Film (1995)::Drama|War\n"},
    "ratings.csv": {
        "ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3.5,8\n",
        "movies.csv": b'movieId,title,genres\n2,"Film, A (1995)",Drama\n',
    },
    "ml-100k.inter": {
        "ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t8\n",
        "ml-100k.item": b"item_id:token\ttitle\tyear\tclass\n2\tFilm\t1995\tDrama\n",
    },
    "train.txt": {"train.txt": b"0 1 2\n", "test.txt": b"0 3\n", "valid.txt": b"0 4\n"},
}


@pytest.mark.parametrize("folder", FOLDERS)
@fuzzed
@given(st.data())
def test_folders_of_data_sets(tmp_path: Path, folder: str, data: st.DataObject) -> None:
    files = FOLDERS[folder]
    victim = data.draw(st.sampled_from(sorted(files)))
    for name, content in files.items():
        (tmp_path / name).write_bytes(data.draw(damaged(content)) if name == victim else content)
    either(lambda: load(tmp_path), DataError)


@fuzzed
@given(st.one_of(st.binary(max_size=200), st.data()))
def test_manifests(tmp_path: Path, content: bytes | st.DataObject) -> None:
    write_manifest_once(tmp_path)
    if not isinstance(content, bytes):
        content = content.draw(damaged((tmp_path / "true.json").read_bytes()))
    (tmp_path / "made" / MANIFEST).write_bytes(content)
    either(lambda: read_manifest(tmp_path / "made", KIND, VERSION), ArtifactError)


def write_manifest_once(folder: Path) -> None:
    if not (folder / "made").exists():
        (folder / "made").mkdir()
        (folder / "made" / "data.txt").write_text("data")
        write_manifest(folder / "made", KIND, VERSION, {"counts": {"rows": 3}, "note": "é"})
        (folder / "made" / MANIFEST).rename(folder / "true.json")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    users, items = np.nonzero(np.random.default_rng(0).random((20, 9)) < 0.7)
    interactions = Interactions.from_frame(pd.DataFrame({"user_id": users, "item_id": items}))
    path = tmp_path_factory.mktemp("fuzz") / "prepared"
    split = strong_generalization(interactions, val_users=3, test_users=3)
    write_prepared(path, interactions, split, dataset="toy", source={}, filters={}, counts={})
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "model"
    registry.save(Popularity().fit(sparse.csr_matrix(np.eye(5)), show_progress=False), path)
    return path


def resigned(original: Path, copy: Path, name: str, content: bytes) -> Path:
    """A copy of a directory with other content in one file and a manifest that vouches for it."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original, copy)
    manifest = json.loads((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).unlink()
    (copy / name).write_bytes(content)
    kind, version = manifest.pop("format"), manifest.pop("format_version")
    manifest.pop("sha256")
    write_manifest(copy, kind, version, manifest)
    return copy


@pytest.mark.parametrize(
    "name",
    ["train.indptr.npy", "train.indices.npy", "ones.npy", "test.train_rows.npy", "items.parquet", "users.parquet"],
)
@fuzzed
@given(data=st.data())
def test_prepared_directories(prepared: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = data.draw(damaged((prepared / name).read_bytes()))
    copy = resigned(prepared, tmp_path / "copy", name, content)
    either(lambda: read_prepared(copy), ArtifactError)


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet"])
@fuzzed
@given(data=st.data())
def test_artifacts(saved: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = data.draw(damaged((saved / name).read_bytes()))
    copy = resigned(saved, tmp_path / "copy", name, content)
    either(lambda: registry.load(copy), ArtifactError)


MODELS = sorted(path.name for path in (FOLDER / "models").iterdir())
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 3, 2**31, 10**12, 10**30, 0.5, -0.5, 1e300, float("inf"), float("nan")]),
    st.sampled_from(["", "EASE", "MultVAE", "ndcg@5", "cpu", "2020-01-01", [], {}, [0], [7, 7], [[]], [{}], {"a": 1}]),
    st.just([{"class": "EASE", "hyperparameters": {"l2": 5.0}}] * 2),
    st.just([3] * 200),
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to everything in a JSON document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in entries for place in places(entry, (*path, key)))]


def use(path: Path, frozen: bool) -> None:
    """Load a model and rank with it, for users whom it may know."""
    loaded = registry.load(path, frozen=frozen)
    interactions = sparse.csr_matrix(np.eye(3, loaded.model.n_items_, dtype=np.float32))
    with np.errstate(all="ignore"):
        ids, scores = loaded.model.recommend(np.arange(3), interactions, N=4)
    assert ids.shape == scores.shape == (3, 4)
    assert ((ids >= -1) & (ids < loaded.model.n_items_)).all()


@pytest.mark.parametrize("name", MODELS)
@fuzzed
@given(data=st.data())
def test_manifests_of_every_model(tmp_path: Path, name: str, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(FOLDER / "models" / name, tmp_path / "copy")
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        entries = [place for place in places(manifest) if place and place[0] != "sha256"]
        *parents, last = data.draw(st.sampled_from(entries))
        holder = manifest
        for key in parents:
            holder = holder[key]
        holder[last] = deepcopy(data.draw(VALUES))
    (tmp_path / "copy" / MANIFEST).write_text(json.dumps(manifest))
    either(lambda: use(tmp_path / "copy", data.draw(st.booleans())), RecvaeError)


@st.composite
def damaged_array(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """An array of another type or shape, or with another value somewhere."""
    with np.errstate(invalid="ignore"):  # a float that no integer can be
        changed = array.astype(draw(st.sampled_from([str(array.dtype), "float32", "float64", "int32", "int64"])))
    kind = draw(st.sampled_from(["value", "shorter", "longer", "flat", "deeper", "empty"]))
    if kind == "value" and changed.size:
        values = [0, -1, 1, 10, 11, 2**31 - 1, -(2**31)]
        changed.flat[draw(st.integers(0, changed.size - 1))] = draw(st.sampled_from(values))
    shapes = {"flat": changed.reshape(-1), "deeper": changed[None], "empty": changed[:0], "shorter": changed[:-1]}
    return np.concatenate([changed, changed]) if kind == "longer" else shapes.get(kind, changed)


@pytest.mark.parametrize("name", MODELS)
@fuzzed
@given(data=st.data())
def test_arrays_of_every_model(tmp_path: Path, name: str, data: st.DataObject) -> None:
    file = FOLDER / "models" / name / "model.safetensors"
    arrays = safetensors.numpy.load_file(file)
    for _ in range(data.draw(st.integers(1, 2))):
        victim = data.draw(st.sampled_from(sorted(arrays)))
        if data.draw(st.integers(0, 9)):
            arrays[victim] = np.ascontiguousarray(data.draw(damaged_array(arrays[victim])))
        elif len(arrays) > 1:
            del arrays[victim]
    copy = resigned(FOLDER / "models" / name, tmp_path / "copy", file.name, safetensors.numpy.save(arrays))
    either(lambda: use(copy, data.draw(st.booleans())), RecvaeError)


@fuzzed
@given(
    histories=st.lists(
        st.one_of(st.none(), st.lists(st.one_of(st.integers(-2, 12), st.sampled_from([None, 2**31, 2**62, -(2**40)])))),
        min_size=1,
        max_size=4,
    ),
    kind=st.sampled_from([pa.list_(pa.int64()), pa.large_list(pa.int64())]),
)
def test_histories_of_users(tmp_path: Path, histories: list[list[int | None] | None], kind: pa.DataType) -> None:
    file = io.BytesIO()
    table = {"user_id": [f"u{i}" for i in range(len(histories))], "history": pa.array(histories, kind)}
    pq.write_table(pa.table(table), file)
    copy = resigned(FOLDER / "models" / "ease", tmp_path / "copy", "users.parquet", file.getvalue())

    def rank() -> None:
        ranker = Ranker(registry.load(copy, frozen=True))
        for name in table["user_id"]:
            found = ranker.find_user(name)
            assert found is not None
            assert len(ranker.rank([Query(found[1], user=found[0])])) == 1

    either(rank, ArtifactError)
    sound = all(history is not None and all(i in range(10) for i in history) for history in histories)
    assert sound == (refusal(rank) is None)


def refusal(read: Callable[[], object]) -> ArtifactError | None:
    try:
        read()
    except ArtifactError as error:
        return error
    return None


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("ml/u.data", b"1\t2\t5\t8\n" * 20)
        opened.writestr("ml/README", b"read")
    return file.getvalue()


@fuzzed
@given(damaged(archive()))
def test_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.zip").write_bytes(content)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    either(lambda: unzip(tmp_path / "set.zip", tmp_path / "out"), DataError)
    assert {path.name for path in tmp_path.iterdir()} <= {"set.zip", "out"}


@pytest.mark.parametrize(
    "content", [b"user_id,item_id,timestamp\n1,2,\x80\n", b"user_id,item_id,timestamp\n1,2,3\n1,3,a\xff\n"]
)
def test_a_time_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "interactions.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"interactions\.csv is not UTF-8 text"):
        read_table(tmp_path / "interactions.csv")


@pytest.mark.parametrize("header", [b"{", b"{'descr': (", b"{'descr': '<i4'\0}", b"{'shape': (1,)]"])
def test_an_array_whose_header_is_no_python(prepared: Path, tmp_path: Path, header: bytes) -> None:
    content = (prepared / "train.indices.npy").read_bytes()
    damaged = content[:10] + header.ljust(118) + content[128:]
    with pytest.raises(ArtifactError, match=r"is damaged: train\.indices\.npy is no one-dimensional \.npy array"):
        read_prepared(resigned(prepared, tmp_path / "copy", "train.indices.npy", damaged))


def test_an_error_of_parquet_is_one_line(prepared: Path, tmp_path: Path) -> None:
    damaged = b"P" + (prepared / "users.parquet").read_bytes()
    with pytest.raises(ArtifactError, match="is damaged: ") as error:
        read_prepared(resigned(prepared, tmp_path / "copy", "users.parquet", damaged))
    assert "\n" not in str(error.value)


def test_a_column_whose_name_has_two_lines(tmp_path: Path) -> None:
    pd.DataFrame({"user\n_\x1b[2Jid": [1], "item_id": [2]}).to_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError) as error:
        read_table(tmp_path / "interactions.parquet")
    assert str(error.value).endswith(r"it has: user\n_\x1b[2Jid, item_id")


def test_an_archive_with_an_entry_without_a_name(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("a", b"interactions")
    content = bytearray(file.getvalue())
    for name in (content.index(b"a", 30), content.rindex(b"a")):
        content[name] = 0  # a name ends at its first zero byte
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(DataError, match="holds an entry without a name"):
        unzip(tmp_path / "set.zip", tmp_path / "out")
