"""The package's shape: which module may import which, and what no module may hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import recvae

ORDER = [
    *(
        "errors",
        "memory",
        "tables",
        "matrices",
        "storage",
        "stored_matrices",
        "interactions",
        "datasets",
        "parts",
        "splits",
        "staging",
        "engine",
        "engine_splits",
        "published",
        "prepared",
        "preparation",
    ),
    *(
        "topn",
        "metrics",
        "device",
        "rows",
        "products",
        "distributed",
        "sharding",
        "nn",
        "likelihood",
        "schedules",
        "optimizers",
        "objective",
        "spectrum",
        "progress",
        "checkpoint",
        "interrupts",
        "training",
        "models",
    ),
    *("evaluation", "comparison", "report", "figures", "html_report", "artifact", "item_index", "ranking"),
    *(
        "user_histories",
        "batch_recommender",
        "bulk",
        "tuning",
        "workflow",
        "demo",
        "serving",
        "arguments",
        "cli",
        "__main__",
    ),
]
PACKAGE = Path(recvae.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """The package's modules that are imported as soon as this one is."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("recvae."))
        elif isinstance(node, ast.ImportFrom) and node.module == "recvae":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recvae."):
            yield str(node.module).split(".")[1]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    text = ast.get_docstring(function, clean=False) or ""
    return (function.end_lineno or 0) - function.lineno + 1 - (text.count("\n") + 1 if text else 0)


def test_every_module_stands_in_the_order() -> None:
    assert {module_of(path) for path in SOURCES} - {"__init__"} == set(ORDER)


@each_source
def test_no_module_imports_one_further_down(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf8"))
    assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    if (module := module_of(path)) != "__init__":
        assert [name for name in imported(tree) if ORDER.index(name) > ORDER.index(module)] == []


@each_source
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(text.splitlines()) <= 350
    assert [f.name for f in functions if lines_of(f) > 50] == []


@each_source
def test_nothing_read_is_ever_executed(path: Path) -> None:
    forbidden = r"^\s*(?:import|from) (?:c?[Pp]ickle|marshal|shelve|joblib)\b|(?<![\w.])(?:eval|exec)\(|torch\.load\("
    assert re.findall(forbidden, path.read_text(encoding="utf8"), re.MULTILINE) == []
    assert path.name not in ("utils.py", "config.py")
