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
from engramdb.lsm.attribute_columns import AttributeColumns, ColumnsOf
from engramdb.lsm.edge_index import EdgeIndex
from engramdb.lsm.keys import Rows, from_list, split
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import (
    CLASSES,
    DEFAULT_SPACE,
    EDGE,
    NEVER,
    TOMBSTONE,
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
TAIL_ROWS: Final = 64  # of which no columns are made: reading their payloads costs less
_ROW_BYTES: Final = 200  # what a row costs beside its payload and vector: dict, columns, objects


class Memtable:
    """One memtable. `log` is the number of the first log that holds its rows."""

    def __init__(self, log: int, bytes_max: int, columns_of: ColumnsOf | None = None) -> None:
        self.log = log
        self.bytes_max = bytes_max
        self.columns_of = columns_of
        self._stretches: tuple[AttributeColumns, ...] = ()  # of the rows from the first one on
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
        self.edge_rows = array("q")
        self.edge_index = EdgeIndex()
        # of each edge only the first row: `newest` leads on to the others
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
            # room is for what may come: all of it in one space, but not in each of 256
            arena = Arena(dimension, self.bytes_max // (1 + len(self.arenas)))
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
            ends = (operation.source, operation.target, operation.type, operation.strength)
            self._append_ends(row, ends, is_first=previous < 0)
        if previous >= 0:
            self.superseded[previous] = seq
        newest[key] = row
        return row

    def _append_ends(self, row: int, ends: Ends, *, is_first: bool) -> None:
        self.ends[row] = ends
        if not is_connection(ends[2]):
            self.carriers.setdefault(ends[0], []).append(row)
        elif is_first:
            self.outgoing.setdefault(ends[0], []).append(row)
            self.incoming.setdefault(ends[1], []).append(row)
        self.edge_rows.append(row)  # last: a reader counts these

    def adjacent(self, key: bytes, seq: int, *, incoming: bool) -> list[int]:
        """The rows of the edges that leave (or reach) a memory, visible at a seq."""
        return self._visible((self.incoming if incoming else self.outgoing).get(key), seq)

    def between(self, source: bytes, target: bytes, seq: int) -> list[int]:
        """The rows of the edges from one memory to another, visible at a seq. One of the two may
        have many edges: the other is asked."""
        outgoing, incoming = self.outgoing.get(source, []), self.incoming.get(target, [])
        ends = self.ends
        if len(outgoing) <= len(incoming):
            rows = [row for row in outgoing.copy() if ends[row][1] == target]
        else:
            rows = [row for row in incoming.copy() if ends[row][0] == source]
        return self._visible(rows, seq)

    def _visible(self, first_rows: list[int] | None, seq: int) -> list[int]:
        """Of edges that begin in these rows the versions that are visible at a seq."""
        if not first_rows:
            return []
        keys, newest, superseded = self.keys, self.newest[EDGE], self.superseded
        rows = []
        for first in first_rows.copy():  # a writer appends to it
            row = newest.get(keys[first], NO_ROW)
            if row >= 0 and self.seq[row] > seq:
                row = self.find(EDGE, keys[first], seq)
            if row >= 0 and seq < superseded[row] and self.kind[row] != TOMBSTONE:
                rows.append(row)
        return rows

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
            return self.edges([row])[0]
        return Record(
            self.keys[row],
            self.seq[row],
            self.time[row],
            self.kind[row],
            self.payloads[row],
            self.vector[row],
            self.superseded[row],
        )

    def edges(self, rows: list[int]) -> list[Edge]:
        """The edges in these rows."""
        keys, seqs, times, kinds = self.keys, self.seq, self.time, self.kind
        payloads, ends, superseded = self.payloads, self.ends, self.superseded
        vectors = self.vector
        return [
            Edge(
                keys[row],
                seqs[row],
                times[row],
                kinds[row],
                payloads[row],
                *ends[row],
                superseded[row],
                vectors[row],
            )
            for row in rows
        ]

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
        return EdgeColumns.of([self.ends[row] for row in rows])

    def payload_columns(self, count: int) -> Payloads:
        """The payloads of the first `count` rows."""
        return Payloads.from_list(self.payloads[:count])

    def stretches(self, count: int) -> tuple[AttributeColumns, ...]:
        """What the first `count` rows say, or some more: stretches one after another, each at most
        half as long as the one before, but for a short last one that leaves it to the payloads.
        Rows of other classes say nothing. For readers: no lock is needed, as a tuple takes the
        place of another one, and at worst two readers make the same."""
        stretches, done = self.told(count)
        return stretches if done >= count else (*stretches, AttributeColumns.untold(count - done))

    def told(self, count: int) -> tuple[tuple[AttributeColumns, ...], int]:
        """As stretches(), but for the short last one; and how many rows these are."""
        stretches = self._stretches
        done = sum(map(len, stretches))
        if self.columns_of is not None and count - done > TAIL_ROWS:
            stretches = (*stretches, self.columns_of(self._said(done, count)))
            while len(stretches) > 1 and len(stretches[-2]) < 2 * len(stretches[-1]):
                merged = AttributeColumns.concatenate(list(stretches[-2:]))
                stretches = (*stretches[:-2], merged)
            self._stretches, done = stretches, count
        return stretches, done

    def attributes(self, count: int, columns_of: ColumnsOf) -> AttributeColumns:
        """What the first `count` rows say; there are no further rows."""
        parts = list(self._stretches)
        done = sum(map(len, parts))
        if done < count:
            parts.append(columns_of(self._said(done, count)))
        return AttributeColumns.concatenate(parts)

    def _said(self, start: int, stop: int) -> list[bytes]:
        """The payloads of memories, and nothing for the rows of other classes."""
        payloads = self.payloads[start:stop]
        classes = self.record_class[start:stop].tobytes()
        if any(classes):
            payloads = [
                b"" if record_class else payload
                for record_class, payload in zip(classes, payloads, strict=True)
            ]
        return payloads

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
            self._append_ends(base + row, ends, is_first=previous[row] < 0)
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
