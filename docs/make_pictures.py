"""Make the pictures of README and the documentation: the report and the page, as a browser shows them.

    make pictures

Runs README's commands on MovieLens-100K, and writes PNG files into docs/pictures.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
SIZE = {"width": 1000, "height": 640}
PICKED = ("Star Wars (1977)", "Fargo (1996)")
PORT = 8765
MAKE_FILMS = (
    "import recvae; d = recvae.load_dataset('ml-100k'); d.ratings.merge(d.items).to_csv('films.csv', index=False)"
)
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> None:
    """Prepare, compare, train, serve and take the pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        work = Path(scratch)
        subprocess.run([sys.executable, "-c", MAKE_FILMS], cwd=work, check=True)
        columns = ("--item-column", "title", "--rating-column", "rating", "--min-rating", "4")
        recvae("prepare", work / "films.csv", *columns, "--out", work / "data")
        recvae("compare", work / "data", "--models", "popularity,als,ease,multvae", "--out", work / "report")
        recvae("prepare", "ml-100k", "--out", work / "films")  # with genres, for the page's filters
        recvae("train", work / "films", "--model", "ease", "--on", "all", "--out", work / "model")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER_ARGUMENTS)
        picture_of_report(browser, work / "report" / "report.html")
        picture_of_page(browser, work / "model")
        browser.close()


def recvae(*arguments: str | Path) -> None:
    """Run a command of recvae in this Python."""
    subprocess.run([sys.executable, "-m", "recvae", *map(str, arguments)], check=True)


def picture_of_report(browser: Browser, report: Path) -> None:
    """The top of report.html: its table and first plot."""
    page = browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
    page.goto(report.as_uri())
    page.screenshot(path=PICTURES / "report.png")


def picture_of_page(browser: Browser, model: Path) -> None:
    """The page of the service with a few films picked."""
    command = [sys.executable, "-m", "recvae", "serve", str(model), "--port", str(PORT)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{PORT}/readyz")
            page = browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
            page.goto(f"http://127.0.0.1:{PORT}/")
            for title in PICKED:
                page.get_by_label("Search titles").fill(title)
                page.get_by_role("option", name=title).click()
            page.get_by_text(f"titles for {len(PICKED)} picked").wait_for()
            page.get_by_label("Search titles").blur()
            page.screenshot(path=PICTURES / "page.png")
        finally:
            server.terminate()


def wait_until_ready(address: str, seconds: float = 60) -> None:
    """Wait until the service answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 the address is our own
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
