"""Exact cosine search: one matrix product per run, then the few best rows once more in float64.

The product is float32 and depends, in its last digits, on where a row lies and on how many queries
are asked together. So it only chooses candidates: all rows that come close enough to the k-th best
score that rounding may have hidden them. The candidates are scored again in float64, row by row,
and rounded to 12 decimals, below which there is only noise. Hence the answer is a function of the
vectors alone: the same whatever the runs look like, alone or in a batch, with equal vectors scoring
equally and a vector scoring exactly 1 against itself.

    |float32 score - cosine| <= margin = (dimension + 16) * 2**-24

    a row can be among the k best   =>   float32 score >= k-th best float32 score - 2 * margin

The k-th best float32 score is itself bounded from below without sorting: cut the scores into
blocks; the k-th largest maximum of a block is reached by at least k rows. At 5,900 rows of 384
numbers the product takes some 70 us, and everything else together must take less than 30, so this
module counts its numpy calls: each takes about one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.lsm import VectorRun

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Hit = tuple[bytes, float]

_BLOCK_ROWS_MAX: Final = 256
_BLOCK_ROWS_MIN: Final = 4  # with smaller ones the maxima are not much fewer than the scores
_TILE_CELLS: Final = 8 * 1024 * 1024  # float32 scores of one matrix product: 32 MB
_TILE_QUERIES: Final = 128
_GATHER_CELLS: Final = 48 * 1024  # float32 numbers gathered at a time: 192 KB
_SHARED_CELLS: Final = 2 * 1024 * 1024  # from here on by two threads: starting one takes 0.1 ms
_BATCH_CELLS: Final = 2 * 1024 * 1024  # and at a time for many queries: 8 MB
_WIDE_CELLS: Final = 512 * 1024  # float64 numbers scored again at a time: 4 MB
_SORT_AT_ONCE_MAX: Final = 256  # candidates; above it the worse ones are dropped in numpy first
_DECIMALS: Final = 1e12
_SQUARE_MIN: Final = 1e-120  # lost beside the square of any float32 but zero; no division by zero
_ANY_SCORE: Final = -2.0  # below every score, above the -inf of a hidden row


Part = tuple[VectorRun, Rows]  # some rows of one run


def search(
    runs: Sequence[VectorRun], seq: int, query: Floats32, limit: int, threshold: float
) -> list[Hit]:
    """The `limit` best (key, cosine) with cosine >= threshold, best first, ties by key.

    A zero vector has cosine 0 with everything, as query and as row.
    """
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return []
    direction = _direction(query)
    top = _Top(limit, threshold, direction)
    for run in runs:
        if run.rows:
            top.offer(run, 0, _scores(run, seq, direction))
    return top.hits()


def search_many(
    runs: Sequence[VectorRun], seq: int, queries: Floats32, limit: int, threshold: float
) -> list[list[Hit]]:
    """What `search` finds for each row of `queries`, with one matrix product per tile."""
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return [[] for _ in queries]
    tops = [_Top(limit, threshold, _direction(query)) for query in queries]
    for first in range(0, len(tops), _TILE_QUERIES):
        chunk = tops[first : first + _TILE_QUERIES]
        for run in runs:
            if run.rows:
                _offer_tiles(run, run.hidden(seq), chunk)
    return [top.hits() for top in tops]


def search_among(parts: Sequence[Part], query: Floats32, limit: int, threshold: float) -> list[Hit]:
    """What `search` finds among these rows only, which ascend in each run: those that a filter has
    left. The others are not scored, unless most of a run is wanted: see is_dense()."""
    limit = min(limit, sum([rows.size for _, rows in parts]))
    if limit <= 0:
        return []
    direction = _direction(query)
    top = _Top(limit, threshold, direction)
    for run, rows in parts:
        if rows.size:
            top.offer(run, rows, _scores_among(run, rows, direction))
    return top.hits()


def search_many_among(
    parts: Sequence[Part], queries: Floats32, limit: int, threshold: float
) -> list[list[Hit]]:
    """What `search_among` finds for each row of `queries`, each vector read once for all."""
    limit = min(limit, sum([rows.size for _, rows in parts]))
    if limit <= 0:
        return [[] for _ in queries]
    tops = [_Top(limit, threshold, _direction(query)) for query in queries]
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
    direction = _direction(query)
    scores = [_scores_among(run, rows, direction) for run, rows in parts if rows.size]
    return (np.concatenate(scores) if scores else np.empty(0, np.float32)), direction.margin


def cosines_among(parts: Sequence[Part], query: Floats32) -> Floats64:
    """The cosines of these rows, part after part, as exactly as search() gives them."""
    parts = [part for part in parts if part[1].size]
    if not parts:
        return np.empty(0, np.float64)
    return np.clip(_cosines(list(parts), _direction(query)), -1.0, 1.0)


def is_dense(chosen: int, rows: int, dimension: int) -> bool:
    """Whether multiplying all rows costs less than gathering so many of them.

    Measured: a row of d numbers costs about 2 + 0.17 d ns in a scan, and from 1.6 to 3 times as
    much gathered, the more the less of the memory's bandwidth others leave.
    """
    return chosen * (10 + 0.34 * dimension) > rows * (2 + 0.17 * dimension)


class _Direction(NamedTuple):
    """A query scaled to length 1 (or zero), in both precisions."""

    narrow: Floats32
    wide: Floats64
    margin: float  # largest distance between a float32 score and the cosine


def _direction(query: Floats32) -> _Direction:
    wide = query.astype(np.float64)  # the squares of all float32 numbers are normal float64 ones
    norm = math.sqrt(wide.dot(wide))
    if norm:
        wide /= norm
    return _Direction(wide.astype(np.float32), wide, (wide.size + 16) * 2.0**-24)


class _Top:
    """The candidates for the best `limit` rows, collected run by run.

    `bound` is a float32 score that a row needs to be among them. It only rises, and a later run
    starts from what the earlier ones have reached.
    """

    __slots__ = ("best", "bound", "candidates", "direction", "limit", "seen", "threshold")

    def __init__(self, limit: int, threshold: float, direction: _Direction) -> None:
        self.limit = limit
        self.threshold = threshold
        self.direction = direction
        self.bound = max(threshold - direction.margin, _ANY_SCORE)
        self.seen = 0  # rows
        self.best: Floats32 | None = None  # the best float32 scores so far, or a few more
        self.candidates: list[tuple[VectorRun, Rows, Floats32]] = []

    def offer(self, run: VectorRun, places: int | Rows, scores: Floats32) -> None:
        """Take candidates from the float32 scores of the rows at `places`: of consecutive ones, if
        it is the first of them."""
        limit, margins = self.limit, 2 * self.direction.margin
        if scores.size > 4 * self.seen:  # otherwise the bound so far will do
            self.bound = max(self.bound, _kth_bound(scores, limit) - margins)
        self.seen += scores.size
        rows = (scores >= self.bound).nonzero()[0]
        if not rows.size:
            return
        chosen = scores[rows]
        best = chosen if self.best is None else np.concatenate((self.best, chosen))
        if best.size > (limit if self.candidates else 2 * limit):  # of one run, a few more will do
            best = np.partition(best, best.size - limit)[-limit:]
            self.bound = max(self.bound, float(best[0]) - margins)
        self.best = best
        if isinstance(places, np.ndarray):
            rows = places[rows]
        elif places:
            rows = rows + places
        self.candidates.append((run, rows, chosen))

    def hits(self) -> list[Hit]:
        """The best rows, after a second look at the candidates in float64."""
        parts: list[Part] = []
        for run, rows, scores in self.candidates:
            if len(self.candidates) > 1 or rows.size > 2 * self.limit:
                rows = rows[scores >= self.bound]
            if rows.size:
                parts.append((run, rows))
        if not parts:
            return []
        cosines, least = _cosines(parts, self.direction), self.threshold
        if cosines.size > max(self.limit, _SORT_AT_ONCE_MAX):
            least = max(least, float(np.partition(cosines, -self.limit)[-self.limit]))
            parts, cosines = _those(cosines >= least, parts, cosines)
        return _best_first(parts, cosines, self.limit, least)


def _best_first(parts: list[Part], cosines: Floats64, limit: int, least: float) -> list[Hit]:
    """The `limit` best with at least this cosine, sorted; clipped to what a cosine can be."""
    keys: list[bytes] = []
    for run, rows in parts:
        keys += run.keys(rows)
    return [
        (key, 0.0 - negative if -1.0 <= negative <= 1.0 else math.copysign(1.0, -negative))
        for negative, key in sorted(zip((-cosines).tolist(), keys, strict=True))[:limit]
        if -negative >= least
    ]


def _those(
    keep: npt.NDArray[np.bool_], parts: list[Part], cosines: Floats64
) -> tuple[list[Part], Floats64]:
    """The parts and their cosines, cut down to the rows to keep."""
    kept, start = [], 0
    for run, rows in parts:
        rest = rows[keep[start : start + rows.size]]
        start += rows.size
        if rest.size:
            kept.append((run, rest))
    return kept, cosines[keep]


def _scores(run: VectorRun, seq: int, direction: _Direction) -> Floats32:
    """The float32 score of every row, -inf for those that are not visible."""
    extreme = run.extreme_rows
    if not extreme.size:
        scores = run.product(direction.narrow)
        scores *= run.inverse_norms
    else:
        with np.errstate(all="ignore"):  # their products may overflow; they are not used
            scores = run.product(direction.narrow)
            scores *= run.inverse_norms
        scores[extreme] = _cosines([(run, extreme)], direction)
    hidden = run.hidden(seq)
    if hidden is not None:
        scores[hidden] = -np.inf
    return scores


def _scores_among(run: VectorRun, rows: Rows, direction: _Direction) -> Floats32:
    """The float32 scores of some rows."""
    with np.errstate(all="ignore"):  # for the extreme rows
        if is_dense(rows.size, run.rows, run.dimension):
            scores = run.product(direction.narrow)[rows]
        else:
            scores = _gathered_product(run.matrix, rows, direction.narrow)
        scores *= run.inverse_norms[rows]
    if run.extreme_rows.size:
        at = np.isin(rows, run.extreme_rows).nonzero()[0]
        if at.size:
            scores[at] = _cosines([(run, rows[at])], direction)
    return scores


def _gathered_product(matrix: Floats32, rows: Rows, query: Floats32) -> Floats32:
    """matrix[rows] @ query, a tile at a time: what is gathered is multiplied while it is in the
    cache, which is four times as fast as gathering it all first."""
    dimension = matrix.shape[1]
    step = max(1, _GATHER_CELLS // dimension)
    if rows.size <= step:
        return matrix.take(rows, axis=0) @ query
    products = np.empty(rows.size, np.float32)

    def multiply(first: int, last: int) -> None:
        tile = np.empty((step, dimension), np.float32)
        for start in range(first, last, step):
            some = rows[start : min(start + step, last)]
            part = tile[: some.size]
            matrix.take(some, axis=0, out=part, mode="clip")  # "raise" would gather into a buffer
            np.dot(part, query, out=products[start : start + some.size])

    if rows.size * dimension < _SHARED_CELLS:
        multiply(0, rows.size)
    else:
        # waits for memory more than it computes, and one core cannot wait for all of it at once
        middle = rows.size // 2
        with ThreadPoolExecutor(1) as helper:
            half = helper.submit(multiply, 0, middle)
            multiply(middle, rows.size)
            half.result()
    return products


def _offer_gathered(run: VectorRun, rows: Rows, tops: list[_Top], queries: Floats32) -> None:
    with np.errstate(all="ignore"):  # for the extreme rows
        scores = queries @ run.matrix.take(rows, axis=0).T
        scores *= run.inverse_norms[rows]
    at = np.isin(rows, run.extreme_rows).nonzero()[0] if run.extreme_rows.size else rows[:0]
    for top, row_scores in zip(tops, scores, strict=True):
        if at.size:
            row_scores[at] = _cosines([(run, rows[at])], top.direction)
        top.offer(run, rows, row_scores)


def _offer_tiles(run: VectorRun, hidden: Rows | None, tops: list[_Top]) -> None:
    """Offer one run to several queries, some of its rows at a time."""
    queries = np.stack([top.direction.narrow for top in tops])
    step = max(1, _TILE_CELLS // len(tops))
    for start in range(0, run.rows, step):
        _offer_tile(run, hidden, tops, queries, start, min(start + step, run.rows))


def _offer_tile(
    run: VectorRun, hidden: Rows | None, tops: list[_Top], queries: Floats32, start: int, stop: int
) -> None:
    with np.errstate(all="ignore"):  # for the extreme rows
        scores = queries @ run.matrix[start:stop].T
        scores *= run.inverse_norms[start:stop]
    extreme = _within(run.extreme_rows, start, stop)
    if extreme.size:
        for top, row_scores in zip(tops, scores, strict=True):
            row_scores[extreme - start] = _cosines([(run, extreme)], top.direction)
    if hidden is not None:
        scores[:, _within(hidden, start, stop) - start] = -np.inf
    for top, row_scores in zip(tops, scores, strict=True):
        top.offer(run, start, row_scores)


def _within(rows: Rows, start: int, stop: int) -> Rows:
    return rows[(rows >= start) & (rows < stop)]


def _kth_bound(scores: Floats32, k: int) -> float:
    """A number that at least k of the scores reach; -inf if there are not so many."""
    count = scores.size
    if count < k:
        return -np.inf
    block = min(_BLOCK_ROWS_MAX, count // (4 * k))
    if block >= _BLOCK_ROWS_MIN:
        maxima = np.maximum.reduceat(scores, np.arange(0, count, block))
    else:
        maxima = scores.copy()
    maxima.partition(maxima.size - k)
    return float(maxima[-k])


def _cosines(parts: list[Part], direction: _Direction) -> Floats64:
    """The cosines of these rows in float64, rounded to 12 decimals, one part after the other."""
    step = max(1, _WIDE_CELLS // direction.wide.size)
    if len(parts) == 1 and parts[0][1].size <= step:
        return _cosines_of(parts[0][0].matrix.take(parts[0][1], axis=0), direction)
    if sum([rows.size for _, rows in parts]) <= step:
        narrow = np.concatenate([run.matrix.take(rows, axis=0) for run, rows in parts])
        return _cosines_of(narrow, direction)
    return np.concatenate(
        [
            _cosines_of(run.matrix.take(rows[start : start + step], axis=0), direction)
            for run, rows in parts
            for start in range(0, rows.size, step)
        ]
    )


def _cosines_of(vectors: Floats32, direction: _Direction) -> Floats64:
    wide = vectors.astype(np.float64)
    squares = np.vecdot(wide, wide)
    squares += _SQUARE_MIN
    cosines: Floats64 = np.vecdot(wide, direction.wide)
    cosines /= np.sqrt(squares, out=squares)
    cosines *= _DECIMALS
    np.rint(cosines, out=cosines)
    cosines /= _DECIMALS
    return cosines
