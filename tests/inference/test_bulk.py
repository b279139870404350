"""Lists for everybody: what is written, what a kill or a change leaves, and what is refused."""

import errno
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from recvae import workflow
from recvae.cli import main as cli
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, DataError, ParameterError
from recvae.inference import bulk, histories
from recvae.inference import recommend as inference
from recvae.inference.batch_recommender import BatchRecommender
from recvae.inference.bulk import recommend_everybody
from recvae.inference.histories import UserHistories
from recvae.models import registry
from recvae.preparation.pipeline import Options, prepare
from recvae.storage import files

N_ITEMS = 40
N_USERS = 230


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts, and users in both forms."""
    folder = tmp_path_factory.mktemp("bulk")
    prepare(generate(60, N_ITEMS), folder / "data", Options())
    tiny = {"epochs": 1, "hidden": 16, "latent": 8}
    for name, params in (("popularity", {}), ("multvae", tiny), ("bpr", {"factors": 2, "iterations": 1})):
        workflow.train(folder / "data", folder / name, name, params=params)
    interactions = generate(N_USERS, N_ITEMS, seed=3).ratings.sort_values("user_id", kind="stable")
    interactions.to_parquet(folder / "interactions.parquet", index=False, row_group_size=700)
    histories = interactions.groupby("user_id")["item_id"].agg(list).rename("history").reset_index()
    histories.to_parquet(folder / "users.parquet", index=False, row_group_size=50)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "USERS_A_PART", 60)
    monkeypatch.setattr(histories, "USERS_A_BATCH", 32)
    monkeypatch.setattr(histories, "INTERACTIONS_A_BATCH", 500)


def write(model: Path, users: Path, out: Path, n: int = 10) -> list[str]:
    return recommend_everybody(model, users, out, n, show_progress=False)


def parts(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def save_users(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["popularity", "multvae"])
@pytest.mark.parametrize("users", ["users.parquet", "interactions.parquet"])
def test_each_user_gets_the_list_that_recommend_gives(made: Path, tmp_path: Path, name: str, users: str) -> None:
    (line,) = write(made / name, made / users, tmp_path / "lists", n=7)
    assert line == f"wrote {tmp_path / 'lists'}: lists for 230 users in 4 part files"
    lists = pd.read_parquet(tmp_path / "lists")
    histories = pd.read_parquet(made / "users.parquet")
    assert lists["user_id"].tolist() == histories["user_id"].tolist()
    for place in range(0, N_USERS, 17):
        answer = inference.recommend(made / name, history=list(map(str, histories["history"][place])), n=7)
        assert list(lists["items"][place]) == [item["id"] for item in answer.items]
        assert list(lists["scores"][place]) == pytest.approx([item["score"] for item in answer.items], abs=1e-5)


def test_a_part_for_so_many_users_and_a_last_word(made: Path, tmp_path: Path) -> None:
    write(made / "popularity", made / "interactions.parquet", tmp_path / "lists")
    names = [f"part-0000{number}.parquet" for number in range(4)]
    assert sorted(parts(tmp_path / "lists")) == ["_SUCCESS", *names]
    assert [pq.read_metadata(tmp_path / "lists" / name).num_rows for name in names] == [60, 60, 60, 50]
    said = json.loads((tmp_path / "lists" / "_SUCCESS").read_text())
    assert said.pop("job").keys() == {"model", "users", "n"}
    n_interactions = pq.read_metadata(made / "interactions.parquet").num_rows
    assert said == {"n_parts": 4, "n_users": N_USERS, "n_interactions": n_interactions, "n_unknown": 0}


def test_a_folder_is_read_in_the_order_of_names(made: Path, tmp_path: Path) -> None:
    histories = pd.read_parquet(made / "users.parquet")
    (tmp_path / "users").mkdir()
    for number, place in enumerate((0, 100, 200)):
        histories[place : place + 100].to_parquet(tmp_path / "users" / f"part-{number}.parquet", index=False)
    (tmp_path / "users" / "_SUCCESS").touch()
    write(made / "multvae", tmp_path / "users", tmp_path / "lists")
    write(made / "multvae", made / "users.parquet", tmp_path / "others")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "lists"), pd.read_parquet(tmp_path / "others"))


def test_users_without_any_history_get_the_popular_items(made: Path, tmp_path: Path) -> None:
    """Their lists are of no type, as pandas and Arrow write them."""
    users = save_users(tmp_path / "users.parquet", {"user_id": ["ann", "bob"], "history": [[], []]})
    write(made / "multvae", users, tmp_path / "lists", n=3)
    lists = pd.read_parquet(tmp_path / "lists")
    counts = registry.load(made / "multvae").model.item_counts_
    popular = BatchRecommender(made / "multvae").item_ids.take(np.argsort(-counts, kind="stable")[:3])
    assert [list(items) for items in lists["items"]] == [popular.to_pylist()] * 2


def test_a_folder_of_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    for i in range(40):
        save_users(tmp_path / f"{i:02}.parquet", {"user_id": [i], "history": [[1, 2]]})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(opened.name) for opened in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, hard))
    try:
        users = [user for batch in UserHistories.open(tmp_path).batches() for user in batch["user_id"].to_pylist()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert users == list(range(40))


def test_the_users_of_an_artifact_hold_indices(made: Path, tmp_path: Path) -> None:
    """Of a model that cannot fold in, too: for each its own list, as by --user."""
    for name in ("multvae", "bpr"):
        write(made / name, made / name / "users.parquet", tmp_path / name)
        lists = pd.read_parquet(tmp_path / name)
        for place in (0, len(lists) - 1):
            answer = inference.recommend(made / name, user=str(lists["user_id"][place]))
            assert list(lists["items"][place]) == [item["id"] for item in answer.items]


def test_users_of_an_artifact_elsewhere_are_refused(made: Path, tmp_path: Path) -> None:
    """Their indices would be taken for ids."""
    pd.read_parquet(made / "multvae" / "users.parquet")[:5].to_parquet(tmp_path / "some.parquet")
    with pytest.raises(DataError, match=r"some\.parquet has item_rows, as a model's users\.parquet, but .*; expected"):
        write(made / "multvae", tmp_path / "some.parquet", tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_users_of_a_former_artifact(tmp_path: Path) -> None:
    """Version 1 of the format names the indices `history`."""
    former, saved = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "models" / "ease", tmp_path / "saved"
    artifact = registry.load(former)
    registry.save(artifact.model, saved, items=artifact.items, users=artifact.users)
    assert pq.read_schema(former / "users.parquet").names == ["user_id", "history"]
    assert pq.read_schema(saved / "users.parquet").names == ["user_id", "item_rows"]
    users = registry.load(saved).users
    assert users is not None
    assert artifact.users is not None
    assert_frame_equal(users, artifact.users)
    for model, out in ((former, tmp_path / "before"), (saved, tmp_path / "after")):
        write(model, model / "users.parquet", out, 3)
    assert_frame_equal(pd.read_parquet(tmp_path / "before"), pd.read_parquet(tmp_path / "after"))


def test_users_and_items_of_every_kind(made: Path, tmp_path: Path) -> None:
    """Text for numbers, categories, nobody's history, repetition and items that the model has never seen."""
    users = save_users(
        tmp_path / "users.parquet",
        {
            "user_id": pa.array(["ann", "bob", "eve", "zoë"]).dictionary_encode(),
            "history": [["1", "2", "2", "Heat"], [], None, ["x", "y", None]],
        },
    )
    (line,) = write(made / "multvae", users, tmp_path / "lists", n=N_ITEMS)
    assert line.endswith(
        "lists for 4 users in 1 part files; 4 of 7 interactions are of unknown items and were left out"
    )
    lists = pd.read_parquet(tmp_path / "lists")
    assert lists["user_id"].tolist() == ["ann", "bob", "eve", "zoë"]
    assert lists["n_unknown"].tolist() == [1, 0, 0, 3]
    assert [len(items) for items in lists["items"]] == [N_ITEMS - 2, N_ITEMS, N_ITEMS, N_ITEMS]
    assert list(lists["items"][1]) == list(lists["items"][2]) == list(lists["items"][3])
    once = inference.recommend(made / "multvae", history=["1", "2"], n=N_ITEMS)
    assert list(lists["items"][0]) == [item["id"] for item in once.items]


