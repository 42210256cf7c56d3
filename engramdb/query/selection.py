"""Which memories meet the conditions: run by run, whole columns at a time, cheap ones first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index.graph import within_hops
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list, join
from engramdb.lsm.memory_run import MemoryRun
from engramdb.model.attributes import may_say_when
from engramdb.query.attribute_filter import all_of
from engramdb.query.conditions import Conditions, Near
from engramdb.query.explanation import Trace
from engramdb.query.masks import matching, temporal, valid
from engramdb.query.source import Source


class Selected(NamedTuple):
    """Some rows of one run, ascending."""

    run: MemoryRun
    rows: Rows


@dataclass
class Selection:
    """The memories that meet the conditions. A position counts through all parts."""

    parts: list[Selected]

    @cached_property
    def count(self) -> int:
        """How many they are."""
        return sum(len(rows) for _, rows in self.parts)

    def keys(self) -> KeyMatrix:
        """(count, 16) uint8."""
        found = [run.keys(rows) for run, rows in self.parts if len(rows)]
        return np.concatenate(found) if found else np.empty((0, 16), np.uint8)

    def keys_at(self, positions: Rows) -> KeyMatrix:
        """The keys of these positions, in this order."""
        ends = np.cumsum([len(rows) for _, rows in self.parts])
        made = np.empty((len(positions), 16), np.uint8)
        part = np.searchsorted(ends, positions, "right")
        for number, (run, rows) in enumerate(self.parts):
            here = np.flatnonzero(part == number)
            if len(here):
                start = ends[number] - len(rows)
                made[here] = run.keys(rows[positions[here] - start])
        return made

    def times(self) -> U64:
        """When each was last saved, in microseconds since the epoch."""
        return _joined([run.times(rows) for run, rows in self.parts])

    def vectors(self) -> U64:
        """The vector number of each, NO_VECTOR where there is none."""
        return _joined([run.vectors(rows) for run, rows in self.parts])

    def at(self, keep: npt.NDArray[np.bool_]) -> Selection:
        """Those of these positions."""
        parts, start = [], 0
        for run, rows in self.parts:
            parts.append(Selected(run, rows[keep[start : start + len(rows)]]))
            start += len(rows)
        return Selection(parts)

    def first(self, count: int) -> Selection:
        """As few as can hold the `count` smallest keys: runs of files are sorted by key."""
        return Selection(
            [Selected(run, rows[:count] if run.is_sorted else rows) for run, rows in self.parts]
        )


def _joined(columns: list[U64]) -> U64:
    return np.concatenate(columns) if columns else np.empty(0, np.uint64)


def select(source: Source, conditions: Conditions, now_us: int, trace: Trace) -> Selection:
    """The memories that meet the conditions as of the source, seen from `now_us`."""
    runs = source.memory_runs()
    if conditions.keys is None:
        parts = [Selected(run, run.rows) for run in runs]
        trace.stage("visible", _count(parts), _count(parts), f"{len(parts)} runs")
    else:
        wanted = from_list(sorted(conditions.keys))
        parts = [Selected(run, run.find(wanted)) for run in runs]
        trace.stage("ids", len(wanted), _count(parts))
    if conditions.excluded:
        parts = _without(parts, from_list(sorted(conditions.excluded)), trace)
    for near in conditions.near:
        parts = _connected(source, near, parts, trace)
    for rule in conditions.times:
        before = _count(parts)
        parts = [Selected(run, temporal(run, rows, rule, now_us)) for run, rows in parts]
        trace.stage("time", before, _count(parts), repr(rule))
    at_us = conditions.valid_at_us(now_us)
    if at_us is not None:
        before = _count(parts)
        parts = [Selected(run, valid(run, rows, at_us)) for run, rows in parts]
        trace.stage("valid time", before, _count(parts))
    if conditions.attributes:
        rule_ = all_of(conditions.attributes)
        before = _count(parts)
        parts = [Selected(run, matching(run, rows, rule_)) for run, rows in parts]
        trace.stage("attributes", before, _count(parts), f"{rule_!r:.200}")
    return Selection([part for part in parts if len(part.rows)])


def not_holding(source: Source, at_us: int) -> Selection:
    """The memories that do not hold at a moment in the world."""
    parts = []
    if not _all_hold_always(source):
        for run in source.memory_runs():
            rest = np.setdiff1d(run.rows, valid(run, run.rows, at_us), assume_unique=True)
            parts.append(Selected(run, rest))
    return Selection([part for part in parts if len(part.rows)])


def _all_hold_always(source: Source) -> bool:
    """Whether no memory has valid_from or valid_to, as in most databases: a quick look."""
    for said in source.said():
        if isinstance(said, AttributeColumns):
            if said.valid_from is not None or said.valid_to is not None or said.is_untold():
                return False
        elif any(map(may_say_when, said)):
            return False
    return True


def _count(parts: list[Selected]) -> int:
    return sum(len(rows) for _, rows in parts)


def _without(parts: list[Selected], keys: KeyMatrix, trace: Trace) -> list[Selected]:
    rest = [
        Selected(run, np.setdiff1d(rows, run.find(keys), assume_unique=True)) for run, rows in parts
    ]
    trace.stage("exclude", _count(parts), _count(rest))
    return rest


def _connected(source: Source, near: Near, parts: list[Selected], trace: Trace) -> list[Selected]:
    keys = join(
        *within_hops(
            source,
            [near.start],
            near.hops,
            near.rule.types,
            near.rule.strength_min,
            near.rule.direction,
        )
    )
    rest = [
        Selected(run, np.intersect1d(rows, run.find(keys), assume_unique=True))
        for run, rows in parts
    ]
    trace.stage(
        "connected", _count(parts), _count(rest), f"{near.hops} hops, {near.rule.direction}"
    )
    return rest
