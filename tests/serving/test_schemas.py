"""The OpenAPI document is true: schemathesis asks for what it allows and what it forbids, and checks every answer."""

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.contracts import one_thread as one_thread
from tests.http_service import running, save

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
EXAMPLES = 10
KEY = "key"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    save(tmp_path / "model")
    store = f"sqlite:///{tmp_path / 'interactions.db'}"
    options = ["--checks", "all", "--max-examples", str(EXAMPLES), "--generation-deterministic", "--no-color"]
    with running(tmp_path / "model", RECVAE_API_KEY=KEY, RECVAE_ADMIN_KEY=KEY, RECVAE_STORE=store) as (address, _):
        done = subprocess.run(
            [SCHEMATHESIS, "run", f"{address}/openapi.json", "--header", f"X-API-Key: {KEY}", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "Unresolvable" not in done.stdout
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None
    assert int(tested[1]) == 16


@pytest.mark.parametrize("setting", ["RECVAE_MAX_N", "RECVAE_MAX_HISTORY"])
def test_limits_stand_in_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    from recvae.serving import Settings, create_app

    monkeypatch.setenv(setting, "321")
    app = create_app(Settings(tmp_path))
    properties = app.openapi()["components"]["schemas"]["RecommendRequest"]["properties"]
    assert 321 in (properties["n"]["maximum"], properties["history"]["maxItems"])
