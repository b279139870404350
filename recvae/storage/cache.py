"""The user's cache folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Find the user's cache folder: $RECVAE_CACHE, else $XDG_CACHE_HOME/recvae, else ~/.cache/recvae."""
    if own := os.environ.get("RECVAE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recvae"
