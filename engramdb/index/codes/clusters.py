"""Clusters: rows that lie together stand together, each coded as its place on the principal axes.

An inverted file (Sivic and Zisserman, 2003; Jegou, Douze and Schmid, 2011) that numpy can search: a
cluster is a slice of one float32 matrix, and scoring it is one product that stays in the cache.

A row's code is its projection on the first axes. What the query and the row have in common outside
of these is estimated by what the query has in common there with the centre of the row's cluster:

    x.q  =  Ax.Aq + rest  ~  Ax.Aq + (Bc).(Bq)      A: the first axes, B: the next, c: the centre

How far a search goes is decided by what it finds (`Effort`), not fixed: with t, the score of the
limit-th best so far, a cluster is scored while  c.q + reach * spread >= t,  and a row is worth an
exact look if its score is at least  t - slack * |q outside A|.  So an easy query costs little, a
hard one what it needs, and a mask that hides much lowers t by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.lsm import Mapped

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Visible = Callable[[Rows], Mask]

NO_BOUND: Final = -2.0  # below every cosine
_ROUNDING: Final = 1e-5  # of float32 products of some thousand numbers below 1
_BLOCK_ROWS_MIN: Final = 4
_BLOCK_ROWS_MAX: Final = 64
_GATHER_CELLS: Final = 48 * 1024
_CHECKED_ROWS: Final = 16_384  # at a time
_SOME_HIDDEN: Final = 4  # so many times as many better rows as are wanted are hidden,
_MANY_HIDDEN: Final = 50  # or so many: those that are wanted lie where rows are dense


class Effort(NamedTuple):
    """How far a search for some neighbours goes.

    reach   how many spreads of a cluster its best rows may lie above its centre, where the bound is
            the score of the last of the best rows here: below `turn`, and from there on
    turn    a score
    slack   how far a neighbour's score by its code may lie below that bound, as a multiple of what
            the query has outside of the codes' axes
    border_reach, border_slack   the same for a bound that comes from elsewhere: a row may lie just
            above it, and so it takes more
    first   how many rows are scored before the first look at what was found
    deep_reach, deep_slack   like reach and slack, for rows behind many better ones, which a mask or
            a filter hides: where rows are dense, more of them look better than they are
    """

    reach: tuple[float, float]
    turn: float
    slack: float
    border_reach: float
    border_slack: float
    first: int
    deep_reach: float = 0.0
    deep_slack: float = 0.0


class ClusterCodes:
    """The codes of (rows, d) unit vectors.

    axes      (d, e) float32: the first c of them are those of the codes, the others of the centres
    centres   (k, e) float32: the means of the clusters, along all these axes
    spread    (k,) float32: root mean square distance from the centre
    starts    (k + 1,) int64: where each cluster begins in what follows
    order     (n,) int32: the row that stands at each place
    codes     (n, c) float32; as Mapped, of which what is touched is checked
    """

    def __init__(
        self,
        axes: Floats32,
        centres: Floats32,
        spread: Floats32,
        starts: npt.NDArray[np.int64],
        order: npt.NDArray[np.int32],
        codes: Floats32 | Mapped,
    ) -> None:
        self.axes, self.centres, self.spread = axes, centres, spread
        self.starts, self.order = starts, order
        self.mapped = codes if isinstance(codes, Mapped) else None
        self.codes: Floats32 = codes.array if isinstance(codes, Mapped) else codes
        self.rows, self.width = self.codes.shape
        self._tails = np.ascontiguousarray(centres[:, self.width :])
        self._sizes = np.diff(starts)
        self._bounds = starts.tolist()
        self._places: npt.NDArray[np.int32] | None = None
        self._cluster: npt.NDArray[np.int32] | None = None

    @property
    def resident_bytes(self) -> int:
        """What it keeps in memory, the codes apart."""
        own = (self.axes, self.centres, self._tails, self.spread, self.starts, self.order)
        return sum(array.nbytes for array in own)

    @property
    def is_checked(self) -> bool:
        """Whether nothing of the codes is left to be checked."""
        return self.mapped is None or self.mapped.is_checked

    def check(self, pause: Callable[[], None]) -> None:
        """Check all codes. Raises CorruptionError."""
        if self.mapped is not None:
            for start in range(0, self.rows, _CHECKED_ROWS):
                self.mapped.check(start, min(start + _CHECKED_ROWS, self.rows))
                pause()

    def candidates(
        self,
        query: Floats32,
        limit: int,
        effort: Effort,
        known: float,
        floor: float,
        visible: Visible | None,
    ) -> Rows:
        """The rows worth an exact look, ascending, for the `limit` best visible ones. `query`: unit
        length. `known`: a cosine that so many rows elsewhere reach, or NO_BOUND. `floor`: a cosine
        below which nobody is interested."""
        asked = query @ self.axes
        # not @: by two threads it takes half as long, and a hundred times where both cores are busy
        likely = np.vecdot(self.centres, asked)
        border = max(known, floor)
        is_open = likely + effort.border_reach * self.spread >= border - _ROUNDING
        scan = _Scan(self, asked)
        own = NO_BOUND
        highest = likely + effort.reach[0] * self.spread
        wanted = effort.first
        while own == NO_BOUND:
            highest[~is_open] = -np.inf
            chosen = self._first(highest, wanted)
            if not len(chosen):
                break
            scan.add(chosen)
            own = scan.kth(limit, visible)
            is_open[chosen] = False
            wanted = 4 * len(scan)
        slack = effort.slack
        better = 0 if visible is None else scan.reaching(own)
        if better > _MANY_HIDDEN * limit:
            highest = likely + max(*effort.reach, effort.border_reach) * self.spread
            slack = max(slack, effort.border_slack)
        elif better > _SOME_HIDDEN * limit:
            highest = likely + max(*effort.reach, effort.deep_reach) * self.spread
            slack = max(slack, effort.deep_slack)
        elif own >= effort.turn:
            highest = likely + effort.reach[1] * self.spread
        scan.add((is_open & (highest >= own - _ROUNDING)).nonzero()[0])
        own = max(own, scan.kth(limit, visible))
        return scan.rows_from(self._least(asked, effort, slack, own, border), visible)

    def _least(
        self, asked: Floats32, effort: Effort, slack: float, own: float, border: float
    ) -> float:
        """The lowest score by its code of a row that is worth a look."""
        inside = asked[: self.width]
        outside = math.sqrt(max(0.0, 1.0 - float(inside @ inside)))
        least = max(own - slack * outside, border - effort.border_slack * outside)
        return least - _ROUNDING

    def _first(self, highest: Floats32, rows: int) -> Rows:
        """The clusters with the highest scores that hold so many rows together, or all."""
        count = len(highest)
        wanted = min(count, rows * count // max(1, self.rows) + 1)
        if wanted >= count:
            return (highest > -np.inf).nonzero()[0]
        chosen = np.argpartition(highest, count - wanted)[count - wanted :]
        return chosen[highest[chosen] > -np.inf]

    def among(
        self,
        query: Floats32,
        limit: int,
        effort: Effort,
        known: float,
        floor: float,
        rows: Rows,
    ) -> Rows:
        """The same among these rows only, which ascend: each of them is scored."""
        if rows.size <= limit:
            return rows
        asked = query @ self.axes
        scores = self.scores_of(rows, asked)
        own = float(np.partition(scores, rows.size - limit)[-limit])
        slack = max(effort.slack, effort.deep_slack)
        is_near = np.vecdot(self.centres, asked) >= own
        if self._sizes[is_near].sum() > _SOME_HIDDEN * limit * self.rows / rows.size:
            # more lies nearer than there would, if these rows were any rows: as behind many hidden
            slack = max(slack, effort.border_slack)
        return rows[scores >= self._least(asked, effort, slack, own, max(known, floor))]

    def scores_of(self, rows: Rows, asked: Floats32) -> Floats32:
        """The scores by their codes of some rows; `asked` is the query along the axes."""
        scores = self._gathered(rows, asked[: self.width])
        scores += np.vecdot(self._tails, asked[self.width :])[self.cluster[rows]]
        return scores

    def _gathered(self, rows: Rows, asked: Floats32) -> Floats32:
        places, codes = self.places, self.codes
        if self.mapped is not None:
            self.mapped.check_all()  # most of its chunks would be touched anyway
        step = max(1, _GATHER_CELLS // self.width)
        scores = np.empty(rows.size, np.float32)
        tile = np.empty((min(step, rows.size), self.width), np.float32)
        for start in range(0, rows.size, step):
            some = places[rows[start : start + step]]
            part = tile[: some.size]
            codes.take(some, axis=0, out=part, mode="clip")
            np.dot(part, asked, out=scores[start : start + some.size])
        return scores

    @property
    def places(self) -> npt.NDArray[np.int32]:
        """Where each row stands."""
        if self._places is None:
            places = np.empty(self.rows, np.int32)
            places[self.order] = np.arange(self.rows, dtype=np.int32)
            self._places = places
        return self._places

    @property
    def cluster(self) -> npt.NDArray[np.int32]:
        """The cluster of each row."""
        if self._cluster is None:
            cluster = np.empty(self.rows, np.int32)
            cluster[self.order] = np.repeat(
                np.arange(len(self._sizes), dtype=np.int32), self._sizes
            )
            self._cluster = cluster
        return self._cluster


class _Scan:
    """Scores of some clusters' rows."""

    __slots__ = ("_asked", "_buffer", "_codes", "_filled", "_parts")

    def __init__(self, codes: ClusterCodes, asked: Floats32) -> None:
        self._codes, self._asked = codes, asked
        self._buffer = np.empty(0, np.float32)
        self._filled = 0
        self._parts: list[tuple[Rows, Rows]] = []  # clusters, and where each begins in the buffer

    def __len__(self) -> int:
        return self._filled

    def add(self, clusters: Rows) -> None:
        """Score the rows of these clusters."""
        codes = self._codes
        sizes = codes._sizes[clusters]
        filled = self._filled
        ends = np.cumsum(sizes)
        count = int(ends[-1]) if len(ends) else 0
        if not count:
            return
        buffer = np.empty(filled + count, np.float32)
        buffer[:filled] = self._buffer
        matrix, bounds, dot = codes.codes, codes._bounds, np.dot
        if codes.mapped is not None and not codes.mapped.is_checked:
            for cluster in clusters.tolist():
                codes.mapped.check(bounds[cluster], bounds[cluster + 1])
        asked = self._asked[: codes.width]
        at = filled
        for cluster in clusters.tolist():
            start, stop = bounds[cluster], bounds[cluster + 1]
            after = at + stop - start
            if after > at:
                dot(matrix[start:stop], asked, out=buffer[at:after])
            at = after
        if codes._tails.shape[1]:
            rest = codes._tails[clusters] @ self._asked[codes.width :]
            buffer[filled:] += np.repeat(rest, sizes)
        self._buffer, self._filled = buffer, filled + count
        self._parts.append((clusters, ends - sizes + filled))

    def _rows(self, at: Rows) -> Rows:
        """The rows that stand at these places of the buffer, which ascend."""
        codes = self._codes
        clusters = np.concatenate([part[0] for part in self._parts])
        begins = np.concatenate([part[1] for part in self._parts])
        which = begins.searchsorted(at, "right") - 1
        # clusters without rows begin where the next one does, and come before it
        places = at - begins[which] + codes.starts[clusters[which]]
        rows: Rows = codes.order[places].astype(np.int64)
        return rows

    def kth(self, limit: int, visible: Visible | None) -> float:
        """The limit-th best score of a visible row; NO_BOUND if there are not so many."""
        scores = self._buffer
        if len(scores) < limit:
            return NO_BOUND
        if visible is None:
            return _kth(scores, limit)
        wanted = 4 * limit
        while True:
            if wanted >= len(scores):
                at = np.arange(len(scores))
            else:
                at = (scores >= _kth(scores, wanted)).nonzero()[0]
            seen = scores[at[visible(self._rows(at))]]
            if len(seen) >= limit:
                return float(np.partition(seen, len(seen) - limit)[-limit])
            if len(at) == len(scores):
                return NO_BOUND
            wanted *= 8

    def reaching(self, score: float) -> int:
        """How many rows, visible or not, have at least this score."""
        return int(np.count_nonzero(self._buffer >= score))

    def rows_from(self, least: float, visible: Visible | None) -> Rows:
        """The visible rows with at least this score, ascending."""
        if not self._filled:
            return np.empty(0, np.int64)
        rows = self._rows((self._buffer >= least).nonzero()[0])
        rows.sort()
        return rows if visible is None else rows[visible(rows)]


def _kth(scores: Floats32, k: int) -> float:
    """About the k-th largest: a number that at least k scores reach, and not many more."""
    count = len(scores)
    block = min(_BLOCK_ROWS_MAX, count // (8 * k))
    if block >= _BLOCK_ROWS_MIN:
        whole = count // block * block
        maxima = scores[:whole].reshape(-1, block).max(axis=1)
    else:
        maxima = scores.copy()
    maxima.partition(len(maxima) - k)
    return float(maxima[-k])
