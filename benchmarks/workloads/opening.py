"""From opening to the first answer, in fresh processes; and what that costs in memory."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks import child
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Bare, Engram


def run(bench: Bench) -> Iterator[Line]:
    """Medians of several processes each, page cache warm, imports not counted."""
    rows = bench.scale.rows
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    parts: dict[str, str] = {}
    for store_class in bench.with_floor:
        name = store_class.name
        with bench.attempt(name):
            path = bench.loaded(store_class, rows).path
            bench.say(f"  opening {name}")
            runs = [
                child.run("open_and_search", name, path, bench.queries_file)
                for _ in range(bench.scale.openings)
            ]
            seconds[name] = median(run["total_s"] for run in runs)
            memory[name] = median(run["anonymous_bytes"] for run in runs)
            parts[name] = (
                f"open {median(run['open_s'] for run in runs) * 1e3:.1f} ms, "
                f"first search {median(run['first_s'] for run in runs) * 1e3:.1f} ms, "
                f"further ones {median(run['warm_s'] for run in runs) * 1e3:.2f} ms"
            )
    for name, value in seconds.items():
        yield Figure(
            "open",
            f"open and first answer at {rows:,}",
            name,
            value * 1e3,
            "ms",
            {Bare.name: seconds[Bare.name] * 1e3} if name != Bare.name else {},
            Reach(20, "most") if name == Engram.name else None,
            parts[name],
        )
    for name, value in memory.items():
        yield Figure(
            "open",
            "anonymous memory over import, after it",
            name,
            value / 1e6,
            "MB",
            {"the vectors": rows * 1_536 / 1e6},
            Reach(30, "most") if name == Engram.name else None,
        )
