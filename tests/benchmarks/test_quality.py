"""Quality tables: cells measured in processes of their own, kept, and put together."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import kept, pool, quality
from benchmarks.published import FIGURES
from recvae.data.interactions import Interactions
from recvae.data.prepared import read_prepared, write_prepared
from recvae.data.splitting import given
from recvae.datasets import NAMES
from recvae.datasets.synthetic import generate
from recvae.evaluation.results import read_results
from recvae.evaluation.tables import markdown_table
from recvae.fitting.scored_users import draw_users


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared directory of lists, as Gowalla's are."""
    folder = tmp_path_factory.mktemp("prepared")
    ratings = generate(n_users=120, n_items=60, seed=3).ratings.drop_duplicates(["user_id", "item_id"])
    ratings = ratings.drop(columns=["rating", "timestamp"], errors="ignore").reset_index(drop=True)
    ratings["part"] = np.where(np.arange(len(ratings)) % 5 == 0, 2, 0).astype("int8")
    data = Interactions.from_frame(ratings)
    split = given(data, val_users=40)
    write_prepared(folder / "gowalla", data, split, dataset="gowalla", source={}, filters={}, counts={})
    return folder


def command(prepared: Path, out: Path, models: str) -> list[str]:
    keep = ["--data", str(prepared), "--out", str(out), "--keep", str(out / "keep")]
    return ["quality", "gowalla", "--models", models, "--seeds", "2", *keep]


