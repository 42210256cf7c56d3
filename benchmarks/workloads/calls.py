"""The calls of a busy agent: a save that is not synced, a load by id that is in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.engram import nodes
from benchmarks.workloads.disk import RECORD_BYTES, SyncedFile

WRITE = "bare write of 2 KB"
READ = "bare read of 2 KB"
LOADS = 2_000
HOT = 100  # memories that an agent has in use
HOT_TIMES = 10


def run(bench: Bench) -> Iterator[Line]:
    """Microseconds of one call, through the facade."""
    with bench.scratch() as directory:
        bare = SyncedFile(os.path.join(directory, "file"))
        written = clock.seconds_each(bare.write_unsynced, range(bench.scale.unsynced_saves))
        bare.close()
        write_us = float(np.median(written)) * 1e6
        read_us = _read_us(os.path.join(directory, "file"), bench.scale.unsynced_saves)
    yield Figure("calls", WRITE, "bare disk", write_us, "us")
    if Engram.name not in bench.absent:
        yield from _saves(bench, write_us)
    yield Figure("calls", READ, "bare disk", read_us, "us", detail="page cache warm")
    yield from _loads(bench, read_us)


def _read_us(path: str, count: int) -> float:
    descriptor = os.open(path, os.O_RDONLY)
    order = np.random.default_rng(0).permutation(count).tolist()
    taken = clock.seconds_each(
        lambda row: os.pread(descriptor, RECORD_BYTES, row * RECORD_BYTES), order
    )
    os.close(descriptor)
    return float(np.median(taken)) * 1e6


def _saves(bench: Bench, write_us: float) -> Iterator[Line]:
    with bench.scratch() as directory:
        store = Engram(directory, durability="os")
        rows = bench.corpus.rows(bench.scale.unsynced_saves)
        prepared: list[Any] = []
        making = clock.stopwatch(lambda: prepared.extend(nodes(rows))) / len(rows) * 1e6
        taken = clock.seconds_each(store.database.save, prepared)
        yield Figure(
            "calls",
            "save, durability='os'",
            Engram.name,
            float(np.median(taken)) * 1e6,
            "us",
            {WRITE: write_us},
            Reach(20, "most"),
            f"mean {taken.mean() * 1e6:.1f} us; making the node: {making:.1f} us more",
        )
        load = store.database.load
        order = np.random.default_rng(0).permutation(len(prepared))[:LOADS]
        ids = [prepared[row].id for row in order]
        clock.seconds_each(load, ids)
        yield Figure(
            "calls",
            "load by id, just saved",
            Engram.name,
            float(np.median(clock.seconds_each(load, ids))) * 1e6,
            "us",
            detail=f"{len(prepared):,} saved since opening",
        )
        store.close()


def _loads(bench: Bench, read_us: float) -> Iterator[Line]:
    """From files, opened anew: first ids all over the database, then a working set, repeatedly."""
    hot: dict[str, clock.Seconds] = {}
    anywhere: dict[str, clock.Seconds] = {}
    for store_class in bench.contestants:
        with bench.attempt(store_class.name):
            loaded = bench.loaded(store_class, bench.scale.rows)
            count = LOADS // 40 if store_class.slow_inserts else LOADS
            order = np.random.default_rng(0).permutation(len(loaded.ids))[:count]
            ids = [loaded.ids[row] for row in order]
            with bench.worker(store_class.name, loaded.path) as worker:
                anywhere[store_class.name] = worker.load(ids)
                hot[store_class.name] = worker.load(ids[:HOT] * HOT_TIMES)[len(ids[:HOT]) :]
    for what, taken, reach in (
        (f"load by id, of {HOT} in use", hot, Reach(15, "most")),
        (f"load by id, any of {bench.scale.rows:,}", anywhere, None),
    ):
        for name, each in taken.items():
            yield Figure(
                "calls",
                what,
                name,
                float(np.median(each)) * 1e6,
                "us",
                {READ: read_us},
                reach if name == Engram.name else None,
                f"p99 {clock.duration(float(np.percentile(each, 99)))}",
            )
