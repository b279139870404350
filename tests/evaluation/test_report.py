"""report.html says what results.json says, loads nothing, and renders in a real browser."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from recvae.data.splitting import Holdout, Split
from recvae.errors import MissingDependencyError
from recvae.evaluation.compare import compare
from recvae.evaluation.report import render_report
from recvae.models.autoencoders.multdae import MultDAE
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.factorization import BPR
from recvae.models.linear.ease import EASE
from recvae.models.popularity import Popularity
from tests.contracts import one_thread as one_thread
from tests.models.autoencoders.test_variational import tastes

HOSTILE = "</script><script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    interactions = tastes()
    halves = []
    for remainder in (0, 1):
        half = interactions[200:].copy()
        half.data = (np.arange(half.nnz) % 2 == remainder).astype(np.float32)
        half.eliminate_zeros()
        halves.append(half)
    users = pd.Index(np.arange(100))
    holdout = Holdout(halves[0], halves[1], users, np.full(100, -1, dtype=np.int32))
    split = Split(interactions[:200], pd.Index(np.arange(200)), pd.Index(np.arange(60)), holdout, holdout, {}, {})
    models: dict[str, Recommender] = {
        HOSTILE: Popularity(),
        "bpr": BPR(),
        "ease": EASE(),
        "multdae": MultDAE(latent=8, epochs=4, metric="ndcg@10"),
        "multvae": MultVAE(hidden=16, latent=8, epochs=6, metric="ndcg@10"),
    }
    return compare(models, split, show_progress=False).as_dict(dataset="tastes", protocol="made up", seed=0)


@pytest.fixture(scope="module")
def page_file(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(results), encoding="utf8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed; the gate needs it")
        pytest.skip("Chromium is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


def opened(browser: Browser, file: Path, width: int) -> tuple[Page, list[str], list[str]]:
    """The page, what its console complained about, and what it asked for beyond itself."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = list[str](), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    return page, complaints, [url for url in requests if url != file.as_uri() and not url.startswith("data:")]


@pytest.mark.parametrize("width", [1280, 390])
def test_it_renders_without_complaint_or_request(browser: Browser, page_file: Path, width: int) -> None:
    page, complaints, requests = opened(browser, page_file, width)
    assert complaints == []
    assert requests == []
    assert page.locator("svg").count() == 7
    for svg in page.locator("svg").all():
        box = svg.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 60
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert HOSTILE in page.locator("table").inner_text()


def test_every_figure_of_the_table_is_there(browser: Browser, page_file: Path, results: dict[str, Any]) -> None:
    page, _, _ = opened(browser, page_file, 1280)
    table = page.locator("table").inner_text()
    for model in results["models"].values():
        for metric in ("recall@20", "recall@50", "ndcg@100"):
            assert f"{model['metrics'][metric]['mean']:.4f}".removeprefix("0") in table
    assert "bpr: cannot fold in new users" in page.locator("body").inner_text()


def test_it_loads_nothing_and_runs_nothing(results: dict[str, Any]) -> None:
    page = render_report(results)
    assert "<script" not in page
    assert HOSTILE not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    assert "url(http" not in page


def test_the_same_results_give_the_same_page(results: dict[str, Any]) -> None:
    assert render_report(results) == render_report(results)


def test_latent_dimensions_are_shown_with_their_warning(
    browser: Browser, results: dict[str, Any], tmp_path: Path
) -> None:
    use = results["models"]["multvae"]["latent_use"]
    assert [name for name, model in results["models"].items() if "latent_use" in model] == ["multvae"]
    assert len(use["kl"]) == 8
    assert use["kl"] == sorted(use["kl"], reverse=True)
    warned = {**results["models"]["multvae"], "latent_use": {**use, "active_units": 0, "warnings": ["z < nothing"]}}
    page_text = render_report({**results, "models": {HOSTILE: warned}, "comparisons": []})
    (tmp_path / "report.html").write_text(page_text, encoding="utf8")
    page, complaints, _ = opened(browser, tmp_path / "report.html", 1280)
    section = page.locator("section", has=page.get_by_role("heading", name="Latent dimensions"))
    assert complaints == []
    assert f"{HOSTILE}: z < nothing." in section.inner_text()
    assert f"{HOSTILE}: 0 of 8 active" in str(section.locator("svg").text_content())


def test_plots_without_data_are_left_out(results: dict[str, Any]) -> None:
    ease = results["models"]["ease"]
    bare = {**ease, "history": [], "by_history_length": {}}
    bare["metrics"] = {m: f for m, f in ease["metrics"].items() if not m.startswith(("coverage", "popularity"))}
    page = render_report({**results, "models": {"ease": bare}, "comparisons": []})
    assert page.count("<svg") == 2


def test_one_test_user_has_no_interval(results: dict[str, Any]) -> None:
    tests = [{**test, "ci95": [None, None]} for test in results["comparisons"]]
    assert render_report({**results, "comparisons": tests}).count("<svg") == render_report(results).count("<svg") - 1


def test_without_matplotlib_it_says_what_to_install(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="extra 'report'"):
        render_report(results)


@pytest.mark.parametrize(("winner", "said"), [("blend", True), ("ease", False)])
def test_a_blend_that_was_preferred_is_explained(results: dict[str, Any], winner: str, said: bool) -> None:
    search = {
        "winner": winner,
        "metric": "ndcg@100",
        "split": "by users",
        "seconds": 3,
        "budget_seconds": 60,
        "interrupted": False,
        "fitted_on": {"users": 3, "items": 2, "interactions": 5},
        "candidates": [
            {"model": "ease", "varies": {}, "value": 0.4, "seconds": 1},
            {"model": "blend", "varies": {}, "value": 0.3, "seconds": 1},
        ],
        "left_out": {},
    }
    page = render_report({**results, "search": search})
    assert ("ease has a higher figure on validation users, by no more than chance explains." in page) is said
