"""The command line: what it prints, and one line with exit status 2 for everything that its user can mend."""

import contextlib
import errno
import io
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recvae import workflow
from recvae.cli import lists
from recvae.cli import main as cli
from recvae.cli.arguments import parse_path
from recvae.datasets.synthetic import generate
from recvae.evaluation.results import read_results
from recvae.inference import recommend as inference
from recvae.models import registry
from recvae.models.linear.ease import EASE
from recvae.preparation.pipeline import Options, prepare
from tests.contracts import random_interactions

N_USERS, N_ITEMS = 60, 40
RECVAE = Path(sysconfig.get_path("scripts")) / "recvae"
QUICK = "--set epochs=2 --set hidden=16 --set latent=8"
EPOCHS_TO_INTERRUPT = 50


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Command = Callable[[str], Outcome]


@pytest.fixture
def recvae(run_recvae: Callable[[str], tuple[int, str, str]]) -> Command:
    """Run a command line inside this process."""
    return lambda arguments: Outcome(*run_recvae(arguments))


def make(folder: Path) -> None:
    """Sources, prepared data, artifacts and a report for every command to work on."""
    source = generate(N_USERS, N_ITEMS)
    source.ratings.to_csv(folder / "interactions.csv", index=False)
    source.ratings.assign(kind="view").to_csv(folder / "kinds.csv", index=False)
    (folder / "empty.csv").write_text("")
    (folder / "blank.csv").write_text("user_id,item_id\na,b\n\n ,c\n")
    (folder / "text.csv").write_text("user_id,item_id,rating\na,b,3\na,c,good\n")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "mine.txt").write_text("mine")
    prepare(source, folder / "data", Options())
    prepare(source, folder / "known", Options(split="leave-last"))
    for name, data, params in (("popularity", "data", {}), ("bpr", "data", {"factors": 2, "iterations": 1})):
        workflow.train(folder / data, folder / name, name, params=params)
    workflow.train(folder / "data", folder / "damaged", "popularity")
    (folder / "damaged" / "model.safetensors").write_bytes(b"no weights")
    workflow.compare(folder / "data", folder / "report", ["popularity"])


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what the files hold."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def assert_refused(outcome: Outcome, *expected: str) -> None:
    """Exit status 2 and one line on standard error that says all of `expected`."""
    lines = [line for line in outcome.err.splitlines() if ": epoch " not in line]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("recvae: ")
    assert outcome.status == 2
    for text in expected:
        assert text in lines[0]


