"""Following connections: two hops, one memory's own, a hub, the shortest path, what is reminded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.base import module

MEMORIES_MAX: Final = 20_000  # each connection is checked and committed: a million take minutes
DEGREE: Final = 10  # connections that leave a memory, on the average
SEEDS: Final = 100
CALLS: Final = 200
IN_MEMTABLE: Final = 5  # one in so many connections is younger than the last flush
FIRST: Final = "the first connections"


def run(bench: Bench) -> Iterator[Line]:
    """A random graph, in one file, then in files and the memtable; and a hub."""
    if Engram.name in bench.absent:
        return
    rng = np.random.default_rng(7)
    with bench.scratch() as directory:
        store = Engram(directory, durability="os")
        database = store.database
        memories = min(bench.scale.rows, MEMORIES_MAX)
        bench.say(f"  {memories * DEGREE:,} connections of {memories:,} memories")
        ids = database.save_columns(attributes={"number": list(range(memories))})
        young = memories * DEGREE // IN_MEMTABLE
        _connect(database, ids, memories * DEGREE - young, rng)
        database.compact()
        yield from _walks(bench, database, ids, "in one file", rng)
        _connect(database, ids, young, rng)
        yield from _walks(bench, database, ids, "one in five in memory", rng)
        store.close()
    with bench.scratch() as directory:
        store = Engram(directory, durability="os")
        yield from _hub(bench, store.database)
        store.close()


def _connect(database: Any, ids: list[str], count: int, rng: np.random.Generator) -> None:
    ends = rng.integers(0, len(ids), (count, 2)).tolist()
    for start in range(0, count, 10_000):
        with database.transaction() as tx:
            for source, target in ends[start : start + 10_000]:
                tx.connect(ids[source], ids[target], strength=0.5)


def _walks(
    bench: Bench, database: Any, ids: list[str], state: str, rng: np.random.Generator
) -> Iterator[Line]:
    picks = [ids[row] for row in rng.integers(0, len(ids), 2 * CALLS).tolist()]
    seeds = picks[:SEEDS]
    reached = len(database.traverse(seeds, 2))  # reads the columns
    calls: list[tuple[str, Callable[[Any], object], list[Any], float, str, Reach | None]] = [
        (
            f"two hops from {SEEDS}, {state}",
            lambda _: database.traverse(seeds, 2),
            list(range(max(3, bench.scale.rounds))),
            1e3,
            "ms",
            Reach(20, "most"),
        ),
        (
            f"spreading activation from {SEEDS}, {state}",
            lambda _: database.spread_activation(seeds),
            list(range(max(3, bench.scale.rounds))),
            1e3,
            "ms",
            None,
        ),
        (
            f"shortest path, {state}",
            lambda pair: database.shortest_path(*pair),
            list(zip(picks[:CALLS], picks[CALLS:], strict=True)),
            1e3,
            "ms",
            None,
        ),
        (f"get_connections, {state}", database.get_connections, picks, 1e6, "us", None),
        (
            f"get_connections of {SEEDS} in use, {state}",
            database.get_connections,
            seeds * 3,
            1e6,
            "us",
            Reach(20, "most"),
        ),
    ]
    for what, call, arguments, factor, unit, reach in calls:
        taken = float(np.median(clock.seconds_each(call, arguments))) * factor
        detail = f"{reached:,} memories reached" if what.startswith("two") else ""
        yield Figure("graph", what, Engram.name, taken, unit, {}, reach, detail)


def _hub(bench: Bench, database: Any) -> Iterator[Line]:
    """One memory that all others are connected to: the last connection costs what the first did."""
    nodes = [module("engramdb").MemoryNode() for _ in range(bench.scale.rows + 1)]
    center, *ids = database.save_many(nodes)
    taken = clock.seconds_each(lambda each: database.connect(center, each, sync=False), ids)
    part = max(1, len(ids) // 20)
    first = float(np.median(taken[:part])) * 1e6
    last = float(np.median(taken[-part:])) * 1e6
    yield Figure(
        "graph",
        f"connecting a hub of {len(ids):,}",
        Engram.name,
        last,
        "us",
        {FIRST: first},
        Reach(1.5, "most", FIRST),
    )
    database.flush()
    some = ids[: min(CALLS, len(ids) // 2)]
    again = clock.seconds_each(lambda each: database.connect(each, center, sync=False), some)
    yield Figure(
        "graph",
        "connecting to it, once it is in a file",
        Engram.name,
        float(np.median(again)) * 1e6,
        "us",
        {FIRST: first},
    )
    gone = clock.seconds_each(lambda each: database.disconnect(center, each, sync=False), some)
    yield Figure(
        "graph",
        "disconnecting from it, of any type",
        Engram.name,
        float(np.median(gone)) * 1e6,
        "us",
        {FIRST: first},
    )
