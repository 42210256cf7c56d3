"""Exact top 10 by cosine, over everything and over what one conversation holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.recall import recall
from benchmarks.stores import Engram
from benchmarks.stores.bare import top
from benchmarks.worker import Worker

LIMIT: Final = 10
PRODUCT: Final = "bare product"
CHECKED: Final = 50  # queries whose answers are compared with numpy's


def run(bench: Bench) -> Iterator[Line]:
    """Many different queries, everybody in turn; the product alone is numpy's matrix @ vector."""
    yield from _at(bench, bench.scale.rows, Reach(1.15, "most", PRODUCT))
    yield from _at(bench, bench.scale.few_rows, Reach(0.11, "most"))


def _at(bench: Bench, count: int, reach: Reach) -> Iterator[Line]:
    matrix = np.array(bench.rows.vectors[:count])
    queries = bench.queries
    recalls: dict[str, float] = {}
    contestants = {
        PRODUCT: clock.different(
            lambda picks: clock.seconds_each(lambda pick: matrix @ queries[pick], picks),
            len(queries),
            bench.scale.rounds,
        ),
        "numpy, product and top 10": clock.different(
            lambda picks: clock.seconds_each(
                lambda pick: top(matrix @ queries[pick], LIMIT), picks
            ),
            len(queries),
            bench.scale.rounds,
        ),
    }
    with ExitStack() as stack:
        for store_class in bench.contestants:
            with bench.attempt(store_class.name):
                loaded = bench.loaded(store_class, count)
                worker = stack.enter_context(bench.worker(store_class.name, loaded.path))
                checked = list(range(min(CHECKED, len(queries))))
                found = worker.find(bench.queries_file, checked, LIMIT)
                recalls[store_class.name] = recall(
                    matrix, queries[checked], loaded.ids, found, LIMIT
                )
                contestants[store_class.name] = clock.different(
                    _by(worker, bench.queries_file), len(queries), bench.scale.rounds
                )
        timings = clock.in_turn(contestants, bench.scale.rounds)
    product = timings[PRODUCT].median() * 1e3
    for name, timing in timings.items():
        detail = f"p99 {clock.duration(timing.percentile(99))}"
        if name in recalls:
            detail += f"; recall@10 {recalls[name]:.4f}"
        yield Figure(
            "search",
            f"top 10 of {count:,}",
            name,
            timing.median() * 1e3,
            "ms",
            {} if name == PRODUCT else {PRODUCT: product},
            reach if name == Engram.name else None,
            detail,
        )


def _by(worker: Worker, queries: str) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: worker.search(queries, picks, LIMIT)
