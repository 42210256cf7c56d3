"""The visible memories of one run, as columns: what filters, orders and aggregates work on."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list, split, to_list
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.records import MEMORY
from engramdb.lsm.segment import Segment

_FEW_KEYS: Final = 256  # are looked up one by one, in some 2 us each; more, all at once


class MemoryRun(Protocol):
    """A run of which at least one memory is visible. Rows are numbers within the run; each method
    takes any rows of it, in any order, visible or not."""

    is_sorted: bool
    """Whether the visible rows are in the order of their keys."""

    @property
    def rows(self) -> Rows:
        """The visible rows, ascending int64. Not to be written to."""

    def find(self, keys: KeyMatrix) -> Rows:
        """The visible rows of these memories, which are all different, ascending."""

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

    def without(self, keys: KeyMatrix) -> MemoryRun:
        """The same run where these memories are not visible."""


class SegmentMemories:
    """The memories of a segment. Their rows are the first ones of the segment."""

    is_sorted = True

    def __init__(self, segment: Segment, rows: Rows) -> None:
        self._segment, self.rows = segment, rows

    def find(self, keys: KeyMatrix) -> Rows:
        """The visible rows of these memories, ascending."""
        segment, rows = self._segment, self.rows
        if len(keys) <= _FEW_KEYS:
            spans = [segment.find(MEMORY, key) for key in to_list(keys)]
            first = np.array([start for start, stop in spans if start < stop], np.int64)
            last = np.array([stop for start, stop in spans if start < stop], np.int64)
        else:
            _, first = segment.find_many(MEMORY, *split(keys))
            last = segment.ends_of(first)
        # the versions of a key stand together, and one of them is visible at most
        at = np.searchsorted(rows, first)
        found = rows[np.minimum(at, len(rows) - 1)] if len(rows) else first
        here = (at < len(rows)) & (found < last)
        return np.sort(found[here])

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

    def without(self, keys: KeyMatrix) -> SegmentMemories:
        """The same run where these memories are not visible."""
        rest = np.setdiff1d(self.rows, self.find(keys), assume_unique=True)
        return SegmentMemories(self._segment, rest)


class TableMemories:
    """A stretch of a memtable, from row `start` of it on. Edges stand in between: rows that say
    nothing and are never visible here."""

    is_sorted = False

    def __init__(
        self, table: Memtable, seq: int, start: int, columns: AttributeColumns, rows: Rows
    ) -> None:
        self._table, self._seq, self._start = table, seq, start
        self._columns, self.rows = columns, rows

    def find(self, keys: KeyMatrix) -> Rows:
        """The visible rows of these memories, ascending."""
        find, seq = self._table.find, self._seq
        rows = np.array([find(MEMORY, key, seq) for key in to_list(keys)], np.int64)
        rows = rows[rows >= self._start]  # not those of other stretches, nor keys that are not here
        return np.intersect1d(self.rows, rows - self._start, assume_unique=True)

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

    def without(self, keys: KeyMatrix) -> TableMemories:
        """The same run where these memories are not visible."""
        rest = np.setdiff1d(self.rows, self.find(keys), assume_unique=True)
        return TableMemories(self._table, self._seq, self._start, self._columns, rest)
