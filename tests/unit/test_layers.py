"""Imports point downward only; the operating system is touched on one floor only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "engramdb").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])

# From the ground up. A module may import from its own floor and from those below it.
FLOORS = (
    ("engramdb.errors",),
    ("engramdb.lsm.environment",),
    ("engramdb.lsm",),
    ("engramdb.model",),
    ("engramdb.index", "engramdb.embedding", "engramdb.access", "engramdb.prefetch"),
    ("engramdb.indexing",),
    ("engramdb.query",),
    ("engramdb",),
    ("engramdb.web", "engramdb.integrations", "engramdb_tools"),
)
EMBEDDING_MAY_IMPORT = {"engramdb.errors", "engramdb.embedding", "numpy", "xxhash"}
# What nothing above the engine needs: the engine alone stores, and index and query only compute.
# (Of the engine itself, test_io_stays_in_environment.py asks much more.)
OPERATING_SYSTEM = {
    *("fcntl", "glob", "io", "mmap", "os", "pathlib", "shutil", "subprocess", "tempfile"),
    *("random", "secrets", "time"),
}


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = [part for part in relative.parts if part != "tools"]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> tuple[int, str]:
    """The floor of a module of ours, and the package that puts it there: the longest that fits."""
    fitting = [
        (number, package)
        for number, packages in enumerate(FLOORS)
        for package in packages
        if module == package or module.startswith(package + ".")
    ]
    return max(fitting, key=lambda fit: len(fit[1]))


def is_ours(module: str) -> bool:
    return module.split(".")[0] in ("engramdb", "engramdb_tools")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything that a file imports, wherever in it that stands.

    `from package import name` gives package.name if that is a module, and package otherwise.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in MODULES else node.module


MODULES = {module_name(path) for path in SOURCES}


def test_there_is_something_to_check() -> None:
    assert {"engramdb", "engramdb.lsm", "engramdb.model", "engramdb_tools"} <= MODULES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    floor, package = floor_of(module_name(path))
    for line, imported in imports_of(path):
        if is_ours(imported):
            below, from_package = floor_of(imported)
            assert below <= floor, f"{path}:{line}: {package} imports from above: {imported}"
            assert below < floor or from_package == package or package == "engramdb_tools", (
                f"{path}:{line}: {package} imports from its neighbour {from_package}: {imported}"
            )


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if "embedding" in path.parts],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_embedding_stands_alone(path: Path) -> None:
    for line, imported in imports_of(path):
        top = imported if is_ours(imported) else imported.split(".")[0]
        allowed = top in sys.stdlib_module_names or any(
            top == name or top.startswith(name + ".") for name in EMBEDDING_MAY_IMPORT
        )
        assert allowed, f"{path}:{line}: {imported}"


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if {"index", "query"} & set(path.relative_to(ROOT).parts)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_index_and_query_only_compute(path: Path) -> None:
    for line, imported in imports_of(path):
        assert imported.split(".")[0] not in OPERATING_SYSTEM, f"{path}:{line}: {imported}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{path}:{node.lineno}: open()"


def test_the_floors_are_told_apart() -> None:
    assert floor_of("engramdb.lsm.environment.posix")[1] == "engramdb.lsm.environment"
    assert floor_of("engramdb.lsm.engine")[1] == "engramdb.lsm"
    assert floor_of("engramdb.database")[1] == "engramdb"
    assert floor_of("engramdb.errors")[0] == 0
    assert module_name(ROOT / "tools/engramdb_tools/demo/__main__.py") == (
        "engramdb_tools.demo.__main__"
    )
