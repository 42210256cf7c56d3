"""The house is kept tidy: short files, short lines, no chatter, no network, no swallowed errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = 500
COLUMNS_MAX = 100
NETWORK = {"asyncio", "ftplib", "http", "requests", "smtplib", "socket", "ssl", "urllib", "xmlrpc"}

LIBRARY = sorted((ROOT / "engramdb").rglob("*.py"))
SHIPPED = LIBRARY + sorted((ROOT / "tools").rglob("*.py"))
EVERYTHING = SHIPPED + [
    path
    for folder in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_a_file_fits_one_head(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_MAX


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_a_line_fits_a_screen(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= COLUMNS_MAX, f"{name_of(path)}:{number} has {len(line)} columns"
        assert line == line.rstrip(), f"{name_of(path)}:{number} ends with blanks"


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_a_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_never_prints(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "breakpoint"), f"{name_of(path)}:{node.lineno}"


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_no_bare_except(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name_of(path)}:{node.lineno} catches everything"


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_the_library_has_no_network(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in NETWORK, f"{name_of(path)}:{node.lineno}: {name}"


def test_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
    for path in EVERYTHING:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for mark in marks:
                assert mark not in line, f"{name_of(path)}:{number}: {mark}"