REFUSED: dict[str, tuple[str, ...]] = {
    # sources
    "prepare nowhere.csv --out new": ("nowhere.csv", "neither a file, a folder nor a data set's name", "ml-100k"),
    "prepare empty.csv --out new": ("empty.csv is empty", "expected a header line"),
    "prepare thesis --out new": ("thesis", "holds no data set", "expected one of u.data"),
    "prepare blank.csv --out new": ("blank.csv line 4", "user_id is missing"),
    "prepare text.csv --out new": ("text.csv line 3", "rating is 'good'", "expected a number"),
    "prepare interactions.csv --out new --user-column who": (
        "'who'",
        "--user-column",
        "user_id, item_id, rating, timestamp",
    ),
    "prepare interactions.csv --out new --timestamp-column t": (
        "'t'",
        "--timestamp-column",
        "user_id, item_id, rating",
    ),
    # filters and splits
    "prepare interactions.csv --out new --min-rating 6": ("no interactions are left", "interactions below min rating"),
    "prepare interactions.csv --out new --min-rating high": ("--min-rating", "'high'", "valid number"),
    "prepare interactions.csv --out new --val-users 40 --test-users 30": (
        "val_users 40",
        "test_users 30",
        "nobody of 60",
    ),
    "prepare interactions.csv --out new --val-users 0": ("val_users is 0", "at least 1"),
    "prepare interactions.csv --out new --test-users -4": ("test_users is -4", "at least 1"),
    "prepare interactions.csv --out new --val-users 1.5": ("--val-users", "'1.5'", "valid integer"),
    "prepare interactions.csv --out new --split weekly": ("split is 'weekly'", "strong, given, temporal, leave-last"),
    "prepare interactions.csv --out new --split leave-last --val-users 9": ("val_users is 9", "'leave-last'"),
    "prepare interactions.csv --out new --split temporal --val-time soon": ("val_time is 'soon'", "a date such as"),
    "prepare interactions.csv --out new --seed x": ("--seed", "'x'", "valid integer"),
    "prepare interactions.csv --out new --seed=x": ("--seed", "'x'", "valid integer"),
    "prepare interactions.csv --out new --seed -1": ("seed is -1", "expected a whole number of at least 0"),
    # where to write
    "prepare interactions.csv --out thesis": (
        "thesis exists and holds something else (mine.txt)",
        "expected a new path",
    ),
    "prepare interactions.csv --out popularity": ("popularity exists and holds something else (recvae-model)",),
    "prepare interactions.csv --out ''": ("'--out': expected a path, or . for the current directory (given: '')",),
    "train data --out ''": ("'--out': expected a path, or . for the current directory (given: '')",),
    "verify ''": ("'directory': expected a path, or . for the current directory",),
    "prepare '' --out new": ("'source': expected a path, or . for the current directory",),
    "prepare interactions.csv --out empty.csv": ("empty.csv exists and is not a directory", "expected a new path"),
    "prepare interactions.csv --out empty.csv/data": ("empty.csv/data could not be written",),
    "train data --out thesis": ("thesis exists and holds something else (mine.txt)", "expected a new path"),
    "train data --out data": ("data exists and holds something else (recvae-data)",),
    "train data --out empty.csv": ("empty.csv exists and is not a directory", "expected a new path"),
    "train data --out empty.csv/model": ("empty.csv is not a directory",),
    "compare data --models als --out thesis": ("thesis exists and holds something else", "expected a new path"),
    "compare data --models als --out empty.csv": ("empty.csv exists and is not a directory",),
    "evaluate popularity data --json thesis": ("--json is thesis", "expected a file"),
    "evaluate popularity data --json nowhere/results.json": ("--json is nowhere/results.json", "directory that exists"),
    "evaluate popularity data --json popularity/manifest.json": (
        "is inside of",
        "popularity, a recvae-model directory",
    ),
    "recommend popularity --users popularity/users.parquet --out popularity/lists": ("is inside of", "a recvae-model"),
    "train data --out data/model": ("data/model is inside of", "data, a recvae-data directory; expected another place"),
    "demo --out empty.csv": ("empty.csv is not a directory",),
    # models and their settings
    "train data --out new --model pop": ("model is 'pop'", "expected one of popularity, als, bpr"),
    "train data --out new --set layers=3": ("no hyperparameter 'layers'", "it has hidden, latent"),
    "train data --out new --set epochs=0": ("epochs is 0", "at least 1"),
    "train data --out new --set batch_size=-5": ("batch_size is -5", "at least 1"),
    "train data --out new --set hidden=0": ("hidden is 0", "expected layer sizes"),
    "train data --out new --set epochs=abc": ("epochs is 'abc'", "whole number"),
    "train data --out new --set latent=1.5": ("latent is 1.5", "whole number"),
    "train data --out new --set dropout=2": ("dropout is 2", "at most"),
    "train data --out new --set epochs": ("--set is 'epochs'", "expected name=value"),
    "train data --out new --set =3": ("--set is '=3'", "expected name=value"),
    "train data --out new --set multvae.epochs=3": ("--set multvae", "expected name=value"),
    "train data --out new --set other.epochs=3": ("'other.epochs=3'", "'other' is not one of the models als, "),
    "train data --out new --preset best": ("preset is 'best'", "multvae has ", "paper"),
    "train data --out new --set preset=nosuch": ("preset is 'nosuch'", "multvae has ", "paper"),
    "train data --out new --preset paper --set preset=fast": ("--set preset=fast and --preset paper differ",),
    "train data --out new --model als --preset paper": ("preset is 'paper'", "als has none"),
    "train data --out new --on test": ("on is 'test'", "expected one of train, all"),
    "train data --out new --seed x": ("--seed", "'x'", "valid integer"),
    "train data --out new --seed 99999999999999999999": (
        "seed is 99999999999999999999",
        "expected at most",
    ),
    "train data --out new --model als --resume": ("ALS does not train in epochs", "nothing to resume"),
    f"train data --out popularity {QUICK} --set learning_rate=1e30": ("no longer finite", "lower learning_rate"),
    # the best model for a source
    "fit nowhere.csv --out new": ("nowhere.csv", "neither a file, a folder nor a data set's name", "ml-100k"),
    "fit interactions.csv --out thesis": ("thesis exists and holds something else (mine.txt)", "expected a new path"),
    "fit interactions.csv --out new --report thesis": ("thesis exists and holds something else (mine.txt)",),
    "fit interactions.csv --out .": ("exists and holds something else", "expected a new path"),
    "fit interactions.csv --out /": ("out is /", "expected the path of a new directory"),
    "prepare interactions.csv --out /": ("out is /", "expected the path of a new directory"),
    "train data --model als --out /": ("out is /", "expected the path of a new directory"),
    "tune data --model als --out /": ("out is /", "expected the path of a new directory"),
    "compare data --models als --out /": ("out is /", "expected the path of a new directory"),
    "fit interactions.csv --out new --seed -1": ("seed is -1", "expected a whole number of at least 0"),
    "fit interactions.csv --out new --report new": ("report is new", "expected a directory outside new"),
    "fit interactions.csv --out empty.csv/model": ("empty.csv is not a directory",),
    "fit interactions.csv --out new --budget soon": ("budget is 'soon'", "expected a time such as 90s, 10m"),
    "fit interactions.csv --out new --budget 1s": ("budget is '1s'", "expected at least 5s"),
    "fit interactions.csv --out new --models ease,asl": ("models has 'asl'", "expected some of popularity, als"),
    "fit interactions.csv --out new --metric accuracy": ("accuracy", "expected"),
    "fit interactions.csv --out new --user-column who": ("'who'", "--user-column", "user_id, item_id, rating"),
    "fit interactions.csv --out new --items nowhere.csv": ("nowhere.csv is missing", "expected a file of items"),
    "fit data --out new --items interactions.csv": ("items cannot be given here", "a prepared directory has its own"),
    "fit thesis --out new": ("thesis", "holds no data set", "expected one of u.data"),
    # the next model from a store
    "fit --out new": ("no source given", "expected a source, or from_store and since"),
    "fit --out new --since popularity": ("since is given without from_store",),
    "fit --out new --from-store sqlite:///no.db": ("from_store is given without since",),
    "fit data --out new --from-store sqlite:///no.db --since popularity": ("a source and from_store given",),
    "fit --out new --from-store sqlite:///no.db --since nowhere": ("nowhere is missing", "recvae-model directory"),
    "fit --out new --from-store sqlite:///no.db --since popularity": ("sqlite:///no.db: no such file",),
    "fit --out new --from-store mysql://recvae:secret@h/db --since popularity": ("expected sqlite or postgresql",),
    "fit --out new --from-store postgresql+psycopg://u:secret@127.0.0.1:1/db --since popularity": ("refused",),
    # directories
    "train nowhere --out new": ("nowhere is missing", "expected a recvae-data directory"),
    "train thesis --out new": ("thesis has no manifest.json", "expected a recvae-data directory"),
    "train popularity --out new": ("popularity/manifest.json does not describe a recvae-data",),
    "compare thesis --models als --out new": ("thesis has no manifest.json",),
    "evaluate nowhere data": ("nowhere is missing", "expected a recvae-model directory"),
    "evaluate damaged data": ("damaged/model.safetensors is damaged", "SHA-256"),
    "evaluate popularity thesis": ("thesis has no manifest.json",),
    "evaluate data popularity": ("data/manifest.json does not describe a recvae-model",),
    "evaluate popularity known": ("popularity was trained on other", "known"),
    "evaluate bpr data": ("BPR cannot fold in new users", "6 of 6 are new", "weak generalization only"),
    # comparisons
    "compare data --models '' --out new": ("models is empty", "expected at least one"),
    "compare data --models ' , ' --out new": ("models is empty", "expected at least one"),
    "compare data --models popularity,asl --out new": ("model is 'asl'", "expected one of popularity, als"),
    "compare data --models popularity --set als.factors=3 --out new": (
        "params (--set) has settings of als",
        "compared: popularity",
    ),
    "compare data --models als --set factors=3 --out new": ("--set factors=", "expected MODEL.name=value"),
    "compare data --models als --set als.factor=3 --out new": ("no hyperparameter 'factor'", "it has factors"),
    "compare data --models multvae --set multvae.preset=best --out new": ("preset is 'best'", "multvae has "),
    # recommendations
    "recommend popularity": ("neither of --history and --user", "expected one of them"),
    "recommend popularity --history 1 --user 1": ("both of --history and --user", "expected one of them"),
    "recommend popularity --history Heat,Alien": ("history is Heat, Alien", "none is known", "ids look like"),
    "recommend popularity --history ''": ("history is empty", "ids look like"),
    "recommend popularity --history 99999999999999999999": ("history is 99999999999999999999", "ids look like"),
    "recommend popularity --user Ripley": ("user is Ripley", "popularity does not know", "ids look like"),
    """recommend popularity --history '1,"2'""": ("--history is '1,\"2'", "as in a line of CSV"),
    "recommend popularity --history 1 -n 0": ("n is 0", "expected 1 to 40"),
    "recommend popularity --history 1 -n -3": ("n is -3", "expected 1 to 40"),
    "recommend popularity --history 1 -n 41": ("n is 41", "expected 1 to 40"),
    """recommend popularity --history 1 --filter '{"item_id": 2, "item_id": 3}'""": (
        "--filter is",
        "'item_id' is there twice",
    ),
    "recommend popularity --history 1 -n ten": ("-n", "'ten'", "valid integer"),
    "recommend nowhere --history 1": ("nowhere is missing", "expected a recvae-model directory"),
    "recommend damaged --history 1": ("damaged/model.safetensors is damaged",),
    "recommend data --history 1": ("data/manifest.json does not describe a recvae-model",),
    "recommend bpr --history 1": ("BPR cannot fold in new users",),
    # the service
    "serve nowhere": ("nowhere is missing", "expected a recvae-model directory"),
    "serve damaged": ("damaged/model.safetensors is damaged",),
    "serve data": ("data/manifest.json does not describe a recvae-model",),
    "serve popularity --port 65536": ("--port is 65536", "expected 0 to 65535"),
    "serve popularity --workers 0": ("--workers is 0", "expected at least 1"),
    "serve popularity --workers many": ("--workers", "'many'", "valid integer"),
    # the line itself
    "prepare": ("Missing argument 'source'",),
    "prepare interactions.csv": ("Missing option '--out'",),
    "prepare interactions.csv --out new --colour red": ("No such option: --colour",),
    "prepare interactions.csv more.csv --out new": ("unexpected extra argument", "more.csv"),
    "learn data": (
        "No such command 'learn'",
        "expected one of fit, prepare, train, evaluate",
    ),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_the_user_can_mend(here: Path, recvae: Command, line: str) -> None:
    before = content(here)
    outcome = recvae(line)
    assert_refused(outcome, *REFUSED[line])
    assert "Traceback" not in outcome.err
    assert content(here) == before


FULL = {
    "prepare interactions.csv --out data": (
        "data could not be written: No space left on device; what was there is unchanged"
    ),
    "train data --model popularity --out popularity": "popularity could not be written: No space left on device",
    "compare data --models popularity --out report": "report/results.json cannot be written: No space left on device",
    "evaluate popularity data --json report/results.json": "report/results.json cannot be written: No space left",
}


@pytest.mark.parametrize("line", FULL)
def test_a_full_disk(here: Path, recvae: Command, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = content(here)
    monkeypatch.setattr(os, "fsync", full)
    assert_refused(recvae(line), FULL[line])
    assert content(here) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "recvae: not enough memory: Unable to allocate 9 TiB\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory for a model of this size\n"),
        (PermissionError(errno.EACCES, "Permission denied", "data"), "recvae: data: Permission denied\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "recvae: this needs torch, which is not installed here; a whole installation of recvae has it\n",
        ),
    ],
)
def test_what_the_machine_refuses(
    recvae: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(workflow, "train", refuse)
    outcome = recvae("train data --out new")
    assert_refused(outcome)
    assert outcome.err.endswith(message)


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(workflow, "train", broken)
    monkeypatch.setattr(sys, "argv", ["recvae", "train", "data", "--out", "new"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


@pytest.mark.parametrize("line", ["", "--help"])
def test_help(recvae: Command, line: str) -> None:
    outcome = recvae(line)
    assert (outcome.status, outcome.err) == (0, "")
    for command in ("fit", "prepare", "train", "evaluate", "compare", "recommend", "serve", "demo"):
        assert f"\n  {command} " in outcome.out


def test_every_command_in_turn(tmp_path: Path, made: Path, recvae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = recvae(
        f"prepare {made / 'interactions.csv'} --out data --min-rating 4 --val-users 7 --test-users 8 --seed 1"
    )
    assert prepared.status == 0
    assert "test: 8 users" in prepared.out
    assert prepared.out.endswith("prepared data\n")

    weights = "--event-column kind --event-weights view=1,buy=5 --repeats sum --half-life 9000w"
    weighted = recvae(f"fit {made / 'kinds.csv'} --out weighted --models popularity --budget 20s {weights}")
    assert weighted.status == 0
    assert "are for training and for histories; the evaluation is binary" in weighted.err

    fitted = recvae("fit data --out best --models popularity,ease --budget 20s --metric recall@20")
    assert fitted.status == 0
    assert "recall@20" in fitted.out
    assert "fitted on everything: " in fitted.out
    assert "wrote best.report/results.json and best.report/report.html" in fitted.out
    assert "recall@20 0." in fitted.err

    trained = recvae(f"train data --out model {QUICK} --set hidden=16,16 --set learning_rate=1e-2 --seed 6")
    assert trained.status == 0
    assert trained.out.startswith("saved model: MultVAE(hidden=(16, 16), latent=8, ")
    assert "\nvalidation: recall@20 " in trained.out
    assert "MultVAE: epoch 1/2  loss " in trained.err
    assert registry.load("model").manifest["hyperparameters"]["seed"] == 6

    evaluated = recvae("evaluate model data --json results.json")
    assert evaluated.status == 0
    assert "MultVAE on interactions.csv" in evaluated.out
    assert read_results("results.json")["n_users"] == 8

    settings = "--set multdae.preset=paper --set multdae.epochs=1 --set multdae.latent=4"
    compared = recvae(f"compare data --models popularity,multdae --out report {settings}")
    assert compared.status == 0
    assert compared.out.endswith("wrote report/results.json and report/report.html\n")
    params = read_results("report/results.json")["models"]["multdae"]["params"]
    assert (params["epochs"], params["latent"]) == (1, 4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("ease", "ease"),
        ("", ""),
        ("600,200", [600, 200]),
        ("[600, 200]", [600, 200]),
        ("ease, als", ["ease", "als"]),
        ("a=b", "a=b"),
    ],
)
def test_values_of_settings(recvae: Command, monkeypatch: pytest.MonkeyPatch, text: str, value: Any) -> None:
    seen: list[Any] = []

    def train(*_: Any, params: Any, **__: Any) -> list[str]:
        seen.append(params)
        return []

    monkeypatch.setattr(workflow, "train", train)
    assert recvae(f"train data --out new --set setting={shlex.quote(text)}").status == 0
    assert repr(seen) == repr([{"setting": value}])


def test_a_model_of_known_users_may_be_trained_on_held_out_users(tmp_path: Path, here: Path, recvae: Command) -> None:
    outcome = recvae(f"train data --model bpr --set factors=2 --set iterations=1 --out {tmp_path / 'model'}")
    assert outcome.status == 0
    assert "not validated: BPR cannot fold in new users" in outcome.out
    assert here.joinpath("data").exists()


@pytest.mark.usefixtures("here")
def test_recommend_prints_titles(recvae: Command) -> None:
    outcome = recvae("recommend popularity --history 1,2 -n 3")
    lines = outcome.out.splitlines()
    assert (outcome.status, outcome.err, len(lines)) == (0, "", 3)
    for rank, line in enumerate(lines, start=1):
        number, score, item_id, title = line.split(maxsplit=3)
        assert int(number) == rank
        assert float(score) < 0
        assert title.startswith(f"Film {item_id} (")
    assert len(recvae("recommend popularity --user 3").out.splitlines()) == 10


@pytest.mark.usefixtures("here")
def test_recommend_prints_json(recvae: Command) -> None:
    outcome = recvae("recommend popularity --history 1,Heat,2 -n 3 --json")
    answer = json.loads(outcome.out)
    assert outcome.status == 0
    assert outcome.err == "recvae: unknown items left out: Heat\n"
    assert answer["unknown"] == ["Heat"]
    assert [set(item) for item in answer["items"]] == [{"id", "title", "score"}] * 3


@pytest.mark.usefixtures("here")
def test_an_empty_list_is_said(recvae: Command) -> None:
    outcome = recvae("""recommend popularity --history 1 --filter '{"item_id": 1}'""")
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.err == "recvae: no item is left by the history and by what was asked for\n"


@pytest.mark.parametrize(
    ("history", "ids"),
    [
        ("1,2", ["1", "2"]),
        (' 1 ,"Me, Myself & Irene", "the ""best""",', ["1", "Me, Myself & Irene", 'the "best"']),
        ('5" disk,2', ['5" disk', "2"]),
        ("", []),
    ],
)
def test_a_history_is_a_line_of_csv(history: str, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[str]] = []

    def answered(model: Path, *, history: list[str], **_: object) -> inference.Recommendation:
        heard.append(history)
        return inference.Recommendation([], [])

    monkeypatch.setattr(inference, "recommend", answered)
    lists.recommend(Path("model"), history=history)
    assert heard == [ids]


@pytest.mark.usefixtures("here")
def test_evaluate_prints_json_alone(recvae: Command, tmp_path: Path) -> None:
    outcome = recvae("evaluate popularity data --json -")
    assert (outcome.status, outcome.err) == (0, "")
    recvae(f"evaluate popularity data --json {tmp_path / 'results.json'}")
    written = read_results(tmp_path / "results.json")
    assert list(json.loads(outcome.out)) == list(written)
    assert json.loads(outcome.out)["n_users"] == written["n_users"]
    assert not Path("-").exists()


@pytest.mark.usefixtures("here")
def test_a_tilde_is_the_home_directory(recvae: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy("interactions.csv", tmp_path)
    for line in (
        "prepare '~/interactions.csv' --out '~/data'",
        "train '~/data' --model popularity --out '~/model'",
        "evaluate '~/model' '~/data' --json '~/results.json'",
        "compare '~/data' --models popularity --out '~/report'",
        "recommend '~/model' --history 1",
    ):
        outcome = recvae(line)
        assert outcome.status == 0, outcome.err
    assert {"data", "model", "results.json", "report"} <= {entry.name for entry in tmp_path.iterdir()}
    assert not Path("~").exists()
    assert parse_path("~nobody-of-this-name/data") == Path("~nobody-of-this-name/data")


@pytest.mark.parametrize("ending", [b"", b"a,b"])
@pytest.mark.usefixtures("here")
def test_a_source_on_standard_input(
    tmp_path: Path, made: Path, recvae: Command, monkeypatch: pytest.MonkeyPatch, ending: bytes
) -> None:
    text = (made / "interactions.csv").read_bytes() + ending
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    outcome = recvae(f"prepare - --out {tmp_path / 'data'}")
    if ending:
        assert_refused(outcome, "standard input line ", "2 columns; expected 4")
    else:
        assert outcome.status == 0
        assert outcome.out.startswith(f"standard input: {len(text.splitlines()) - 1:,} rows\n")


def test_a_closed_pipe_is_no_error(here: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = ("recommend popularity --history 1 --json", "evaluate popularity data")
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen([RECVAE, *line.split()], cwd=here, stdout=writer, stderr=subprocess.PIPE)
            )
            for line in lines
        ]
        os.close(writer)
        assert [process.communicate()[1] for process in processes] == [b"", b""]
        assert {process.returncode for process in processes} <= {1, 141}


def test_a_name_that_is_not_utf8_is_one_line(here: Path) -> None:
    command = [os.fsencode(word) for word in (RECVAE, "prepare", "kinds.csv", "--out")]
    done = subprocess.run([*command, b"out\xff"], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is no text in UTF-8; expected another name" in done.stderr


def test_only_the_first_line_is_read(here: Path) -> None:
    command = f"{shlex.quote(str(RECVAE))} recommend popularity --history 1 | head -1"
    done = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("  1 ")
    assert done.stderr == ""


def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path: Path, made: Path, recvae: Command) -> None:
    out = tmp_path / "model"
    settings = f"--set epochs={EPOCHS_TO_INTERRUPT} --set hidden=16 --set latent=8"
    line = f"train {made / 'data'} --out {out} {settings}"
    with subprocess.Popen(
        [RECVAE, *line.split()], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"MultVAE: epoch 1/{EPOCHS_TO_INTERRUPT}  loss ")
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    checkpoint = workflow.checkpoint_path(out)
    assert process.returncode == 130
    assert (said, complained) == (
        "",
        f"recvae: interrupted; continue with the same command and --resume (state is in {checkpoint})\n",
    )
    assert not out.exists()
    assert recvae(f"{line} --resume").status == 0
    assert registry.load(out).manifest["class"] == "MultVAE"
    assert not checkpoint.exists()


def test_resume_before_the_first_checkpoint_starts_from_the_beginning(
    tmp_path: Path, made: Path, recvae: Command
) -> None:
    result = recvae(f"train {made / 'data'} --out {tmp_path / 'new'} --set epochs=1 --resume")
    assert result.status == 0
    assert f"{tmp_path / 'new'}.checkpoint does not exist yet; training starts from the beginning\n" in result.err
    assert (tmp_path / "new").is_dir()


@pytest.mark.usefixtures("here")
def test_ctrl_c_before_there_is_anything_to_resume(recvae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for command in ("train", "evaluate"):
        monkeypatch.setattr(workflow, command, interrupted)
    trained, evaluated = recvae("train data --out new"), recvae("evaluate popularity data")
    assert (trained.status, trained.err) == (130, "recvae: interrupted\n")
    assert evaluated.status == 130
    assert "Traceback" not in evaluated.err


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("recvae.cli.main.app", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "recvae: interrupted\n"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("recvae.cli.main", {"torch", "pandas", "numpy", "scipy", "pyarrow", "fastapi", "pydantic"}),
        ("recvae.serving.app", {"torch", "pandas", "matplotlib", "implicit"}),
    ],
)
def test_command_line_and_service_import_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_a_list_does_not_wait_for_torch(tmp_path: Path) -> None:
    registry.save(EASE().fit(random_interactions(), show_progress=False), tmp_path / "model")
    call = "cli.app(sys.argv[1:], standalone_mode=False)"
    code = f"import sys; from recvae.cli import main as cli; {call}; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "recommend", str(tmp_path / "model"), "--history", "1,2", "-n", "3"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "False"


@pytest.mark.parametrize("option", ["--preset paper", "--set preset=paper"])
def test_a_preset_may_be_an_option_or_a_setting(tmp_path: Path, here: Path, recvae: Command, option: str) -> None:
    outcome = recvae(f"train data --out {tmp_path / 'model'} {option} --set epochs=1 --set hidden=8 --set latent=4")
    assert outcome.status == 0, outcome.err
    paper = {**registry.MODELS["multvae"].PRESETS["paper"], "epochs": 1, "hidden": [8], "latent": 4}
    hyperparameters = registry.load(tmp_path / "model").manifest["hyperparameters"]
    assert {name: hyperparameters[name] for name in paper} == paper
    assert here.is_dir()


@pytest.mark.parametrize(
    "line",
    [
        "train data --model popularity --out {}",
        "prepare interactions.csv --out {}",
        "compare data --models popularity --out {}",
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_out_may_be_a_link(tmp_path: Path, here: Path, recvae: Command, line: str, exists: bool) -> None:
    link, target = tmp_path / "current", tmp_path / "releases" / "1"
    target.parent.mkdir()
    link.symlink_to(target)
    assert here.is_dir()
    for _ in range(1 + exists):
        outcome = recvae(line.format(link))
        assert outcome.status == 0, outcome.err
    assert link.is_symlink()
    assert any(target.iterdir())


@pytest.mark.usefixtures("here")
def test_results_are_written_through_links_and_to_devices(tmp_path: Path, recvae: Command) -> None:
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    target.write_text("before")
    link.symlink_to(target)
    assert recvae(f"evaluate popularity data --json {link}").status == 0
    assert link.is_symlink()
    assert read_results(target)["n_users"] > 0
    if os.getuid() == 0:
        device = tmp_path / "null"
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert recvae(f"evaluate popularity data --json {device}").status == 0
        assert device.is_char_device()
