"""Bulk load: whole arrays, durable (where the store syncs at all) and searchable at the end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import STORES, Bare, Engram

PEER = "LanceDB"


def run(bench: Bench) -> Iterator[Line]:
    """Rows a second by each store's fastest way; the databases are kept for later workloads."""
    rates: dict[str, float] = {}
    for store_class in bench.with_floor:
        bench.say(f"  loading {store_class.name}")
        with bench.attempt(store_class.name):
            loaded = bench.loaded(store_class, bench.scale.rows)
            rates[store_class.name] = bench.scale.rows / float(np.median(loaded.seconds))
    for name, rate in rates.items():
        store = STORES[name]
        yield Figure(
            "bulk",
            f"{bench.scale.rows:,} rows of 384-d and 5 attributes",
            name,
            rate,
            "rows/s",
            _beside(rates, name),
            Reach(1.0, "least", PEER) if name == Engram.name else None,
            store.bulk_path + ("" if store.synced else "; not synced"),
        )


def _beside(rates: dict[str, float], name: str) -> dict[str, float]:
    return {other: rates[other] for other in (PEER, Bare.name) if other in rates and other != name}
