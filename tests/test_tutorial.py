"""The tutorial: its commands as they stand there, from files to a service with a real PostgreSQL and back to a fit."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from recvae.models import registry
from tests.http_service import Postgres, free_port, ready, wait_until
from tests.test_documentation import TUTORIAL, blocks


def test_commands_lead_from_files_to_a_service_and_back_to_a_fit(tmp_path: Path, postgres: Postgres) -> None:
    port = str(free_port())
    environment = {**os.environ, **postgres.environment, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(script: str) -> str:
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}{done.stderr}"
        return done.stdout

    scripts = [block.code.replace("localhost:8000", f"localhost:{port}") for block in blocks(TUTORIAL, "bash")]
    files, fit, look, database, serve, ask, erase, fit_again = scripts
    run(files)
    run(fit)
    items = pd.read_csv(tmp_path / "items.csv")
    categories = dict(zip(items["item_id"].tolist(), items["category"].tolist(), strict=True))
    check_lists(run(look), categories)
    run(database)
    command = ["bash", "-c", f"exec env {serve.strip()} --port {port}"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as service:
        try:
            wait_until(lambda: ready(f"http://localhost:{port}") or service.poll() is not None)
            version = check_answers(run(ask), categories)
            assert run(erase).startswith("forgot 2 users")
            for user in pd.read_csv(tmp_path / "erase.csv")["user_id"]:
                assert httpx.get(f"http://localhost:{port}/users/{user}/recommendations").status_code == 404
            run(fit_again)
            address = f"http://localhost:{port}/users/anna/recommendations"
            trained_at = registry.load(tmp_path / "models" / "shop").manifest["trained_at"]
            wait_until(lambda: httpx.get(address).json()["model"]["trained_at"] == trained_at, 60)
            assert httpx.get(address).json()["model"]["version"] != version
        finally:
            service.terminate()
    check_next_model(tmp_path)


def check_lists(printed: str, categories: dict[int, str]) -> None:
    """The lists of `recvae recommend`: as they come, filtered, and with a cap and a boost."""
    assert "limit: was trained on weights" in printed
    ranked = re.findall(r"^ +(\d+) +-?[\d.]+  (\d+)  ", printed, re.MULTILINE)
    listed = [int(item) for _, item in ranked]
    assert [int(rank) for rank, _ in ranked] == 3 * [1, 2, 3, 4, 5]
    own, filtered, mixed = listed[:5], listed[5:10], listed[10:]
    assert {categories[item] for item in filtered} <= {"Taste 1", "Taste 2"}
    assert not {10, 20} & set(filtered)
    assert own != filtered
    assert len({categories[item] for item in mixed}) == 5
    assert "Taste 3" in {categories[item] for item in mixed}


def check_answers(printed: str, categories: dict[int, str]) -> str:
    """Answers of the service, one after the other; returns the version of the model that gave them."""
    found: list[Any] = []
    while printed:
        answer, end = json.JSONDecoder().raw_decode(printed)
        found, printed = [*found, answer], printed[end:]
    ruled, sold_out, new, bought, came, given = found
    counts = Counter(categories[item["id"]] for item in ruled["items"])
    assert len(ruled["items"]) == len(given["items"]) == 5
    assert "Taste 1" not in counts
    assert max(counts.values()) <= 2
    assert (bought["stored"], came["stored"]) == (2, 5)
    assert sold_out["metadata"] == {"in_stock": False}
    assert new == {"id": 151, "metadata": {"title": "Premiere", "category": "Taste 3"}}
    assert 40 not in {item["id"] for item in given["items"]}
    return str(given["model"]["version"])


def check_next_model(folder: Path) -> None:
    """The model that was fitted again, and what it has of everybody."""
    model = registry.load(folder / "models" / "shop")
    assert model.users is not None
    users, erased = set(model.users["user_id"]), set(pd.read_csv(folder / "erase.csv", dtype=str)["user_id"])
    assert "anna" in users
    assert len(erased) == 2
    assert not users & erased
    assert len(users) == 400 - 2 + 1
    items = model.items.set_index("item_id")
    assert items["in_stock"][40] is False
    assert (items["title"][151], items["category"][151]) == ("Premiere", "Taste 3")
    assert model.manifest["data"]["filters"]["weights"]["events"] == {"view": 1, "buy": 5}
    assert model.manifest["data"]["store"]["events"] == 7
