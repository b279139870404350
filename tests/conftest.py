"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that $RECVAE_DATA names."""
    root = os.environ.get("RECVAE_DATA")
    if not root:
        pytest.skip("$RECVAE_DATA is not set: it names the folder of the real data sets (see docs/datasets.md)")
    return Path(root)
