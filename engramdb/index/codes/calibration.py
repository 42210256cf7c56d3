"""Calibration: whether searches by codes find what they promise, and what they take.

The queries of a sample are searched for exactly, once. Half of them then say how far a search has
to go; the other half are searched for in earnest, and their recall decides: its lower end must meet
the target. See cluster_calibration and turbo_calibration for the two kinds of codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index.codes.clusters import NO_BOUND, Effort
from engramdb.index.codes.recall import Recall, measured
from engramdb.index.codes.truth import nearest_rows

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Take = Callable[[Rows], Floats32]
Pause = Callable[[], None]
Clock = Callable[[], float]
Search = Callable[[Floats32, float], Rows]
"""The candidates for a query, of which so many better ones than a cosine may be known."""

CLUSTERS: Final = "clusters"
TURBOVEC: Final = "turbovec"
LIMITS: Final = (10, 100)
"""Searches for up to so many neighbours are calibrated; one for more than the last is a scan."""
NEIGHBOURS: Final = 10 * LIMITS[-1]
"""How many true neighbours of each query are known: among them is the last of the best by codes."""

_ROWS_PER_LIMIT: Final = 20
_ROWS_AT_ONCE: Final = 4096
_SAMPLE_MIN: Final = 384
_SAMPLE_MAX: Final = 2048
_LIKENESS: Final = 0.6
_NOISE: Final = 0.8
_TIE: Final = 1e-6  # cosines of float32 products that are closer are the same


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How to search for up to `limit` neighbours with one kind of codes.

    effort    of clusters; None: they do not meet the target
    depth     of turbovec's codes; 0: they do not
    recall    of the queries that were searched for
    seconds   the median of one such search, the exact look included
    """

    kind: str
    limit: int
    effort: Effort | None
    depth: int
    recall: Recall
    seconds: float

    @property
    def serves(self) -> bool:
        """Whether the target is met."""
        return self.effort is not None or self.depth > 0


class Group(NamedTuple):
    """Queries with their nearest rows, best first, and the cosines of these."""

    queries: Floats32
    rows: Rows
    cosines: Floats32


@dataclass(frozen=True, slots=True)
class Trial:
    """Samples of queries, and what it takes to search for them. `clock` gives seconds."""

    groups: list[Group]
    limits: tuple[int, ...]
    take: Take
    pause: Pause
    clock: Clock

    def run(self, search: Search, limit: int, target: float) -> tuple[Recall, float, bool]:
        """The recall of all groups together, the median seconds of a search in the slowest, and
        whether that is enough: the lower end of the recall of all, and the mean of each."""
        parts = [self._run(search, limit, group) for group in self.groups]
        recall = measured(
            np.concatenate([part.found for part in parts]),
            np.concatenate([part.wanted for part in parts]),
        )
        means = [measured(part.found, part.wanted).mean for part in parts]
        seconds = max(part.seconds for part in parts)
        return recall, seconds, recall.lower >= target <= min(means)

    def _run(self, search: Search, limit: int, group: Group) -> _Found:
        """Of every other query of a group. Every fourth is given a bound, as if there were other
        files."""
        found, wanted, seconds = [], [], []
        for number, (query, cosines) in enumerate(
            zip(group.queries[1::2], group.cosines[1::2], strict=True)
        ):
            known, count = NO_BOUND, limit
            if number % 4 == 3:
                count = 1 + number * 7 % limit
                known = float(cosines[count - 1]) - _TIE
            started = self.clock()
            rows = search(query, known)
            scores = self._cosines(rows, query)
            seconds.append(self.clock() - started)
            near = np.count_nonzero(scores >= cosines[count - 1] - _TIE)
            found.append(min(count, int(near)))
            wanted.append(count)
            self.pause()
        return _Found(np.array(found), np.array(wanted), float(np.median(seconds)))

    def _cosines(self, rows: Rows, query: Floats32) -> Floats32:
        """Some at a time: without any structure, candidates may be most of the rows."""
        if len(rows) <= _ROWS_AT_ONCE:
            return self.take(rows) @ query
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        parts = [self.take(rows[start : start + _ROWS_AT_ONCE]) @ query for start in starts]
        return np.concatenate(parts)


class _Found(NamedTuple):
    """How many neighbours of each query were found, of how many, in how long."""

    found: npt.NDArray[np.int64]
    wanted: npt.NDArray[np.int64]
    seconds: float


def trial_of(
    rows: int, take: Take, samples: Sequence[Floats32], pause: Pause, clock: Clock
) -> Trial:
    """A trial with these samples, (q, d) of unit length. The slow part: they are searched for
    exactly."""
    limits = tuple(limit for limit in LIMITS if limit * _ROWS_PER_LIMIT <= rows)
    samples = [sample for sample in samples if len(sample)]
    found, cosines = nearest_rows(rows, take, np.concatenate(samples), min(NEIGHBOURS, rows), pause)
    ends = np.cumsum([len(sample) for sample in samples])[:-1]
    parts = zip(samples, np.split(found, ends), np.split(cosines, ends), strict=True)
    return Trial([Group(*part) for part in parts], limits, take, pause, clock)


def sample_size(target: float) -> int:
    """How many queries it takes to tell whether a target is met: with a few less than all
    neighbours found, the lower end of the recall has to lie above it."""
    return min(_SAMPLE_MAX, max(_SAMPLE_MIN, math.ceil(2.4 / (1.0 - min(target, 0.99999)))))


def likely_queries(
    rows: int, take: Take, count: int, generator: np.random.Generator
) -> tuple[Floats32, Floats32]:
    """Queries of unit length, as long as nobody knows better: (count // 2, d) of the rows, and
    (count, d) as far away from any row as questions are from what answers them: sums of two rows,
    and rows with much noise. Their neighbours are harder to find than those of rows."""
    near = unit(take(generator.integers(0, rows, count // 2)))
    one, two, three = (take(generator.integers(0, rows, count)) for _ in range(3))
    noisy = np.arange(count) // 2 % 2 == 1  # so that both kinds are in both halves
    noise = _LIKENESS * unit(one) + _NOISE * unit(two - three)
    return near, unit(np.where(noisy[:, None], noise, one + two))


def unit(vectors: Floats32) -> Floats32:
    """At length 1; zero vectors stay what they are."""
    norms = np.sqrt(np.vecdot(vectors, vectors))[:, None]
    scaled: Floats32 = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled
