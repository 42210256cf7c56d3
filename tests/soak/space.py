"""Constant rewriting of the same memories: what is on the disk stays within a bound."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import engramdb
from engramdb.lsm.environment import PosixEnvironment
from tests.soak.parts import Figures, bytes_in, check, check_sound, spread_id

DIMENSION = 32
TEXT_BYTES = 200
_MEMORIES = 500
_VERSION_BYTES = TEXT_BYTES + 4 * DIMENSION + 16 + 40
_RATIO_MAX = 4.0  # of the bytes that must be kept, beside three memtables and logs


class Ticking(PosixEnvironment):
    """Real files; the clock is set."""

    now_us = 1_700_000_000_000_000

    def now(self) -> int:
        return self.now_us


def rewriting(directory: Path, versions: int, seed: int) -> Figures:
    """Peak and final bytes beside those that the policy keeps, for each policy."""
    window = timedelta(milliseconds=5 * _MEMORIES)  # a commit takes a millisecond of this clock
    policies: list[tuple[str, engramdb.KeepAll | engramdb.KeepLast | engramdb.KeepFor, int]] = [
        ("KeepAll", engramdb.KeepAll(), versions),
        ("KeepLast(1)", engramdb.KeepLast(1), _MEMORIES),
        ("KeepLast(5)", engramdb.KeepLast(5), 5 * _MEMORIES),
        ("KeepFor(5 rewrites)", engramdb.KeepFor(window), 6 * _MEMORIES),
    ]
    figures: Figures = {"space: versions under each policy": versions}
    for name, policy, kept in policies:
        peak, final, compacted = _rewrite(directory / name, policy, versions, seed)
        needed = kept * _VERSION_BYTES
        figures[f"space: {name}, bytes kept"] = needed
        figures[f"space: {name}, peak / final / compacted"] = (
            f"{peak / needed:.2f} / {final / needed:.2f} / {compacted / needed:.2f}"
        )
        bound = _RATIO_MAX * needed + 6 * memtable_bytes(versions)
        check(peak <= bound, f"{name}: {peak:,} bytes on the disk, for {needed:,} that are kept")
    return figures


def memtable_bytes(versions: int) -> int:
    """So that there are a hundred flushes, whatever the size."""
    return max(2**14, versions * (_VERSION_BYTES + 200) // 100)


def _rewrite(directory: Path, policy: object, versions: int, seed: int) -> tuple[int, int, int]:
    rng = random.Random(f"rewriting {seed}")
    environment = Ticking()
    config = engramdb.DatabaseConfig(
        storage_dir=directory,
        durability="os",
        memtable_bytes=memtable_bytes(versions),
        history=policy,  # type: ignore[arg-type]
    )
    db = engramdb.Database(config, environment)
    said: dict[int, str] = {}
    peak = 0
    for n in range(versions):
        i = n % _MEMORIES if n < _MEMORIES else rng.randrange(_MEMORIES)
        said[i] = rng.randbytes(TEXT_BYTES // 2).hex()
        vector = [rng.random() for _ in range(DIMENSION)]
        node = engramdb.MemoryNode(vector, id=spread_id(i), attributes={"text": said[i]})
        environment.now_us += 1000
        db.save(node)
        if n % max(1, versions // 300) == 0:
            peak = max(peak, bytes_in(directory))
    db.flush()
    final = bytes_in(directory)
    db.compact()
    compacted = bytes_in(directory)
    for i, text in said.items():
        check(db.load(spread_id(i)).get_attribute("text") == text, f"memory {i} says another text")
    check(len(db) == _MEMORIES, f"{len(db)} memories")
    check_sound(db)
    db.close()
    return max(peak, final), final, compacted
