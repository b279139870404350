"""The package's shape: which package may import which, and what no module may hold."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recvae

LAYERS = (
    ("errors", "types", "machine"),
    ("lazy", "progress", "memory", "topn"),
    ("storage", "store"),
    ("data",),
    ("nn",),
    ("datasets",),
    ("evaluation",),
    ("preparation",),
    ("training",),
    ("models",),
    ("tuning",),
    ("inference",),
    ("workflow",),
    ("fitting",),
    ("serving",),
    ("cli",),
    ("__main__", "__init__"),
)
"""Packages and modules at the root, from the bottom up: each imports only what stands in a line above its own here."""

PACKAGE = Path(recvae.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


def module_name(path: Path) -> str:
    """Such as `recvae.nn.layers`; a package is named by its folder."""
    parts = ("recvae", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in SOURCES}


def room(module: str) -> str:
    """The package, or the module at the root, that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def imports(path: Path) -> frozenset[str]:
    """The package's modules that a module imports: anywhere in it, in functions and for type checking too."""
    return frozenset(name for name in _imports(ast.parse(path.read_text(encoding="utf8"))) if name in MODULES)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in found)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("recvae."):  # imported when first used
            yield str(node.value)


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    text = ast.get_docstring(function, clean=False) or ""
    return (function.end_lineno or 0) - function.lineno + 1 - (text.count("\n") + 1 if text else 0)


def test_every_module_has_a_layer() -> None:
    assert {room(module) for module in MODULES} == set(LEVEL)


@each_source
def test_imports_point_downwards(path: Path) -> None:
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf8"))
    assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    upwards = [
        name
        for name in sorted(imports(path))
        if room(name) != room(module) and LEVEL[room(name)] >= LEVEL[room(module)]
    ]
    assert upwards == []


def test_no_circle_of_modules_is_left() -> None:
    graph = {module: imports(path) - {module} for module, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_no_folder_is_crowded() -> None:
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    files = {folder: [entry for entry in folder.iterdir() if entry.is_file()] for folder in folders}
    assert len([file for file in files[PACKAGE] if file.suffix == ".py"]) <= 10
    assert {folder: len(found) for folder, found in files.items() if len(found) > 16} == {}


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
