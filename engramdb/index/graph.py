"""The graph of connections: breadth first, a whole frontier at a time, as of the source's moment.

Nothing is kept here: the edges come from the source's runs (engramdb.lsm.adjacency), as arrays. A
frontier is a set of memories as two sorted columns, the high and low halves of their keys; a step
is one expansion of it in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engramdb.lsm.adjacency import EdgeRun, Neighbours
from engramdb.lsm.keys import U64, Rows, distinct, from_list, join, split, to_list
from engramdb.lsm.records import is_connection

OUTGOING: Final = "outgoing"
INCOMING: Final = "incoming"
BOTH: Final = "both"
DIRECTIONS: Final = {OUTGOING: (False,), INCOMING: (True,), BOTH: (False, True)}
"""For each direction, whether the edges are followed against theirs."""

REVERSED: Final = {OUTGOING: INCOMING, INCOMING: OUTGOING, BOTH: BOTH}

Keys = tuple[U64, U64]
"""A set of memories: the high and low halves of their keys, sorted, each key once."""


class Edges(Protocol):
    """Where connections come from; see engramdb.query.source.Source."""

    def edge_runs(self) -> Sequence[EdgeRun]:
        """The edges that are visible."""


class Rule(NamedTuple):
    """Which connections are followed, and how: of these types (None: of all), at least so strong,
    in one of the DIRECTIONS."""

    types: frozenset[str] | None = None
    strength_min: float = 0.0
    direction: str = OUTGOING


class Step(NamedTuple):
    """Connections that lead on from a frontier: where in it they begin, their other end."""

    near: Rows
    high: U64
    low: U64
    strength: npt.NDArray[np.float64]


def step(runs: Sequence[EdgeRun], frontier: Keys, rule: Rule) -> Step:
    """All connections that lead on from a frontier, in no order. In both directions, a connection
    from a memory to itself still is one."""
    parts = []
    for run in runs:
        for incoming in DIRECTIONS[rule.direction]:
            found = _matching(run.expand(*frontier, incoming=incoming), rule)
            if incoming and rule.direction == BOTH:
                high, low = frontier
                loops = (found.high == high[found.near]) & (found.low == low[found.near])
                found = found.take(~loops)
            if len(found):
                parts.append(Step(found.near, found.high, found.low, found.strength))
    if not parts:
        none = np.empty(0, np.uint64)
        return Step(np.empty(0, np.int64), none, none, np.empty(0, np.float64))
    if len(parts) == 1:
        return parts[0]
    return Step(
        np.concatenate([part.near for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.strength for part in parts]),
    )


def _matching(found: Neighbours, rule: Rule) -> Neighbours:
    if not len(found):
        return found
    wanted = rule.types
    follows = [is_connection(name) and (wanted is None or name in wanted) for name in found.types]
    if not all(follows):
        found = found.take(np.array(follows)[found.type_code.astype(np.int64)])
    if rule.strength_min > 0.0:
        found = found.take(found.strength >= rule.strength_min)
    return found


def key_set(keys: Iterable[bytes]) -> Keys:
    """A frontier of these 16-byte keys."""
    return distinct(*split(from_list(list(keys))))


def listed(keys: Keys) -> list[bytes]:
    """The 16-byte keys of a frontier, sorted."""
    return to_list(join(*keys))


def levels(source: Edges, starts: Iterable[bytes], rule: Rule) -> Iterator[Keys]:
    """The memories at one hop from the starts, then those at two, and so on, each memory at its
    least number of hops; none of the starts. Ends where there are no more."""
    runs = source.edge_runs()
    frontier = key_set(starts)
    seen = set(listed(frontier))
    while len(frontier[0]):
        found = step(runs, frontier, rule)
        frontier = _unseen(distinct(found.high, found.low), seen)
        if len(frontier[0]):
            yield frontier


def _unseen(keys: Keys, seen: set[bytes]) -> Keys:
    """Those of the keys that are new, which are added to those seen."""
    names = listed(keys)
    known = np.fromiter(map(seen.__contains__, names), np.bool_, len(names))
    seen.update(names)
    return (keys[0][~known], keys[1][~known]) if bool(known.any()) else keys


def within_hops(
    source: Edges,
    starts: Iterable[bytes],
    hops: int,
    types: frozenset[str] | None = None,
    min_strength: float = 0.0,
    direction: str = OUTGOING,
) -> Keys:
    """The memories at one to `hops` hops from any of the starts (16-byte keys), without these.

    Returns their keys as two sorted uint64 columns (high, low), each key once. `types` None: of all
    types. Raises HistoryUnavailableError if the source's moment is not complete any more.
    """
    parts = []
    if hops > 0:
        for level in levels(source, starts, Rule(types, min_strength, direction)):
            parts.append(level)
            if len(parts) == hops:
                break
    if not parts:
        none = np.empty(0, np.uint64)
        return none, none
    return distinct(
        np.concatenate([high for high, _ in parts]), np.concatenate([low for _, low in parts])
    )
