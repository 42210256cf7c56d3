"""Again and again: opened and closed; looked back, followed, forked. Nothing may add up."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import engramdb
from tests.soak.parts import Figures, Meter, check, check_sound, spread_id

_SAMPLES = 80


def openings(directory: Path, cycles: int, seed: int) -> Figures:
    """Opened, written, closed; every fourth time opened to read, every tenth time killed."""
    rng, meter = random.Random(f"openings {seed}"), Meter()
    path = directory / "db"
    said: dict[int, int] = {}
    engramdb.Database.file_based(path, durability="os", history=engramdb.KeepLast(3)).close()
    for n in range(1, cycles + 1):
        db = engramdb.Database.open(path, durability="os", memtable_bytes=2**16)
        i = rng.randrange(100)
        if i in said:
            found = db.load(spread_id(i)).get_attribute("n")
            check(found == said[i], f"opening {n}: memory {i} says {found}, not {said[i]}")
        db.save(engramdb.MemoryNode([float(i), 1.0], id=spread_id(i), attributes={"n": n}))
        said[i] = n
        if n % 4 == 0:
            with engramdb.Database.open(path, read_only=True) as reader:
                check(reader.last_seq == n, f"a reader sees {reader.last_seq} of {n}")
        if n % 10 == 0:
            engine = db._engine  # as if it were killed: no flush, and the lock is free
            engine._maintenance.stop()
            engine._core.close("it was killed")
            db._finalizer.detach()
        else:
            db.close()
        if n % max(1, cycles // _SAMPLES) == 0:
            meter.sample()
    with engramdb.Database.open(path) as db:
        check(db.last_seq == cycles, f"{db.last_seq} commits of {cycles}")
        check_sound(db)
    return meter.figures("open and close", cycles)


def looks(directory: Path, steps: int, seed: int) -> Figures:
    """Saves, with as_of, held snapshots, refresh of a reader; every 50th step a fork."""
    rng, meter = random.Random(f"looks {seed}"), Meter()
    path, memories = directory / "db", 50
    db = engramdb.Database.file_based(
        path, durability="os", memtable_bytes=2**17, history=engramdb.KeepLast(2)
    )
    db.save_many([engramdb.MemoryNode([1.0, float(i)], id=spread_id(i)) for i in range(memories)])
    reader = engramdb.Database.open(path, read_only=True)
    held: list[tuple[engramdb.Past, int, int]] = []
    for n in range(1, steps + 1):
        i = rng.randrange(memories)
        node = engramdb.MemoryNode([1.0, float(n)], id=spread_id(i), attributes={"n": n})
        db.save(node)
        held.append((db.as_of(db.last_seq), i, n))
        if len(held) > 20:
            past, j, said = held.pop(rng.randrange(len(held)))
            found = past.load(spread_id(j)).get_attribute("n")
            check(found == said, f"step {n}: a snapshot says {found}, not {said}")
            check(len(past.search_similar([1.0, float(said)], 1)) == 1, f"step {n}: nothing found")
            past.close() if rng.random() < 0.5 else None  # or collected
        if n % 5 == 0:
            check(reader.refresh() == db.last_seq, f"step {n}: a reader has not caught up")
            check(reader.load(spread_id(i)).get_attribute("n") == n, f"step {n}: a reader is late")
        if n % 50 == 0:
            with db.fork(directory / "fork") as fork:
                fork.delete(spread_id(i))
                check(len(fork) == memories - 1 and len(db) == memories, f"step {n}: a fork")
            shutil.rmtree(directory / "fork")
        if n % max(1, steps // _SAMPLES) == 0:
            meter.sample()
    check_sound(db)
    held.clear()
    reader.close()
    db.close()
    return meter.figures("looks", steps)
