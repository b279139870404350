"""README and the pages of docs: commands and Python run as they stand there, and print what stands below them."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import recvae
from benchmarks.implicit_tests import REASONS
from docs import generate
from recvae.datasets import NAMES
from recvae.evaluation.results import read_results
from recvae.evaluation.tables import markdown_table
from tests.http_service import free_port, ready, wait_until

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
"""The page whose commands need a database; `tests/test_tutorial.py` runs them."""
LONGEST_README = 130
SHELL_COMMANDS = ("recvae", "torchrun", "python")
"""Commands that a bash block may run, beside `make`, `pip install` and a service with the `curl` that asks it."""


@dataclass(frozen=True)
class Block:
    """A block of code of a page, with the block of output that follows it, if one does."""

    language: str
    code: str
    output: str | None

    @property
    def commands(self) -> list[str]:
        """The lines, without comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := re.sub(r"\s+# .*$", "", line).strip())]


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of one language."""
    text = page.read_text(encoding="utf8")
    pattern = rf"^```{language}\n(.*?)^```$(?:\n\n```(?:text|json)\n(.*?)^```$)?"
    found = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return [Block(language, code, output or None) for code, output in found]


COMMANDS = {
    page: [command for block in blocks(page, "bash") for command in block.commands]
    for page in PAGES
    if page != TUTORIAL
}
EVERY_COMMAND = list(dict.fromkeys(command for commands in COMMANDS.values() for command in commands))
SERVED = [command for command in EVERY_COMMAND if command.startswith(("recvae serve ", "curl "))]
RUN = [command for command in EVERY_COMMAND if command.startswith(SHELL_COMMANDS) and command not in SERVED]
MADE = [command for command in EVERY_COMMAND if command.startswith("make ")]
INSTALLED = [command for command in EVERY_COMMAND if command.startswith("pip install ")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all commands and programs share."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def environment(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cache = tmp_path_factory.mktemp("cache")
    folders = {"RECVAE_DATA": str(data_dir.resolve()), "RECVAE_CACHE": str(cache)}
    return {**os.environ, **folders, "PATH": path, "OMP_NUM_THREADS": "1"}  # other tests keep the other cores busy


@pytest.fixture(scope="module")
def printed(workplace: Path, environment: dict[str, str]) -> dict[str, str]:
    """The output of each command; run in the order of the pages, README's first, and each once."""
    outputs = {}
    for command in RUN:
        done = subprocess.run(
            shlex.split(command), cwd=workplace, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs[command] = done.stdout
    return outputs


def test_every_command_is_of_a_kind_that_is_tried() -> None:
    assert sorted(RUN + SERVED + MADE + INSTALLED) == sorted(EVERY_COMMAND)
    assert len(RUN) >= 10


def test_commands_print_what_stands_below_them(printed: dict[str, str]) -> None:
    assert all(text.strip() for command, text in printed.items() if command.startswith("recvae"))
    shown = [block for page in PAGES for block in blocks(page, "bash") if block.output]
    for block in shown:
        if block.commands[-1] in printed:
            assert printed[block.commands[-1]] == block.output


@pytest.mark.usefixtures("printed")
def test_the_service_answers_what_stands_below_its_command(workplace: Path, environment: dict[str, str]) -> None:
    (serve,) = [command for command in SERVED if command.startswith("recvae serve ") and "--host" not in command]
    asked = [command for command in SERVED if command.startswith("curl ")]
    (shown,) = [
        block.output for block in blocks(PAGES[0], "bash") if block.output and block.commands[-1].startswith("curl ")
    ]
    first, *others = served(serve, asked, workplace, environment)
    assert described(first) == described(json.loads(shown or ""))
    assert all(answer["items"][0]["because"] for answer in others)


def described(answer: Any) -> Any:
    """An answer without what differs from day to day and from processor to processor."""
    items = [(item["id"], item["title"], pytest.approx(item["score"], abs=1e-3)) for item in answer["items"]]
    return items, answer["unknown"], answer["model"]["name"], answer.keys(), answer["model"].keys()


def served(serve: str, asked: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Any]:
    """The answers of a service that one command starts to the others, on a port that is free."""
    port = str(free_port())
    command = [*shlex.split(serve), "--port", port]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: ready(f"http://127.0.0.1:{port}"))
            for ask in asked:
                yield json.loads(subprocess.check_output(shlex.split(ask.replace("8000", port))))
        finally:
            process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_programs_print_what_stands_below_them(page: Path, workplace: Path, environment: dict[str, str]) -> None:
    programs = blocks(page, "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(block.code for block in programs)],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if outputs := [block.output for block in programs if block.output]:
        assert done.stdout == "".join(outputs)


def test_make_commands_are_targets() -> None:
    for command in MADE:
        subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, check=True)


def test_extras_that_are_named_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    text = "\n".join(page.read_text(encoding="utf8") for page in PAGES)
    named = {name for names in re.findall(r"pip install '?\.\[([\w,]+)\]", text) for name in names.split(",")}
    assert named <= set(project["optional-dependencies"])
    table = re.search(r"\| extra \| adds \|\n(.*?)\n\n", text, re.DOTALL)
    assert table
    listed = {name for line in table[1].splitlines() for name in re.findall(r"`([\w]+)`", line.split("|")[1])}
    assert listed == set(project["optional-dependencies"])


def test_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf8").splitlines()) <= LONGEST_README


def test_readme_shows_measured_results() -> None:
    assert generate.readme_results(RESULTS) in PAGES[0].read_text(encoding="utf8")


def test_result_tables_are_the_measured_ones() -> None:
    measured = [name for name in NAMES if (RESULTS / f"{name}.json").exists()]
    assert {"ml-1m", "ml-100k", "gowalla"} <= set(measured)
    for name in measured:
        results = read_results(RESULTS / f"{name}.json")
        metrics = list(dict.fromkeys(pair["metric"] for pair in results["comparisons"]))
        assert markdown_table(results, metrics) in (RESULTS / f"{name}.md").read_text(encoding="utf8")


def test_every_sweep_stands_on_the_page_on_tuning() -> None:
    shown = re.findall(r"generated/sweeps/(\w+)\.svg", (ROOT / "docs" / "tuning.md").read_text(encoding="utf8"))
    assert sorted(shown) == sorted(file.stem for file in (RESULTS / "sweeps").glob("*.json"))


def test_the_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf8")
    named = set(re.findall(r"auto(?:class|function):: recvae\.(\w+)", reference))
    assert named | {"RecvaeError"} == set(recvae.__all__)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *ROOT.glob("*/README.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf8"), flags=re.DOTALL)
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
        for target in targets:
            if not target.startswith("generated/"):  # made when the pages are built
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_failures_of_the_tests_of_implicit_have_their_reasons() -> None:
    page = (ROOT / "docs" / "implicit.md").read_text(encoding="utf8")
    for name, reason in REASONS.items():
        assert f"| `{name}` | {reason} |" in page


def test_files_that_are_named_exist() -> None:
    for page in [*PAGES, ROOT / "SECURITY.md"]:
        for name in re.findall(
            r"`((?:recvae|tests|benchmarks|docs|service)/[\w./-]+)`", page.read_text(encoding="utf8")
        ):
            assert (ROOT / name).exists() or "NAME" in name, f"{page.name}: {name}"


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "pictures").glob("*.png"))
    assert {picture.name for picture in pictures} == {"report.png", "page.png"}
    assert all(picture.stat().st_size < 200_000 for picture in pictures)
