"""A snapshot with unsaved writes laid over it: what a transaction sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from engramdb.index.without import without
from engramdb.lsm.adjacency import EdgeRun, HiddenEdges, ListedEdges
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix, distinct, from_list, split, to_list
from engramdb.lsm.limits import VECTOR_NUMBER_MAX
from engramdb.lsm.memory_run import MemoryRun
from engramdb.lsm.records import (
    DEFAULT_SPACE,
    EDGE,
    MEMORY,
    NEVER,
    NO_VECTOR,
    TOMBSTONE,
    Batch,
    Edge,
    Operation,
    Record,
    Vector,
    edge_key,
    is_connection,
)
from engramdb.lsm.rows import EdgeColumns
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.vector_file import extreme, inverse, norms_of
from engramdb.lsm.vector_run import VectorRun
from engramdb.model.moments import now_us
from engramdb.query.source import Rows

UNSAVED: Final = 0
"""The seq of a version that no commit has written yet."""

_UNSAVED_FIRST: Final = VECTOR_NUMBER_MAX + 1
"""What no commit has written yet gets vector numbers from here on: first those that carried() has
told of, from UNSAVED_VECTOR on those of the memories themselves."""

UNSAVED_VECTOR: Final = _UNSAVED_FIRST + 2**32


@dataclass(slots=True)
class UnsavedRows:
    """Visible versions as columns; see engramdb.query.source.Rows."""

    keys: KeyMatrix
    seqs: U64
    times: U64
    vectors: U64
    _payloads: list[bytes]

    def payloads(self) -> list[bytes]:
        """In the order of the keys."""
        return self._payloads

    def __len__(self) -> int:
        return len(self._payloads)


class UnsavedMemories:
    """The memories that a transaction has written; see engramdb.lsm.memory_run.MemoryRun. Their
    payloads tell what they say: they are few, and seldom asked twice before they change."""

    is_sorted = False

    def __init__(self, operations: list[Operation], numbers: list[int], time: int) -> None:
        self.rows: npt.NDArray[np.int64] = np.arange(len(operations))
        self._operations, self._numbers, self._time = operations, numbers, time

    def find(self, keys: KeyMatrix) -> npt.NDArray[np.int64]:
        """The rows of these memories, ascending."""
        wanted = set(to_list(keys))
        return np.array(
            [row for row, each in enumerate(self._operations) if each.key in wanted], np.int64
        )

    def columns(self) -> AttributeColumns:
        """Nothing but the number of rows."""
        return AttributeColumns.untold(len(self._operations))

    def _chosen(self, rows: npt.NDArray[np.int64]) -> list[Operation]:
        return [self._operations[row] for row in rows.tolist()]

    def keys(self, rows: npt.NDArray[np.int64]) -> KeyMatrix:
        """(n, 16) uint8."""
        return from_list([operation.key for operation in self._chosen(rows)])

    def seqs(self, rows: npt.NDArray[np.int64]) -> U64:
        """UNSAVED."""
        return np.full(len(rows), UNSAVED, np.uint64)

    def times(self, rows: npt.NDArray[np.int64]) -> U64:
        """When the transaction began."""
        return np.full(len(rows), self._time, np.uint64)

    def vectors(self, rows: npt.NDArray[np.int64]) -> U64:
        """From UNSAVED_VECTOR on, or NO_VECTOR."""
        return np.array(self._numbers, np.uint64)[rows]

    def payloads(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """The payloads."""
        return [operation.payload for operation in self._chosen(rows)]

    def without(self, keys: KeyMatrix) -> UnsavedMemories:
        """The same run without these memories."""
        rest = np.setdiff1d(self.rows, self.find(keys), assume_unique=True).tolist()
        operations = [self._operations[row] for row in rest]
        return UnsavedMemories(operations, [self._numbers[row] for row in rest], self._time)


class UnsavedVectors:
    """The vectors that a transaction has written, as a run that similarity search multiplies."""

    file = 0

    def __init__(self, keys: list[bytes], vectors: list[Vector]) -> None:
        self.rows = len(keys)
        self.matrix: npt.NDArray[np.float32] = np.stack(vectors)
        self.dimension = self.matrix.shape[1]
        norms = norms_of(self.matrix)
        self.inverse_norms: npt.NDArray[np.float32] = inverse(norms)
        self.extreme_rows: npt.NDArray[np.int64] = extreme(norms)
        self._keys = keys

    def product(self, query: Vector) -> npt.NDArray[np.float32]:
        """matrix @ query, (rows,) float32."""
        return self.matrix @ query

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """A copy of these vectors."""
        return self.matrix.take(rows, axis=0)

    def hidden(self, seq: int) -> None:
        """All rows are visible."""

    def are_visible(self, rows: npt.NDArray[np.int64], seq: int) -> npt.NDArray[np.bool_]:
        """All of them."""
        return np.ones(len(rows), np.bool_)

    def is_all_visible(self, seq: int) -> bool:
        """They are."""
        return True

    def visible_rows(self, seq: int) -> int:
        """All of them."""
        return self.rows

    def rows_of(self, numbers: U64) -> npt.NDArray[np.int64]:
        """The row of each of these vector numbers, or -1."""
        rows = numbers - np.uint64(UNSAVED_VECTOR)  # wraps for those that are saved
        here = rows < np.uint64(self.rows)
        return np.where(here, rows, np.uint64(0)).astype(np.int64) - ~here

    def keys(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """The 16-byte keys of these rows."""
        return [self._keys[row] for row in rows.tolist()]

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the keys of all rows."""
        return split(from_list(self._keys))


