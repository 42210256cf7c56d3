"""The candidates for the best rows, and the second look at them in float64.

A float32 score is wrong by `direction.margin` at most, so a row that is one of the k best has

    float32 score >= k-th best float32 score - 2 * margin

The k-th best float32 score is itself bounded from below without sorting: cut the scores into
blocks; the k-th largest maximum of a block is reached by at least k rows. What passes is scored
again in float64, row by row, and rounded to 12 decimals, below which there is only noise.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.index.direction import Direction, Floats32, Floats64
from engramdb.lsm import VectorRun

Rows = npt.NDArray[np.int64]
Hit = tuple[bytes, float]
Part = tuple[VectorRun, Rows]  # some rows of one run

_BLOCK_ROWS_MAX: Final = 256
_BLOCK_ROWS_MIN: Final = 4  # with smaller ones the maxima are not much fewer than the scores
_WIDE_CELLS: Final = 512 * 1024  # float64 numbers scored again at a time: 4 MB
_SORT_AT_ONCE_MAX: Final = 256  # candidates; above it the worse ones are dropped in numpy first
_DECIMALS: Final = 1e12
_SQUARE_MIN: Final = 1e-120  # lost beside the square of any float32 but zero; no division by zero
_ANY_SCORE: Final = -2.0  # below every score, above the -inf of a hidden row


class Top:
    """The candidates for the best `limit` rows, collected run by run.

    `bound` is a float32 score that a row needs to be among them. It only rises, and a later run
    starts from what the earlier ones have reached.
    """

    __slots__ = ("best", "bound", "candidates", "direction", "limit", "seen", "threshold")

    def __init__(self, limit: int, threshold: float, direction: Direction) -> None:
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
        cosines, least = rescored(parts, self.direction), self.threshold
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


def rescored(parts: list[Part], direction: Direction) -> Floats64:
    """The cosines of these rows in float64, rounded to 12 decimals, one part after the other."""
    step = max(1, _WIDE_CELLS // direction.wide.size)
    if len(parts) == 1 and parts[0][1].size <= step:
        return _cosines_of(taken(*parts[0]), direction)
    if sum([rows.size for _, rows in parts]) <= step:
        narrow = np.concatenate([taken(run, rows) for run, rows in parts])
        return _cosines_of(narrow, direction)
    return np.concatenate(
        [
            _cosines_of(taken(run, rows[start : start + step]), direction)
            for run, rows in parts
            for start in range(0, rows.size, step)
        ]
    )


def taken(run: VectorRun, rows: Rows) -> Floats32:
    """The vectors of these rows, (n, dimension)."""
    return run.matrix.take(rows, axis=0)


def _cosines_of(vectors: Floats32, direction: Direction) -> Floats64:
    wide = vectors.astype(np.float64)
    squares = np.vecdot(wide, wide)
    squares += _SQUARE_MIN
    cosines: Floats64 = np.vecdot(wide, direction.wide)
    cosines /= np.sqrt(squares, out=squares)
    cosines *= _DECIMALS
    np.rint(cosines, out=cosines)
    cosines /= _DECIMALS
    return cosines
