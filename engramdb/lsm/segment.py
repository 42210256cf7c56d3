"""An immutable sorted run of versions: a column file. Rows are in (class, key, seq descending).

Sections (see container.py for the frame): class.rows, key.high, key.low, seq, time, kind, vector,
superseded (0: current when written), and for the payloads block.offset, block.size, block.raw,
block.sum, blocks. If there are edges: source.high, source.low, target.high, target.low, type,
types (msgpack list of str), strength (float64), by.source, by.target (permutations of the edges).
What memories say may be there as columns too: see attribute_sections.py.
Columns are read, and checked, when they are first used.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from engramdb.errors import CorruptionError
from engramdb.lsm import columns
from engramdb.lsm.attribute_columns import AttributeColumns, ColumnsOf, untold
from engramdb.lsm.attribute_sections import FIELDS, StoredColumns
from engramdb.lsm.block_cache import Block, BlockCache
from engramdb.lsm.columns import Column
from engramdb.lsm.container import SEGMENT, ContainerReader
from engramdb.lsm.edge_order import EdgeEnds, EdgeUntil
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64, KeyMatrix, Rows, first_at_least, join
from engramdb.lsm.limits import NUMBER_MAX, PAYLOAD_BYTES_MAX
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.marks import Marks, Supersession
from engramdb.lsm.payloads import BLOCK_ROWS, Payloads, decompress, open_block
from engramdb.lsm.records import (
    CLASSES,
    EDGE,
    MEMORY,
    PUT,
    TOMBSTONE,
    Edge,
    Record,
    edge_key,
    is_connection,
)
from engramdb.lsm.rows import EdgeColumns, RowColumns

MADE_ROWS: Final = 16_384  # of which attribute columns are made at once
_FRAME_BYTES_MIN: Final = 9  # of zstd: the header and one block of a byte


def out_of_order(classes: npt.NDArray[np.uint8], high: U64, low: U64, seq: U64) -> Rows:
    """The rows that stand before one that has to stand before them: by class and key, then the
    newest first."""
    wrong = seq[:-1] < seq[1:]
    for column in (low, high, classes):
        above = column[:-1] > column[1:]
        wrong = above | ((column[:-1] == column[1:]) & wrong)
    return np.flatnonzero(wrong)


class Segment:
    """An open segment."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        entry: SegmentEntry,
        cache: BlockCache,
        marks: Marks,
        known: Segment | None = None,
        columns_of: ColumnsOf | None = None,
    ) -> None:
        """`known` is the same file, open already: what was read of it is shared."""
        if known is not None:
            self.__dict__.update(known.__dict__)
            self.__dict__.pop("superseded", None)
            self.__dict__.pop("edge_until", None)
            self.entry, self.marks = entry, marks
            return
        self.entry = entry
        self.number = entry.number
        self.marks = marks
        self._cache = cache
        self._columns_of = columns_of
        self.reader = ContainerReader(
            environment,
            path,
            kind=SEGMENT,
            database=bytes.fromhex(entry.origin),
            number=entry.number,
            size=entry.size,
            fingerprint=bytes.fromhex(entry.fingerprint),
        )
        with self.reader.closed_on_error():
            self._count_rows()
            if self.rows != entry.rows:
                at = self.reader.section("class.rows").offset
                raise CorruptionError(path, at, f"{entry.rows} rows in three classes", self.rows)

    def _count_rows(self) -> None:
        """How many rows of each class there are, and where they stand."""
        counts = self.reader.column("class.rows", len(CLASSES)).array().tolist()
        self.rows = sum(counts)
        # columns may take no bytes; blocks do, and tie the number of rows to the size of the file
        blocks, stored = -(-self.rows // BLOCK_ROWS), self.reader.section("blocks")
        if stored.length < blocks * _FRAME_BYTES_MIN:
            raise CorruptionError(
                self.reader.path, stored.entry_offset, f"{blocks} blocks", f"{stored.length} bytes"
            )
        ends = np.cumsum(counts).tolist()
        self.ranges = [(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def _column(self, name: str) -> Column:
        return self.reader.column(name, self.rows)

    def _bounded(self, name: str, low: int, high: int, *, exactly: bool = False) -> Column:
        return self.reader.bounded(name, self.rows, low, high, exactly=exactly)

    @cached_property
    def high(self) -> Column:
        return self._column("key.high")

    @cached_property
    def low(self) -> Column:
        return self._column("key.low")

    @cached_property
    def seq(self) -> Column:
        if self.entry.commit_seq:  # a bulk load: sequenced after it was written
            return Column(columns.CONSTANT, self.entry.commit_seq, self.rows, b"")
        return self._bounded("seq", self.entry.seq_min, self.entry.seq_max, exactly=True)

    @cached_property
    def time(self) -> Column:
        if self.entry.commit_seq:
            return Column(columns.CONSTANT, self.entry.commit_time, self.rows, b"")
        return self._bounded("time", self.entry.time_min, self.entry.time_max, exactly=True)

    @cached_property
    def kind(self) -> Column:
        return self._bounded("kind", PUT, TOMBSTONE)

    @cached_property
    def vector(self) -> Column:
        return self._column("vector")

    @cached_property
    def superseded(self) -> Supersession:
        return Supersession(self._bounded("superseded", 0, NUMBER_MAX), self.marks)

    @cached_property
    def _bounds(self) -> list[tuple[bytes, bytes]]:
        bounds = []
        for start, stop in self.ranges:
            if start == stop:
                bounds.append((b"\xff" * 16, b""))  # no key is between these
            else:
                bounds.append((self.key(start), self.key(stop - 1)))
        return bounds

    def key(self, row: int) -> bytes:
        """The 16-byte key of a row."""
        return self.high[row].to_bytes(8, "big") + self.low[row].to_bytes(8, "big")

    def keys(self, rows: Rows) -> KeyMatrix:
        """The keys of these rows, (n, 16) uint8."""
        return join(self.high.take(rows), self.low.take(rows))

    def find(self, record_class: int, key: bytes) -> tuple[int, int]:
        """The rows [first, last) that hold versions of this key, newest first."""
        low, high = self._bounds[record_class]
        if key < low or key > high:
            return 0, 0
        first, last = self.high.find(int.from_bytes(key[:8], "big"), *self.ranges[record_class])
        if first == last:
            return 0, 0
        return self.low.find(int.from_bytes(key[8:], "big"), first, last)

    def not_after(self, seq: int, first: int, last: int) -> int:
        """Of the rows [first, last) of one key, newest first, the first that is not above this
        seq; `last` if all are. A key may have a million versions."""
        seqs = self.seq
        if first == last or seqs[first] <= seq:
            return first
        return bisect_left(range(last), -seq, first, last, key=lambda row: -seqs[row])

    def find_many(self, record_class: int, high: U64, low: U64) -> tuple[Rows, Rows]:
        """For keys that this segment holds: (which of the wanted ones, row of the newest
        version)."""
        start, stop = self.ranges[record_class]
        none = np.empty(0, np.int64)
        if start == stop or not len(high):
            return none, none
        bound_low, bound_high = self._bounds[record_class]
        if (
            join(high.max()[None], low[high == high.max()].max()[None]).tobytes() < bound_low
            or join(high.min()[None], low[high == high.min()].min()[None]).tobytes() > bound_high
        ):
            return none, none
        mine_high, mine_low = self._key_columns
        rows = first_at_least(mine_high[start:stop], mine_low[start:stop], high, low) + start
        inside = np.minimum(rows, stop - 1)
        found = (rows < stop) & (mine_high[inside] == high) & (mine_low[inside] == low)
        wanted = np.flatnonzero(found)
        return wanted, rows[wanted]

    def ends_of(self, rows: Rows) -> Rows:
        """For rows that are the first ones of their keys, of memories: the row after the last."""
        high, low = self._key_columns
        start, stop = self.ranges[MEMORY]
        starts = np.ones(stop - start + 1, np.bool_)
        starts[1:-1] = (high[start + 1 : stop] != high[start : stop - 1]) | (
            low[start + 1 : stop] != low[start : stop - 1]
        )
        firsts = np.flatnonzero(starts) + start
        ends: Rows = firsts[np.searchsorted(firsts, rows, "right")]
        return ends

    @property
    def _key_columns(self) -> tuple[U64, U64]:
        # decoded for each batch, not kept: a batch that touches old rows pays, memory stays small
        return self.high.array(), self.low.array()

    # Payloads

    @cached_property
    def _blocks(self) -> tuple[Column, Column, Column, Column]:
        blocks = -(-self.rows // BLOCK_ROWS)
        return (
            self.reader.column("block.offset", blocks),
            self.reader.column("block.size", blocks),
            self.reader.column("block.raw", blocks),
            self.reader.column("block.sum", blocks),
        )

    @property
    def payload_bytes(self) -> int:
        """Of all payloads, not compressed."""
        return int(self._blocks[2].array().sum())

    def _open_block(self, block: int) -> tuple[bytes, Payloads]:
        offsets, sizes, raws, sums = self._blocks
        data = self.reader.part("blocks", offsets[block], sizes[block], sums[block])
        rows = min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)
        raw_size = raws[block]
        try:
            if raw_size > rows * (PAYLOAD_BYTES_MAX + 16):
                raise ValueError(f"a block of {raw_size} bytes")
            raw = decompress(data, raw_size)
            return raw, open_block(raw, rows)
        except (zstandard.ZstdError, ValueError) as error:
            at = self.reader.section("blocks").offset + offsets[block]
            raise CorruptionError(self.reader.path, at, "a block of payloads", error) from error

    def payload(self, row: int) -> bytes:
        """The payload of one row, through the cache."""
        number, within = divmod(row, BLOCK_ROWS)
        block: Block | None = self._cache.get((self.number, number))
        if block is None:
            block = self._block(number)
            self._cache.put((self.number, number), block)
        raw, starts, lengths = block
        start = starts[within]
        return raw[start : start + lengths[within]]

    def warm(self, row: int) -> bool:
        """Read the block of a row into the cache, ahead of its use. False if it is there."""
        name = self.number, row // BLOCK_ROWS
        if name in self._cache:
            return False
        self._cache.put_ahead(name, self._block(name[1]))
        return True

    def payloads(self, start: int, stop: int) -> Payloads:
        """The payloads of the rows [start, stop); not cached."""
        if start == stop:
            return Payloads(np.empty(0, np.uint64), np.empty(0, np.uint32))
        first, last = start // BLOCK_ROWS, (stop - 1) // BLOCK_ROWS
        parts = [self._open_block(block)[1] for block in range(first, last + 1)]
        whole = Payloads.concatenate(parts)
        offset = first * BLOCK_ROWS
        if start == offset and stop == offset + len(whole):
            return whole
        return whole.take(np.arange(start - offset, stop - offset))

    def payloads_at(self, rows: Rows) -> list[bytes]:
        """The payloads of any rows, in their order; each block of them is opened once."""
        if not len(rows):
            return []
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        numbers, firsts = np.unique(ascending // BLOCK_ROWS, return_index=True)
        found: list[bytes] = []
        for number, some in zip(
            numbers.tolist(), np.split(ascending % BLOCK_ROWS, firsts[1:]), strict=True
        ):
            raw, starts, lengths = self._cache.get((self.number, number)) or self._block(number)
            found += [raw[starts[row] : starts[row] + lengths[row]] for row in some.tolist()]
        if bool((order == np.arange(len(order))).all()):
            return found
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return [found[place] for place in places.tolist()]

    def _block(self, number: int) -> Block:
        raw, payloads = self._open_block(number)
        head = len(raw) - 8 * len(payloads.words)
        return raw, (payloads.starts * 8 + head).tolist(), payloads.lengths.tolist()

    @property
    def has_attributes(self) -> bool:
        """Whether the file holds attribute columns."""
        return FIELDS in self.reader

    @cached_property
    def attributes(self) -> AttributeColumns:
        """What the rows of class MEMORY say. Of a file without columns they are made once."""
        if self.has_attributes:
            return StoredColumns(self.reader, self.ranges[MEMORY][1])
        return self.made_attributes(self._columns_of or untold)

    def made_attributes(self, columns_of: ColumnsOf) -> AttributeColumns:
        """The same, made of the payloads."""
        rows = self.ranges[MEMORY][1]
        parts = [
            columns_of(self.payloads(start, min(start + MADE_ROWS, rows)).to_list())
            for start in range(0, rows, MADE_ROWS)
        ]
        return AttributeColumns.concatenate(parts) if parts else AttributeColumns.untold(0)

    # Records

    def record(self, record_class: int, row: int) -> Record | Edge:
        """The version in a row."""
        if record_class == EDGE:
            return self.edge(row)
        return Record(
            self.key(row),
            self.seq[row],
            self.time[row],
            self.kind[row],
            self.payload(row),
            self.vector[row],
            self.superseded.of(row),
        )

    @cached_property
    def edges(self) -> EdgeColumns:
        """The columns that only edges have."""
        start, stop = self.ranges[EDGE]
        if start == stop:
            return EdgeColumns.empty()
        reader, count = self.reader, stop - start
        strength = reader.section("strength")
        if strength.length != 8 * count:
            raise CorruptionError(
                reader.path, strength.entry_offset, f"{count} strengths", f"{strength.length} bytes"
            )
        types = self._types
        return EdgeColumns(
            reader.column("source.high", count).array(),
            reader.column("source.low", count).array(),
            reader.column("target.high", count).array(),
            reader.column("target.low", count).array(),
            reader.bounded("type", count, 0, len(types) - 1).array(),
            np.frombuffer(reader.blob("strength"), "<f8"),
            types,
        )

    @property
    def _types(self) -> list[str]:
        try:
            return msgspec.msgpack.decode(self.reader.blob("types"), type=list[str])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            at = self.reader.section("types").offset
            raise CorruptionError(self.reader.path, at, "a list of types", error) from error

    def edge(self, row: int) -> Edge:
        """The edge in a row."""
        edges = self.edges
        at = row - self.ranges[EDGE][0]
        key, type_ = self.key(row), edges.types[int(edges.type_code[at])]
        source, target = (
            int(high[at]).to_bytes(8, "big") + int(low[at]).to_bytes(8, "big")
            for high, low in (
                (edges.source_high, edges.source_low),
                (edges.target_high, edges.target_low),
            )
        )
        if key != edge_key(source, target, type_):
            # a tombstone of what it says it is would be that of another edge
            at = self.reader.section("types").offset
            raise CorruptionError(
                self.reader.path, at, f"ends and type of edge {key.hex()}", "those of another"
            )
        return Edge(
            key,
            self.seq[row],
            self.time[row],
            self.kind[row],
            self.payload(row),
            source,
            target,
            type_,
            float(edges.strength[at]),
            self.superseded.of(row),
            self.vector[row],
        )

    @cached_property
    def carriers(self) -> npt.NDArray[np.bool_] | None:
        """For each of `edges.types` whether it is that of an edge that carries a vector; None if
        none is."""
        carry = [not is_connection(name) for name in self.edges.types]
        return np.array(carry, np.bool_) if any(carry) else None

    def _permutation(self, name: str) -> Rows:
        """A column that holds each number of an edge once."""
        start, stop = self.ranges[EDGE]
        column = self.reader.bounded(name, stop - start, 0, stop - start - 1)
        order = column.array().astype(np.int64)
        found = np.zeros(len(order), np.bool_)
        found[order] = True
        if not bool(found.all()):
            at = self.reader.section(name).offset
            raise CorruptionError(self.reader.path, at, "each edge once", "one of them twice")
        return order

    @property
    def is_followed(self) -> bool:
        """Whether its connections have been followed since it was opened."""
        return "by_source" in self.__dict__

    @cached_property
    def by_source(self) -> EdgeEnds:
        """The edges in the order of their sources."""
        order = self._permutation("by.source")
        return EdgeEnds(order, self.edges.source_high[order], self.edges.source_low[order])

    @cached_property
    def by_target(self) -> EdgeEnds:
        """The edges in the order of their targets."""
        order = self._permutation("by.target")
        return EdgeEnds(order, self.edges.target_high[order], self.edges.target_low[order])

    @cached_property
    def edge_until(self) -> EdgeUntil:
        """When the edges ceased to be current; never visible are tombstones."""
        rows = np.arange(*self.ranges[EDGE])
        until = self.superseded.base(rows)
        until[self.kind.take(rows) == np.uint64(TOMBSTONE)] = 0
        return EdgeUntil(until, self.marks, self.ranges[EDGE][0])

    def carriers_of(self, key: bytes) -> Rows:
        """The rows of all versions of the edges that carry vectors of a memory."""
        start, stop = self.ranges[EDGE]
        if start == stop or self.carriers is None:
            return np.empty(0, np.int64)
        first, last = self.by_source.stretch(key)
        at = self.by_source.order[first:last]
        rows: Rows = at[self.carriers[self.edges.type_code[at].astype(np.int64)]] + start
        return rows

    def kept_edge(self, row: int, superseded: int) -> Edge:
        """The edge in a row, through the cache."""
        name = self.number << 32 | row
        edge = self._cache.edges.get(name)
        if edge is None:
            edge = self.edge(row)
            self._cache.put_edge(name, edge)
        return edge if edge.superseded == superseded else edge._replace(superseded=superseded)

    def columns(self) -> RowColumns:
        """Everything but the payloads, as arrays. Raises CorruptionError if rows are not in their
        order, on which merges rely."""
        kinds: npt.NDArray[np.uint8] = self.kind.array().astype(np.uint8)
        classes = np.repeat(
            np.array(CLASSES, np.uint8), [stop - start for start, stop in self.ranges]
        )
        high, low, seq = self.high.array(), self.low.array(), self.seq.array()
        wrong = out_of_order(classes, high, low, seq)
        if len(wrong):
            at = self.reader.section("key.high").offset
            raise CorruptionError(
                self.reader.path, at, "rows in the order of their keys", f"disorder at {wrong[0]}"
            )
        return RowColumns(
            classes,
            high,
            low,
            seq,
            self.time.array(),
            kinds,
            self.vector.array(),
            self.superseded.array(),
            self.edges,
        )