class Overlay(Batch):
    """The batch that a transaction fills, and at the same time the Source that it reads from.

    Belongs to one thread.
    """

    __slots__ = (
        "_carriers",
        "_edge_runs",
        "_incoming",
        "_outgoing",
        "_rows",
        "_snapshot",
        "_time",
    )

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._time = now_us()
        self._outgoing: dict[bytes, dict[bytes, None]] = {}  # memory: keys of written edges
        self._incoming: dict[bytes, dict[bytes, None]] = {}
        self._edge_runs: list[EdgeRun] | None = None  # as long as no edge is written
        self._carriers: dict[bytes, dict[bytes, None]] = {}  # memory: edges that carry its vectors
        self._rows: list[Vector] = []  # what was given a number here

    @property
    def seq(self) -> int:
        """The last commit that is visible."""
        return self._snapshot.seq

    # Writes: as in a batch, with the ends of edges remembered

    def put_edge(
        self, source: bytes, target: bytes, type: str, strength: float, payload: bytes
    ) -> None:
        """Write an edge."""
        super().put_edge(source, target, type, strength, payload)
        self._remember(source, target, type)

    def delete_edge(self, source: bytes, target: bytes, type: str) -> None:
        """Write an edge's tombstone."""
        super().delete_edge(source, target, type)
        self._remember(source, target, type)

    def _remember(self, source: bytes, target: bytes, type: str) -> None:
        self._edge_runs = None
        key = edge_key(source, target, type)
        if not is_connection(type):
            self._carriers.setdefault(source, {})[key] = None
            return
        self._outgoing.setdefault(source, {})[key] = None
        self._incoming.setdefault(target, {})[key] = None

    def put_all(self, written: Batch) -> None:
        """Write what a batch holds that was made from the snapshot alone: of each of its memories
        everything."""
        memories = [key for record_class, key in written.operations if record_class == MEMORY]
        for memory in memories:
            for key in self._carriers.pop(memory, ()):
                self.operations.pop((EDGE, key), None)
        self.operations.update(written.operations)
        for (record_class, key), operation in written.operations.items():
            if record_class == EDGE:
                self._carriers.setdefault(operation.owner, {})[key] = None

    # Reads

    def get(self, record_class: int, key: bytes) -> Record | Edge | None:
        """The version written here, or else the snapshot's; None for a tombstone."""
        operation = self.operations.get((record_class, key))
        if operation is None:
            return self._snapshot.get(record_class, key)
        if operation.kind == TOMBSTONE:
            return None
        return self._edge(operation) if record_class == EDGE else self._record(operation)

    def history(self, record_class: int, key: bytes) -> list[Record | Edge]:
        """The saved versions only: what is written here has no number yet."""
        return self._snapshot.history(record_class, key)

    def vector(self, number: int) -> Vector:
        """A vector of the snapshot."""
        return self._snapshot.vector(number)

    def vectors(self, numbers: Sequence[int]) -> npt.NDArray[np.float32]:
        """Vectors of one space, of the snapshot or, as carried() has numbered them, written
        here."""
        if numbers[0] < _UNSAVED_FIRST:
            return self._snapshot.vectors(numbers)
        made = np.stack([self._rows[number - _UNSAVED_FIRST] for number in numbers])
        made.flags.writeable = False
        return made

    def carried(self, memory: bytes) -> dict[str, int]:
        """The visible edges that carry vectors of a memory in named spaces: {type: number}."""
        found = self._snapshot.carried(memory)
        for key in self._carriers.get(memory, ()):
            operation = self.operations[EDGE, key]
            found.pop(operation.type, None)
            if operation.vector is not None:
                found[operation.type] = _UNSAVED_FIRST + len(self._rows)
                self._rows.append(operation.vector)
        return found

    def unsaved_vector(self, key: bytes) -> Vector | None:
        """The vector of a memory that was written here."""
        return self.operations[MEMORY, key].vector

    def scan(self, record_class: int) -> Iterator[Rows]:
        """The snapshot's records but for those written here, then these."""
        written = {key for written_class, key in self.operations if written_class == record_class}
        for rows in self._snapshot.scan(record_class):
            kept = [place for place, key in enumerate(to_list(rows.keys)) if key not in written]
            if len(kept) == len(rows):
                yield rows
            elif kept:
                payloads = rows.payloads()
                yield UnsavedRows(
                    rows.keys[kept],
                    rows.seqs[kept],
                    rows.times[kept],
                    rows.vectors[kept],
                    [payloads[place] for place in kept],
                )
        new = [record for key in written if (record := self.get(record_class, key)) is not None]
        if new:
            yield UnsavedRows(
                from_list([record.key for record in new]),
                np.full(len(new), UNSAVED, np.uint64),
                np.full(len(new), self._time, np.uint64),
                np.array([getattr(record, "vector", NO_VECTOR) for record in new], np.uint64),
                [record.payload for record in new],
            )

    def count(self, record_class: int) -> int:
        """How many records of a class are visible."""
        count = self._snapshot.count(record_class)
        for (written_class, key), operation in self.operations.items():
            if written_class == record_class:
                count += operation.kind != TOMBSTONE
                count -= self._snapshot.get(record_class, key) is not None
        return count

    def edges_from(self, source: bytes) -> list[Edge]:
        """The visible edges that leave a memory."""
        return self._adjacent(self._snapshot.edges_from(source), self._outgoing.get(source))

    def edges_to(self, target: bytes) -> list[Edge]:
        """The visible edges that reach a memory."""
        return self._adjacent(self._snapshot.edges_to(target), self._incoming.get(target))

    def edges_between(self, source: bytes, target: bytes) -> list[Edge]:
        """The visible edges from one memory to another."""
        leaving, reaching = self._outgoing.get(source, {}), self._incoming.get(target, {})
        written = {key: None for key in leaving if key in reaching}
        return self._adjacent(self._snapshot.edges_between(source, target), written)

    def edge_runs(self) -> list[EdgeRun]:
        """The snapshot's edges without those written here, and these."""
        if self._edge_runs is None:
            written = [key for record_class, key in self.operations if record_class == EDGE]
            runs = self._snapshot.edge_runs()
            if written:
                high, low = distinct(*split(from_list(written)))
                runs = [HiddenEdges(run, high, low) for run in runs]
            kept = [self.operations[EDGE, key] for key in written]
            kept = [operation for operation in kept if operation.kind != TOMBSTONE]
            if kept:
                ends = [(each.source, each.target, each.type, each.strength) for each in kept]
                runs.append(ListedEdges(EdgeColumns.of(ends), [each.key for each in kept]))
            self._edge_runs = runs
        return self._edge_runs

    def _adjacent(self, saved: list[Edge], written: dict[bytes, None] | None) -> list[Edge]:
        if not written:
            return saved
        edges = [edge for edge in saved if edge.key not in written]
        operations = [self.operations[EDGE, key] for key in written]
        return edges + [self._edge(each) for each in operations if each.kind != TOMBSTONE]

    def memory_runs(self) -> list[MemoryRun]:
        """The snapshot's without the memories written here, then these."""
        written = self._written_memories()
        runs = self._snapshot.memory_runs()
        if not written:
            return runs
        keys = from_list([each.key for each in written])
        runs = [run for run in (run.without(keys) for run in runs) if len(run.rows)]
        new = [each for each in written if each.kind != TOMBSTONE]
        with_vectors = self._with_vectors(DEFAULT_SPACE)
        numbers = {each.key: UNSAVED_VECTOR + n for n, each in enumerate(with_vectors)}
        if new:
            own = [numbers.get(each.key, NO_VECTOR) for each in new]
            runs.append(UnsavedMemories(new, own, self._time))
        return runs

    def said(self) -> Iterator[AttributeColumns | list[bytes]]:
        """What all memories say, visible or not; see Snapshot.said()."""
        yield from self._snapshot.said()
        yield [each.payload for each in self._written_memories()]

    def vector_runs(self, space: str = DEFAULT_SPACE) -> list[VectorRun]:
        """The snapshot's without those that were written over here, then these."""
        runs = self._snapshot.vector_runs(space)
        replaced = self._replaced(space)
        if replaced:
            runs = without(runs, np.array(replaced, np.uint64))
        new = self._with_vectors(space)
        if new:
            vectors = [cast(Vector, each.vector) for each in new]
            runs.append(UnsavedVectors([each.owner for each in new], vectors))
        return runs

    def vector_of(self, record: Record) -> Vector:
        """The vector of a record that has one."""
        if record.seq != UNSAVED:
            return self._snapshot.vector(record.vector)
        return cast(Vector, self.unsaved_vector(record.key))

    def _written_memories(self) -> list[Operation]:
        """What is written here of memories, deletions included."""
        return [each for each in self.operations.values() if each.record_class == MEMORY]

    def _with_vectors(self, space: str) -> list[Operation]:
        """What is written here that has a vector in a space."""
        return [
            each
            for each in self.operations.values()
            if each.vector is not None and each.space == space
        ]

    def _replaced(self, space: str) -> list[int]:
        """The numbers of the snapshot's vectors in a space that were written over here."""
        if space == DEFAULT_SPACE:
            saved = [self._snapshot.get(MEMORY, each.key) for each in self._written_memories()]
        else:
            saved = [
                self._snapshot.get(EDGE, key)
                for keys in self._carriers.values()
                for key in keys
                if self.operations[EDGE, key].space == space
            ]
        return [each.vector for each in saved if each is not None and each.vector != NO_VECTOR]

    def _record(self, operation: Operation) -> Record:
        number = NO_VECTOR if operation.vector is None else UNSAVED_VECTOR
        return Record(
            operation.key, UNSAVED, self._time, operation.kind, operation.payload, number, NEVER
        )

    def _edge(self, operation: Operation) -> Edge:
        return Edge(
            operation.key,
            UNSAVED,
            self._time,
            operation.kind,
            operation.payload,
            operation.source,
            operation.target,
            operation.type,
            operation.strength,
            NEVER,
        )
