import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae.errors import ArtifactError, ParameterError, TrainingError
from recvae.models.autoencoders.base import Autoencoder
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.autoencoders.recvae import RecVAE
from recvae.nn.batches import Batch
from recvae.training.interrupts import StopTrainingError
from recvae.training.schedules import SCHEDULES, learning_rate_factor
from recvae.training.trainer import Trainer
from tests.contracts import one_thread as one_thread
from tests.contracts import random_interactions

N_USERS, BATCH_SIZE, EPOCHS = 40, 9, 4
UPDATES_AN_EPOCH = 5


def small(**options: Any) -> MultVAE:
    return MultVAE(
        **{
            "hidden": 12,
            "latent": 6,
            "epochs": EPOCHS,
            "batch_size": BATCH_SIZE,
            "total_anneal_steps": 50,
            "learning_rate": 5e-3,
            "patience": 0,
            "metric": "ndcg@5",
            **options,
        }
    )


def holdout(seed: int = 5) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    interactions = random_interactions(n_users=30, seed=seed).tocoo()
    held = np.random.default_rng(seed).random(interactions.nnz) < 0.3
    fold_in, held_out = (
        sparse.csr_matrix(
            (interactions.data[part], (interactions.row[part], interactions.col[part])), shape=interactions.shape
        )
        for part in (~held, held)
    )
    return fold_in, held_out


