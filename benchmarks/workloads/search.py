"""Exact top 10 by cosine, over everything and over what one conversation holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import Matrix
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.bare import top
from benchmarks.worker import Worker

LIMIT: Final = 10
PRODUCT: Final = "bare product"
TIE: Final = 1e-6  # two cosines closer than this are the same
CHECKED: Final = 50  # queries whose answers are compared with numpy's
WARM_UP: Final = 3  # searches at the begin of a round that only bring the data back to the caches
SLOW_S: Final = 0.02  # a search that takes longer is repeated less often


def run(bench: Bench) -> Iterator[Line]:
    """Many different queries, everybody in turn; the product alone is numpy's matrix @ vector."""
    yield from _at(bench, bench.scale.rows, Reach(1.15, "most", PRODUCT))
    yield from _at(bench, bench.scale.few_rows, Reach(0.11, "most"))


def _at(bench: Bench, count: int, reach: Reach) -> Iterator[Line]:
    matrix = np.array(bench.rows.vectors[:count])
    queries = bench.queries
    recalls: dict[str, float] = {}
    contestants = {
        PRODUCT: _rounds(
            bench, lambda picks: clock.seconds_each(lambda pick: matrix @ queries[pick], picks)
        ),
        "numpy, product and top 10": _rounds(
            bench,
            lambda picks: clock.seconds_each(
                lambda pick: top(matrix @ queries[pick], LIMIT), picks
            ),
        ),
    }
    with ExitStack() as stack:
        for store_class in bench.contestants:
            with bench.attempt(store_class.name):
                loaded = bench.loaded(store_class, count)
                worker = stack.enter_context(bench.worker(store_class.name, loaded.path))
                checked = list(range(min(CHECKED, len(queries))))
                found = worker.find(bench.queries_file, checked, LIMIT)
                recalls[store_class.name] = _recall(matrix, queries[checked], loaded.ids, found)
                contestants[store_class.name] = _rounds(bench, _by(worker, bench.queries_file))
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


def _rounds(
    bench: Bench, search: Callable[[list[int]], clock.Seconds]
) -> Callable[[int], clock.Seconds]:
    """Rounds of different queries; fewer of them for who is slow."""
    total = len(bench.queries)
    slow = bool(np.median(search(list(range(WARM_UP)))) > SLOW_S)
    count = max(4, total // bench.scale.rounds // (4 if slow else 1))

    def a_round(number: int) -> clock.Seconds:
        first = number * count
        return search([pick % total for pick in range(first, first + count + WARM_UP)])[WARM_UP:]

    return a_round


def _recall(matrix: Matrix, queries: Matrix, ids: list[str], found: list[list[str]]) -> float:
    """The share of answers that are at least as near as the tenth nearest row is."""
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    right = 0
    for query, tenth, hits in zip(queries, _tenth(matrix, queries), found, strict=True):
        rows = [row_of[row_id] for row_id in set(hits)]
        right += int((_cosines(matrix, rows, query) >= tenth - TIE).sum())
    return right / (LIMIT * len(queries))


def _tenth(matrix: Matrix, queries: Matrix) -> list[float]:
    """For each query the cosine of its tenth nearest row."""
    scores = queries @ matrix.T
    candidates = np.argpartition(scores, -LIMIT - 5, axis=1)[:, -LIMIT - 5 :]
    return [
        float(np.sort(_cosines(matrix, rows.tolist(), query))[-LIMIT])
        for rows, query in zip(candidates, queries, strict=True)
    ]


def _cosines(matrix: Matrix, rows: list[int], query: Matrix) -> npt.NDArray[np.float64]:
    """In double precision; all vectors have unit length."""
    cosines: npt.NDArray[np.float64] = matrix[rows].astype(np.float64) @ query.astype(np.float64)
    return cosines
