"""The parts of a soak, and how large each is when it is given ten minutes."""

from __future__ import annotations

import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from engramdb.errors import EngramError
from tests.soak import cycles, large, space, versions
from tests.soak.parts import Broken, Figures, Part

_SYNCS_MUCH: Final = ("openings", "looks", "rewriting")  # and says nothing about the disk
_MEMORY_DISK: Final = Path("/dev/shm")

PARTS: Final[dict[str, tuple[Part, int, int]]] = {
    # the full size, and the least that makes sense
    "one_memory": (versions.one_memory, 1_000_000, 2_000),
    "in_bulk": (versions.in_bulk, 10_000_000, 20_000),
    "openings": (cycles.openings, 10_000, 160),
    "looks": (cycles.looks, 20_000, 800),
    "rewriting": (space.rewriting, 100_000, 3_000),
    "vectors": (large.vectors, 4 * 2**30 + 2**28, 2**22),
    "payloads": (large.payloads, 4 * 2**30 + 2**28, 2**22),
}


def run_part(
    name: str, size: int, seed: int, directory: str | None = None
) -> tuple[Figures, str | None]:
    """The figures of a part, and if it failed the line that reproduces it. Its files are gone
    afterwards."""
    start_s = time.perf_counter()
    if directory is None and name in _SYNCS_MUCH and _MEMORY_DISK.is_dir():
        directory = str(_MEMORY_DISK)
    with tempfile.TemporaryDirectory(prefix=f"engramdb-soak-{name}-", dir=directory) as made:
        try:
            figures = PARTS[name][0](Path(made), size, seed)
        except (Broken, EngramError) as error:
            where = traceback.extract_tb(error.__traceback__)[-2]
            problem = f"{error!r} at {where.filename.rpartition('/')[2]}:{where.lineno}"
            return {}, f"python -m tests.soak {name} {size} {seed}  # {problem}"
    return figures | {f"{name}: seconds": round(time.perf_counter() - start_s, 1)}, None
