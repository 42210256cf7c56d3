"""Every example runs as a program of its own, from any directory, and shows what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

SHOWS = {
    "basic_usage.py": [
        "Nearest to the query:\n  1.000  Quarterly report",
        "Important and about work:",
        "Quarterly report is due on Friday  (first version)",
        "Quarterly report is due on Monday  (the deadline was moved)",
    ],
    "memory_graph.py": [
        "makes precious (0.5): No plums this year\n  Contains (1.0): The shelf in the cellar",
        "  2: No plums this year\n  3: The last jar of plum jam",
        "because: The plum blossom turned brown\n  because: A night of frost in April",
        "No plums this year -> The last jar of plum jam -> The shelf in the cellar",
        "now:\n  1.312 The last jar of plum jam\n  0.656 The neighbour who repaired the roof",
        "before the gift:\n  1.312 The last jar of plum jam\n  0.656 The shelf in the cellar",
        "After deleting the blossom the frost leads to 0 memories",
        "After undo the frost leads to 4 memories",
    ],
    "memory_and_file_storage.py": [
        "in memory: 3 memories",
        "in a directory: 3 memories",
        "a reader beside it: 3 memories",
        "the reader cannot write: ReadOnlyError",
        "a second writer is refused: DatabaseLockedError",
        "opened again: north, 0.994",
        "verified: 3 versions, 0 problems",
    ],
    "unified_database.py": [
        "open in the first week: ['Customer Lind reports that invoices lack the VAT number']",
        "because: The invoice template was replaced on Friday",
        "refused: ConflictError",
        "open then: True",
        "open now: False",
        "changed since: [True]",
    ],
    "agent_memory.py": [
        "now:    The spare key is with the neighbour",
        "monday: The spare key is under the flower pot",
        "The spare key is under the door mat (told by Elis)",
        "After undo: The spare key is under the door mat",
        "now:              Elis lives in the flat above the bakery",
        "in March:         Elis lives in the house by the harbour",
        "believed, monday: Elis lives in the house by the harbour",
    ],
}


def test_every_example_is_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWS)


@pytest.mark.parametrize("name", sorted(SHOWS))
def test_example(name: str, tmp_path: Path) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    for line in SHOWS[name]:
        assert line in finished.stdout
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
