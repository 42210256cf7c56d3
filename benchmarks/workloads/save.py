"""One durable save: a memory with a 384-d vector and 200 bytes of text and fields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import STORES, Engram
from benchmarks.worker import Worker
from benchmarks.workloads.disk import APPEND, PREALLOCATED, SyncedFile

WARM_UP: Final = 5


def run(bench: Bench) -> Iterator[Line]:
    """Everybody in turn, beside a bare append of 2 KB."""
    scale = bench.scale
    with ExitStack() as stack:
        directory = stack.enter_context(bench.scratch())
        append = SyncedFile(os.path.join(directory, "append"))
        ready = SyncedFile(os.path.join(directory, "ready"), scale.saves * scale.rounds)
        some = range(scale.saves)
        contestants: dict[str, Callable[[int], clock.Seconds]] = {
            APPEND: lambda _: clock.seconds_each(append.write, some),
            PREALLOCATED: lambda _: clock.seconds_each(ready.write, some),
        }
        for store_class in bench.contestants:
            count = scale.slow_saves if store_class.slow_inserts else scale.saves
            path = stack.enter_context(bench.scratch())
            with bench.attempt(store_class.name):
                worker = stack.enter_context(bench.worker(store_class.name, path))
                contestants[store_class.name] = _inserts(worker, count, scale.rounds)
        timings = clock.in_turn(contestants, scale.rounds)
        append.close()
        ready.close()
    rates = {name: timing.per_second() for name, timing in timings.items()}
    for name, timing in timings.items():
        store_of = STORES.get(name)
        beside = [APPEND, PREALLOCATED] if name == Engram.name else [APPEND] if store_of else []
        yardsticks = {other: rates[other] for other in beside}
        yield Figure(
            "save",
            "one save, as durable as it gets",
            name,
            rates[name],
            "/s",
            yardsticks,
            Reach(0.6, "least", APPEND) if name == Engram.name else None,
            timing.spread() + ("" if store_of is None or store_of.synced else "; not synced"),
        )


def _inserts(worker: Worker, count: int, rounds: int) -> Callable[[int], clock.Seconds]:
    worker.prepare(WARM_UP + count * rounds)
    worker.insert(0, WARM_UP)
    return lambda number: worker.insert(WARM_UP + number * count, count)
