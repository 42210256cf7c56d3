"""Durable batches of 100 memories: within one memtable, and sustained over several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram, Store

BATCH: Final = 100
MEMTABLE_ROWS: Final = 20_000  # some 40 MB, within the 64 MB that are the default
SLOW_ROWS: Final = 2_000
PEER: Final = "sqlite-vec"


def run(bench: Bench) -> Iterator[Line]:
    """Rows a second, everybody in a fresh database."""
    rates: dict[str, tuple[float, float, str]] = {}
    for store_class in bench.contestants:
        with bench.attempt(store_class.name):
            rates[store_class.name] = _measure(bench, store_class)
    yardsticks = {PEER: rates[PEER]} if PEER in rates else {}
    for name, (first, whole, detail) in rates.items():
        ours = name == Engram.name
        beside = {} if name == PEER else yardsticks
        yield Figure(
            "batches",
            "batches of 100, the first rows",
            name,
            first,
            "rows/s",
            {peer: rate[0] for peer, rate in beside.items()},
            Reach(90_000, "least") if ours else None,
            detail,
        )
        if whole:
            yield Figure(
                "batches",
                f"batches of 100, sustained over {bench.scale.sustained_rows:,} rows",
                name,
                whole,
                "rows/s",
                {peer: rate[1] for peer, rate in beside.items()},
                Reach(60_000, "least") if ours else None,
            )


def _measure(bench: Bench, store_class: type[Store]) -> tuple[float, float, str]:
    """Rows/s of the first rows, rows/s of all (0: not measured), remarks."""
    scale = bench.scale
    slow = store_class.slow_inserts
    total = min(SLOW_ROWS, scale.sustained_rows) if slow else scale.sustained_rows
    first_batches = min(MEMTABLE_ROWS, total) // BATCH
    with bench.scratch() as path, bench.worker(store_class.name, path) as worker:
        worker.prepare(total)
        taken = worker.insert_batches(BATCH)
    first = first_batches * BATCH / taken[:first_batches].sum()
    remarks = f"p50 {clock.duration(float(np.median(taken)))} a batch"
    if not store_class.synced:
        remarks += "; not synced"
    return float(first), 0.0 if slow else float(total / taken.sum()), remarks
