"""The engine reaches files, clock and randomness only through its environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engramdb" / "lsm"

FORBIDDEN_MODULES = frozenset(
    [
        "os",
        "posix",
        "posixpath",
        "io",
        "time",
        "mmap",
        "random",
        "secrets",
        "tempfile",
        "shutil",
        "pathlib",
        "fcntl",
        "socket",
        "subprocess",
        "glob",
        "uuid",
        "select",
    ]
)
FORBIDDEN_CALLS = frozenset(["open", "input", "__import__"])
FORBIDDEN_ATTRIBUTES = frozenset(["memmap", "fromfile", "tofile", "loadtxt", "savetxt", "savez"])
FORBIDDEN_OF_NUMPY = frozenset(["load", "save", "random"])
FORBIDDEN_OF_DATETIME = frozenset(["now", "utcnow", "today"])


def violations(source: str) -> list[str]:
    """What in the source reaches around the environment, as "line: what"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""] if not node.level else []
        else:
            modules = []
        for module in modules:
            if module.partition(".")[0] in FORBIDDEN_MODULES:
                found.append(f"{node.lineno}: import {module}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: {node.func.id}()")
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if (
                node.attr in FORBIDDEN_ATTRIBUTES
                or (owner in ("np", "numpy") and node.attr in FORBIDDEN_OF_NUMPY)
                or (owner in ("datetime", "date") and node.attr in FORBIDDEN_OF_DATETIME)
            ):
                found.append(f"{node.lineno}: {owner}.{node.attr}")
    return found


def engine_modules() -> list[Path]:
    return [
        path
        for path in sorted(ENGINE.rglob("*.py"))
        if path.relative_to(ENGINE).parts[0] != "environment"
    ]


@pytest.mark.parametrize("path", engine_modules(), ids=lambda path: str(path.relative_to(ENGINE)))
def test_module_goes_through_the_environment(path: Path) -> None:
    assert violations(path.read_text()) == []


def test_there_are_modules_to_look_at() -> None:
    assert len(engine_modules()) > 3


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path",
        "from os import path",
        "def f():\n    import time",
        "import numpy, io",
        "from pathlib import Path",
        "open('x')",
        "with open('x') as f: pass",
        "import numpy as np\nnp.memmap('x')",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.random.default_rng()",
        "matrix.tofile('x')",
        "datetime.now()",
    ],
)
def test_a_way_around_is_noticed(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "environment.open('x', 'r')",
        "class E:\n    @classmethod\n    def open(cls): ...",
        "from engramdb.lsm.environment import Environment",
        "import threading, datetime",
        "self.environment.now()",
    ],
)
def test_the_right_way_is_not(source: str) -> None:
    assert violations(source) == []
