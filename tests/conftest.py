"""Fixtures that several test files share, and the count of skipped tests."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.http_service import Postgres

EXPECTED_SKIPS = (
    "$RECVAE_DATA is not set",
    "Ray is not installed",
    "Spark needs java",
    "pyspark is not installed",
    "no control group can be made here",
    "no java for a local Spark session",
    "root may write anywhere",
    "the extra 'spark' is not installed",
)
"""Beginnings of the reasons for which the gate may skip a test; `make long` runs Spark and Ray."""


@pytest.fixture(scope="session", autouse=True)
def fixed_threads() -> Iterator[None]:
    """Trainings keep their number of threads beside other tests, so that they can be compared to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recvae.training.threads.THREADS_ARE_GIVEN", True)
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that $RECVAE_DATA names."""
    root = os.environ.get("RECVAE_DATA")
    if not root:
        pytest.skip("$RECVAE_DATA is not set: it names the folder of the real data sets (see docs/datasets.md)")
    return Path(root)


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    """A server that all tests of a run share; the gate fails without one."""
    from tests.http_service import Postgres

    if not Postgres.installed():
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's binaries are not installed; the gate needs them")
        pytest.skip("PostgreSQL's binaries are not installed")
    with Postgres.started() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def run_recvae(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Run the arguments of a command line inside this process: exit status, standard output, standard error."""
    from recvae.cli import main as cli

    def run(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recvae", *shlex.split(arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return int(exit_.value.code or 0), *capsys.readouterr()

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--unexpected-skips-fail", action="store_true", help="fail if a test is skipped that is expected to run"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--unexpected-skips-fail") and (skips := unexpected_skips(session.config)):
        reporter = session.config.get_terminal_writer()
        reporter.line()
        for reason in skips:
            reporter.line(f"unexpected skip: {reason}", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def unexpected_skips(config: pytest.Config) -> list[str]:
    """Reasons of the skipped tests that are not among the expected ones."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped]
    return [reason for reason in reasons if not reason.startswith(EXPECTED_SKIPS)]
