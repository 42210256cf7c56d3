"""All reads: the database as of one commit, now or past. Lock-free, because nothing in it
changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import ClosedError, CorruptionError, HistoryUnavailableError
from engramdb.lsm.adjacency import EdgeRun, SegmentEdges
from engramdb.lsm.arena import Arena
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.commit_times import first_after, last_until, time_of
from engramdb.lsm.edge_index import TableEdges
from engramdb.lsm.keys import KeyMatrix, Rows, split, to_list
from engramdb.lsm.memory_run import MemoryRun, SegmentMemories, TableMemories
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.records import (
    DEFAULT_SPACE,
    EDGE,
    MEMORY,
    TOMBSTONE,
    Change,
    Edge,
    Record,
    Vector,
    is_connection,
)
from engramdb.lsm.row_batch import BATCH_ROWS, RowBatch, batch_of
from engramdb.lsm.segment import Segment
from engramdb.lsm.segment_edges import edges_around, edges_between
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.vector_run import VectorRun
from engramdb.lsm.version import Version
from engramdb.lsm.warming import warm

_edge_key: Final = attrgetter("key")


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
            found = (time_of(source, self.seq) for source in self._sources())
            self._time = next((time for time in found if time is not None), 0)
        return self._time

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

    def exist(self, record_class: int, keys: KeyMatrix) -> npt.NDArray[np.bool_]:
        """Which of these keys, an (n, 16) matrix, have a visible version: (n,) bool."""
        version, seq = self.version, self.seq
        listed, (high, low) = to_list(keys), split(keys)
        found = np.zeros(len(listed), np.bool_)
        left: Rows = np.arange(len(listed))
        for table in version.tables():
            if len(table) and len(left):
                rows = [table.find(record_class, listed[i], seq) for i in left.tolist()]
                found[left] = [row >= 0 and table.kind[row] != TOMBSTONE for row in rows]
                left = left[np.array(rows) < 0]
        for segment in reversed(version.segments):
            if not len(left) or segment.entry.seq_min > seq:
                continue
            wanted, at = segment.find_many(record_class, high[left], low[left])
            places = left[wanted]
            if segment.entry.seq_max > seq:  # its newest version of a key may be a later one
                keys_ = [listed[i] for i in places.tolist()]
                found[places] = [self.get(record_class, key) is not None for key in keys_]
            else:
                is_put = segment.kind.take(at) != np.uint64(TOMBSTONE)
                found[places] = is_put & (segment.superseded.take(at) > np.uint64(seq))
            left = np.delete(left, wanted)
        return found

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

    def warm(self, keys: Sequence[bytes]) -> None:
        """Read what loads of these memories need, ahead of them; a hint, see `warming`."""
        for key in keys:
            warm(self.version, self.seq, key)

    def vector(self, number: int) -> Vector:
        """A read-only copy of a vector, (dimension,) float32, bit for bit as saved."""
        place, row = self._place_of(number)
        return place.vector(row)

    def vectors(self, numbers: Sequence[int]) -> npt.NDArray[np.float32]:
        """Vectors of one space, (n, dimension) float32, read-only, bit for bit as saved."""
        place, row = self._place_of(numbers[0])
        last = row + len(numbers)
        follow_each_other = all(n == numbers[0] + i for i, n in enumerate(numbers))
        if follow_each_other and place.row_of(numbers[-1]) == last - 1:
            return place.vectors(row, last)  # numbers ascend, so all between are between
        made = np.stack([self.vector(number) for number in numbers])
        made.flags.writeable = False
        return made

    def _place_of(self, number: int) -> tuple[Arena | VectorFile, int]:
        version = self.version
        for table in version.tables():
            for arena in table.arenas.values():
                row = arena.row_of(number)
                if row is not None:
                    return arena, row
        for file in version.vectors:
            if file.entry.number_min <= number <= file.entry.number_max:
                row = file.row_of(number)
                if row is not None:
                    return file, row
        raise CorruptionError("vec", 0, f"vector {number} in one of the vector files", "none")

    # Edges

    def edges_from(self, source: bytes) -> list[Edge]:
        """The visible connections that leave a memory, in the order of their keys."""
        return self._adjacent(source, incoming=False)

    def edges_to(self, target: bytes) -> list[Edge]:
        """The visible connections that reach a memory, in the order of their keys."""
        return self._adjacent(target, incoming=True)

    def edges_between(self, source: bytes, target: bytes) -> list[Edge]:
        """The visible edges from one memory to another, in the order of their keys."""
        self._require_complete()
        version, seq = self.version, self.seq
        found: list[Edge] = []
        for table in version.tables():
            found += table.edges(table.between(source, target, seq))
        for segment in version.segments:
            if segment.entry.seq_min <= seq:
                found += edges_between(segment, source, target, seq)
        found.sort(key=_edge_key)
        return found

    def edge_runs(self) -> list[EdgeRun]:
        """What a traversal follows: each visible edge is visible in one of them."""
        self._require_complete()
        version, seq = self.version, self.seq
        runs: list[EdgeRun] = [TableEdges(table, seq) for table in version.tables() if table.ends]
        for segment in version.segments:
            if segment.entry.seq_min <= seq and segment.ranges[EDGE][0] < segment.ranges[EDGE][1]:
                runs.append(SegmentEdges(segment, seq))
        return runs

    def carried(self, memory: bytes) -> dict[str, int]:
        """The visible edges that carry vectors of a memory in named spaces: {type: number}."""
        self._require_complete()
        version, seq = self.version, self.seq
        found: dict[str, int] = {}
        for table in version.tables():
            for row in tuple(table.carriers.get(memory, ())):
                if table.seq[row] <= seq < table.superseded[row] and table.kind[row] != TOMBSTONE:
                    found[table.ends[row][2]] = table.vector[row]
        for segment in version.segments:
            if segment.entry.seq_min > seq:
                continue
            rows = segment.carriers_of(memory)
            if not len(rows):
                continue
            rows = rows[self._are_visible(segment, rows)]
            codes = segment.edges.type_code[rows - segment.ranges[EDGE][0]].tolist()
            types = segment.edges.types
            for code, number in zip(codes, segment.vector.take(rows).tolist(), strict=True):
                found[types[code]] = number
        return found

    def _are_visible(self, segment: Segment, rows: Rows) -> npt.NDArray[np.bool_]:
        seq = np.uint64(self.seq)
        visible: npt.NDArray[np.bool_] = segment.seq.take(rows) <= seq
        visible &= seq < segment.superseded.take(rows)
        visible &= segment.kind.take(rows) != np.uint64(TOMBSTONE)
        return visible

    def _adjacent(self, key: bytes, *, incoming: bool) -> list[Edge]:
        self._require_complete()
        version, seq = self.version, self.seq
        found: list[Edge] = []
        for table in version.tables():
            found += table.edges(table.adjacent(key, seq, incoming=incoming))
        for segment in version.segments:
            if segment.entry.seq_min <= seq:
                found += edges_around(segment, key, seq, incoming=incoming)
        found.sort(key=_edge_key)
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
        gone = source.superseded.rows_until(self.seq)
        has_tombstones = source.kind.extremes[1] == TOMBSTONE
        if not len(gone) and not has_tombstones and source.entry.seq_max <= self.seq:
            return np.arange(start, stop)
        keep = np.ones(source.rows, np.bool_)
        keep[gone] = False
        if has_tombstones:
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
                yield batch_of(source, record_class, rows[start : start + BATCH_ROWS])

    def count(self, record_class: int) -> int:
        """How many records of a class are visible."""
        self._require_complete()
        return sum(len(self._visible(source, record_class)) for source in self._sources())

    def count_connections(self) -> int:
        """How many edges are visible that are no carriers of vectors."""
        self._require_complete()
        count = 0
        for source in self._sources():
            rows = self._visible(source, EDGE)
            count += len(rows)
            if isinstance(source, Memtable):
                if source.carriers:
                    listed = rows.tolist()
                    count -= sum(not is_connection(source.ends[row][2]) for row in listed)
            elif len(rows) and source.carriers is not None:
                codes = source.edges.type_code[rows - source.ranges[EDGE][0]].astype(np.int64)
                count -= int(np.count_nonzero(source.carriers[codes]))
        return count

    def vector_runs(self, space: str = DEFAULT_SPACE) -> list[VectorRun]:
        """What a similarity search in a space multiplies: each visible vector is visible in one row
        of one."""
        self._require_complete()
        version, seq = self.version, self.seq
        runs: list[VectorRun] = [
            file for file in version.vectors if file.space == space and file.is_visible(seq)
        ]
        for table in version.tables():
            arena = table.arenas.get(space)
            if arena is not None:
                runs += arena.runs(seq)
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
                runs.append(SegmentMemories(source, rows))
                continue
            start = 0
            for columns in source.stretches(source.rows_until(self.seq)):
                stop = start + len(columns)
                first, last = np.searchsorted(rows, (start, stop)).tolist()
                if first < last:
                    visible = rows[first:last] - start
                    runs.append(TableMemories(source, self.seq, start, columns, visible))
                start = stop
        return runs

    def said(self) -> Iterator[AttributeColumns | list[bytes]]:
        """What all memories of all runs say, visible or not, without looking at which are: as
        columns, or as the payloads of what was written last. For a quick look at whether anything
        says this or that; quick unless a segment was written without columns, see
        Segment.attributes."""
        for source in self._sources():
            if isinstance(source, Segment):
                yield source.attributes
            else:
                count = source.rows_until(self.seq)
                stretches, done = source.told(count)
                yield from stretches
                yield source.payloads[done:count]

    def vector_of(self, record: Record) -> Vector:
        """The vector of a record that has one; see vector()."""
        return self.vector(record.vector)

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
        return max((last_until(source, self.seq, time) for source in self._sources()), default=0)

    def seq_after(self, time: int) -> int:
        """The first commit after a time in microseconds that has left anything; seq + 1 if none."""
        last = self.seq if self.time > time else self.seq + 1
        firsts = (first_after(source, self.seq, time) for source in self._sources())
        return min([last, *(first for first in firsts if first is not None)])
