"""Late interaction: memories with many vectors, ranked by the best match of each query vector.

MaxSim (ColBERT: Khattab and Zaharia, 2020) takes, for each row of the query, the largest cosine
among the rows of a memory, and adds these up. Here the sum is divided by the number of query rows,
so that a score lies from -1 to 1 as a cosine does:

    score(Q, M) = 1/|Q| * sum over q in Q of max over m in M of cos(q, m)

As in exact.py, the float32 product only chooses candidates, and these are scored again in float64:
a maximum, and a mean, of numbers that are each wrong by `margin` at most is wrong by no more. So
the answer is a function of the vectors alone, however their rows are spread over runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index import exact
from engramdb.index.direction import Floats32, Floats64
from engramdb.index.metric import COSINE, Metric
from engramdb.index.top import Hit, Rows
from engramdb.lsm import VectorRun
from engramdb.lsm.keys import U64, join, to_list

_TILE_CELLS: Final = 2**20  # float32 cosines of one matrix product: 4 MB
_WIDE_CELLS: Final = 2**19  # float64 numbers scored again at a time: 4 MB
_BATCH_FIRST: Final = 64
_BATCH_GROWTH: Final = 4
_DECIMALS: Final = 1e12
_SQUARE_MIN: Final = 1e-120  # no division by zero, and lost beside the square of any other float32
_ANY_SCORE: Final = -2.0  # below every score


def search(
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric = COSINE,
) -> list[Hit]:
    """The `limit` best (key, score) with score >= threshold for (q, d) query vectors, best first,
    ties by key. Of the metrics other than cosine: for one query vector only."""
    if metric != COSINE:
        return _nearest(runs, seq, queries[0], limit, threshold, metric)
    if len(queries) == 1:
        hits = exact.search(runs, seq, queries[0], limit, threshold)
        if len({key for key, _ in hits}) == len(hits):  # no memory has two vectors among them
            return hits
    limit = min(limit, sum([run.rows for run in runs]))
    found = takewhile(lambda hit: hit[1] >= threshold, ranked(runs, seq, queries, limit))
    return list(islice(found, limit))


def _nearest(
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
) -> list[Hit]:
    """The memories with the nearest vectors: of each memory its nearest one counts."""
    rows = limit
    while True:
        hits = exact.search(runs, seq, query, rows, threshold, metric)
        best: dict[bytes, float] = {}
        for key, score in hits:
            best.setdefault(key, score)  # the first one of each is its best
        if len(best) >= limit or len(hits) < rows:
            return list(best.items())[:limit]
        rows *= _BATCH_GROWTH


def ranked(
    runs: Sequence[VectorRun], seq: int, queries: Floats32, first: int = _BATCH_FIRST
) -> Iterator[Hit]:
    """Every visible (key, score), best first, ties by key; worked out as far as it is asked for,
    `first` and then more at a time."""
    asked = _asked(queries)
    memories = _Memories([run for run in runs if run.rows], seq, asked)
    scores, batch = memories.scores, max(first, 1)
    while True:
        # Those that are not chosen lie below bound - margin, by more than rounding can hide: what
        # lies above it is certain to come next, and `batch` of them at least do.
        bound = max(_kth(scores, batch), _ANY_SCORE)
        chosen = np.flatnonzero(scores >= bound - 2 * asked.margin)
        if not chosen.size:
            return
        rescored = memories.rescored(chosen)
        certain = rescored >= bound - asked.margin
        scores[chosen[certain]] = -np.inf
        keys = memories.keys(chosen[certain])
        for negative, key in sorted(zip((-rescored[certain]).tolist(), keys, strict=True)):
            yield key, min(1.0, max(-1.0, 0.0 - negative))
        batch *= _BATCH_GROWTH


def _kth(scores: Floats64, k: int) -> float:
    """The k-th largest; -inf if there are not so many."""
    if scores.size < k:
        return -np.inf
    return float(np.partition(scores, scores.size - k)[-k])


class _Asked(NamedTuple):
    """Query vectors scaled to length 1 (or zero), in both precisions."""

    narrow: Floats32
    wide: Floats64
    margin: float  # largest distance between a float32 cosine and the cosine


def _asked(queries: Floats32) -> _Asked:
    wide = queries.astype(np.float64)
    norms = np.sqrt(np.vecdot(wide, wide))[:, None]
    np.divide(wide, norms, out=wide, where=norms > 0)
    return _Asked(wide.astype(np.float32), wide, (wide.shape[1] + 16) * 2.0**-24)


class _Groups(NamedTuple):
    """Neighbouring rows of one run that belong to one memory, and are not all hidden."""

    run: npt.NDArray[np.int64]
    start: Rows
    stop: Rows
    high: U64
    low: U64
    best: Floats32  # (q, groups): the largest float32 cosine with each query vector


class _Memories:
    """What has a visible vector. `scores` (n,) float64 are right up to the margin."""

    def __init__(self, runs: list[VectorRun], seq: int, asked: _Asked) -> None:
        self._asked = asked
        self._runs = runs
        self._hidden: list[npt.NDArray[np.bool_] | None] = []
        parts = [self._groups(number, run, seq) for number, run in enumerate(runs)]
        if not parts:
            self.scores: Floats64 = np.empty(0, np.float64)
            return
        groups = _Groups(
            np.concatenate([part.run for part in parts]),
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.stop for part in parts]),
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.best for part in parts], axis=1),
        )
        # rows of one memory stand together, but a file may have been written around them
        order = np.lexsort((groups.low, groups.high))
        high, low = groups.high[order], groups.low[order]
        starts = np.ones(len(order), np.bool_)
        starts[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        self._order, self._first = order, np.flatnonzero(starts)
        self._count = np.diff(self._first, append=len(order))
        self._group = groups
        best = groups.best[:, order]
        if len(self._first) < len(order):
            best = np.maximum.reduceat(best, self._first, axis=1)
        self.scores = best.sum(axis=0, dtype=np.float64) / len(asked.wide)

    def keys(self, memories: Rows) -> list[bytes]:
        """Of some of them."""
        if not len(memories):
            return []
        at = self._order[self._first[memories]]
        return to_list(join(self._group.high[at], self._group.low[at]))

    def _groups(self, number: int, run: VectorRun, seq: int) -> _Groups:
        high, low = run.owners()
        changes = np.ones(run.rows, np.bool_)
        changes[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        starts = np.flatnonzero(changes)
        bounds = np.append(starts, run.rows)
        hidden = run.hidden(seq)
        mask = None
        if hidden is not None:
            mask = np.zeros(run.rows, np.bool_)
            mask[hidden] = True
        self._hidden.append(mask)
        best = np.empty((len(self._asked.narrow), len(starts)), np.float32)
        step = max(1, _TILE_CELLS // len(self._asked.narrow))
        first = 0
        while first < len(starts):
            after = int(np.searchsorted(bounds, bounds[first] + step, "right")) - 1
            after = max(after, first + 1)  # one memory at least, however many rows it has
            low_row, high_row = int(bounds[first]), int(bounds[after])
            cosines = self._cosines(run, mask, low_row, high_row)
            best[:, first:after] = np.maximum.reduceat(
                cosines, starts[first:after] - low_row, axis=1
            )
            first = after
        seen = np.flatnonzero(best[0] > -np.inf)
        return _Groups(
            np.full(len(seen), number, np.int64),
            starts[seen],
            bounds[seen + 1],
            high[starts[seen]],
            low[starts[seen]],
            best[:, seen],
        )

    def _cosines(
        self, run: VectorRun, mask: npt.NDArray[np.bool_] | None, start: int, stop: int
    ) -> Floats32:
        """(q, rows) in float32, -inf where hidden."""
        with np.errstate(all="ignore"):  # products of the extreme rows may overflow
            cosines: Floats32 = self._asked.narrow @ run.matrix[start:stop].T
            cosines *= run.inverse_norms[start:stop]
        extreme = run.extreme_rows
        extreme = extreme[(extreme >= start) & (extreme < stop)]
        if extreme.size:
            cosines[:, extreme - start] = self._wide_cosines(run.matrix[extreme])
        if mask is not None:
            cosines[:, mask[start:stop]] = -np.inf
        return cosines

    def _wide_cosines(self, vectors: Floats32) -> Floats64:
        """(q, rows) in float64, rounded to 12 decimals; each a function of its two vectors."""
        wide = vectors.astype(np.float64)
        norms = np.sqrt(np.vecdot(wide, wide) + _SQUARE_MIN)
        cosines = np.empty((len(self._asked.wide), len(wide)), np.float64)
        for row, direction in zip(cosines, self._asked.wide, strict=True):
            np.vecdot(wide, direction, out=row)
            row /= norms
        return _rounded(cosines)

    def rescored(self, memories: Rows) -> Floats64:
        """The scores of some memories in float64, rounded to 12 decimals."""
        count = self._count[memories]
        groups = self._order[_ranges(self._first[memories], count)]
        memory_of_group = np.repeat(np.arange(len(memories)), count)
        parts, places = [], []
        for number, run in enumerate(self._runs):
            mine = np.flatnonzero(self._group.run[groups] == number)
            start, stop = self._group.start[groups[mine]], self._group.stop[groups[mine]]
            rows = _ranges(start, stop - start)
            place = np.repeat(memory_of_group[mine], stop - start)
            mask = self._hidden[number]
            if mask is not None:
                rows, place = rows[~mask[rows]], place[~mask[rows]]
            step = max(1, _WIDE_CELLS // run.dimension)
            for at in range(0, len(rows), step):
                parts.append(self._wide_cosines(run.matrix[rows[at : at + step]]))
            places.append(place)
        place = np.concatenate(places)
        order = np.argsort(place, kind="stable")
        first = np.searchsorted(place[order], np.arange(len(memories)))
        best = np.maximum.reduceat(np.concatenate(parts, axis=1)[:, order], first, axis=1)
        total = np.zeros(len(memories), np.float64)
        for row in best:  # one after the other: numpy's own sum depends on the shape
            total += row
        return _rounded(total / len(best))


def _rounded(cosines: Floats64) -> Floats64:
    return np.rint(cosines * _DECIMALS) / _DECIMALS


def _ranges(start: Rows, count: Rows) -> Rows:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ..."""
    ends = np.cumsum(count)
    skipped = np.repeat(start - (ends - count), count)
    ranges: Rows = np.arange(int(ends[-1]) if len(ends) else 0) + skipped
    return ranges
