"""The visible memories of one run, as columns: what filters, orders and aggregates work on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.records import MEMORY
from engramdb.lsm.segment import Segment


class MemoryRun(Protocol):
    """A run of which at least one memory is visible. Rows are numbers within the run; each method
    takes any rows of it, in any order, visible or not."""

    @property
    def rows(self) -> Rows:
        """The visible rows, ascending int64. Not to be written to."""

    def columns(self) -> AttributeColumns:
        """What all rows of the run say; indexed by row."""

    def keys(self, rows: Rows) -> KeyMatrix:
        """(n, 16) uint8."""

    def seqs(self, rows: Rows) -> U64:
        """The commit that wrote each."""

    def times(self, rows: Rows) -> U64:
        """The time of that commit, in microseconds since the epoch."""

    def vectors(self, rows: Rows) -> U64:
        """Vector numbers, NO_VECTOR where there is none."""

    def payloads(self, rows: Rows) -> list[bytes]:
        """The payloads."""

    def without(self, keys: Iterable[bytes]) -> MemoryRun:
        """The same run where these memories are not visible."""


class SegmentRun:
    """The memories of a segment. Their rows are the first ones of the segment."""

    def __init__(self, segment: Segment, rows: Rows) -> None:
        self._segment, self.rows = segment, rows

    def columns(self) -> AttributeColumns:
        """What all rows say."""
        return self._segment.attributes

    def keys(self, rows: Rows) -> KeyMatrix:
        """(n, 16) uint8."""
        return self._segment.keys(rows)

    def seqs(self, rows: Rows) -> U64:
        """The commit that wrote each."""
        return self._segment.seq.take(rows)

    def times(self, rows: Rows) -> U64:
        """The time of that commit, in microseconds since the epoch."""
        return self._segment.time.take(rows)

    def vectors(self, rows: Rows) -> U64:
        """Vector numbers."""
        return self._segment.vector.take(rows)

    def payloads(self, rows: Rows) -> list[bytes]:
        """The payloads; each block of them is decompressed once."""
        return self._segment.payloads_at(rows)

    def without(self, keys: Iterable[bytes]) -> SegmentRun:
        """The same run where these memories are not visible."""
        hidden = [
            np.arange(first, last)
            for first, last in (self._segment.find(MEMORY, key) for key in keys)
            if first < last
        ]
        return SegmentRun(self._segment, _less(self.rows, hidden))


class TableRun:
    """A stretch of a memtable, from row `start` of it on. Edges stand in between: rows that say
    nothing and are never visible here."""

    def __init__(self, table: Memtable, start: int, columns: AttributeColumns, rows: Rows) -> None:
        self._table, self._start, self._columns, self.rows = table, start, columns, rows

    def columns(self) -> AttributeColumns:
        """What all rows say."""
        return self._columns

    def _places(self, rows: Rows) -> list[int]:
        places: list[int] = (rows + self._start).tolist()
        return places

    def keys(self, rows: Rows) -> KeyMatrix:
        """(n, 16) uint8."""
        keys = self._table.keys
        return from_list([keys[row] for row in self._places(rows)])

    def seqs(self, rows: Rows) -> U64:
        """The commit that wrote each."""
        return np.frombuffer(self._table.seq[self._start : self._stop], np.uint64)[rows]

    def times(self, rows: Rows) -> U64:
        """The time of that commit, in microseconds since the epoch."""
        times = self._table.time[self._start : self._stop]
        return np.frombuffer(times, np.uint64)[rows]

    def vectors(self, rows: Rows) -> U64:
        """Vector numbers."""
        return np.frombuffer(self._table.vector[self._start : self._stop], np.uint64)[rows]

    @property
    def _stop(self) -> int:
        return self._start + len(self._columns)

    def payloads(self, rows: Rows) -> list[bytes]:
        """The payloads."""
        payloads = self._table.payloads
        return [payloads[row] for row in self._places(rows)]

    def without(self, keys: Iterable[bytes]) -> TableRun:
        """The same run where these memories are not visible."""
        visible = set(self._places(self.rows))
        hidden = []
        for key in keys:
            row = self._table.newest[MEMORY].get(key, -1)
            while row >= 0 and row not in visible:
                row = self._table.previous[row]
            if row >= 0:
                hidden.append(np.array([row - self._start]))
        return TableRun(self._table, self._start, self._columns, _less(self.rows, hidden))


def _less(rows: Rows, hidden: list[Rows]) -> Rows:
    """Ascending rows but for these."""
    return np.setdiff1d(rows, np.concatenate(hidden), assume_unique=True) if hidden else rows
