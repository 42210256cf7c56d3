"""A million versions of a thousand memories: the past must not slow the present down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks import clock, host
from benchmarks.bench import Bench
from benchmarks.corpus import Matrix, Rows
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.base import module
from benchmarks.stores.engram import nodes

LIMIT: Final = 10
FRESH: Final = "fresh memories"
SAMPLE_EVERY: Final = 20  # rounds between two looks at the disk


def run(bench: Bench) -> Iterator[Line]:
    """Every round revises all memories, vector and text, in one commit."""
    if Engram.name in bench.absent:
        return
    keep_last = module("engramdb").KeepLast(1)
    memories = bench.scale.thousand
    rounds = bench.scale.million // memories
    with bench.scratch() as old, bench.scratch() as new, bench.scratch() as kept:
        store = Engram(old)
        bench.say(f"  {rounds:,} versions of {memories:,} memories")
        last, seconds, _ = _revise(bench, store.database, rounds, old)
        fresh = Engram(new)
        fresh.database.save_many(nodes(last))
        searches = _compare(bench, store.database, fresh.database)
        written = f"{memories * rounds:,} versions saved at {memories * rounds / seconds:,.0f}/s"
        yield from _search_lines(searches, "as they were left", written)
        store.database.compact()
        fresh.database.compact()
        whole, _ = host.disk_bytes(old)
        yield from _search_lines(_compare(bench, store.database, fresh.database), "compacted", "")
        store.database.set_history(keep_last)
        store.database.compact()
        bounded, base = host.disk_bytes(old)[0], host.disk_bytes(new)[0]
        yield _disk_line(
            "disk after set_history(KeepLast(1)) and compact()",
            bounded,
            {FRESH: base, "KeepAll": whole},
            Reach(2, "most", FRESH),
        )
        store.close()
        fresh.close()
        store = Engram(kept, history=keep_last)
        bench.say("  the same under KeepLast(1), a quarter of it")
        _, _, peak = _revise(bench, store.database, max(1, rounds // 4), kept)
        store.close()
        yield _disk_line(
            f"most disk while {memories * (rounds // 4):,} were written under KeepLast(1)",
            peak,
            {"KeepAll of as many": whole / 4},
            None,
        )


def _revise(bench: Bench, database: Any, rounds: int, path: str) -> tuple[Rows, float, int]:
    """The rows of the last round, the seconds of all saves, the most bytes on disk."""
    memories = bench.scale.thousand
    seconds, peak = 0.0, 0
    rows = bench.corpus.rows(memories)
    kept = nodes(rows)
    for round_, rows in enumerate(bench.corpus.chunks(rounds * memories, memories)):
        for node, vector, text in zip(kept, rows.vectors, rows.columns["text"], strict=True):
            node.embeddings = vector
            node.set_attribute("text", text)
        seconds += clock.stopwatch(lambda: database.save_many(kept))
        if round_ % SAMPLE_EVERY == 0:
            peak = max(peak, host.disk_bytes(path)[0])
    return rows, seconds, peak


def _compare(bench: Bench, revised: Any, fresh: Any) -> dict[str, clock.Timing]:
    queries = bench.queries

    def searches(database: Any) -> Callable[[int], clock.Seconds]:
        def search(vector: Matrix) -> object:
            return database.search_similar(vector, LIMIT, -1.0)

        return lambda _: clock.seconds_each(search, queries)

    return clock.in_turn({FRESH: searches(fresh), "revised": searches(revised)}, bench.scale.rounds)


def _search_lines(timings: dict[str, clock.Timing], state: str, detail: str) -> Iterator[Line]:
    fresh = timings[FRESH].median() * 1e3
    what = f"top 10 of the latest, {state}"
    yield Figure("versions", what, FRESH, fresh, "ms", detail=timings[FRESH].spread())
    yield Figure(
        "versions",
        what,
        Engram.name,
        timings["revised"].median() * 1e3,
        "ms",
        {FRESH: fresh},
        Reach(1.1, "most", FRESH),
        "; ".join(filter(None, [timings["revised"].spread(), detail])),
    )


def _disk_line(what: str, size: float, beside: dict[str, float], reach: Reach | None) -> Figure:
    yardsticks = {name: value / 1e6 for name, value in beside.items()}
    return Figure("versions", what, Engram.name, size / 1e6, "MB", yardsticks, reach)