def weights(model: Autoencoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module_.state_dict().items()}


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def assert_same(model: Autoencoder, other: Autoencoder) -> None:
    assert without_seconds(model.history_) == without_seconds(other.history_)
    mine, its = weights(model), weights(other)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int, number: int = signal.SIGINT) -> None:
    """Press Ctrl-C, or send another signal, during the update of this number."""
    update, made = Trainer._update, [0]

    def interrupted(trainer: Trainer, *arguments: Any) -> None:
        made[0] += 1
        if made[0] == updates:
            signal.raise_signal(number)
        update(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_update", interrupted)


def interrupt_in_callback(after: int) -> Callable[[int, float, float], None]:
    def callback(epoch: int, *_: float) -> None:
        if epoch == after:
            signal.raise_signal(signal.SIGINT)

    return callback


@pytest.mark.parametrize("validated", [False, True])
def test_history_has_the_figures_of_each_epoch(validated: bool) -> None:
    model = small().fit(random_interactions(), show_progress=False, validation=holdout() if validated else None)
    assert [record["epoch"] for record in model.history_] == [1, 2, 3, 4]
    expected = {"epoch", "loss", "nll", "kl", "beta", "learning_rate", "seconds"} | ({"ndcg@5"} if validated else set())
    for record in model.history_:
        assert record.keys() == expected
        assert record["learning_rate"] == 5e-3
        assert record["seconds"] > 0
    betas = [np.average(np.arange(5) + 5 * epoch, weights=[9, 9, 9, 9, 4]) / 50 for epoch in range(2)]
    assert [record["beta"] for record in model.history_[:2]] == pytest.approx(betas)
    assert model.history_[3]["beta"] == pytest.approx(0.2)
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


def test_a_callback_ends_training_with_the_best_epoch_so_far() -> None:
    def stop(epoch: int, *_: float) -> None:
        if epoch == 2:
            raise StopTrainingError

    data = random_interactions()
    model = small().fit(data, show_progress=False, callback=stop)
    assert len(model.history_) == model.best_epoch_ == 3
    assert model.fitted_params()["epochs"] == 4
    whole = small()
    whole._last_epoch = 3
    whole.fit(data, show_progress=False)
    again = model.refit(data, show_progress=False)
    for other in (whole, again):
        np.testing.assert_array_equal(model.score(data), other.score(data))


def test_history_of_a_denoising_autoencoder() -> None:
    model = MultDAE(latent=6, epochs=1, l2=0.1).fit(random_interactions(), show_progress=False)
    (record,) = model.history_
    assert record.keys() == {"epoch", "loss", "nll", "l2", "learning_rate", "seconds"}
    assert record["loss"] == pytest.approx(record["nll"] + record["l2"])
    assert record["l2"] > 0


def test_callback_gets_the_figures_of_history() -> None:
    heard: list[tuple[int, float, float]] = []
    model = small().fit(random_interactions(), show_progress=False, callback=lambda *call: heard.append(call))
    assert heard == [(record["epoch"] - 1, record["seconds"], record["loss"]) for record in model.history_]


def test_a_refit_resumes_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_interactions()
    model = small(epochs=30, learning_rate=0.05).fit(interactions, show_progress=False, validation=holdout())
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            model.refit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    with pytest.raises(ParameterError, match="was made with last_epoch"):
        small(epochs=30, learning_rate=0.05).fit(
            interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True
        )
    resumed = model.refit(interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True)
    assert_same(resumed, model.refit(interactions, show_progress=False))


def test_each_epoch_takes_every_user_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    interactions, update, taken = random_interactions(), Trainer._update, list[list[float]]()
    interactions.data = np.repeat(np.arange(1, N_USERS + 1, dtype=np.float32), np.diff(interactions.indptr))

    def noting(trainer: Trainer, batch: Batch, *arguments: Any) -> None:
        taken.append(batch.values[batch.offsets[:-1].long()].tolist())
        update(trainer, batch, *arguments)

    monkeypatch.setattr(Trainer, "_update", noting)
    small(epochs=2).fit(interactions, show_progress=False)
    assert [len(batch) for batch in taken] == [9, 9, 9, 9, 4] * 2
    first, second = (sum(taken[i : i + UPDATES_AN_EPOCH], list[float]()) for i in (0, UPDATES_AN_EPOCH))
    assert sorted(first) == sorted(second) == list(range(1, N_USERS + 1))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("batch_size", [BATCH_SIZE, N_USERS])
@pytest.mark.parametrize("hidden", [(), (12,)])
def test_a_diverging_loss_is_an_error_and_the_last_good_weights_are_kept(
    hidden: tuple[int, ...], batch_size: int
) -> None:
    model = small(learning_rate=1e30, hidden=hidden, batch_size=batch_size)
    with pytest.raises(
        TrainingError, match=r"in epoch \d; the model keeps the weights of epoch \d; a lower learning_rate may help$"
    ):
        model.fit(random_interactions(), show_progress=False)
    assert np.isfinite(model.score(random_interactions())).all()


def test_weights_spoilt_by_an_epochs_last_update_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Trainer._update

    def spoiling(trainer: Trainer, *arguments: Any) -> None:
        update(trainer, *arguments)
        if trainer.progress.step == 2 * UPDATES_AN_EPOCH:
            with torch.no_grad():
                next(trainer.module.parameters())[0] = float("nan")

    first = small(epochs=1).fit(random_interactions(), show_progress=False)
    monkeypatch.setattr(Trainer, "_update", spoiling)
    model = small()
    with pytest.raises(TrainingError, match=r"^the scores are no longer finite in epoch 2; .* the weights of epoch 1;"):
        model.fit(random_interactions(), show_progress=False)
    assert_same(model, first)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("updates", [1, 3, UPDATES_AN_EPOCH, UPDATES_AN_EPOCH + 1, 12, EPOCHS * UPDATES_AN_EPOCH])
def test_interrupted_and_resumed_as_if_never_stopped(
    updates: int, validated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interactions, validation = random_interactions(), holdout() if validated else None
    whole = small().fit(interactions, show_progress=False, validation=validation)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_after(patch, updates)
        with pytest.raises(KeyboardInterrupt):
            small().fit(interactions, show_progress=False, validation=validation, checkpoint=tmp_path / "state")
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "state").is_dir()
    resumed = small().fit(
        interactions, show_progress=False, validation=validation, checkpoint=tmp_path / "state", resume=True
    )
    assert_same(resumed, whole)


def test_sigterm_stops_training_like_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_interactions()
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            small().fit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    resumed = small().fit(interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True)
    assert_same(resumed, small().fit(interactions, show_progress=False))


def test_a_checkpoint_that_would_replace_something_else_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    for name in ("thesis", "thesis/chapter"):
        with pytest.raises(ArtifactError, match=f"{name} exists and"):
            small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / name)
    assert (tmp_path / "thesis" / "chapter").read_text() == "mine"


