"""Shortest paths: breadth first from both ends, the smaller frontier first."""

from __future__ import annotations

from collections.abc import Sequence

from engramdb.index.graph import REVERSED, Edges, Rule, key_set, listed, step
from engramdb.lsm.adjacency import EdgeRun
from engramdb.lsm.keys import distinct

Level = set[bytes]


class _Side:
    """What is known from one end: a set of memories for each number of hops."""

    def __init__(self, runs: Sequence[EdgeRun], start: bytes, rule: Rule) -> None:
        self._runs = runs
        self._rule = rule
        self.levels: list[Level] = [{start}]
        self._seen: Level = {start}

    def advance(self) -> None:
        """Take one more hop."""
        fresh = neighbours(self._runs, self.levels[-1], self._rule) - self._seen
        self.levels.append(fresh)
        self._seen |= fresh


def neighbours(runs: Sequence[EdgeRun], keys: Level, rule: Rule) -> Level:
    """The memories one hop from any of these."""
    found = step(runs, key_set(keys), rule)
    return set(listed(distinct(found.high, found.low)))


def shortest_path(
    source: Edges, start: bytes, end: bytes, rule: Rule, hops_max: int | None
) -> list[bytes] | None:
    """The keys from start to end, both included; None if no path has at most `hops_max` hops.

    Of all shortest paths it is the one whose keys come first in order, compared from the start on:
    what it is depends on the connections alone, not on where they are stored.
    """
    if start == end:
        return [start]
    runs = source.edge_runs()
    back_rule = rule._replace(direction=REVERSED[rule.direction])
    ahead, back = _Side(runs, start, rule), _Side(runs, end, back_rule)
    while hops_max is None or len(ahead.levels) + len(back.levels) - 2 < hops_max:
        side = ahead if len(ahead.levels[-1]) <= len(back.levels[-1]) else back
        side.advance()
        if not side.levels[-1]:
            return None
        # were it in an earlier level of the other side, they would have met before
        meeting = ahead.levels[-1] & back.levels[-1]
        if meeting:
            return _first_path(runs, ahead.levels, back.levels, meeting, rule)
    return None


def _first_path(
    runs: Sequence[EdgeRun], ahead: list[Level], back: list[Level], meeting: Level, rule: Rule
) -> list[bytes]:
    """Walk from the start, each time to the first memory from which the end is near enough. The
    start's side has taken the first hop, so they have met behind it."""
    back_rule = rule._replace(direction=REVERSED[rule.direction])
    stages = [meeting, *back[-2::-1]]  # for each hop, the memories that lie on a shortest path
    for level in ahead[-2:0:-1]:
        stages.insert(0, neighbours(runs, stages[0], back_rule) & level)
    path = [*ahead[0]]
    for stage in stages:
        path.append(min(neighbours(runs, {path[-1]}, rule) & stage))
    return path
