"""Every python block of README.md and docs/*.md runs as it is printed.

The blocks of one file are one program: a block may use what the blocks above it have defined. The
program keeps the line numbers of the document, so a traceback names the line to look at. A block is
skipped if the line above it (blank lines apart) is `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)$")
NOT_RUN = re.compile(r"^ *<!-- not run: .+ -->$")


def program_of(document: str) -> str:
    """The python blocks of a Markdown text, each line where it was, all other lines blank."""
    program: list[str] = []
    fence, indent, run = "", 0, False  # of the block that we are in; no fence: none
    before = ""  # the last line outside that was not blank
    for line in document.splitlines():
        match = FENCE.match(line)
        code = ""
        if fence:
            stripped = line.strip()
            if len(stripped) >= len(fence) and not stripped.strip(fence[0]):
                fence, before = "", line
            elif run:
                code = line[min(indent, len(line) - len(line.lstrip())) :]
        elif match:
            fence, indent = match["fence"], len(match["indent"])
            run = match["language"].strip() == "python" and not NOT_RUN.match(before)
        elif line.strip():
            before = line
        program.append(code)
    return "\n".join(program) + "\n"


def test_blocks_keep_their_lines_and_may_be_skipped() -> None:
    document = """Text.
```python
a = 1
```
<!-- not run: it needs the network -->

```python
fetch()
```
```bash
make
```
- item
  ````python
  b = '''
  ```
  '''
  ````
<!-- not run: only the next one -->
```python
fetch()
```
```python
c = 3
```
"""
    lines = program_of(document).splitlines()
    code = {number + 1: line for number, line in enumerate(lines) if line}
    assert code == {3: "a = 1", 15: "b = '''", 16: "```", 17: "'''", 24: "c = 3"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document(document: Path, tmp_path: Path) -> None:
    program = program_of(document.read_text(encoding="utf-8"))
    if not program.strip():
        pytest.skip("no python blocks")
    script = tmp_path / f"{document.name}.py"
    script.write_text(program, encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