@pytest.mark.parametrize("after", [0, 2, EPOCHS - 1])
def test_interrupted_between_epochs(after: int, tmp_path: Path) -> None:
    interactions, model = random_interactions(), small()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            interactions, show_progress=False, callback=interrupt_in_callback(after), checkpoint=tmp_path / "state"
        )
    assert len(model.history_) == after + 1
    assert np.isfinite(model.score(interactions)).all()
    heard: list[int] = []
    resumed = small().fit(
        interactions,
        show_progress=False,
        callback=lambda epoch, *_: heard.append(epoch),
        checkpoint=str(tmp_path / "state"),
        resume=True,
    )
    assert heard == list(range(after + 1, EPOCHS))
    assert_same(resumed, small().fit(interactions, show_progress=False))


@pytest.mark.parametrize("updates", [3, 2 * UPDATES_AN_EPOCH, 2 * UPDATES_AN_EPOCH + 3, 4 * UPDATES_AN_EPOCH + 1])
def test_alternating_passes_resume_where_they_stood(
    updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> RecVAE:
        return RecVAE(hidden=(8, 8), latent=4, encoder_passes=2, epochs=2, batch_size=BATCH_SIZE)

    interactions = random_interactions()
    with monkeypatch.context() as patch:
        interrupt_after(patch, updates)
        with pytest.raises(KeyboardInterrupt):
            make().fit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    resumed = make().fit(interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True)
    assert_same(resumed, make().fit(interactions, show_progress=False))


def test_interrupted_twice(tmp_path: Path) -> None:
    interactions, state = random_interactions(), tmp_path / "state"
    for after, resume in ((0, False), (2, True)):
        with pytest.raises(KeyboardInterrupt):
            small().fit(
                interactions,
                show_progress=False,
                callback=interrupt_in_callback(after),
                checkpoint=state,
                resume=resume,
            )
    resumed = small().fit(interactions, show_progress=False, checkpoint=state, resume=True)
    assert_same(resumed, small().fit(interactions, show_progress=False))


def test_early_stopping_goes_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions, options = random_interactions(), {"epochs": 60, "learning_rate": 0.1, "patience": 3}
    whole = small(**options).fit(interactions, show_progress=False, validation=holdout())
    assert len(whole.history_) < 60
    with monkeypatch.context() as patch:
        interrupt_after(patch, len(whole.history_) * UPDATES_AN_EPOCH - 7)
        with pytest.raises(KeyboardInterrupt):
            small(**options).fit(interactions, show_progress=False, validation=holdout(), checkpoint=tmp_path / "state")
    resumed = small(**options).fit(
        interactions, show_progress=False, validation=holdout(), checkpoint=tmp_path / "state", resume=True
    )
    assert_same(resumed, whole)


def test_a_crash_loses_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions, update = random_interactions(), Trainer._update

    def crashing(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.step == 2 * UPDATES_AN_EPOCH + 3:
            raise MemoryError
        update(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("recvae.training.trainer.SECONDS_TO_FIRST_CHECKPOINT", -1.0)
        patch.setattr("recvae.training.trainer.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        patch.setattr(Trainer, "_update", crashing)
        with pytest.raises(MemoryError):
            small().fit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    made: list[int] = []

    def counting(trainer: Trainer, *arguments: Any) -> None:
        made.append(trainer.progress.step)
        update(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_update", counting)
    resumed = small().fit(interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True)
    assert made == list(range(2 * UPDATES_AN_EPOCH + 3, EPOCHS * UPDATES_AN_EPOCH))
    assert_same(resumed, small().fit(interactions, show_progress=False))


def test_no_checkpoint_is_written_where_none_is_due(tmp_path: Path) -> None:
    small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_without_a_checkpoint_the_model_has_its_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, interactions = small(), random_interactions()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    interrupt_after(monkeypatch, 2 * UPDATES_AN_EPOCH + 2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(interactions, show_progress=False)
    monkeypatch.undo()
    two = MultVAE(**small().get_params() | {"epochs": 2}).fit(interactions, show_progress=False)
    assert_same(model, two)


def test_a_thread_trains_with_a_checkpoint_too(tmp_path: Path) -> None:
    models: list[MultVAE] = []
    thread = threading.Thread(
        target=lambda: models.append(
            small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / "state")
        )
    )
    thread.start()
    thread.join()
    assert_same(models[0], small().fit(random_interactions(), show_progress=False))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A checkpoint of `small()` on `random_interactions()` after its first epoch."""
    with pytest.raises(KeyboardInterrupt):
        small().fit(
            random_interactions(),
            show_progress=False,
            validation=holdout(),
            callback=interrupt_in_callback(0),
            checkpoint=tmp_path / "state",
        )
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.004), ("hidden", (12, 12)), ("epochs", 5), ("seed", 1), ("anneal_cap", 0.3)],
)
def test_resume_refuses_other_hyperparameters(name: str, value: object, state: Path) -> None:
    with pytest.raises(ParameterError, match=f"was made with {name} .*cannot be resumed$"):
        small(**{name: value}).fit(
            random_interactions(), show_progress=False, validation=holdout(), checkpoint=state, resume=True
        )


def test_resume_refuses_another_class(state: Path) -> None:
    with pytest.raises(ParameterError, match="was made with class 'MultVAE', not 'MultDAE'"):
        MultDAE().fit(random_interactions(), show_progress=False, checkpoint=state, resume=True)


def test_resume_refuses_other_data(state: Path) -> None:
    changed = random_interactions()
    changed.data[3] = 2
    with pytest.raises(ParameterError, match="was made with data "):
        small().fit(changed, show_progress=False, validation=holdout(), checkpoint=state, resume=True)


@pytest.mark.parametrize("validation", [None, holdout(seed=6)])
def test_resume_refuses_other_validation_users(validation: Any, state: Path) -> None:
    with pytest.raises(ParameterError, match="was made with validation "):
        small().fit(random_interactions(), show_progress=False, validation=validation, checkpoint=state, resume=True)


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="resume needs a checkpoint"):
        small().fit(random_interactions(), show_progress=False, resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"empty"):
        small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / "empty", resume=True)


def test_without_a_checkpoint_yet_it_starts_from_the_beginning_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / "state", resume=True)
    assert capsys.readouterr().err == f"{tmp_path / 'state'} does not exist yet; training starts from the beginning\n"
    assert_same(model, small().fit(random_interactions(), show_progress=False))


def test_the_first_checkpoint_comes_after_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saved, update = [0.0], list[float](), Trainer._update

    def slow(trainer: Trainer, *arguments: Any) -> None:
        update(trainer, *arguments)
        clock[0] += 4.0

    monkeypatch.setattr("recvae.training.trainer.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("recvae.training.trainer.save_checkpoint", lambda *_: saved.append(clock[0]))
    monkeypatch.setattr(Trainer, "_update", slow)
    small().fit(random_interactions(), show_progress=False, checkpoint=tmp_path / "state")
    assert saved == [12.0, 44.0, 76.0]


def test_resume_refuses_a_damaged_checkpoint(state: Path) -> None:
    file = state / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"state\.safetensors is damaged"):
        small().fit(random_interactions(), show_progress=False, validation=holdout(), checkpoint=state, resume=True)


@pytest.fixture
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error that is not a terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_log")
def test_plain_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    small().fit(random_interactions(), validation=holdout())
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first.startswith("MultVAE: epoch 1/4  loss ")
    assert last.startswith("MultVAE: epoch 4/4  loss ")
    assert "  kl " in last
    assert "  beta 0.2" in last
    assert "  ndcg@5 0." in last
    assert last.endswith("  0 s left")


@pytest.mark.usefixtures("_log")
def test_lines_between_come_in_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("recvae.progress.SECONDS_BETWEEN_LINES", 0.0)
    small().fit(random_interactions())
    assert len(capsys.readouterr().err.splitlines()) == EPOCHS


@pytest.mark.usefixtures("_log")
def test_nothing_is_shown_when_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    small().fit(random_interactions(), show_progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("_log")
def test_a_resumed_run_counts_on(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small().fit(random_interactions(), validation=holdout(), checkpoint=state, resume=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("MultVAE: epoch 2/4 ")
    assert last.startswith("MultVAE: epoch 4/4 ")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    small().fit(random_interactions())
    shown = capsys.readouterr().err
    assert "MultVAE" in shown
    assert "4/4" in shown
    assert "s left" not in shown


@pytest.mark.parametrize("options", [{"n_negatives": 7}, {"n_negatives": 7, "negatives": "uniform"}])
def test_a_sampled_run_resumes_where_it_stood(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interactions = random_interactions()
    whole = small(**options).fit(interactions, show_progress=False)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            small(**options).fit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    assert_same(
        small(**options).fit(interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True), whole
    )


def test_sampled_updates_touch_only_the_rows_of_interactions_and_negatives() -> None:
    interactions = random_interactions()
    interactions = sparse.hstack(
        [interactions, sparse.csr_matrix((interactions.shape[0], 500))], format="csr", dtype=np.float32
    )
    model = small(n_negatives=3, epochs=1)
    before = model._build(interactions.shape[1], torch.Generator().manual_seed(model.seed))
    model.fit(interactions, show_progress=False)
    changed = {
        name: (model.module_.get_parameter(name) != before.get_parameter(name)).any(dim=1)[-500:].sum()
        for name in ("encoder.input.weight", "output.weight")
    }
    assert changed["encoder.input.weight"] == 0
    assert 0 < changed["output.weight"] <= 3 * UPDATES_AN_EPOCH


def test_nothing_but_the_weights_is_held_after_training() -> None:
    model = small().fit(random_interactions(), show_progress=False)
    assert all(parameter.grad is None for parameter in model.module_.parameters())
    assert all(
        not workspace._tensors for workspace in (model.module_._workspace, model.module_.encoder.input._workspace)
    )


def test_sampling_is_for_the_multinomial_likelihood() -> None:
    with pytest.raises(ParameterError, match="n_negatives is 7, but likelihood is 'logistic'; expected multinomial"):
        MultVAE(n_negatives=7, likelihood="logistic")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scheduled_run_resumes_where_it_stood(schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_interactions()
    whole = small(schedule=schedule).fit(interactions, show_progress=False)
    last_updates = [UPDATES_AN_EPOCH * epoch - 1 for epoch in range(1, EPOCHS + 1)]
    assert [record["learning_rate"] for record in whole.history_] == pytest.approx(
        [5e-3 * learning_rate_factor(schedule, update / (UPDATES_AN_EPOCH * EPOCHS)) for update in last_updates]
    )
    with monkeypatch.context() as patch:
        interrupt_after(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            small(schedule=schedule).fit(interactions, show_progress=False, checkpoint=tmp_path / "state")
    resumed = small(schedule=schedule).fit(
        interactions, show_progress=False, checkpoint=tmp_path / "state", resume=True
    )
    assert_same(resumed, whole)
