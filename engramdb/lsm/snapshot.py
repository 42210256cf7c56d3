"""All reads: the database as of one commit, now or past. Lock-free, because nothing in it
changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from engramdb.errors import ClosedError, CorruptionError, HistoryUnavailableError
from engramdb.lsm.keys import U64, KeyMatrix, Rows, to_list
from engramdb.lsm.memory_run import MemoryRun, SegmentRun, TableRun
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import EDGE, MEMORY, TOMBSTONE, Change, Edge, Record, Vector
from engramdb.lsm.rows import EdgeColumns
from engramdb.lsm.segment import Segment
from engramdb.lsm.version import Version


class VectorRun(Protocol):
    """Vectors that a similarity search multiplies with one matrix product."""

    rows: int
    dimension: int

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(rows, dimension) float32, C-contiguous, not to be written to."""

    def product(self, query: Vector) -> npt.NDArray[np.float32]:
        """matrix @ query, (rows,) float32."""

    @property
    def inverse_norms(self) -> npt.NDArray[np.float32]:
        """(rows,) float32; 0 for a zero vector."""

    @property
    def extreme_rows(self) -> Rows:
        """Rows whose norm lies outside 1e-15..1e15: float32 products are not safe there."""

    def hidden(self, seq: int) -> Rows | None:
        """Row numbers not visible at a seq; None if all rows are visible."""

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, -1 for those that are not in this run."""

    def keys(self, rows: Rows) -> list[bytes]:
        """The 16-byte keys of these rows."""


@dataclass(slots=True)
class RowBatch:
    """A batch of visible versions, as columns. Payloads are decoded when asked for."""

    record_class: int
    keys: KeyMatrix
    seqs: U64
    times: U64
    vectors: U64
    _source: Memtable | Segment
    _rows: Rows

    def __len__(self) -> int:
        return len(self.seqs)

    def payloads(self) -> list[bytes]:
        """The payloads, in the order of the keys."""
        if isinstance(self._source, Memtable):
            listed = self._source.payloads
            return [listed[row] for row in self._rows.tolist()]
        first, last = int(self._rows[0]), int(self._rows[-1]) + 1
        part: Payloads = self._source.payloads(first, last)
        if len(part) != len(self._rows):
            part = part.take(self._rows - first)
        return part.to_list()

    def edges(self) -> EdgeColumns:
        """The columns that only edges have."""
        if isinstance(self._source, Memtable):
            return self._source.edge_columns(self._rows.tolist())
        return self._source.edges.take(self._rows - self._source.ranges[EDGE][0])


BATCH_ROWS: Final = 16_384


class Snapshot:
    """The database as of `seq`. Holds its files open until closed or collected; closing is cheap
    and optional. `partial` marks a moment below the history floor: single versions that were kept
    can still be proven right, whole-database reads cannot."""

    __slots__ = ("_time", "_version", "partial", "seq")

    def __init__(
        self, version: Version, seq: int, time: int | None = None, *, partial: bool = False
    ) -> None:
        self._version: Version | None = version
        self.seq = seq
        self._time = time
        self.partial = partial

    @property
    def time(self) -> int:
        """When its commit was made, in microseconds since the epoch; 0 if nothing is left of it."""
        if self._time is None:
            self._time = self._find_time()
        return self._time

    def _find_time(self) -> int:
        """Of one row of the commit: it may have written a million."""
        for source in self._sources():
            if isinstance(source, Memtable):
                row = source.rows_until(self.seq) - 1
                if row >= 0 and source.seq[row] == self.seq:
                    return source.time[row]
            elif source.entry.seq_max >= self.seq:
                rows = np.flatnonzero(source.seq.array() == np.uint64(self.seq))
                if len(rows):
                    return source.time[int(rows[0])]
        return 0

    @property
    def version(self) -> Version:
        """The files it reads. Raises ClosedError after close()."""
        version = self._version
        if version is None:
            raise ClosedError("this snapshot was closed; take another one")
        return version

    def close(self) -> None:
        """Let go of the files."""
        self._version = None

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Single records

    def find(self, record_class: int, key: bytes) -> Record | Edge | None:
        """The visible version, tombstones included.

        Raises HistoryUnavailableError if it lies below the history floor and was dropped.
        """
        version, seq = self.version, self.seq
        for table in version.tables():
            row = table.find(record_class, key, seq)
            if row >= 0:
                return table.record(record_class, row)
        for segment in reversed(version.segments):
            if segment.entry.seq_min > seq:
                continue
            first, last = segment.find(record_class, key)
            if first == last:
                continue
            if segment.entry.seq_max > seq:
                first = segment.not_after(seq, first, last)
                if first == last:
                    continue
            found = segment.record(record_class, first)
            if found.superseded <= seq:
                break  # the version that followed it, and was current at seq, was dropped
            return found
        if self.partial:
            raise HistoryUnavailableError(
                f"the version of this record as of commit {seq} was dropped by the retention "
                "policy; tag() the moments that must stay"
            )
        return None

    def get(self, record_class: int, key: bytes) -> Record | Edge | None:
        """The visible version, or None if there is none or it is a tombstone."""
        found = self.find(record_class, key)
        return None if found is None or found.kind == TOMBSTONE else found

    def newest_seq(self, record_class: int, key: bytes) -> int:
        """The seq of the visible version; 0 if there is none or it is a tombstone."""
        found = self.get(record_class, key)
        return 0 if found is None else found.seq

    def history(self, record_class: int, key: bytes) -> list[Record | Edge]:
        """The kept versions up to this moment, oldest first, tombstones included."""
        version, seq = self.version, self.seq
        found: list[Record | Edge] = []
        for segment in version.segments:
            if segment.entry.seq_min <= seq:
                first, last = segment.find(record_class, key)
                found += [
                    segment.record(record_class, row) for row in range(last - 1, first - 1, -1)
                ]
        for table in reversed(version.tables()):
            rows = []
            row = table.find(record_class, key, seq)
            while row >= 0:
                rows.append(row)
                row = table.previous[row]
            found += [table.record(record_class, row) for row in reversed(rows)]
        return [record for record in found if record.seq <= seq]

    def vector(self, number: int) -> Vector:
        """A read-only copy of a vector, (dimension,) float32, bit for bit as saved."""
        version = self.version
        for table in version.tables():
            if table.arena is not None:
                row = table.arena.row_of(number)
                if row is not None:
                    return table.arena.vector(row)
        for file in version.vectors:
            if file.entry.number_min <= number <= file.entry.number_max:
                row = file.row_of(number)
                if row is not None:
                    return file.vector(row)
        raise CorruptionError("vec", 0, f"vector {number} in one of the vector files", "none")

    # Edges

    def edges_from(self, source: bytes) -> list[Edge]:
        """The visible edges that leave a memory, in the order of their keys."""
        return self._adjacent(source, incoming=False)

    def edges_to(self, target: bytes) -> list[Edge]:
        """The visible edges that reach a memory, in the order of their keys."""
        return self._adjacent(target, incoming=True)

    def _adjacent(self, key: bytes, *, incoming: bool) -> list[Edge]:
        self._require_complete()
        version, seq = self.version, self.seq
        found: list[Edge] = []
        for table in version.tables():
            side = table.incoming if incoming else table.outgoing
            for row in tuple(side.get(key, ())):
                if table.seq[row] <= seq < table.superseded[row] and table.kind[row] != TOMBSTONE:
                    found.append(cast(Edge, table.record(EDGE, row)))
        for segment in version.segments:
            if segment.entry.seq_min > seq:
                continue
            rows = segment.adjacent(key, incoming=incoming)
            if not len(rows):
                continue
            seqs, until = segment.seq.take(rows), segment.superseded.take(rows)
            visible = (seqs <= np.uint64(seq)) & (np.uint64(seq) < until)
            visible &= segment.kind.take(rows) != np.uint64(TOMBSTONE)
            found += [segment.edge(row) for row in rows[visible].tolist()]
        found.sort(key=lambda edge: edge.key)
        return found

    # Whole database

    def _require_complete(self) -> None:
        if self.partial:
            raise HistoryUnavailableError(
                f"the database as of commit {self.seq} is not complete any more: the retention "
                "policy dropped versions of it; tag() the moments that must stay"
            )

    def _visible(self, source: Memtable | Segment, record_class: int) -> Rows:
        seq = np.uint64(self.seq)
        if isinstance(source, Memtable):
            count = source.rows_until(self.seq)
            classes = np.frombuffer(source.record_class[:count], np.uint8)
            until = np.frombuffer(source.superseded[:count], np.uint64)
            kinds = np.frombuffer(source.kind[:count], np.uint8)
            mask = (classes == record_class) & (until > seq) & (kinds != TOMBSTONE)
            return np.flatnonzero(mask)
        start, stop = source.ranges[record_class]
        keep = np.ones(source.rows, np.bool_)
        keep[source.superseded.rows_until(self.seq)] = False
        if source.kind.extremes[1] == TOMBSTONE:
            keep &= ~source.kind.within(TOMBSTONE, TOMBSTONE)
        if source.entry.seq_max > self.seq:
            keep &= source.seq.within(0, self.seq)
        rows: Rows = np.flatnonzero(keep[start:stop]) + start
        return rows

    def _sources(self) -> Iterator[Memtable | Segment]:
        version = self.version
        for segment in version.segments:
            if segment.entry.seq_min <= self.seq:
                yield segment
        yield from reversed(version.tables())

    def scan(self, record_class: int) -> Iterator[RowBatch]:
        """All visible versions in batches of columns, tombstones left out; in no order overall."""
        self._require_complete()
        for source in self._sources():
            rows = self._visible(source, record_class)
            for start in range(0, len(rows), BATCH_ROWS):
                yield self._batch(source, record_class, rows[start : start + BATCH_ROWS])

    def _batch(self, source: Memtable | Segment, record_class: int, rows: Rows) -> RowBatch:
        if isinstance(source, Memtable):
            picked = rows.tolist()
            keys = np.frombuffer(b"".join([source.keys[r] for r in picked]), np.uint8)
            return RowBatch(
                record_class,
                keys.reshape(-1, 16),
                np.array([source.seq[r] for r in picked], np.uint64),
                np.array([source.time[r] for r in picked], np.uint64),
                np.array([source.vector[r] for r in picked], np.uint64),
                source,
                rows,
            )
        return RowBatch(
            record_class,
            source.keys(rows),
            source.seq.take(rows),
            source.time.take(rows),
            source.vector.take(rows),
            source,
            rows,
        )

    def count(self, record_class: int) -> int:
        """How many records of a class are visible."""
        self._require_complete()
        return sum(len(self._visible(source, record_class)) for source in self._sources())

    def vector_runs(self) -> list[VectorRun]:
        """What a similarity search multiplies: each visible vector is visible in one row of one."""
        self._require_complete()
        version, seq = self.version, self.seq
        runs: list[VectorRun] = [file for file in version.vectors if file.is_visible(seq)]
        for table in version.tables():
            if table.arena is not None:
                runs += table.arena.runs(seq)
        return runs

    def memory_runs(self) -> list[MemoryRun]:
        """The visible memories run by run, as columns: each is visible in one row of one."""
        self._require_complete()
        runs: list[MemoryRun] = []
        for source in self._sources():
            rows = self._visible(source, MEMORY)
            if not len(rows):
                continue
            if isinstance(source, Segment):
                runs.append(SegmentRun(source, rows))
                continue
            start = 0
            for columns in source.stretches(source.rows_until(self.seq)):
                stop = start + len(columns)
                first, last = np.searchsorted(rows, (start, stop)).tolist()
                if first < last:
                    runs.append(TableRun(source, start, columns, rows[first:last] - start))
                start = stop
        return runs

    # What changed

    def touched(self, record_class: int, since_seq: int) -> list[bytes]:
        """The keys that have a version in (since_seq, seq], each once."""
        keys: dict[bytes, None] = {}
        for change in self.changes(since_seq):
            for operation_class, key, _ in change.operations:
                if operation_class == record_class:
                    keys[key] = None
        return list(keys)

    def changes(self, since_seq: int) -> list[Change]:
        """The commits in (since_seq, seq], oldest first."""
        commits: dict[int, Change] = {}
        low, high = np.uint64(max(since_seq, 0)), np.uint64(self.seq)
        for source in self._sources():
            if isinstance(source, Memtable):
                first, last = source.rows_until(since_seq), source.rows_until(self.seq)
                columns = (
                    source.seq[first:last].tolist(),
                    source.time[first:last].tolist(),
                    source.record_class[first:last].tolist(),
                    source.keys[first:last],
                    source.kind[first:last].tolist(),
                )
            elif source.entry.seq_max <= since_seq:
                continue
            else:
                seqs = source.seq.array()
                rows = np.flatnonzero((seqs > low) & (seqs <= high))
                rows = rows[np.argsort(seqs[rows], kind="stable")]
                classes = np.searchsorted([stop for _, stop in source.ranges], rows, "right")
                columns = (
                    seqs[rows].tolist(),
                    source.time.take(rows).tolist(),
                    classes.tolist(),
                    to_list(source.keys(rows)),
                    source.kind.take(rows).tolist(),
                )
            for seq, time, record_class, key, kind in zip(*columns, strict=True):
                change = commits.get(seq)
                if change is None:
                    change = commits[seq] = Change(seq, time, [])
                change.operations.append((record_class, key, kind))
        return [commits[seq] for seq in sorted(commits)]

    def seq_at(self, time: int) -> int:
        """The last commit at or before a time in microseconds since the epoch; 0 if none."""
        if 0 < self.time <= time:
            return self.seq  # although nothing that it wrote may be left
        best = 0
        for source in self._sources():
            if isinstance(source, Memtable):
                count = source.rows_until(self.seq)
                times = np.frombuffer(source.time[:count], np.int64)
                at = int(np.searchsorted(times, time, "right"))
                if at:
                    best = max(best, source.seq[at - 1])
            elif source.entry.time_max <= time and source.entry.seq_max <= self.seq:
                best = max(best, source.entry.seq_max)
            elif source.entry.time_min <= time:
                seqs = source.seq.array()
                early = seqs[source.time.array() <= np.uint64(max(time, 0))]
                early = early[early <= np.uint64(self.seq)]
                if len(early):
                    best = max(best, int(early.max()))
        return best

    def seq_after(self, time: int) -> int:
        """The first commit after a time in microseconds that has left anything; seq + 1 if none."""
        best = self.seq if self.time > time else self.seq + 1
        for source in self._sources():
            if isinstance(source, Memtable):
                count = source.rows_until(self.seq)
                times = np.frombuffer(source.time[:count], np.int64)
                at = int(np.searchsorted(times, time, "right"))
                if at < count:
                    best = min(best, source.seq[at])
            elif source.entry.time_min > time:
                best = min(best, source.entry.seq_min)
            elif source.entry.time_max > time:
                late = source.seq.array()[source.time.array() > np.uint64(max(time, 0))]
                best = min(best, int(late.min()))
        return best
