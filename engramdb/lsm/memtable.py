"""The newest versions, in memory: append-only columns, a dict to the newest row of each key.

Writers hold the write lock; readers hold nothing. A reader knows the seq it may see, finds the
newest row of a key and follows `previous` down to a row that is not above that seq. Rows are
applied before they are durable: until their commit is published no reader's seq reaches them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import numpy as np

from engramdb.lsm.arena import Arena
from engramdb.lsm.keys import Rows, from_list, split
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import (
    CLASSES,
    DEFAULT_SPACE,
    EDGE,
    NEVER,
    Edge,
    Ends,
    Operation,
    Record,
    is_connection,
)
from engramdb.lsm.rows import EdgeColumns, RowColumns

if TYPE_CHECKING:
    from engramdb.lsm.log_reader import LogRows

NO_ROW: Final = -1
_ROW_BYTES: Final = 200  # what a row costs beside its payload and vector: dict, columns, objects


class Memtable:
    """One memtable. `log` is the number of the first log that holds its rows."""

    def __init__(self, log: int, bytes_max: int) -> None:
        self.log = log
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.seq = array("Q")
        self.time = array("q")
        self.superseded = array("Q")
        self.vector = array("Q")
        self.kind = array("B")
        self.record_class = array("B")
        self.previous = array("q")
        self.payloads: list[bytes] = []
        self.keys: list[bytes] = []
        self.newest: tuple[dict[bytes, int], ...] = tuple({} for _ in CLASSES)
        self.arenas: dict[str, Arena] = {}  # by space; replaced, not changed: readers go over it
        self.ends: dict[int, Ends] = {}
        self.outgoing: dict[bytes, list[int]] = {}
        self.incoming: dict[bytes, list[int]] = {}
        self.carriers: dict[bytes, list[int]] = {}  # by memory: edges that carry its vectors

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def seq_min(self) -> int:
        """The first seq; the table is not empty."""
        return self.seq[0]

    @property
    def seq_max(self) -> int:
        """The last seq, 0 of an empty table."""
        return self.seq[-1] if self.seq else 0

    def is_full(self) -> bool:
        """Whether it should be flushed."""
        return self.bytes_used >= self.bytes_max

    def arena_for(self, dimension: int, space: str = DEFAULT_SPACE) -> Arena:
        """The arena of a space, made when the first vector comes."""
        arena = self.arenas.get(space)
        if arena is None:
            arena = Arena(dimension, self.bytes_max)
            self.arenas = {**self.arenas, space: arena}
        return arena

    def find(self, record_class: int, key: bytes, seq: int) -> int:
        """The row of the newest version that is not above this seq, or NO_ROW."""
        row = self.newest[record_class].get(key, NO_ROW)
        if row < 0 or self.seq[row] <= seq:
            return row
        # Two ways back: along the versions of this key, or along all rows from that seq on. One of
        # k versions among n rows is found in k steps by the first, in about n / k by the second.
        other = self.rows_until(seq)
        while other and self.seq[row] > seq:
            other -= 1
            if self.keys[other] == key and self.record_class[other] == record_class:
                return other
            row = self.previous[row]
            if row < 0:
                return NO_ROW
        return row if self.seq[row] <= seq else NO_ROW

    def append(self, operation: Operation, seq: int, time: int, vector: int) -> int:
        """Add a version; the caller supersedes the one before. Returns its row."""
        key, record_class, kind = operation.key, operation.record_class, operation.kind
        row = len(self.seq)
        newest = self.newest[record_class]
        previous = newest.get(key, NO_ROW)
        self.previous.append(previous)
        self.payloads.append(operation.payload)
        self.keys.append(key)
        self.record_class.append(record_class)
        self.kind.append(kind)
        self.vector.append(vector)
        self.superseded.append(NEVER)
        self.time.append(time)
        self.seq.append(seq)
        self.bytes_used += _ROW_BYTES + len(operation.payload)
        if record_class == EDGE:
            self._append_ends(
                row, (operation.source, operation.target, operation.type, operation.strength)
            )
        if previous >= 0:
            self.superseded[previous] = seq
        newest[key] = row
        return row

    def _append_ends(self, row: int, ends: Ends) -> None:
        self.ends[row] = ends
        if not is_connection(ends[2]):
            self.carriers.setdefault(ends[0], []).append(row)
            return
        self.outgoing.setdefault(ends[0], []).append(row)
        self.incoming.setdefault(ends[1], []).append(row)

    def append_vector(
        self,
        vector: np.ndarray[tuple[int], np.dtype[np.float32]],
        number: int,
        key: bytes,
        seq: int,
        space: str = DEFAULT_SPACE,
    ) -> None:
        """Add the vector of the row that is appended next; it belongs to the memory `key`."""
        arena = self.arena_for(len(vector), space)
        arena.append(vector, number, key, seq)
        self.bytes_used += 4 * len(vector) + 32

    def supersede(self, row: int, seq: int) -> None:
        """The version in this row, which is current, has a successor in a later memtable."""
        self.superseded[row] = seq

    def record(self, record_class: int, row: int) -> Record | Edge:
        """The version in a row."""
        if record_class == EDGE:
            source, target, type_, strength = self.ends[row]
            return Edge(
                self.keys[row],
                self.seq[row],
                self.time[row],
                self.kind[row],
                self.payloads[row],
                source,
                target,
                type_,
                strength,
                self.superseded[row],
                self.vector[row],
            )
        return Record(
            self.keys[row],
            self.seq[row],
            self.time[row],
            self.kind[row],
            self.payloads[row],
            self.vector[row],
            self.superseded[row],
        )

    def rows_until(self, seq: int) -> int:
        """How many rows have a seq that is not above this one."""
        return bisect_right(self.seq, seq)

    def columns(self, count: int) -> RowColumns:
        """The first `count` rows as arrays, in the order of their seq."""

        def uint64(column: array[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
            # the slice is a copy: an array with an exported buffer cannot be appended to
            return np.frombuffer(column[:count], np.uint64)

        high, low = split(from_list(self.keys[:count]))
        return RowColumns(
            np.frombuffer(self.record_class[:count], np.uint8),
            high,
            low,
            uint64(self.seq),
            uint64(self.time),
            np.frombuffer(self.kind[:count], np.uint8),
            uint64(self.vector),
            uint64(self.superseded),
            self.edge_columns(list(takewhile(count.__gt__, list(self.ends)))),
        )

    def edge_columns(self, rows: list[int]) -> EdgeColumns:
        """What only edges have, of these rows."""
        ends = [self.ends[row] for row in rows]
        if not ends:
            return EdgeColumns.empty()
        sources, targets, types, strengths = zip(*ends, strict=True)
        codes: dict[str, int] = {}
        source_high, source_low = split(from_list(list(sources)))
        target_high, target_low = split(from_list(list(targets)))
        return EdgeColumns(
            source_high,
            source_low,
            target_high,
            target_low,
            np.array([codes.setdefault(name, len(codes)) for name in types], np.uint64),
            np.array(strengths, np.float64),
            list(codes),
        )

    def payload_columns(self, count: int) -> Payloads:
        """The payloads of the first `count` rows."""
        return Payloads.from_list(self.payloads[:count])

    def load(self, rows: LogRows) -> Rows:
        """Append rows from a log. Returns the row before each one in this table, or NO_ROW; what
        lies outside the table, and vectors, are for the caller to supersede."""
        base = len(self)
        self.time.extend(rows.time)
        self.kind.extend(rows.kind)
        self.record_class.extend(rows.record_class)
        self.vector.extend(rows.vector)
        self.superseded.extend([NEVER] * len(rows))
        self.payloads += rows.payloads
        self.keys += rows.keys
        previous = [NO_ROW] * len(rows)
        newest, superseded = self.newest, self.superseded
        for row, (record_class, key, seq) in enumerate(
            zip(rows.record_class, rows.keys, rows.seq, strict=True)
        ):
            table = newest[record_class]
            before = table.get(key, NO_ROW)
            if before >= 0:
                previous[row] = before
                superseded[before] = seq
            table[key] = base + row
        self.previous.extend(previous)
        self.seq.extend(rows.seq)
        for row, ends in rows.ends.items():
            self._append_ends(base + row, ends)
        for space, matrix, numbers, places in rows.vectors():
            self.arena_for(matrix.shape[1], space).extend(
                matrix,
                numbers,
                rows.owners(places),
                [rows.seq[row] for row in places],
            )
            self.bytes_used += matrix.nbytes + 32 * len(matrix)
        self.bytes_used += _ROW_BYTES * len(rows) + sum(map(len, rows.payloads))
        return np.array(previous, np.int64)
