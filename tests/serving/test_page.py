"""The page in a real browser: by mouse and by keyboard, wide and narrow, asking nobody but its own service."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.contracts import one_thread as one_thread
from tests.evaluation.test_report import browser as browser
from tests.http_service import running, save

WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    save(folder / "model")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(folder / "model") as (address, _):
        yield address


class Visit:
    """A page, what its console complained about, and what it asked others for."""

    def __init__(self, browser: Browser, address: str, path: str, width: int) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 800})
        self.page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        self.complaints, self.strangers = list[str](), list[str]()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url, address))
        self.page.goto(f"{address}{path}")

    def _asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:")):
            self.strangers.append(url)


@pytest.mark.parametrize("width", WIDTHS)
def test_picking_changes_the_list(browser: Browser, address: str, width: int) -> None:
    visit = Visit(browser, address, "/", width)
    page = visit.page
    items = page.locator("#items li")
    expect(items).to_have_count(10)
    expect(page.get_by_role("status")).to_have_text("Popular titles")
    popular = items.all_inner_texts()
    page.get_by_label("Search titles").fill("bold")
    page.get_by_role("option", name='<b>Bold & "quoted"</b>').click()
    expect(page.get_by_role("status")).to_have_text("10 titles for 1 picked")
    expect(page.locator("#picked li")).to_have_count(1)
    expect(page.locator(".because").first).to_contain_text("because of")
    assert items.all_inner_texts() != popular
    assert page.locator("#items b").count() == 0
    page.get_by_role("button", name="Remove <b>Bold").click()
    expect(page.get_by_role("status")).to_have_text("Popular titles")
    assert items.all_inner_texts() == popular
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (visit.complaints, visit.strangers) == ([], [])
    page.close()


def test_by_keyboard_alone(browser: Browser, address: str) -> None:
    page = Visit(browser, address, "/", 1280).page
    search = page.get_by_label("Search titles")
    for _ in range(10):
        if search.evaluate("node => node === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.type("film")
    expect(page.get_by_role("option")).to_have_count(8)
    second = page.get_by_role("option").nth(1).inner_text()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("#picked span")).to_have_text(second)
    page.keyboard.type("amelie")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#picked li")).to_have_count(0)
    page.close()


def test_nothing_found_is_said(browser: Browser, address: str) -> None:
    page = Visit(browser, address, "/", 390).page
    page.get_by_label("Search titles").fill("no such title")
    expect(page.get_by_role("status")).to_contain_text("No title with")
    page.close()


def test_a_key_is_asked_for(browser: Browser, folder: Path) -> None:
    with running(folder / "model", RECVAE_API_KEY="secret") as (address, _):
        page = Visit(browser, address, "/", 1280).page
        page.get_by_label("This service asks for an API key").fill("secret")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#items li")).to_have_count(10)
        expect(page.locator("#lock")).to_be_hidden()
        page.close()


def test_the_documentation_is_swagger_ui(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "/docs", 1280)
    page = visit.page
    expect(page.locator(".opblock")).to_have_count(16)
    page.locator("#operations-recommendations-recommend").click()
    page.get_by_role("button", name="Try it out").click()
    page.locator("#operations-recommendations-recommend textarea").fill('{"history": [101], "n": 3}')
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert (visit.complaints, visit.strangers) == ([], [])
    page.close()


def test_the_files_load_nothing_from_elsewhere(address: str) -> None:
    for path in ("/", "/page.js", "/page.css", "/docs"):
        text = httpx.get(f"{address}{path}").text
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text
