"""What every read stands on: the database as of one commit.

The engine's Snapshot is one Source; a transaction's Overlay, which lays unsaved writes over a
Snapshot, is the other. A Reader is who answers from them: the database, a past moment of it, a
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from engramdb.errors import CorruptionError
from engramdb.index.direction import Floats64 as Floats
from engramdb.index.metric import Metric
from engramdb.index.top import Hit, Part
from engramdb.indexing.indexer import Indexer
from engramdb.lsm.adjacency import EdgeRun
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.keys import U64, KeyMatrix
from engramdb.lsm.memory_run import MemoryRun
from engramdb.lsm.records import DEFAULT_SPACE, MEMORY, Edge, Record, Vector
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.vector_run import VectorRun
from engramdb.model.memory_node import MemoryNode
from engramdb.query.moment import Moment

if TYPE_CHECKING:
    from engramdb.lsm import StorageEngine


class Rows(Protocol):
    """Visible versions as columns, one entry per record."""

    @property
    def keys(self) -> KeyMatrix:
        """(n, 16) uint8."""

    @property
    def seqs(self) -> U64:
        """The commit that wrote each."""

    @property
    def times(self) -> U64:
        """The time of that commit, in microseconds since the epoch."""

    @property
    def vectors(self) -> U64:
        """Vector numbers, NO_VECTOR where there is none."""

    def payloads(self) -> list[bytes]:
        """The payloads, in the order of the keys."""

    def __len__(self) -> int:
        """How many records these are."""


class Source(Protocol):
    """See engramdb.lsm.snapshot.Snapshot for what each method promises."""

    @property
    def seq(self) -> int:
        """The last commit that is visible."""

    def get(self, record_class: int, key: bytes) -> Record | Edge | None:
        """The visible version, or None if there is none or it is a tombstone."""

    def history(self, record_class: int, key: bytes) -> list[Record | Edge]:
        """The versions up to this moment, oldest first, tombstones included."""

    def vector(self, number: int) -> Vector:
        """A read-only vector by its number."""

    def scan(self, record_class: int) -> Iterator[Rows]:
        """All visible records in batches, in no order overall."""

    def count(self, record_class: int) -> int:
        """How many records of a class are visible."""

    def edges_from(self, source: bytes) -> Sequence[Edge]:
        """The visible edges that leave a memory."""

    def edges_to(self, target: bytes) -> Sequence[Edge]:
        """The visible edges that reach a memory."""

    def memory_runs(self) -> list[MemoryRun]:
        """The visible memories run by run, as columns."""

    def edges_between(self, source: bytes, target: bytes) -> Sequence[Edge]:
        """The visible edges from one memory to another."""

    def edge_runs(self) -> Sequence[EdgeRun]:
        """The edges that a traversal follows."""

    def said(self) -> Iterator[AttributeColumns | list[bytes]]:
        """What all memories say, visible or not."""

    def vectors(self, numbers: Sequence[int]) -> Vector:
        """Vectors of one space by their numbers: (n, dimension) float32, read-only."""

    def carried(self, memory: bytes) -> dict[str, int]:
        """The edges that carry vectors of a memory in named spaces: {type: vector number}."""

    def vector_runs(self, space: str = DEFAULT_SPACE) -> list[VectorRun]:
        """The vectors that a similarity search in a space multiplies."""

    def vector_of(self, record: Record) -> Vector:
        """The vector of a record that has one."""


class Reader(Protocol):
    """What a query needs of who answers it. See engramdb.reading.Reading."""

    @property
    def _engine(self) -> StorageEngine: ...

    @property
    def _dimension(self) -> int | None: ...

    @property
    def _indexer(self) -> Indexer | None:
        """What has codes of the vector files."""

    def _source(self) -> Source:
        """What is seen from here."""

    def _width_of(self, space: object) -> int:
        """The length of the vectors of a named space."""

    def _past(self, as_of: Moment) -> Snapshot:
        """What an earlier moment saw."""

    def _now_us(self) -> int:
        """The moment it is seen from, in microseconds since the epoch."""

    def _loaded(self, key: bytes) -> None:
        """A memory is handed to the caller."""

    def _accessed(self, keys: list[bytes]) -> None:
        """These memories, as they are now, are handed to the caller."""

    def _node(self, source: Source, record: Record) -> MemoryNode:
        """The memory of a record."""

    def _activation(self, keys: KeyMatrix, now_us: int, decay: float) -> Floats:
        """Base-level activation of these memories at a moment, by their access history."""

    def _nearest_among(
        self,
        parts: Sequence[Part],
        query: Vector,
        limit: int,
        threshold: float,
        metric: Metric,
        exact: bool,
    ) -> list[Hit]:
        """The best of these rows of the default space; unless it has to be exact, by codes."""

    def _has_unsaved(self) -> bool:
        """Whether it may see what no commit has written yet."""


def found_memory(source: Source, key: bytes) -> Record:
    """The memory of a key that a search or a scan has named. Raises CorruptionError if it is not
    there: a vector file and the segments contradict each other."""
    record = source.get(MEMORY, key)
    if record is None:
        raise CorruptionError("vec", 0, f"a memory {key.hex()}, as a vector file says", "none")
    return cast(Record, record)
