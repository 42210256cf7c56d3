"""Very many versions: of one memory, one by one; and of many memories, in bulk."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np

import engramdb
from tests.soak.parts import Figures, check, check_sound, options, spread_id


def one_memory(directory: Path, versions: int, seed: int) -> Figures:
    """One memory with so many versions: version k says k, and its commit is number k + 1, because
    another memory was saved first. Every tenth version has a vector of its own."""
    rng = random.Random(f"one memory {seed}")
    times_s: dict[str, float] = {}
    path, memory_id = directory / "db", spread_id(1)
    memtable_bytes = min(64 * 2**20, max(2**16, versions * 60))  # flushes on the way
    db = engramdb.Database.file_based(path, durability="os", memtable_bytes=memtable_bytes)
    db.save(engramdb.MemoryNode([0.0, 1.0], id=spread_id(2)))
    node = engramdb.MemoryNode([1.0, 0.0], id=memory_id)
    start_s = time.perf_counter()
    for k in range(1, versions + 1):
        if k % 10 == 0:
            node.embeddings = [float(k), 1.0]
        node.set_attribute("k", k)
        db.save(node)
        if k % (versions // 10) == 0:
            _check_moments(db, memory_id, k, rng, 20)
    times_s["saves"] = time.perf_counter() - start_s

    def timed(name: str, begun_s: float) -> None:
        times_s[name] = round(time.perf_counter() - begun_s, 2)

    for round_ in ("from log and files", "merged", "reopened"):
        start_s = time.perf_counter()
        _check_moments(db, memory_id, versions, rng, 200)
        timed(f"200 moments, {round_}", start_s)
        start_s = time.perf_counter()
        _check_history(db, memory_id, versions)
        timed(f"history, {round_}", start_s)
        start_s = time.perf_counter()
        if round_ == "from log and files":
            db.compact()
            timed("compact", start_s)
        elif round_ == "merged":
            db.close()
            db = engramdb.Database.open(path)
            timed("reopen", start_s)
    check_sound(db)
    start_s = time.perf_counter()
    db.set_history(engramdb.KeepLast(5))
    db.compact()
    timed("KeepLast(5)", start_s)
    seqs = [layer.seq for layer in db.history(memory_id)]
    check(seqs == list(range(versions - 3, versions + 2)), f"KeepLast(5) kept {seqs}")
    check_sound(db)
    db.close()
    told = {f"one memory: {name}, s": round(value, 2) for name, value in times_s.items()}
    return {"one memory: versions": versions} | told


def _check_moments(
    db: engramdb.Database, memory_id: str, last: int, rng: random.Random, count: int
) -> None:
    for _ in range(count):
        k = rng.randint(1, last)
        with db.as_of(k + 1) as past:
            node = past.load(memory_id)
            check(node.get_attribute("k") == k, f"as of {k + 1}: {node.get_attribute('k')}")
            first = float(k - k % 10) if k >= 10 else 1.0
            assert node.embeddings is not None
            check(node.embeddings[0] == first, f"as of {k + 1}: vector {node.embeddings}")
            check(len(past) == 2, f"as of {k + 1}: {len(past)} memories")
    with db.as_of(1) as past:
        check(memory_id not in past, "as of 1 it was not there")


def _check_history(db: engramdb.Database, memory_id: str, versions: int) -> None:
    layers = db.history(memory_id)
    check(len(layers) == versions, f"{len(layers)} versions of {versions}")
    seqs = np.fromiter((layer.seq for layer in layers), np.int64)
    check((seqs == np.arange(2, versions + 2)).all(), "the history has other commits")
    said = np.fromiter((layer.attributes["k"] for layer in layers), np.int64)
    check((said == np.arange(1, versions + 1)).all(), "the history says something else")


def in_bulk(directory: Path, versions: int, seed: int) -> Figures:
    """So many versions in all, ten of each memory, by save_columns: round r saves memory i with
    i * 16 + r; rounds 3 and 7 have no vectors."""
    rng = random.Random(f"in bulk {seed}")
    memories, rounds = versions // 10, 10
    ids = [spread_id(i) for i in range(memories)]
    numbers = np.arange(memories, dtype=np.int64) * 16
    path = directory / "db"
    start_s = time.perf_counter()
    with options(bulk_bytes_min=min(8 * 2**20, memories)):
        db = engramdb.Database.file_based(path)
    for r in range(rounds):
        vectors = None
        if r not in (3, 7):
            vectors = np.stack([numbers + r, np.full(memories, 1.0)], 1).astype(np.float32)
        db.save_columns(ids, vectors, {"n": numbers + r})
        check(db.last_seq == r + 1, f"round {r} is commit {db.last_seq}")
        _check_rounds(db, ids, r + 1, rng)
    saved_s = time.perf_counter() - start_s
    db.compact()
    _check_rounds(db, ids, rounds, rng)
    written = db.stats()["versions"]
    check(written == memories * rounds, f"{written:,} versions")
    check_sound(db)
    db.close()
    start_s = time.perf_counter()
    db = engramdb.Database.open(path)
    opened_s = time.perf_counter() - start_s
    _check_rounds(db, ids, rounds, rng)
    disk_bytes = db.stats()["disk_bytes"]
    db.close()
    return {
        "in bulk: versions": versions,
        "in bulk: versions a second, checks included": round(versions / saved_s),
        "in bulk: bytes a version": round(disk_bytes / versions, 1),
        "in bulk: open, s": round(opened_s, 3),
    }


def _check_rounds(db: engramdb.Database, ids: list[str], rounds: int, rng: random.Random) -> None:
    check(len(db) == len(ids), f"{len(db)} memories of {len(ids)}")
    for _ in range(20):
        r, i = rng.randrange(rounds), rng.randrange(len(ids))
        with db.as_of(r + 1) as past:
            node = past.load(ids[i])
            check(node.get_attribute("n") == i * 16 + r, f"as of {r + 1}: memory {i}: {node}")
            check((node.embeddings is None) == (r in (3, 7)), f"as of {r + 1}: memory {i}: vector")
            hits = past.search_similar([float(i * 16 + r), 1.0], 1)
            check(bool(hits) == (r not in (3, 7)), f"as of {r + 1}: {len(hits)} found")
    for i in (0, rng.randrange(len(ids)), len(ids) - 1):
        said = [layer.attributes["n"] for layer in db.history(ids[i])]
        check(said == [i * 16 + r for r in range(rounds)], f"history of memory {i}: {said}")
