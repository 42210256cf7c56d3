"""The best memories by lists of the best rows, which codes make quickly.

For one query vector that is one list, as long as it has to be for so many different memories. For
several it is the threshold algorithm (Fagin, Lotem and Naor, 2003): one list for each of them, and
the memories on any list are scored exactly, over all of their vectors. A memory on no list can
score no more than the mean of the last scores of all lists,

    score(Q, M) = 1/|Q| * sum over q of max over m in M of cos(q, m)  <=  1/|Q| * sum of last(q)

and so if the limit-th best of the others lies above that, nothing was missed but what the codes
have missed. Otherwise every vector is scored, as without codes. How often that happens is
remembered: queries whose vectors have little to do with each other seldom share what is near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from engramdb.index import approximate, late_interaction
from engramdb.index.approximate import Codes
from engramdb.index.chosen import rows_of_memories
from engramdb.index.codes.calibration import LIMITS
from engramdb.index.codes.file_codes import gather_ns
from engramdb.index.direction import Floats32
from engramdb.index.metric import COSINE, Metric
from engramdb.index.owners import KnownOwners
from engramdb.index.top import Hit
from engramdb.lsm import VectorRun
from engramdb.lsm.keys import from_list

_GROWTH: Final = 4
_ALL: Final = -math.inf
_ROUNDING: Final = 2e-12  # twice what rounding to 12 decimals does to a score
_CELL_NS: Final = 0.03  # of a product with one of many query vectors, per number
_COSINE_NS: Final = 3.0  # what is done with each of the cosines that come out
_ROW_NS: Final = 100.0  # with each row, to find out which memory it belongs to
_LIST_NS: Final = 60_000.0  # for a list, beside the search that was calibrated
_WEIGHT: Final = 0.1  # of the latest search in what is expected of the next one
_TRIED_EVERY: Final = 32  # although little is expected


class Kept:
    """What is kept between searches: the owners of files' rows, and the chances, by space."""

    def __init__(self) -> None:
        self.owners = KnownOwners()
        self._chances: dict[str, Chance] = {}

    def chance(self, space: str) -> Chance:
        """Of a space."""
        return self._chances.setdefault(space, Chance())


class Chance:
    """How often lists were enough: an exponential mean. Races only blur it."""

    def __init__(self) -> None:
        self._mean, self._refused = 1.0, 0

    def is_worth(self, cost: float, saved: float) -> bool:
        """Whether to pay `cost` for what may save `saved`."""
        if cost < saved * self._mean:
            return True
        self._refused += 1
        return cost < saved and self._refused % _TRIED_EVERY == 0

    def record(self, *, was_enough: bool) -> None:
        """What came of it."""
        self._mean += _WEIGHT * (was_enough - self._mean)


def nearest(
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    codes: Codes,
) -> list[Hit]:
    """The `limit` memories with the nearest vectors, best first, ties by key: of each memory its
    nearest vector counts."""
    wanted = limit
    while True:
        hits = approximate.search(runs, seq, query, wanted, threshold, metric, codes)
        best: dict[bytes, float] = {}
        for key, score in hits:
            best.setdefault(key, score)  # the first one of each is its best
        if len(best) >= limit or len(hits) < wanted:
            return list(best.items())[:limit]
        deeper = [each for each in LIMITS if each > wanted]
        wanted = deeper[0] if deeper else _GROWTH * wanted


def interacting(
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    codes: Codes,
    known: KnownOwners,
    chance: Chance,
) -> list[Hit]:
    """What late_interaction.search() finds for (q, d) query vectors, as far as the recall of the
    codes goes."""
    depth = LIMITS[-1]
    costs = _costs(runs, len(queries), depth, codes) if limit <= depth else None
    if costs is not None and chance.is_worth(*costs):
        hits = _by_lists(runs, seq, queries, limit, threshold, depth, codes, known)
        chance.record(was_enough=hits is not None)
        if hits is not None:
            return hits
    return late_interaction.search(runs, seq, queries, limit, threshold)


def _by_lists(
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    depth: int,
    codes: Codes,
    known: KnownOwners,
) -> list[Hit] | None:
    """The answer; None if there may be others that are as good."""
    lists = approximate.search_many(runs, seq, queries, depth, _ALL, COSINE, codes)
    keys = {key for hits in lists for key, _ in hits}
    bound = _ALL
    if all(len(hits) == depth for hits in lists):  # a shorter one names all memories
        bound = sum(hits[-1][1] for hits in lists) / len(lists) + _ROUNDING
    elif not keys:
        return []
    chosen = rows_of_memories(runs, from_list(sorted(keys)), known, codes.keys())
    hits = late_interaction.search(chosen, seq, queries, limit, threshold)
    if bound < threshold or (len(hits) == limit and hits[-1][1] > bound):
        return hits
    return None


def _costs(
    runs: Sequence[VectorRun], queries: int, depth: int, codes: Codes
) -> tuple[float, float] | None:
    """What lists take and what they may save, in nanoseconds; None without codes that serve."""
    lists_ns = every_ns = 0.0
    for run in runs:
        found = codes.get(run.file)
        cells = run.rows * run.dimension
        product_ns = queries * (_CELL_NS * cells + _COSINE_NS * run.rows)
        every_ns += product_ns + _ROW_NS * run.rows
        plan = None if found is None else found.plan(depth)
        if plan is None:
            lists_ns += product_ns
            continue
        lists_ns += queries * (1e9 * plan.seconds + _LIST_NS)
        lists_ns += gather_ns(min(run.rows, queries * depth), run.dimension)
    return (lists_ns, every_ns) if lists_ns < every_ns else None
