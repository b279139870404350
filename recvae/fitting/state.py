"""The state of a search on disk, so that another run can go on: what was tried, its figures, the best models."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recvae.errors import ArtifactError, ParameterError
from recvae.fitting.trial import Trial
from recvae.models import registry
from recvae.models.base import Recommender
from recvae.storage.directories import refuse_other_files
from recvae.storage.files import write_text
from recvae.storage.locks import hold_lock

KIND, VERSION = "recvae-search", 2
_STATE, _LOCK, _DATA, _MODELS, _ITEMS = "search.json", "lock", "data", "models", "items.parquet"
_TEMPORARY = (f".{_STATE}.", f".{_DATA}.", ".recvae.")
"""Beginnings of the names of what is being written: the state, the prepared data, and scratch files of an engine."""


@dataclass
class SearchState:
    """State of a search, kept in a directory.

    Attributes
    ----------
    directory : Path
    identity : dict
        Data and options that a search must share to be gone on with.
    seconds, budget : float
        Time used so far, by all runs, and the budget of the last one.
    trials : list of Trial
    left_out : dict of str to str
        Models that could not be tried, with the reason.
    """

    directory: Path
    identity: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    budget: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Directory of the prepared data."""
        return self.directory / _DATA

    def save(self) -> None:
        """Write everything but the models, in one step."""
        content = {
            "format": KIND,
            "format_version": VERSION,
            "identity": self.identity,
            "seconds": self.seconds,
            "budget": self.budget,
            "trials": [trial.as_dict() for trial in self.trials],
            "left_out": self.left_out,
        }
        write_text(self.directory / _STATE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def resume(self, identity: Mapping[str, Any]) -> bool:
        """Take over what an earlier run has left in the directory; tell whether there was anything.

        Raises
        ------
        ParameterError
            If it searched on other data or with other options.
        ArtifactError
            If its file is damaged.
        """
        file = self.directory / _STATE
        if not file.exists():
            return False
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if (version := content["format_version"]) != VERSION:
                raise ArtifactError(f"{file} has format_version {version!r}; this version of recvae reads {VERSION}")
            found = dict(content["identity"])
            self.seconds, self.budget = float(content["seconds"]), float(content["budget"])
            self.trials = [Trial.from_dict(entry) for entry in content["trials"]]
            self.left_out = {str(name): str(reason) for name, reason in content["left_out"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _describe_damage(self.directory, error) from None
        for key, value in json.loads(json.dumps(dict(identity))).items():
            if found.get(key) != value:
                raise ParameterError(
                    f"{self.directory} is of a search with {key} {found.get(key)!r}, not {value!r}; expected the same "
                    "data and options, or no --resume"
                )
        return True

    def save_model(self, name: str, model: Recommender) -> None:
        """Keep the best model of a name, in the place of an earlier one."""
        registry.save(model, self.directory / _MODELS / name)

    def load_model(self, trial: Trial) -> Recommender | None:
        """Read the model of a trial; None if it was not kept, or is damaged."""
        with contextlib.suppress(ArtifactError):
            artifact = registry.load(self.directory / _MODELS / trial.name)
            if artifact.manifest.get("fitted_with") == json.loads(json.dumps(trial.params)):
                model = artifact.model
                if trial.epochs is not None:
                    model.best_epoch_ = trial.epochs  # type: ignore[attr-defined]  # of autoencoders
                return model
        return None


@contextmanager
def open_state(directory: Path, resume: bool) -> Iterator[SearchState]:
    """Open the directory of a search, empty unless an earlier one is resumed, and hold its lock.

    Raises
    ------
    ArtifactError
        If the directory holds something else, or another process searches in it.
    """
    _refuse_foreign(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(directory / _LOCK))
            except BlockingIOError:
                raise ArtifactError(f"{directory} is in use by another search; expected another --out") from None
            _clear_abandoned(directory)
            if not resume:
                clear_state(directory)
            state = SearchState(directory)
            try:
                yield state
            finally:
                if not (resume or state.trials):  # there is nothing to go on with
                    clear_state(directory)
    finally:
        with contextlib.suppress(OSError):
            directory.rmdir()  # what is empty leaves no trace


def clear_state(directory: Path) -> None:
    """Remove what a search has written."""
    (directory / _STATE).unlink(missing_ok=True)
    (directory / _ITEMS).unlink(missing_ok=True)
    for name in (_DATA, _MODELS):
        shutil.rmtree(directory / name, ignore_errors=True)


def _clear_abandoned(directory: Path) -> None:
    """Remove the temporary files of a search that was killed; the lock says that no other is at work."""
    for path in directory.iterdir():
        if not path.name.startswith(_TEMPORARY):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _refuse_foreign(directory: Path) -> None:
    own = (_STATE, _LOCK, _DATA, _MODELS, _ITEMS)
    refuse_other_files(
        directory, "the state of an earlier search", lambda name: name in own or name.startswith(_TEMPORARY)
    )
    if directory.exists() and (directory / _STATE).exists():
        try:
            kind = json.loads((directory / _STATE).read_text(encoding="utf-8")).get("format")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise _describe_damage(directory, error) from None
        if kind != KIND:
            raise ArtifactError(f"{directory} exists and holds something else ({_STATE}); expected a new path")


def _describe_damage(directory: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{directory / _STATE} is damaged: {error!r}; remove {directory} to start anew")
