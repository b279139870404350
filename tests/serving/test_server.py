"""`recvae serve` as a process: its workers, their figures and their end."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from recvae.errors import MissingDependencyError
from recvae.models.linear.ease import EASE
from tests.contracts import one_thread as one_thread
from tests.http_service import item_id, logged, running, save, wait_until

BODY = {"history": [item_id(1)], "n": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "model"
    save(path)
    return path


def requests(address: str) -> float:
    """Requests for recommendations, over all workers."""
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    counted = [line for line in lines if line.startswith("recvae_requests_total") and '"/recommend"' in line]
    return sum(float(line.split()[-1]) for line in counted)


def waiting(address: str) -> bool:
    """Return whether requests wait to be scored."""
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    return any(line.startswith("recvae_queue_length") and float(line.split()[-1]) for line in lines)


def versions(address: str) -> set[str]:
    """Of the models that answer; each request may meet another worker."""
    answers = (httpx.post(f"{address}/recommend", json=BODY, timeout=60).json() for _ in range(16))
    return {answer["model"]["name"] for answer in answers}


def test_workers_share_figures_and_all_take_another_model(model: Path) -> None:
    with running(model, workers=2) as (address, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        assert versions(address) == {"MultVAE"}
        assert requests(address) == 16
        save(model, EASE())
        wait_until(lambda: versions(address) == {"EASE"})
        before = requests(address)
        versions(address)
        assert requests(address) == before + 16
    save(model)


def test_head_is_get_without_a_body(model: Path) -> None:
    """As health checks of some proxies and `wget --spider` ask."""
    with running(model) as (address, _), httpx.Client(base_url=address, timeout=60) as http:
        for path in ("/healthz", "/readyz", "/users/u1/recommendations", "/nowhere", "/healthz"):
            got, head = http.get(path), http.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        assert http.head("/recommend").status_code == 405


def test_sigterm_drains(model: Path) -> None:
    answers: list[int] = []
    with running(model, RECVAE_BATCH_SIZE="1") as (address, process):
        batch = {"requests": [{"history": [item_id(i) for i in range(20)], "explain": True}] * 100}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/recommend/batch", json=batch, timeout=60).status_code)
        )
        asking.start()
        while asking.is_alive() and not waiting(address):
            pass
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert process.wait(60) == 0
    assert answers == [200]
    (log,) = model.parent.glob(f"serve-{address.rsplit(':', 1)[1]}.log")
    entries = logged(log.read_text())
    assert entries[-1]["message"].startswith("Finished server process")
    assert any(entry.get("route") == "/recommend/batch" for entry in entries)


def test_the_application_for_other_servers(model: Path) -> None:
    code = "import os; os.environ['RECVAE_MODEL'] = 'x'; from service.app import app; print(app.title)"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "recvae\n"


def test_without_fastapi_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("recvae.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    import recvae.serving as serving

    with pytest.raises(MissingDependencyError, match="extra 'service'"):
        serving.create_app  # noqa: B018


def test_an_address_that_is_taken(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "recvae", "serve", str(model), "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Address already in use; expected an address that is free" in ended.stderr
    assert "startup" not in ended.stderr


def test_the_settings_are_documented() -> None:
    from recvae.serving import Settings

    text = (Path(__file__).parent.parent.parent / "docs" / "deployment.md").read_text(encoding="utf8")
    for name in Settings.model_fields:
        assert f"| `RECVAE_{name.upper()}` |" in text
