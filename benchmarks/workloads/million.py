"""Does it stay as quick when it has grown? A million memories beside a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Final

from benchmarks import child, clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.engram import nodes

CHUNK_ROWS: Final = 50_000  # keeps the benchmark itself far below 1 GB


def run(bench: Bench) -> Iterator[Line]:
    """The same saves in both, in turn; then both opened in fresh processes."""
    if Engram.name in bench.absent:
        return
    few, many = bench.scale.thousand, bench.scale.million
    with bench.scratch() as small, bench.scratch() as large:
        _fill(bench, small, few)
        seconds = _fill(bench, large, many)
        compacted = f"loaded in bulk at {many / seconds:,.0f} rows/s, then compacted"
        saves = _saves(bench, {few: small, many: large})
        small_s, small_open, _, small_warm = _open(bench, small)
        large_s, large_open, large_first, large_warm = _open(bench, large)
    yield from _save_lines(saves, few, many)
    beside = f"{few:,} stored"
    for count, value, detail in (
        (few, small_s, f"open {small_open * 1e3:.1f} ms, warm search {small_warm * 1e3:.2f} ms"),
        (
            many,
            large_s,
            f"open {large_open * 1e3:.1f} ms, first search {large_first * 1e3:.1f} ms, "
            f"warm search {large_warm * 1e3:.1f} ms; {compacted}",
        ),
    ):
        grown = count == many
        yield Figure(
            "million",
            f"open and first answer less a search, {count:,} stored",
            Engram.name,
            value * 1e3,
            "ms",
            {beside: small_s * 1e3} if grown else {},
            Reach(60, "most") if grown else None,
            detail,
        )


def _fill(bench: Bench, path: str, count: int) -> float:
    """Seconds that the bulk loads took."""
    store = Engram(path)
    seconds = 0.0
    for start in range(0, count, CHUNK_ROWS):
        bench.say(f"  {start:,} of {count:,} rows")
        rows = bench.corpus.rows(min(CHUNK_ROWS, count - start), start=start)
        seconds += clock.stopwatch(partial(store.bulk, rows))
    store.database.compact()
    store.close()
    return seconds


def _saves(bench: Bench, paths: dict[int, str]) -> dict[int, clock.Timing]:
    scale = bench.scale
    stores = {count: Engram(path) for count, path in paths.items()}
    supply = nodes(bench.corpus.rows(2 * scale.saves * scale.rounds, start=scale.million))

    def saves(store: Engram) -> Callable[[int], clock.Seconds]:
        def a_round(_: int) -> clock.Seconds:
            taken = supply[: scale.saves]
            del supply[: scale.saves]
            return clock.seconds_each(store.database.save, taken)

        return a_round

    contestants = {str(count): saves(store) for count, store in stores.items()}
    timings = clock.in_turn(contestants, scale.rounds)
    for store in stores.values():
        store.close()
    return {count: timings[str(count)] for count in stores}


def _save_lines(saves: dict[int, clock.Timing], few: int, many: int) -> Iterator[Line]:
    beside = f"{few:,} stored"
    for count, timing in saves.items():
        grown = count == many
        yield Figure(
            "million",
            f"one durable save, {count:,} stored",
            Engram.name,
            1e6 / timing.per_second(),
            "us",
            {beside: 1e6 / saves[few].per_second()} if grown else {},
            Reach(1.2, "most", beside) if grown else None,
            timing.spread(),
        )


def _open(bench: Bench, path: str) -> tuple[float, float, float, float]:
    """Seconds: open and first search less the fastest search; open; first search; warm search."""
    runs = [
        child.run("open_and_search", Engram.name, path, bench.queries_file)
        for _ in range(bench.scale.openings)
    ]
    apart = median(run["total_s"] - run["fastest_s"] for run in runs)
    opened = median(run["open_s"] for run in runs)
    first = median(run["first_s"] for run in runs)
    return apart, opened, first, median(run["warm_s"] for run in runs)
