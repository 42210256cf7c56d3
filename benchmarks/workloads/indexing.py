"""What the index costs: its making, searches meanwhile, opening, memory, and writes it must see."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, Final

from benchmarks import child
from benchmarks.bench import Bench
from benchmarks.corpus import DIMENSION
from benchmarks.figures import Absence, Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.engram import has_index
from benchmarks.workloads.similar import entrants

WORKLOAD: Final = "indexing"
IDLE: Final = "idle"
VECTORS: Final = "the vectors themselves"
SEARCHES: Final = 1_000


def run(bench: Bench) -> Iterator[Line]:
    """With 100,000 rows, and with a million where that is asked for."""
    if Engram.name in bench.absent:
        return
    file = bench.kept(bench.corpus.questions(bench.scale.asked))
    for count in bench.sizes[1:]:
        yield from _built(bench, count)
        bench.say(f"  {count:,} rows: searches while the index is built")
        with bench.scratch() as path:
            directory = bench.corpus.directory or ""
            told = child.run("search_while_indexing", path, file, str(count), directory)
        yield from _meanwhile(told, count)
        yield from _seen(told, count)
        yield from _at_rest(bench, file, count)


def _built(bench: Bench, count: int) -> Iterator[Line]:
    """Seconds from the end of the load until the index is there, nobody searching."""
    seconds: dict[str, float] = {}
    for store_class in entrants(bench):
        missing = store_class.missing()
        if missing:
            yield Absence(WORKLOAD, store_class.name, missing)
            continue
        bench.say(f"  {count:,} rows: the index of {store_class.name}")
        with bench.attempt(store_class.name):
            seconds[store_class.name] = bench.loaded(store_class, count).settled_s
    ours = Engram.name
    indexed = has_index()
    for name, taken in seconds.items():
        yield Figure(
            WORKLOAD,
            f"index of {count:,} rows, after they were loaded",
            name,
            taken,
            "s",
            {ours: seconds[ours]} if indexed and ours in seconds and name != ours else {},
            None,
            "no index" if name == ours and not indexed else "",
        )


def _meanwhile(told: dict[str, Any], count: int) -> Iterator[Line]:
    """Searches in the foreground while it is built, beside the same afterwards."""
    idle = told["idle_p99_s"] * 1e3
    for when in ("busy", "idle"):
        if f"{when}_p99_s" not in told:
            yield Absence(WORKLOAD, Engram.name, "this version has no index to be built")
            continue
        busy = when == "busy"
        detail = f"p50 {told[f'{when}_p50_s'] * 1e3:.2f} ms, {told[f'{when}_searches']:,} searches"
        if busy:
            detail += f", built in {told['built_s']:.1f} s"
        yield Figure(
            WORKLOAD,
            f"p99 of a search, {count:,} rows, " + ("the index being built" if busy else IDLE),
            Engram.name,
            told[f"{when}_p99_s"] * 1e3,
            "ms",
            {IDLE: idle} if busy else {},
            None,
            detail,
        )


def _seen(told: dict[str, Any], count: int) -> Iterator[Line]:
    """A write is found by the next search, a delete by none."""
    yield Figure(
        WORKLOAD,
        f"searches that see the save or the delete just before, {count:,} rows",
        Engram.name,
        told["seen_share"],
        "",
        {},
        Reach(1, "least"),
        f"{told['writes']} of each",
    )
    yield Figure(
        WORKLOAD,
        f"a search right after a save, {count:,} rows",
        Engram.name,
        told["after_save_s"] * 1e3,
        "ms",
        {IDLE: told["idle_p50_s"] * 1e3},
    )


def _at_rest(bench: Bench, file: str, count: int) -> Iterator[Line]:
    """In fresh processes: opening to the first answer; memory after a thousand searches."""
    for store_class in entrants(bench):
        if store_class.missing():
            continue
        with bench.attempt(store_class.name):
            path = bench.loaded(store_class, count).path
            runs = [
                child.run("open_and_search", store_class.name, path, file)
                for _ in range(bench.scale.openings)
            ]
            total, first, warm = (
                median(run[name] for run in runs) * 1e3 for name in ("total_s", "first_s", "warm_s")
            )
            yield Figure(
                WORKLOAD,
                f"open and first answer, {count:,} rows",
                store_class.name,
                total,
                "ms",
                detail=f"of these the first search {first:.1f} ms; a warm one {warm:.2f} ms",
            )
            searches = min(SEARCHES, bench.scale.asked * 2)
            told = child.run("search_often", store_class.name, path, file, str(searches))
            yield Figure(
                WORKLOAD,
                f"anonymous memory after {searches:,} searches, {count:,} rows",
                store_class.name,
                told["anonymous_bytes"] / 2**20,
                "MiB",
                {VECTORS: count * DIMENSION * 4 / 2**20},
                None,
                f"median search {told['p50_s'] * 1e3:.2f} ms; with mapped files "
                f"{told['resident_bytes'] / 2**20:,.0f} MiB resident",
            )
        if count > bench.scale.rows:
            bench.unload(store_class, count)
