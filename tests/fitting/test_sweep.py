"""Sweeps: one hyperparameter varies, the others do not, test users are never used, and what cannot be is refused."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from recvae.cli import main as cli
from recvae.data.prepared import read_prepared
from recvae.datasets.synthetic import generate
from recvae.errors import ArtifactError, ParameterError
from recvae.evaluation.evaluate import evaluate
from recvae.fitting.sweep import CONSTANT_BETA, plan_sweep, sweep
from recvae.models.linear.ease import EASE
from recvae.models.registry import MODELS
from recvae.preparation.pipeline import Options, prepare
from tests.contracts import one_thread as one_thread
from tests.test_tuning import split

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {"epochs": 4, "hidden": (16,), "latent": 8, "batch_size": 50, "encoder": "plain"}
SETTINGS = "--set epochs=2 --set hidden=16 --set latent=8 --set encoder=plain"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "data"
    prepare(generate(60, 40), path, Options())
    return path


def test_a_large_kl_weight_empties_the_latent_dimensions_without_test_users() -> None:
    seen: list[dict[str, Any]] = []
    params = {**QUICK, "initial": "random", "epochs": 30, "learning_rate": 5e-3}
    planned = plan_sweep("multvae", "gamma", [10.0, 1e-4], seeds=2, seed=3, params=params)
    planned.run(split(), seen.append)
    assert seen == planned.points
    assert [(point["value"], point["seed"]) for point in seen] == [(1e-4, 3), (10.0, 3), (1e-4, 4), (10.0, 4)]
    for small, large in (seen[:2], seen[2:]):
        assert small["kl"] > 10 * large["kl"]
        assert small["nll"] < large["nll"]
        assert small["ndcg@100"] > large["ndcg@100"]
        assert small["active_units"] > large["active_units"]
        assert small["anomaly_auc"] > 0.9 > large["anomaly_auc"] > 0.3
        assert 1 <= small["best_epoch"] <= 30
    assert "the KL weight does nothing" in seen[0]["warnings"][0]
    assert "the KL weight is so large" in seen[1]["warnings"][0]


@pytest.mark.parametrize(("name", "knob"), [("multvae", "beta"), ("ease", "l2"), ("recvae", "latent")])
def test_only_the_knob_varies(name: str, knob: str) -> None:
    planned = plan_sweep(name, knob)
    models = [MODELS.create(name, params=params).get_params() for _, _, params in planned.trainings]
    varied = {key for key in models[0] if any(model[key] != models[0][key] for model in models)}
    assert varied - {"seed"} == {"anneal_cap" if knob == "beta" else knob}
    assert len({value for value, _, _ in planned.trainings}) == 6
    assert len(planned.trainings) == (12 if "seed" in models[0] else 6)


def test_beta_is_a_constant_kl_weight() -> None:
    planned = plan_sweep("multvae", "beta", [0.1, 1], seeds=1)
    assert [params["anneal_cap"] for *_, params in planned.trainings] == [0.1, 1]
    assert all(CONSTANT_BETA.items() <= params.items() for *_, params in planned.trainings)
    annealed = plan_sweep("multvae", "beta", [0.1, 1], params={"total_anneal_steps": 5})
    assert all(params["total_anneal_steps"] == 5 for *_, params in annealed.trainings)


@pytest.mark.parametrize(
    ("name", "knob", "options", "message"),
    [
        ("none", "gamma", {}, "model is 'none'; expected one of popularity"),
        ("ease", "gamma", {}, "sweep is 'gamma'; ease has l2, dropout, user_exponent"),
        ("popularity", "gamma", {}, "sweep is 'gamma'; popularity has nothing to sweep"),
        (
            "multvae",
            "gamma",
            {"values": [0.1, 0.1]},
            r"values is \[0.1, 0.1\]; expected at least two different numbers",
        ),
        ("multvae", "gamma", {"values": [0.1, -1]}, "gamma is -1; expected a number of at least 0"),
        ("multvae", "latent", {"values": [8, 8.5]}, "latent is 8.5; expected a whole number"),
        ("multvae", "gamma", {"params": {"gamma": 1}}, "gamma is set, but sweep is 'gamma'"),
        ("multvae", "beta", {"params": {"gamma": 1}}, "gamma is set, but sweep is 'beta'"),
    ],
)
def test_what_cannot_be_swept_is_refused(name: str, knob: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        plan_sweep(name, knob, **options)


def test_training_that_diverges_is_a_point(tmp_path: Path, prepared: Path) -> None:
    planned = plan_sweep("multvae", "learning_rate", [1e-3, 1e30], seeds=1, params=QUICK)
    lines = sweep(prepared, tmp_path / "sweep", planned)
    assert lines[0].startswith("best learning_rate: 0.001, ndcg@100 0.")
    assert "a lower learning_rate may help" in planned.points[1]["diverged"]
    assert "a lower learning_rate may help" in (tmp_path / "sweep" / "sweep.html").read_text()


def test_finished_trainings_survive_ctrl_c(tmp_path: Path, prepared: Path) -> None:
    def interrupt(point: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(prepared, tmp_path / "sweep", plan_sweep("ease", "l2", [10, 100]), interrupt)
    assert len(json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]) == 1
    assert (tmp_path / "sweep" / "sweep.html").is_file()


@pytest.mark.parametrize("finished", [0, 1])
def test_ctrl_c_says_where_finished_trainings_are(
    tmp_path: Path,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: int,
) -> None:
    fit, fitted = EASE.fit, list[EASE]()

    def interrupted(self: EASE, *args: Any, **options: Any) -> EASE:
        if len(fitted) == finished:
            raise KeyboardInterrupt
        fitted.append(fit(self, *args, **options))
        return self

    monkeypatch.setattr(EASE, "fit", interrupted)
    line = f"tune {prepared} --model ease --out {tmp_path / 'sweep'} --sweep l2 --values 10,100"
    status, _, err = run(line, monkeypatch, capsys)
    hint = f"; {tmp_path / 'sweep' / 'sweep.json'} has the trainings that were finished" if finished else ""
    assert (status, err) == (130, f"recvae: interrupted{hint}\n")


def test_other_files_are_not_overwritten(tmp_path: Path, prepared: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    planned = plan_sweep("ease", "l2", [10, 100])
    with pytest.raises(ArtifactError, match="expected a new path or an earlier sweep"):
        sweep(prepared, tmp_path, planned)
    assert planned.points == []


def test_without_matplotlib_the_figures_are_written(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines = sweep(prepared, tmp_path / "sweep", plan_sweep("ease", "l2", [10, 100]))
    assert lines[1] == f"wrote {tmp_path / 'sweep' / 'sweep.json'}"
    assert [file.name for file in (tmp_path / "sweep").iterdir()] == ["sweep.json"]


def run(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["recvae", *shlex.split(arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0), *capsys.readouterr()


def test_the_command(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = f"tune {prepared} --model multvae --out {tmp_path / 'sweep'} {SETTINGS}"
    for _ in range(2):  # the second replaces the first
        status, out, err = run(f"{tune} --sweep gamma --values 0.001,0.1 --seeds 1", monkeypatch, capsys)
        assert (status, err) == (0, "")
        assert out.splitlines()[0].startswith("1/2  gamma 0.001  seed 0  ndcg@100 0.")
        assert out.splitlines()[-1].endswith("sweep.html")
    results = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert results["fixed"] == {"epochs": 2, "hidden": 16, "latent": 8, "encoder": "plain"}
    assert results["protocol"]["split"] == read_prepared(prepared).manifest["protocol"]["split"]
    assert [point["value"] for point in results["points"]] == [0.001, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--values 1,2", "--values goes only with --sweep"),
        ("--seeds 3", "--seeds goes only with --sweep"),
        ("--sweep gamma --trials 3", "--trials goes not with --sweep"),
        ("--sweep gamma --values 1,x", "--values is '1,x'; expected numbers separated by commas"),
        ("--sweep gamma --values 1", "values is [1]; expected at least two different numbers"),
        ("--sweep epochs", "sweep is 'epochs'; multvae has gamma, dropout, latent, learning_rate, batch_size, beta"),
    ],
)
def test_one_line_for_wrong_options(
    options: str, message: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = prepared.with_name("refused")
    status, _, err = run(f"tune {prepared} --model multvae --out {out} {options}", monkeypatch, capsys)
    assert (status, err) == (2, f"recvae: {message}\n")
    assert not out.exists()


def test_the_kl_terms_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def keep(model: Any, *rest: Any) -> Any:
        kept.append(model)
        return evaluate(model, *rest)

    monkeypatch.setattr("recvae.fitting.sweep.evaluate", keep)
    planned = plan_sweep("multvae", "gamma", [0.001, 0.01], seeds=1, params=QUICK)
    planned.run(split())
    for model, point in zip(kept, planned.points, strict=True):
        assert point["kl"] == model.history_[model.best_epoch_ - 1]["kl"]
        assert point["ndcg@100"] == pytest.approx(model.history_[model.best_epoch_ - 1]["ndcg@100"])