def test_text_ids(tmp_path: Path) -> None:
    interactions = generate(60, N_ITEMS).ratings
    interactions["item_id"] = interactions["item_id"].map("{:03}".format)
    interactions.to_csv(tmp_path / "interactions.csv", index=False)
    prepare(tmp_path / "interactions.csv", tmp_path / "data", Options())
    workflow.train(tmp_path / "data", tmp_path / "model", "popularity")
    users = save_users(tmp_path / "users.parquet", {"user_id": [5, 7], "item_id": ["001", "1"]})
    write(tmp_path / "model", users, tmp_path / "lists")
    lists = pd.read_parquet(tmp_path / "lists")
    assert lists["n_unknown"].tolist() == [0, 1]
    assert "001" not in lists["items"][0]
    assert all(isinstance(item, str) for item in lists["items"][0])


@pytest.mark.parametrize("users", ["users.parquet", "interactions.parquet"])
@pytest.mark.parametrize("missing", [[0], [1, 2], [3], [0, 3], [0, 1, 2, 3]])
def test_a_repeated_run_writes_what_is_missing_and_no_more(
    made: Path, tmp_path: Path, users: str, missing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "lists"
    write(made / "multvae", made / users, out)
    whole = parts(out)
    (out / "_SUCCESS").unlink()
    for number in missing:
        (out / f"part-0000{number}.parquet").unlink()
    scored: list[int] = []
    recommend = BatchRecommender.__call__

    def counting(stage: BatchRecommender, batch: pa.Table) -> pa.Table:
        scored.append(len(batch))
        return recommend(stage, batch)

    monkeypatch.setattr(BatchRecommender, "__call__", counting)
    write(made / "multvae", made / users, out)
    assert sum(scored) == sum([60, 60, 60, 50][number] for number in missing)
    assert parts(out) == whole
    assert write(made / "multvae", made / users, out) == [
        f"{out} was complete already: lists for 230 users in 4 part files"
    ]


def kill_in_part(number: int, sign: signal.Signals) -> str:
    """A program that runs the command line and is sent a signal while a part is half written."""
    return f"""
import os, signal
from recvae.inference import bulk, histories
from recvae.cli import main as cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
bulk.USERS_A_PART, histories.USERS_A_BATCH = 60, 32
write_table = bulk.pq.ParquetWriter.write_table
def killing(writer, table):
    write_table(writer, table)
    if 'part-0000{number}' in str(writer.where) and len(table) < 32:
        os.kill(os.getpid(), {int(sign)})
bulk.pq.ParquetWriter.write_table = killing
cli.main()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(made: Path, tmp_path: Path, sign: signal.Signals) -> None:
    out = tmp_path / "lists"
    arguments = shlex.split(f"recommend {made / 'multvae'} --users {made / 'users.parquet'} --out {out}")
    done = subprocess.run(
        [sys.executable, "-c", kill_in_part(2, sign), *arguments], capture_output=True, text=True, check=False
    )
    assert sorted(parts(out))[-2:] == ["part-00000.parquet", "part-00001.parquet"]
    assert not (out / "_SUCCESS").exists()
    if sign is signal.SIGINT:
        assert done.returncode == 130
        assert done.stderr.endswith("recvae: interrupted; 2 part files are finished: repeat the command to continue\n")
        assert len(parts(out)) == 2
    else:
        assert done.returncode == -signal.SIGKILL
    write(made / "multvae", made / "users.parquet", out)
    write(made / "multvae", made / "users.parquet", tmp_path / "straight")
    assert parts(out) == parts(tmp_path / "straight")


def changed_model(made: Path, tmp_path: Path) -> tuple[Path, Path, int]:
    workflow.train(made / "data", tmp_path / "model", "multvae", params={"epochs": 1, "hidden": 16, "latent": 7})
    return tmp_path / "model", made / "users.parquet", 10


def changed_users(made: Path, tmp_path: Path) -> tuple[Path, Path, int]:
    pd.read_parquet(made / "users.parquet")[::-1].to_parquet(tmp_path / "users.parquet")
    return made / "multvae", tmp_path / "users.parquet", 10


def changed_n(made: Path, tmp_path: Path) -> tuple[Path, Path, int]:
    return made / "multvae", made / "users.parquet", 9


@pytest.mark.parametrize(("change", "named"), [(changed_model, "model"), (changed_users, "users"), (changed_n, "n")])
@pytest.mark.parametrize("whole", [True, False])
def test_lists_of_another_job_are_refused_and_stay(
    made: Path, tmp_path: Path, change: Callable[..., tuple[Path, Path, int]], named: str, whole: bool
) -> None:
    out = tmp_path / "lists"
    write(made / "multvae", made / "users.parquet", out)
    if not whole:
        for name in ("_SUCCESS", "part-00003.parquet"):
            (out / name).unlink()
    before = parts(out)
    model, users, n = change(made, tmp_path)
    with pytest.raises(ArtifactError, match=rf"holds lists of another {named} \(.*, or remove .*lists$"):
        write(model, users, out, n)
    assert parts(out) == before


@pytest.mark.parametrize("content", [b"", b"PAR1 half", b"whatever"])
def test_a_damaged_part_is_named(made: Path, tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "lists"
    write(made / "popularity", made / "users.parquet", out)
    (out / "_SUCCESS").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"_SUCCESS is damaged: .*; remove it and run again"):
        write(made / "popularity", made / "users.parquet", out)
    (out / "_SUCCESS").unlink()
    (out / "part-00001.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"part-00001\.parquet is damaged: .*; remove it and run again"):
        write(made / "popularity", made / "users.parquet", out)


def test_parts_of_another_program_are_not_called_damaged(made: Path, tmp_path: Path) -> None:
    """Such as those of the users, which nobody should be told to remove."""
    users = save_users(tmp_path / "part-00000.parquet", {"user_id": [1], "history": [[1, 2]]})
    before = users.read_bytes()
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet holds no lists of recvae's; expected a new dir"):
        write(made / "popularity", tmp_path, tmp_path)
    assert parts(tmp_path) == {users.name: before}


def test_two_runs_never_write_one_directory(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, recommend, refused = tmp_path / "lists", BatchRecommender.__call__, list[str]()

    def meanwhile(stage: BatchRecommender, batch: pa.Table) -> pa.Table:
        with pytest.raises(ArtifactError) as error:
            write(made / "popularity", made / "users.parquet", out)
        refused.append(str(error.value))
        return recommend(stage, batch)

    monkeypatch.setattr(BatchRecommender, "__call__", meanwhile)
    write(made / "popularity", made / "users.parquet", out)
    assert set(refused) == {f"{out} is being written by another process; expected a directory of its own"}
    assert len(pd.read_parquet(out)) == N_USERS


def test_a_full_disk_keeps_the_parts_before(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, left = tmp_path / "lists", [2]

    def full(path: Path) -> None:
        left[0] -= path.suffix == ".tmp"
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", full)
        with pytest.raises(ArtifactError, match=r"part-00002\.parquet could not be written: No space left on device"):
            write(made / "popularity", made / "users.parquet", out)
    assert sorted(parts(out)) == ["part-00000.parquet", "part-00001.parquet"]
    write(made / "popularity", made / "users.parquet", out)
    assert len(pd.read_parquet(out)) == N_USERS


def test_a_model_that_is_replaced_meanwhile(made: Path, tmp_path: Path) -> None:
    """As in a worker on another machine, which loads the artifact for itself."""
    registry.save(registry.load(made / "multvae").model, tmp_path / "model")
    stage = BatchRecommender(tmp_path / "model")
    registry.save(registry.load(made / "popularity").model, tmp_path / "model")
    BatchRecommender(made / "popularity")  # takes the other's place in memory
    with pytest.raises(ArtifactError, match="model is no longer the artifact that this run began with"):
        stage(pa.table({"user_id": [1], "history": [[1]]}))


HISTORY = pa.array([[1], [2]])
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"user_id": [1, 2], "history": [1, 2]}, r"history is int64; expected a list of item ids"),
    "no user": ({"history": HISTORY}, r"has columns history and lacks user_id; expected user_id and history"),
    "no item": ({"user_id": [1, 2]}, r"has columns user_id and lacks item_id; expected user_id and history"),
    "floats": ({"user_id": [1, 2], "item_id": [1.5, 2]}, "item_id holds double; expected whole numbers or text"),
    "lists of floats": ({"user_id": [1, 2], "history": [[1.0], []]}, "history holds double; expected whole numbers"),
    "dates": ({"user_id": pa.array([1, 2], pa.date32()), "history": HISTORY}, r"user_id holds date32\[day\]"),
    "nobody": ({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())}, "has no rows"),
    "missing user": ({"user_id": [1, None], "history": HISTORY}, r"users.parquet row 2: user_id is missing"),
    "missing user of an interaction": (
        {"user_id": [1, None], "item_id": [1, 1]},
        r"users.parquet row 2: user_id is missing",
    ),
    "unsorted": (
        {"user_id": [1, 1, 3, 2, 1], "item_id": [1, 2, 3, 4, 5]},
        r"users.parquet row 4: user_id 2 comes after 3; expected the rows sorted by user_id",
    ),
    "other ids": (
        {"user_id": [1, 2], "history": [["Heat", "Alien"], ["Brazil"]]},
        r"interactions of Heat, Alien, Brazil, …; none of the 3 interactions of the first 2 users is "
        r"of an item .* ids look like",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_users_that_cannot_be_read(made: Path, tmp_path: Path, case: str) -> None:
    columns, message = REFUSED[case]
    users = save_users(tmp_path / "users.parquet", columns)
    with pytest.raises(DataError, match=message):
        write(made / "popularity", users, tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_unsorted_over_the_border_of_batches_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "INTERACTIONS_A_BATCH", 2)
    for number, user_ids in enumerate(([1, 1, 2, 3], [3, 3, 3, 1])):
        save_users(tmp_path / f"{number}.parquet", {"user_id": user_ids, "item_id": [1] * 4})
    with pytest.raises(DataError, match=r"1\.parquet row 4: user_id 1 comes after 3"):
        list(UserHistories.open(tmp_path).batches())


def test_what_is_no_parquet(made: Path, tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n1,2\n")
    for path, message in (
        (tmp_path / "interactions.csv", r"interactions\.csv is not readable as Parquet: "),
        (tmp_path / "absent", "absent, which does not exist; expected a Parquet file or a folder of them"),
        (tmp_path, r"a folder without \*\.parquet"),
    ):
        with pytest.raises(DataError, match=message):
            write(made / "popularity", path, tmp_path / "lists")


def test_files_of_different_types(made: Path, tmp_path: Path) -> None:
    save_users(tmp_path / "a.parquet", {"user_id": [1], "item_id": [1]})
    save_users(tmp_path / "b.parquet", {"user_id": ["x"], "item_id": [1]})
    with pytest.raises(DataError, match=r"b\.parquet has user_id \(string\) and .*a\.parquet has user_id \(int64\)"):
        UserHistories.open(tmp_path)


def test_a_damaged_row_group_is_named(made: Path, tmp_path: Path) -> None:
    content = bytearray((made / "users.parquet").read_bytes())
    place = pq.read_metadata(made / "users.parquet").row_group(2).column(0).data_page_offset
    content[place : place + 40] = bytes(40)
    (tmp_path / "users.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"users\.parquet row group 2 is not readable: "):
        write(made / "popularity", tmp_path / "users.parquet", tmp_path / "lists")
    assert list(parts(tmp_path / "lists")) == ["part-00000.parquet"]


def test_what_a_model_cannot_answer(made: Path, tmp_path: Path) -> None:
    users = save_users(tmp_path / "users.parquet", {"user_id": [1, 900_000], "history": HISTORY})
    with pytest.raises(ParameterError, match=r"user_id 900000 is not among the users .*bpr was trained on; BPR cannot"):
        write(made / "bpr", users, tmp_path / "lists")
    registry.save(registry.load(made / "bpr").model, tmp_path / "bare")
    with pytest.raises(ParameterError, match=r"BPR cannot fold in new users, and .*bare was saved without users"):
        write(tmp_path / "bare", users, tmp_path / "lists")
    for n in (0, -1, N_ITEMS + 1):
        with pytest.raises(ParameterError, match=f"n is {n}; expected 1 to 40, the items of the catalogue"):
            write(made / "popularity", users, tmp_path / "lists", n)
    assert not (tmp_path / "lists").exists()


def test_where_lists_cannot_be_written(made: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for out, message in (
        (tmp_path, r"exists and holds something else \(mine\.txt\)"),
        (tmp_path / "mine.txt", "mine.txt exists and is not a directory"),
        (tmp_path / "mine.txt" / "lists", "lists could not be written: Not a directory"),
    ):
        with pytest.raises(ArtifactError, match=message):
            write(made / "popularity", made / "users.parquet", out)
    assert parts(tmp_path) == {"mine.txt": b"mine"}


def test_memory_is_bounded_by_a_batch(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of 80 MB no more than a few are ever held."""
    n_users, n_interactions = 100_000, 100
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(
        tmp_path / "users.parquet", pa.schema({"user_id": pa.int64(), "item_id": pa.int64()})
    ) as file:
        for first in range(0, n_users, 5_000):
            user_ids = np.repeat(np.arange(first, first + 5_000), n_interactions)
            items = rng.integers(1, N_ITEMS, len(user_ids))
            file.write_table(pa.table({"user_id": user_ids, "item_id": items}), row_group_size=100_000)
    before, held, n_read = pa.total_allocated_bytes(), list[int](), 0
    monkeypatch.setattr(histories, "INTERACTIONS_A_BATCH", 50_000)
    for batch in UserHistories.open(tmp_path / "users.parquet").batches():
        held.append(pa.total_allocated_bytes() - before)
        n_read += len(batch)
    assert n_read == n_users
    assert max(held) < 12e6


@pytest.fixture
def recvae(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(line: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["recvae", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_on_the_command_line(made: Path, tmp_path: Path, recvae: Callable[..., Any]) -> None:
    line = f"recommend {made / 'popularity'} --users {made / 'users.parquet'} --out {tmp_path / 'lists'} -n 3"
    status, out, err = recvae(line)
    assert (status, out) == (0, f"wrote {tmp_path / 'lists'}: lists for 230 users in 4 part files\n")
    assert err.splitlines()[-1] == "recommend: row 230/230  0 s left"
    assert {len(items) for items in pd.read_parquet(tmp_path / "lists")["items"]} == {3}
    for options in ("--users x", "--out x", "--users x --out y --user 1", "--users x --out y --history 1"):
        status, _, err = recvae(f"recommend {made / 'popularity'} {options}")
        assert (status, err) == (2, "recvae: --users and --out go together, without --history and --user\n")