def test_a_table_is_made_and_goes_on(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", command(prepared, tmp_path, "popularity,bpr"))
    quality.main()
    assert "popularity       seed 0" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", command(prepared, tmp_path, "popularity,bpr,ease"))
    quality.main()
    again = capsys.readouterr().out
    assert "ease             seed 0" in again
    assert "popularity       seed" not in again

    results = read_results(tmp_path / "gowalla.json")
    assert set(results["models"]) == {"popularity", "bpr", "ease"}
    assert len(results["models"]["bpr"]["by_seed"]["ndcg@20"]) == 2
    assert {pair["metric"] for pair in results["comparisons"]} == {"recall_full@20", "ndcg@20"}
    text = (tmp_path / "gowalla.md").read_text(encoding="utf8")
    assert markdown_table(results, quality.LISTS_METRICS) in text
    assert text.endswith(FIGURES["gowalla"])


def test_a_blend_takes_its_parts_from_their_cells(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept, "PARTS", ("ease", "popularity"))
    monkeypatch.setattr(sys, "argv", [*command(prepared, tmp_path, "blend,ease,popularity"), "--seeds", "1"])
    arguments = quality.parse_arguments()
    tables = quality.Tables(arguments)
    order = []
    while task := tables.take():
        order.append(task.what.row)
        tables.done(task.what, quality.measure(task.what))
    assert order == ["ease", "popularity", "blend"]
    folder = tmp_path / "keep" / "gowalla"
    split = read_prepared(prepared / "gowalla").split
    assert kept.take_part(folder, "ease", 0, "train").fitted_on(split.train)
    assert kept.take_part(folder, "ease", 0, "whole").fitted_on(kept.whole_training(split))
    blend = read_results(tmp_path / "gowalla.json")["models"]["blend"]["params"]
    ease = kept.take_part(folder, "ease", 0, "whole").fitted_params()
    assert [part["hyperparameters"] for part in blend["models"] if part["class"] == "EASE"] in ([ease], [])


def test_lists_are_fitted_again_on_all_training_interactions(prepared: Path) -> None:
    split = read_prepared(prepared / "gowalla").split
    whole = kept.whole_training(split)
    assert split.validation is not None
    assert whole.nnz == split.train.nnz + split.validation.held_out.nnz
    known = split.test.train_rows >= 0
    np.testing.assert_array_equal(whole[split.test.train_rows[known]].toarray(), split.test.fold_in[known].toarray())


def test_a_part_of_the_users(prepared: Path) -> None:
    test = read_prepared(prepared / "gowalla").split.test
    part = draw_users(test, 10)
    assert (part.n_users, part.fold_in.shape, len(part.train_rows)) == (10, (10, test.fold_in.shape[1]), 10)
    assert part.user_ids.isin(test.user_ids).all()
    assert draw_users(test, 10_000) is test


def test_published_figures_are_of_known_sets() -> None:
    assert set(FIGURES) <= set(NAMES)


def sleep(path: str) -> dict[str, Any]:
    """Work that takes long, of which the process is known by a file."""
    Path(path).write_text(str(os.getpid()), encoding="utf8")
    time.sleep(60)
    return {}


def test_a_pool_that_is_terminated_leaves_no_process_behind(tmp_path: Path) -> None:
    path = tmp_path / "worker"
    code = f"""if True:
        from benchmarks import pool
        from tests.benchmarks.test_quality import sleep
        tasks = [pool.Task({str(path)!r})]
        pool.run(sleep, lambda: tasks.pop() if tasks else None, print, workers=1, cores=1, seconds=60)"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not (path.exists() and path.read_text(encoding="utf8")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text(encoding="utf8")), 0)


def fail_or_die(what: str) -> dict[str, Any]:
    """Work of the pool's test."""
    if what == "die":
        os._exit(3)
    if what == "fail":
        raise ValueError("no luck")
    return {"figure": len(what)}


def test_failures_cost_only_themselves() -> None:
    tasks = [pool.Task(what, threads=2) for what in ("die", "fail", "fine")]
    found: dict[str, dict[str, Any]] = {}
    limits = {"workers": 2, "cores": 2, "seconds": 60.0}
    assert pool.run(fail_or_die, lambda: tasks.pop(0) if tasks else None, found.__setitem__, **limits)  # type: ignore[arg-type]
    assert found["die"]["error"] == "the process ended with code 3"
    assert found["fail"]["error"] == "ValueError: no luck"
    assert found["fine"]["figure"] == 4


def leave_a_mark(path: str) -> dict[str, Any]:
    """Work of the pool's test whose process writes a file when it ends by itself."""
    atexit.register(Path(path).touch)
    return {}


def test_a_worker_without_a_task_ends_by_itself(tmp_path: Path) -> None:
    """A process that is killed leaves the semaphores of its libraries behind."""
    tasks = [pool.Task(str(tmp_path / "mark"))]
    assert pool.run(
        leave_a_mark, lambda: tasks.pop() if tasks else None, lambda *_: None, workers=1, cores=1, seconds=60.0
    )
    assert (tmp_path / "mark").exists()


def test_small_tasks_overtake_what_waits_for_cores() -> None:
    """Of four cores three are taken at first: the large task waits, and is the next one when they are free."""
    tasks = [pool.Task("large", threads=3), pool.Task("small")]
    waiting: list[pool.Task] = []
    busy = pool.Task("first", threads=3)
    found = pool.choose([busy], waiting, lambda: tasks.pop(0) if tasks else None, pool.Limits(threads=4))
    assert found == pool.Task("small")
    assert pool.choose([busy], waiting, lambda: None, pool.Limits(threads=4)) is None
    assert pool.choose([found], waiting, lambda: None, pool.Limits(threads=4)) == pool.Task("large", threads=3)
    assert not waiting


@pytest.mark.parametrize("kind", ["memory", "gpu_memory"])
def test_memory_is_shared(kind: str) -> None:
    task = pool.Task("large", **{kind: 60})
    assert pool.choose([task], [], lambda: task, pool.Limits(**{kind: 100})) is None
    assert pool.choose([task], [], lambda: task, pool.Limits(**{kind: 120})) == task
    assert pool.choose([], [], lambda: task, pool.Limits(**{kind: 10})) == task  # alone it may try


def test_time_that_is_over() -> None:
    tasks = [pool.Task("fine")]
    done = pool.run(fail_or_die, lambda: tasks[0], lambda *_: None, workers=1, cores=1, seconds=0.0)
    assert not done


def test_dense_models_of_many_items_take_many_threads() -> None:
    assert kept.choose_threads("ease", 50_000, cores=16, workers=16) == 4
    assert kept.choose_threads("als", 50_000, cores=16, workers=16) == 1
    assert kept.estimate_memory("blend", 40_000) > 20 << 30
    assert kept.estimate_gpu_memory("als", 40_000) == 0 < kept.estimate_gpu_memory("multvae (paper)", 40_000)
    assert kept.estimate_gpu_memory("recvae fit", 40_000) > kept.estimate_gpu_memory("ease", 40_000) > 20 << 30
    assert kept.order_rows(["als", "popularity", "multvae (paper)", "blend"])[0] == "blend"
