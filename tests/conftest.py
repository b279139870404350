"""Fixtures that several test files share, and the count of skipped tests."""

import os
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that $RECVAE_DATA names."""
    root = os.environ.get("RECVAE_DATA")
    if not root:
        pytest.skip("$RECVAE_DATA is not set: it names the folder of the real data sets (see docs/datasets.md)")
    return Path(root)


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
