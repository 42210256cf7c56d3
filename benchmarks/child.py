"""Measurements that need a process of their own: `python -m benchmarks.child JOB ARGUMENTS`.

Each job imports first, measures then, and prints one JSON object; `run` is the parent's side.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import host, indexed

TIMEOUT_S: Final = 1_800
LIMIT: Final = 10


def run(job: str, *arguments: str) -> dict[str, Any]:
    """Run a job in a fresh process and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", job, *arguments],
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(),
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{job} {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def environment() -> dict[str, str]:
    """Of a child: this package must be importable wherever the parent was started."""
    root = str(Path(__file__).resolve().parent.parent)
    given = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, given]) if given else root}


def open_and_search(name: str, path: str, queries: str) -> dict[str, float]:
    """From opening to the first answer; memory over the value right after the imports."""
    from benchmarks.stores import STORES

    store_class = STORES[name]
    store_class.load_modules()
    vectors = np.load(queries)
    float(np.ones(8, np.float32) @ np.ones(8, np.float32))
    gc.collect()
    before = host.anonymous_bytes()
    started = time.perf_counter()
    store = store_class(path)
    opened = time.perf_counter()
    found = store.search(vectors[0], LIMIT)
    answered = time.perf_counter()
    after = host.anonymous_bytes()
    assert len(found) == LIMIT, f"expected {LIMIT} hits, got {len(found)}"
    warm = []
    for vector in vectors[1:20]:
        start = time.perf_counter()
        store.search(vector, LIMIT)
        warm.append(time.perf_counter() - start)
    store.close()
    return {
        "open_s": opened - started,
        "first_s": answered - opened,
        "total_s": answered - started,
        "warm_s": float(np.median(warm)),
        "fastest_s": min(warm),
        "anonymous_bytes": after - before,
    }


def search_often(name: str, path: str, queries: str, searches: str) -> dict[str, float]:
    """What memory a process keeps that has searched for a while, over that of the imports."""
    from benchmarks.stores import STORES

    store_class = STORES[name]
    store_class.load_modules()
    vectors = np.load(queries)
    float(np.ones(8, np.float32) @ np.ones(8, np.float32))
    gc.collect()
    before = host.anonymous_bytes()
    store = store_class(path)
    taken = []
    for number in range(int(searches)):
        start = time.perf_counter()
        store.search(vectors[number % len(vectors)], LIMIT)
        taken.append(time.perf_counter() - start)
    answer = {"anonymous_bytes": host.anonymous_bytes() - before, "p50_s": float(np.median(taken))}
    answer["resident_bytes"] = host.resident_bytes()
    store.close()
    return answer


def write_and_die(path: str, records: str) -> dict[str, float]:
    """Single saves, synced ten times a second, one log, then the process ends without a word."""
    from benchmarks.corpus import Corpus
    from benchmarks.stores.engram import Engram, nodes

    count = int(records)
    store = Engram(path, durability="interval", memtable_bytes=4 * 1024**3, background=False)
    save = store.database.save
    taken = 0.0
    for rows in Corpus().chunks(count, 5_000):
        prepared = nodes(rows)
        start = time.perf_counter()
        for node in prepared:
            save(node)
        taken += time.perf_counter() - start
    print(json.dumps({"records": count, "save_s": taken}), flush=True)
    os._exit(0)


def reopen(path: str) -> dict[str, float]:
    """Open after a kill: how long, and how many memories are there."""
    from benchmarks.stores.engram import Engram

    Engram.load_modules()
    started, worked = time.perf_counter(), time.process_time()
    store = Engram(path, memtable_bytes=4 * 1024**3)
    opened = time.perf_counter()
    answer = {"open_s": opened - started, "cpu_s": time.process_time() - worked}
    answer["records"] = len(store.database)
    os.write(1, (json.dumps(answer) + "\n").encode())
    os._exit(0)  # the log stays as it is, so that the next process recovers it once more


JOBS: Final[dict[str, Callable[..., dict[str, float]]]] = {
    "open_and_search": open_and_search,
    "search_often": search_often,
    "search_while_indexing": indexed.search_while_indexing,
    "write_and_die": write_and_die,
    "reopen": reopen,
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
