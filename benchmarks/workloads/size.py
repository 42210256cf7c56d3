"""Bytes on disk for each memory."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import host
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram

PEER = "LanceDB"


def run(bench: Bench) -> Iterator[Line]:
    """After a bulk load, closed; beside the raw bytes of the vector, the text and the fields."""
    rows = bench.scale.rows
    raw = bench.rows.vectors.nbytes / rows + bench.rows.payload_bytes() / rows
    sizes: dict[str, tuple[int, int]] = {}
    for store_class in bench.with_floor:
        with bench.attempt(store_class.name):
            sizes[store_class.name] = host.disk_bytes(bench.loaded(store_class, rows).path)
    for name, (apparent, allocated) in sizes.items():
        ours = name == Engram.name
        yardsticks = {"raw bytes": raw}
        if ours and PEER in sizes:
            yardsticks[PEER] = sizes[PEER][0] / rows
        yield Figure(
            "size",
            f"bytes a row at {rows:,}",
            name,
            apparent / rows,
            "B",
            yardsticks,
            Reach(1_640, "most") if ours else None,
            f"allocated {allocated / rows:,.0f} B; raw {raw:,.0f} B of which the vector 1,536",
        )
