"""The page in a real browser: by mouse and by keyboard, wide and narrow, asking nobody but its own service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from recvae.models.linear.ease import EASE
from tests.contracts import one_thread as one_thread
from tests.evaluation.test_report import browser as browser
from tests.http_service import N_ITEMS, item_id, running, save

TITLES = [{3: "Amélie (2001)", 4: '<b>Bold & "quoted"</b>'}.get(i, f"Film {i:02}") for i in range(N_ITEMS)]
FAINT_TEXTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colour) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => [[red, .2126], [green, .7152], [blue, .0722]].reduce((sum, [part, share]) =>
    sum + share * (part <= 10 ? part / 255 / 12.92 : ((part / 255 + .055) / 1.055) ** 2.4), 0);
  const behind = (node) => {
    const colour = paint(getComputedStyle(node).backgroundColor);
    return colour[3] === 255 || !node.parentElement ? colour : behind(node.parentElement);
  };
  const shown = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
    [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()));
  const texts = shown.filter((node) => {
    const [text, ground] = [paint(getComputedStyle(node).color), behind(node)].map(luminance);
    return (Math.max(text, ground) + .05) / (Math.min(text, ground) + .05) < 4.5;
  }).map((node) => node.textContent);
  return { seen: shown.length, texts };
}"""
"""Finds texts whose contrast to their background is below 4.5, and counts all."""
WIDTHS = [1280, 375]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    items = pd.DataFrame(
        {
            "item_id": [item_id(i) for i in range(N_ITEMS)],
            "title": TITLES,
            "genre": [("Drama", "Comedy|Crime", "Crime")[i % 3] for i in range(N_ITEMS)],
            "year": range(1950, 1950 + N_ITEMS),
            "in_stock": [i % 2 == 0 for i in range(N_ITEMS)],
            "seen_on": pd.date_range("2020-01-01 15:30", periods=N_ITEMS),
            "blurb": [f"About film {i}, at length" for i in range(N_ITEMS)],
        }
    )
    save(folder / "model", items=items)
    save(folder / "other", EASE(), items=items)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(folder / "model") as (address, _):
        yield address


@pytest.fixture(scope="module")
def two_models(folder: Path) -> Iterator[str]:
    with running(folder, RECVAE_MODELS="model:0.5,other:0.5") as (address, _):
        yield address


class Visit:
    """A page, what its console complained about, and what it asked others for."""

    def __init__(
        self, browser: Browser, address: str, path: str, width: int, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
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


def test_a_refused_request_says_why(browser: Browser, folder: Path) -> None:
    with running(folder / "model", RECVAE_MAX_N="5") as (address, _):
        page = Visit(browser, address, "/", 1280).page
        expect(page.get_by_role("status")).to_have_text("n: Input should be less than or equal to 5")
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


@pytest.mark.parametrize("width", WIDTHS)
def test_filters_narrow_the_list(browser: Browser, address: str, width: int) -> None:
    visit = Visit(browser, address, "/", width)
    page, count = visit.page, visit.page.locator("#active")
    year = page.get_by_role("group", name="year")
    if width < 800:
        page.get_by_text("Filters", exact=True).click()
    legends = page.locator("#choices legend")
    expect(legends).to_have_text(["genre", "in stock", "seen on", "year", "variety"])
    page.get_by_text("Crime", exact=True).click()
    page.get_by_role("group", name="in stock").get_by_text("yes").click()
    year.get_by_label("from").fill("1955")
    year.get_by_label("to").fill("1960")
    expect(count).to_have_text("3")
    expect(page.locator("#items .title")).to_have_count(2)
    assert sorted(page.locator("#items .title").all_inner_texts()) == ["Film 08", "Film 10"]
    year.get_by_label("to").fill("1940")
    expect(page.get_by_role("status")).to_have_text("No title meets the filters")
    page.get_by_role("button", name="Remove all filters").click()
    expect(page.get_by_role("status")).to_have_text("Popular titles")
    expect(count).to_be_hidden()
    seen = page.get_by_role("group", name="seen on")
    seen.get_by_label("from").fill("2020-01-07")
    seen.get_by_label("to").fill("2020-01-08")
    expect(page.locator("#items .title")).to_have_count(2)
    assert sorted(page.locator("#items .title").all_inner_texts()) == ["Film 06", "Film 07"]
    page.get_by_role("button", name="Remove all filters").click()
    page.get_by_label("variety").fill("0.9")
    expect(count).to_have_text("1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (visit.complaints, visit.strangers) == ([], [])
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_similar_items_and_the_model_card_are_shown(browser: Browser, address: str, width: int) -> None:
    visit = Visit(browser, address, "/", width)
    page, dialog = visit.page, visit.page.get_by_role("dialog")
    first = page.locator("#items .title").first.inner_text()
    page.get_by_role("button", name=f"Items similar to {first}").click()
    expect(dialog.get_by_role("heading")).to_have_text(f"Similar to {first}")
    expect(dialog.get_by_role("listitem")).to_have_count(10)
    other = dialog.locator(".title").nth(1).inner_text()
    dialog.get_by_role("button", name=f"Pick {other}").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#picked span")).to_have_text(other)
    expect(page.get_by_role("status")).to_have_text("10 titles for 1 picked")
    page.get_by_role("button", name=f"MultVAE · {N_ITEMS} items").click()
    expect(dialog.get_by_role("heading").first).to_have_text("MultVAE")
    expect(dialog).to_contain_text("Limits")
    expect(dialog).to_contain_text("latent")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert (visit.complaints, visit.strangers) == ([], [])
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_two_models_side_by_side(browser: Browser, two_models: str, width: int) -> None:
    visit = Visit(browser, two_models, "/", width)
    page, dialog = visit.page, visit.page.get_by_role("dialog")
    page.get_by_role("button", name="Pick", exact=False).first.click()
    expect(page.get_by_role("status")).to_have_text("10 titles for 1 picked")
    expect(page.locator("#others li")).to_have_count(0)
    page.get_by_label("Two models side by side").check()
    expect(page.locator("#others li")).to_have_count(10)
    first, second = (page.locator(f"#{name} .title").all_inner_texts() for name in ("items", "others"))
    alone = [text for text in first if text.endswith("only here")]
    assert len(alone) == sum(text.endswith("only here") for text in second) > 0
    expect(page.get_by_role("status")).to_have_text(f"10 titles for 1 picked, {10 - len(alone)} in both lists")
    page.get_by_role("button", name="2 models").click()
    expect(dialog.locator("section > h3:first-child")).to_have_text(["model (MultVAE)", "other (EASE)"])
    page.get_by_role("button", name="Close").click()
    page.get_by_label("Model of the second list").select_option("model")
    expect(page.get_by_role("status")).to_have_text("10 titles for 1 picked, 10 in both lists")
    assert page.locator("#others .title").all_inner_texts() == page.locator("#items .title").all_inner_texts()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (visit.complaints, visit.strangers) == ([], [])
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, two_models: str, scheme: Literal["light", "dark"]) -> None:
    """Every text has the contrast to its background that WCAG 2.2 asks for, 4.5, in light and in dark."""
    page = Visit(browser, two_models, "/", 1280, scheme).page
    page.get_by_role("button", name="Pick", exact=False).first.click()
    expect(page.locator(".because").first).to_be_visible()
    page.get_by_role("button", name="2 models").click()
    expect(page.locator(".tiles").first).to_be_visible()
    faint = page.evaluate(FAINT_TEXTS)
    assert faint["seen"] > 100
    assert faint["texts"] == []
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
