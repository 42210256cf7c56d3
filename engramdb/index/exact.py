"""Exact search: one matrix product per run, then the few best rows once more in float64.

The product is float32 and depends, in its last digits, on where a row lies and on how many queries
are asked together. So it only chooses candidates: all rows that come close enough to the k-th best
score that rounding may have hidden them (top.py). The candidates are scored again in float64, row
by row, and rounded (direction.py), below which there is only noise. Hence the answer is a function
of the vectors alone: the same whatever the runs look like, alone or in a batch, with equal vectors
scoring equally, and a vector scoring exactly 1 against itself by cosine and 0 by distance.

At 5,900 rows of 384 numbers the product takes some 70 us, and everything else together must take
less than 30, so this module counts its numpy calls: each takes about one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from engramdb.index.direction import Direction, Floats32, Floats64, direction_of, norms_of
from engramdb.index.metric import COSINE, Metric
from engramdb.index.top import Hit, Part, Rows, Scores, Top, rescored, taken
from engramdb.lsm import VectorRun

_TILE_CELLS: Final = 8 * 1024 * 1024  # float32 scores of one matrix product: 32 MB
_TILE_QUERIES: Final = 128
_GATHER_CELLS: Final = 48 * 1024  # float32 numbers gathered at a time: 192 KB
_SHARED_CELLS: Final = 2 * 1024 * 1024  # from here on by two threads: starting one takes 0.1 ms
_BATCH_CELLS: Final = 2 * 1024 * 1024  # and at a time for many queries: 8 MB


def search(
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric = COSINE,
) -> list[Hit]:
    """The `limit` best (key, score) with score >= threshold, best first, ties by key.

    A zero vector has cosine 0 with everything, as query and as row.
    """
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return []
    direction = direction_of(query, metric)
    top = Top(limit, threshold, direction)
    for run in runs:
        if run.rows:
            top.offer(run, 0, scores(run, seq, direction))
    return top.hits()


def search_many(
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric = COSINE,
) -> list[list[Hit]]:
    """What `search` finds for each row of `queries`, with one matrix product per tile."""
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return [[] for _ in queries]
    tops = [Top(limit, threshold, direction_of(query, metric)) for query in queries]
    offer_all(runs, seq, tops)
    return [top.hits() for top in tops]


def offer_all(runs: Sequence[VectorRun], seq: int, tops: Sequence[Top]) -> None:
    """Offer all visible rows to several queries."""
    for first in range(0, len(tops), _TILE_QUERIES):
        chunk = tops[first : first + _TILE_QUERIES]
        for run in runs:
            if run.rows:
                _offer_tiles(run, run.hidden(seq), chunk)


def search_among(
    parts: Sequence[Part],
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric = COSINE,
) -> list[Hit]:
    """What `search` finds among these rows only, which ascend in each run: those that a filter has
    left. The others are not scored, unless most of a run is wanted: see is_dense()."""
    limit = min(limit, sum([rows.size for _, rows in parts]))
    if limit <= 0:
        return []
    direction = direction_of(query, metric)
    top = Top(limit, threshold, direction)
    for run, rows in parts:
        if rows.size:
            top.offer(run, rows, scores_of(run, rows, direction))
    return top.hits()


def search_many_among(
    parts: Sequence[Part],
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric = COSINE,
) -> list[list[Hit]]:
    """What `search_among` finds for each row of `queries`, each vector read once for all."""
    limit = min(limit, sum([rows.size for _, rows in parts]))
    if limit <= 0:
        return [[] for _ in queries]
    tops = [Top(limit, threshold, direction_of(query, metric)) for query in queries]
    for first in range(0, len(tops), _TILE_QUERIES):
        chunk = tops[first : first + _TILE_QUERIES]
        narrow = np.stack([top.direction.narrow for top in chunk])
        for run, rows in parts:
            step = max(1, min(_BATCH_CELLS // run.dimension, _TILE_CELLS // len(chunk)))
            for start in range(0, rows.size, step):
                _offer_gathered(run, rows[start : start + step], chunk, narrow)
    return [top.hits() for top in tops]


def scores_among(parts: Sequence[Part], query: Floats32) -> tuple[Floats32, float]:
    """The cosines of these rows, part after part, in float32, and by how much each may be wrong."""
    direction = direction_of(query)
    found = [_cosines_of(run, rows, direction) for run, rows in parts if rows.size]
    return (np.concatenate(found) if found else np.empty(0, np.float32)), direction.margin


def cosines_among(parts: Sequence[Part], query: Floats32) -> Floats64:
    """The cosines of these rows, part after part, as exactly as search() gives them."""
    return np.clip(exact_among(parts, query, COSINE), -1.0, 1.0)


def exact_among(parts: Sequence[Part], query: Floats32, metric: Metric) -> Floats64:
    """The scores of these rows, part after part; a cosine may be beyond 1 in its last digit."""
    parts = [part for part in parts if part[1].size]
    if not parts:
        return np.empty(0, np.float64)
    return rescored(list(parts), direction_of(query, metric))


def is_dense(chosen: int, rows: int, dimension: int) -> bool:
    """Whether multiplying all rows costs less than gathering so many of them.

    Measured: a row of d numbers costs about 2 + 0.17 d ns in a scan, and from 1.6 to 3 times as
    much gathered, the more the less of the memory's bandwidth others leave.
    """
    return chosen * (10 + 0.34 * dimension) > rows * (2 + 0.17 * dimension)


def scores(run: VectorRun, seq: int, direction: Direction) -> Scores:
    """What Top.offer() takes, of every row: float32 cosines, or estimates, and -inf for those that
    are not visible."""
    extreme = run.extreme_rows
    found: Scores
    if direction.metric != COSINE:
        with np.errstate(all="ignore"):  # for the extreme rows
            products = run.product(direction.narrow)
            found = direction.estimates(products, norms_of(run.inverse_norms))
        found[extreme] = _extreme(run, extreme, direction)
    elif not extreme.size:
        found = run.product(direction.narrow)
        found *= run.inverse_norms
    else:
        with np.errstate(all="ignore"):  # their products may overflow; they are not used
            found = run.product(direction.narrow)
            found *= run.inverse_norms
        found[extreme] = _extreme(run, extreme, direction)
    hidden = run.hidden(seq)
    if hidden is not None:
        found[hidden] = -np.inf
    return found


def scores_of(run: VectorRun, rows: Rows, direction: Direction) -> Scores:
    """The same of some rows, all of them visible."""
    if direction.metric == COSINE:
        return _cosines_of(run, rows, direction)
    with np.errstate(all="ignore"):  # for the extreme rows
        products = _products_of(run, rows, direction)
        found = direction.estimates(products, norms_of(run.inverse_norms[rows]))
    at = _places_of_extreme(run, rows)
    if at.size:
        found[at] = _extreme(run, rows[at], direction)
    return found


def scores_from(run: VectorRun, rows: Rows, products: Floats32, direction: Direction) -> Scores:
    """The same from products that are there already; of no extreme rows."""
    if direction.metric == COSINE:
        return products * run.inverse_norms[rows]
    return direction.estimates(products, norms_of(run.inverse_norms[rows]))


def _cosines_of(run: VectorRun, rows: Rows, direction: Direction) -> Floats32:
    """The float32 cosines of some rows."""
    with np.errstate(all="ignore"):  # for the extreme rows
        cosines = _products_of(run, rows, direction)
        cosines *= run.inverse_norms[rows]
    at = _places_of_extreme(run, rows)
    if at.size:
        cosines[at] = _extreme(run, rows[at], direction)
    return cosines


def _products_of(run: VectorRun, rows: Rows, direction: Direction) -> Floats32:
    if is_dense(rows.size, run.rows, run.dimension):
        return run.product(direction.narrow)[rows]
    return gathered_product(run, rows, direction.narrow)


def _places_of_extreme(run: VectorRun, rows: Rows) -> Rows:
    """Which of the rows float32 products are not safe for."""
    if not run.extreme_rows.size:
        return run.extreme_rows
    return np.isin(rows, run.extreme_rows).nonzero()[0]


def _extreme(run: VectorRun, rows: Rows, direction: Direction) -> Floats64:
    """What stands for the score of rows that float32 products are not safe for."""
    return direction.estimates_from(rescored([(run, rows)], direction))


def gathered_product(run: VectorRun, rows: Rows, query: Floats32) -> Floats32:
    """The rows @ query, a tile at a time: what is gathered is multiplied while it is in the cache,
    which is four times as fast as gathering it all first."""
    step = max(1, _GATHER_CELLS // run.dimension)
    if rows.size <= step:
        return run.take(rows) @ query
    products = np.empty(rows.size, np.float32)

    def multiply(first: int, last: int) -> None:
        for start in range(first, last, step):
            stop = min(start + step, last)
            np.dot(run.take(rows[start:stop]), query, out=products[start:stop])

    if rows.size * run.dimension < _SHARED_CELLS:
        multiply(0, rows.size)
    else:
        # waits for memory more than it computes, and one core cannot wait for all of it at once
        middle = rows.size // 2
        with ThreadPoolExecutor(1) as helper:
            half = helper.submit(multiply, 0, middle)
            multiply(middle, rows.size)
            half.result()
    return products


def _offer_gathered(run: VectorRun, rows: Rows, tops: list[Top], queries: Floats32) -> None:
    with np.errstate(all="ignore"):  # for the extreme rows
        found = _batch(queries @ taken(run, rows).T, run.inverse_norms[rows], tops)
        at = _places_of_extreme(run, rows)
        for top, row in zip(tops, found, strict=True):
            if at.size:
                row[at] = _extreme(run, rows[at], top.direction)
            top.offer(run, rows, row)


def _offer_tiles(run: VectorRun, hidden: Rows | None, tops: Sequence[Top]) -> None:
    """Offer one run to several queries, some of its rows at a time."""
    queries = np.stack([top.direction.narrow for top in tops])
    step = max(1, _TILE_CELLS // len(tops))
    for start in range(0, run.rows, step):
        _offer_tile(run, hidden, tops, queries, start, min(start + step, run.rows))


def _offer_tile(
    run: VectorRun,
    hidden: Rows | None,
    tops: Sequence[Top],
    queries: Floats32,
    start: int,
    stop: int,
) -> None:
    with np.errstate(all="ignore"):  # for the extreme rows
        products = queries @ run.matrix[start:stop].T
        found = _batch(products, run.inverse_norms[start:stop], tops)
        extreme = _within(run.extreme_rows, start, stop)
        unseen = None if hidden is None else _within(hidden, start, stop) - start
        for top, row in zip(tops, found, strict=True):
            if extreme.size:
                row[extreme - start] = _extreme(run, extreme, top.direction)
            if unseen is not None:
                row[unseen] = -np.inf
            top.offer(run, start, row)


def _batch(products: Floats32, inverse_norms: Floats32, tops: Sequence[Top]) -> Iterator[Scores]:
    """What stands for the scores, query by query, of products of (queries, rows)."""
    if tops[0].direction.metric == COSINE:
        products *= inverse_norms
        yield from products
        return
    norms = norms_of(inverse_norms)
    for top, row in zip(tops, products, strict=True):
        yield top.direction.estimates(row, norms)


def _within(rows: Rows, start: int, stop: int) -> Rows:
    return rows[(rows >= start) & (rows < stop)]
