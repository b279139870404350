from pathlib import Path

import pytest

from recvae.storage.cache import cache_dir


def test_cache_dir_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RECVAE_CACHE", raising=False)
    assert cache_dir() == Path("/somebody/.cache/recvae")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "recvae"
    monkeypatch.setenv("RECVAE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
