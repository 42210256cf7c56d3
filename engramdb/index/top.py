"""The candidates for the best rows, and the second look at them in float64.

A float32 cosine is wrong by `direction.margin` at most, so a row that is one of the k best has

    float32 score >= k-th best float32 score - 2 * margin

and for the other metrics, where each row has a margin of its own (see direction.py),

    score + margin >= k-th largest of (score - margin)

The k-th best is itself bounded from below without sorting: cut the scores into blocks; the k-th
largest maximum of a block is reached by at least k rows. What passes is scored again in float64,
row by row, and rounded, as below a few more digits there is only noise.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engramdb.index.direction import Direction, Floats32, Floats64, norms_of
from engramdb.index.metric import COSINE
from engramdb.lsm import VectorRun

Rows = npt.NDArray[np.int64]
Hit = tuple[bytes, float]
Part = tuple[VectorRun, Rows]  # some rows of one run
Scores = npt.NDArray[np.floating[Any]]  # float32 cosines, or Direction.estimates() in float64

_BLOCK_ROWS_MAX: Final = 256
_BLOCK_ROWS_MIN: Final = 4  # with smaller ones the maxima are not much fewer than the scores
_WIDE_CELLS: Final = 512 * 1024  # float64 numbers scored again at a time: 4 MB
_SORT_AT_ONCE_MAX: Final = 256  # candidates; above it the worse ones are dropped in numpy first


class Top:
    """The candidates for the best `limit` rows, collected run by run.

    `bound` is what a row's score needs to be among them; of the metrics other than cosine, its
    score plus its margin. It only rises, and a later run starts from what the earlier ones have
    reached.
    """

    __slots__ = ("best", "bound", "candidates", "direction", "limit", "seen", "threshold")

    def __init__(self, limit: int, threshold: float, direction: Direction) -> None:
        self.limit = limit
        self.threshold = threshold
        self.direction = direction
        self.bound = direction.least(threshold)
        self.seen = 0  # rows
        self.best: Scores | None = None  # the best scores so far, or a few more
        self.candidates: list[tuple[VectorRun, Rows, Scores]] = []

    def offer(self, run: VectorRun, places: int | Rows, scores: Scores) -> None:
        """Take candidates from the scores of the rows at `places`, as exact.scores() gives them: of
        consecutive ones, if it is the first of them."""
        limit, margins, least = self.limit, 2 * self.direction.margin, scores
        if self.direction.metric != COSINE:
            each = self._margins(run, places, scores.size)
            least, margins = scores - each, 0.0
            scores = scores + each
        if scores.size > 4 * self.seen:  # otherwise the bound so far will do
            self.bound = max(self.bound, _kth_bound(least, limit) - margins)
        self.seen += scores.size
        rows = (scores >= self.bound).nonzero()[0]
        if not rows.size:
            return
        best = chosen = scores[rows]
        if least is not scores:
            best = least[rows]
        if self.best is not None:
            best = np.concatenate((self.best, best))
        if best.size > (limit if self.candidates else 2 * limit):  # of one run, a few more will do
            best = np.partition(best, best.size - limit)[-limit:]
            self.bound = max(self.bound, float(best[0]) - margins)
        self.best = best
        if isinstance(places, np.ndarray):
            rows = places[rows]
        elif places:
            rows = rows + places
        self.candidates.append((run, rows, chosen))

    def reached(self) -> float | None:
        """A score that `limit` of the rows so far reach; None if there are not so many."""
        best = self.best
        return None if best is None or best.size < self.limit else self.bound

    def _margins(self, run: VectorRun, places: int | Rows, count: int) -> Floats64:
        if isinstance(places, np.ndarray):
            return self.direction.margins(norms_of(run.inverse_norms[places]))
        return self.direction.margins(norms_of(run.inverse_norms[places : places + count]))

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
        exact, least = rescored(parts, self.direction), self.threshold
        if exact.size > max(self.limit, _SORT_AT_ONCE_MAX):
            least = max(least, float(np.partition(exact, -self.limit)[-self.limit]))
            parts, exact = _those(exact >= least, parts, exact)
        most = 1.0 if self.direction.metric == COSINE else math.inf
        return _best_first(parts, exact, self.limit, least, most)


def _best_first(
    parts: list[Part], scores: Floats64, limit: int, least: float, most: float
) -> list[Hit]:
    """The `limit` best with at least this score, sorted; clipped to what a score can be."""
    keys: list[bytes] = []
    for run, rows in parts:
        keys += run.keys(rows)
    return [
        (key, 0.0 - negative if -most <= negative <= most else math.copysign(most, -negative))
        for negative, key in sorted(zip((-scores).tolist(), keys, strict=True))[:limit]
        if -negative >= least
    ]


def _those(
    keep: npt.NDArray[np.bool_], parts: list[Part], scores: Floats64
) -> tuple[list[Part], Floats64]:
    """The parts and their scores, cut down to the rows to keep."""
    kept, start = [], 0
    for run, rows in parts:
        rest = rows[keep[start : start + rows.size]]
        start += rows.size
        if rest.size:
            kept.append((run, rest))
    return kept, scores[keep]


def _kth_bound(scores: Scores, k: int) -> float:
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
    """The final scores of these rows, in float64 and rounded, one part after the other."""
    step = max(1, _WIDE_CELLS // direction.wide.size)
    if len(parts) == 1 and parts[0][1].size <= step:
        return direction.scores(taken(*parts[0]))
    if sum([rows.size for _, rows in parts]) <= step:
        narrow = np.concatenate([taken(run, rows) for run, rows in parts])
        return direction.scores(narrow)
    return np.concatenate(
        [
            direction.scores(taken(run, rows[start : start + step]))
            for run, rows in parts
            for start in range(0, rows.size, step)
        ]
    )


def taken(run: VectorRun, rows: Rows) -> Floats32:
    """The vectors of these rows, (n, dimension)."""
    return run.take(rows)
