"""Large batches go around the log: their files are written once, and one manifest commits them.

(External file ingestion, as RocksDB calls it.) The seq is given last, so the files do not hold it:
the manifest does. Everything committed before is flushed first, because the manifest says
"everything up to this seq is in my files".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from engramdb.errors import ClosedError, EngramError, InvalidInputError
from engramdb.lsm.attribute_columns import AttributeColumns, ColumnsOf
from engramdb.lsm.core import Core
from engramdb.lsm.flush import flush_table
from engramdb.lsm.keys import KeyMatrix, Rows, split, to_list
from engramdb.lsm.limits import PAYLOAD_BYTES_MAX
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import MEMORY, NEVER, NO_VECTOR, PUT, Batch, Commit, GuardFailed
from engramdb.lsm.rewrite import (
    WrittenVectors,
    open_segment,
    open_vectors,
    pieces,
    write_rows,
    write_vectors,
)
from engramdb.lsm.rows import EdgeColumns, RowColumns
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.spaces import check_dimension
from engramdb.lsm.supersede import Superseder
from engramdb.lsm.vector_file import Matrix, VectorColumns, norms_of
from engramdb.lsm.version import State


@dataclass(slots=True)
class ColumnBatch:
    """Memories as columns: keys (n, 16) uint8, all different; n payloads; vectors (n, d) float32
    C-contiguous and finite, or None. `told`: makes attribute columns of the same rows from what the
    payloads were made of, or None; without it, or if it cannot, they are made of the payloads."""

    keys: KeyMatrix
    payloads: list[bytes]
    vectors: npt.NDArray[np.float32] | None
    told: Callable[[], AttributeColumns | None] | None = None
    guards: list[Callable[[Snapshot], bool]] = field(default_factory=list)
    """As those of a Batch."""

    def nbytes(self) -> int:
        """About what it takes in a memtable."""
        vectors = 0 if self.vectors is None else self.vectors.nbytes
        return vectors + sum(map(len, self.payloads)) + 100 * len(self.payloads)

    def as_batch(self) -> Batch:
        """The same as single operations."""
        batch = Batch(guards=list(self.guards))
        vectors = [None] * len(self.payloads) if self.vectors is None else self.vectors
        for key, payload, vector in zip(to_list(self.keys), self.payloads, vectors, strict=True):
            batch.put(key, payload, vector)
        return batch


def check_columns(batch: ColumnBatch, dimension: int | None) -> Rows:
    """The order that sorts the keys. Raises InvalidInputError."""
    count = len(batch.payloads)
    if not count or batch.keys.shape != (count, 16):
        raise InvalidInputError("keys", f"{count} payloads need keys of shape ({count}, 16)")
    if batch.vectors is not None:
        if batch.vectors.ndim != 2 or len(batch.vectors) != count:
            raise InvalidInputError(
                "embeddings", f"shape {batch.vectors.shape} for {count} memories"
            )
        check_dimension(batch.vectors.shape[1], dimension)
    longest = max(map(len, batch.payloads))
    if longest > PAYLOAD_BYTES_MAX:
        raise InvalidInputError(
            "attributes", f"{longest:,} bytes encoded, at most {PAYLOAD_BYTES_MAX:,}"
        )
    high, low = split(batch.keys)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    if bool(((high[1:] == high[:-1]) & (low[1:] == low[:-1])).any()):
        raise InvalidInputError("ids", "the same id occurs twice in one batch")
    return order


def ingest(core: Core, batch: ColumnBatch, order: Rows) -> Commit:
    """Commit a checked batch, synced."""
    with core.bulk_lock:
        core.check_may_begin()
        return _ingest(core, batch, order)


def _ingest(core: Core, batch: ColumnBatch, order: Rows) -> Commit:
    count = len(order)
    is_sorted = bool((order == np.arange(count)).all())
    high, low = split(batch.keys if is_sorted else batch.keys[order])
    with core.write_lock:
        # a gap in the numbers, if this fails, does no harm; the same number twice would
        first = core.next_vector
        core.next_vector += count
    zeros = np.zeros(count, np.uint64)
    numbers = np.full(count, NO_VECTOR, np.uint64)
    if batch.vectors is not None:
        numbers = np.arange(first, first + count, dtype=np.uint64)
    rows = RowColumns(
        np.full(count, MEMORY, np.uint8),
        high,
        low,
        zeros,
        zeros,
        np.full(count, PUT, np.uint8),
        numbers,
        np.full(count, NEVER, np.uint64),
        EdgeColumns.empty(),
    )

    def write_matrix() -> list[WrittenVectors]:
        if batch.vectors is None:
            return []
        return _write_vectors(core, batch.vectors, rows, None if is_sorted else order)

    columns_of = core.options.columns_of
    try:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write_matrix) if core.options.background else None
            payloads = batch.payloads
            if not is_sorted:
                payloads = [payloads[row] for row in order.tolist()]
            entry = write_rows(
                core,
                rows,
                (Payloads.from_list(payloads[start:stop]) for start, stop in pieces(count)),
                None if columns_of is None else _attributes(batch, order, columns_of),
            )
            vectors = write_matrix() if writing is None else writing.result()
        assert entry is not None
        with core.flush_lock:
            return _commit(core, rows, entry, vectors, batch.guards)
    except (OSError, EngramError) as error:
        if isinstance(error, InvalidInputError | ClosedError):
            raise
        raise core.fail(error) from error


def _attributes(batch: ColumnBatch, order: Rows, columns_of: ColumnsOf) -> AttributeColumns:
    """What the memories say, in this order. The matrix is written meanwhile."""
    told = batch.told() if batch.told is not None else None
    made = columns_of(batch.payloads) if told is None else told
    return made if bool((order == np.arange(len(order))).all()) else made.take(order)


def _write_vectors(
    core: Core, matrix: Matrix, rows: RowColumns, order: Rows | None
) -> list[WrittenVectors]:
    count = len(matrix)
    columns = VectorColumns(
        rows.vector,
        rows.high,
        rows.low,
        rows.seq,
        rows.superseded,
        norms_of(matrix) if order is None else norms_of(matrix)[order],
    )

    def take(wanted: Rows) -> Matrix:
        if order is None:
            return matrix[wanted[0] : wanted[-1] + 1]  # a view: nothing is copied
        return matrix[order[wanted]]

    return write_vectors(core, columns, matrix.shape[1], take, np.ones(count, np.bool_))


def _commit(
    core: Core,
    rows: RowColumns,
    entry: SegmentEntry,
    vectors: list[WrittenVectors],
    guards: Sequence[Callable[[Snapshot], bool]],
) -> Commit:
    for _ in range(2):  # the second time little can be left
        with core.write_lock:
            core.check_writable()
            core.freeze()
        while frozen := core.state.version.frozen:
            flush_table(core, frozen[0], core.manifest_lock, core.write_lock)
    with core.manifest_lock, core.write_lock:
        core.check_writable()
        dimensions = {written.entry.dimension for written in vectors}
        if dimensions and core.space is not None and dimensions != {core.space}:
            # another commit was the first to have a dimension
            _discard(core, entry, vectors)
            raise InvalidInputError(
                "embeddings", f"dimension {dimensions.pop()}, this database has {core.space}"
            )
        if not all(guard(core.sequenced()) for guard in guards):
            _discard(core, entry, vectors)
            raise GuardFailed
        core.freeze()
        while frozen := core.state.version.frozen:
            flush_table(core, frozen[0], nullcontext(), nullcontext())
        core.space = dimensions.pop() if dimensions else core.space
        seq = core.last_seq + 1
        time = core.next_time()
        entry = msgspec.structs.replace(
            entry,
            commit_seq=seq,
            commit_time=time,
            seq_min=seq,
            seq_max=seq,
            time_min=time,
            time_max=time,
        )
        version = core.state.version
        segment = open_segment(core, entry)
        files = tuple(
            open_vectors(
                core, msgspec.structs.replace(part.entry, commit_seq=seq, commit_time=time)
            )
            for part in vectors
        )
        superseder = Superseder(version)
        seqs = np.full(len(rows), seq, np.uint64)
        keys = to_list(segment.keys(np.arange(len(rows))))
        superseder.supersede((), MEMORY, rows.high, rows.low, keys, seqs, rows.vector)
        version = version._replace(
            segments=(*version.segments, segment), vectors=(*version.vectors, *files)
        )
        try:
            superseder.apply()
            core.publish(
                version.segments,
                version.vectors,
                seq=seq,
                time=time,
                log_floor=core.manifest.log_floor,
            )
            core.last_seq, core.last_time = seq, time
            core.state = State(version, seq, time, core.state.floor)
        except BaseException as error:
            # also if it is interrupted: no other commit may get this seq
            core.poison = core.poison or error
            raise
        core.remove_obsolete()
        core.wake()
        return Commit(seq, time)


def _discard(core: Core, entry: SegmentEntry, vectors: list[WrittenVectors]) -> None:
    """Remove the files of a batch that is not committed."""
    core.environment.unlink(core.temporary("seg", entry.number))
    for written in vectors:
        core.environment.unlink(core.temporary("vec", written.entry.number))
