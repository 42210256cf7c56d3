"""Erasure: every version of a memory, and of every connection of it, leaves every file.

Different from delete, which is one more version. All affected files are rewritten and one manifest
swaps them, so a crash leaves all or nothing; a file is never changed in place, because forks share
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np

from engramdb.errors import EngramError
from engramdb.lsm.compaction import gather, gather_attributes
from engramdb.lsm.core import DIRECTORIES, Core
from engramdb.lsm.flush import flush_table
from engramdb.lsm.keys import U64, Rows, from_list, split
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.records import EDGE, MEMORY, NEVER
from engramdb.lsm.retention import Mask
from engramdb.lsm.rewrite import (
    Carrier,
    Kept,
    WrittenVectors,
    inverse_order,
    open_segment,
    open_vectors,
    retain,
    write_rows,
    write_vectors,
)
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import Matrix, VectorFile


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What an erasure did: versions, connection versions and vectors that are gone, files
    rewritten.

    `copies` are the forks and checkpoints that were made of this database and may still hold the
    data: those that exist where they were made. One that was moved is not known any more, and what
    was made of a copy is known to that copy alone. If a repair has put anything into `lost/`, that
    directory is among them too. `readers` are the process ids that may still have old files mapped.
    """

    versions: int
    connection_versions: int
    vectors: int
    files_rewritten: int
    copies: tuple[str, ...]
    readers: tuple[int, ...]


class _Targets:
    """The memories to erase, as sorted columns."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = set(keys)
        self._sorted = sorted(self.keys)

    def among(self, high: U64, low: U64) -> Mask:
        """Which of these keys are to be erased."""
        found = np.zeros(len(high), np.bool_)
        wanted_high, wanted_low = split(from_list(self._sorted))
        candidates = np.flatnonzero(np.isin(high, wanted_high))
        if len(candidates):
            pairs = set(zip(wanted_high.tolist(), wanted_low.tolist(), strict=True))
            found[candidates] = [
                pair in pairs
                for pair in zip(high[candidates].tolist(), low[candidates].tolist(), strict=True)
            ]
        return found

    def rows(self, columns: RowColumns) -> Mask:
        """Which versions are to be erased: memories and all their edges."""
        gone: Mask = (columns.record_class == MEMORY) & self.among(columns.high, columns.low)
        edges = columns.edges
        if len(edges):
            at = np.flatnonzero(columns.record_class == EDGE)
            gone[at] |= self.among(edges.source_high, edges.source_low)
            gone[at] |= self.among(edges.target_high, edges.target_low)
        return gone


def purge(core: Core, keys: list[bytes]) -> PurgeReport:
    """Erase these memories. Raises StoragePoisonedError.

    Writers wait until it is done: a commit in between could share a vector that is being erased, or
    put what was to be erased back into a log.
    """
    core.check_writable()
    with core.compaction_lock, core.flush_lock, core.manifest_lock, core.write_lock:
        core.check_writable()  # it may have been closed meanwhile
        try:
            core.freeze()
            while frozen := core.state.version.frozen:
                flush_table(core, frozen[0], nullcontext(), nullcontext())
            return _purge(core, _Targets(keys))
        except (OSError, EngramError) as error:
            raise core.fail(error) from error


def _purge(core: Core, targets: _Targets) -> PurgeReport:
    flushed_seq = core.manifest.last_seq
    version = core.state.version
    swaps: list[tuple[Segment, Kept, SegmentEntry | None]] = []
    versions = edge_versions = 0
    for position, segment in enumerate(version.segments):
        columns = segment.columns()
        gone = targets.rows(columns)
        if not bool(gone.any()):
            continue
        versions += int(np.count_nonzero(gone & (columns.record_class == MEMORY)))
        carries = np.array([name is not None for name in columns.spaces()], np.bool_)
        edge_versions += int(np.count_nonzero(gone & ~carries))
        kept = retain(
            core,
            columns,
            durable_seq=flushed_seq,
            has_oldest=position == 0,
            also_drop=targets.rows,
        )
        bases = np.array([0, segment.rows])
        attributes = gather_attributes(core, [segment], bases, kept)
        payloads = gather([segment], bases, kept.order)
        swaps.append((segment, kept, write_rows(core, kept.rows, payloads, attributes)))
    vector_swaps: list[tuple[VectorFile, list[WrittenVectors]]] = []
    vectors = 0
    for file in version.vectors:
        columns_ = file.columns()
        doomed = targets.among(columns_.high, columns_.low)
        if not bool(doomed.any()):
            continue

        def take(rows: Rows, matrix: Matrix = file.matrix) -> Matrix:
            return matrix[rows]

        vectors += int(np.count_nonzero(doomed))
        late = (columns_.dead > np.uint64(flushed_seq)) & (columns_.dead != np.uint64(NEVER))
        columns_.dead = np.where(late, np.uint64(NEVER), columns_.dead)
        written = write_vectors(core, columns_, file.dimension, take, ~doomed, file.entry.space)
        vector_swaps.append((file, written))
    if swaps or vector_swaps:
        _swap(core, swaps, vector_swaps, flushed_seq)
    _make_removals_durable(core)
    return PurgeReport(
        versions=versions,
        connection_versions=edge_versions,
        vectors=vectors,
        files_rewritten=len(swaps) + len(vector_swaps),
        copies=_copies(core),
        readers=reader_processes(core),
    )


def _swap(
    core: Core,
    swaps: Sequence[tuple[Segment, Kept, SegmentEntry | None]],
    vector_swaps: Sequence[tuple[VectorFile, list[WrittenVectors]]],
    flushed_seq: int,
) -> None:
    carrier = Carrier()
    segments = list(core.state.version.segments)
    floor = core.manifest.history_floor
    for segment, kept, entry in swaps:
        at = segments.index(segment)
        floor = max(floor, kept.floor)
        if entry is None:
            del segments[at]
            continue
        output = open_segment(core, entry)
        carrier.add(segment.marks, [(output.marks, inverse_order(kept.order, segment.rows))])
        segments[at] = output
    files = list(core.state.version.vectors)
    for file, written in vector_swaps:
        outputs = [open_vectors(core, part.entry) for part in written]
        inverses = [inverse_order(part.order, file.rows) for part in written]
        carrier.add(
            file.marks,
            [(o.marks, inverse) for o, inverse in zip(outputs, inverses, strict=True)],
        )
        at = files.index(file)
        files[at : at + 1] = outputs
    carrier.carry(flushed_seq, core.last_seq)
    core.publish(
        tuple(segments),
        tuple(files),
        seq=core.manifest.last_seq,
        time=core.manifest.last_time,
        log_floor=core.manifest.log_floor,
        history_floor=floor,
    )
    state = core.state
    version = state.version._replace(segments=tuple(segments), vectors=tuple(files))
    core.state = state._replace(version=version, floor=floor)


def _make_removals_durable(core: Core) -> None:
    """An erasure is done when a power cut cannot bring the old names back: neither those of the
    files that it has replaced, nor those of a flush or a merge before, which had nothing left to
    erase but what they had removed."""
    core.remove_obsolete()
    for name in DIRECTORIES:
        core.environment.sync_directory(f"{core.directory}/{name}")


def _copies(core: Core) -> tuple[str, ...]:
    """Where else the data may still be: copies under the names that they were made with, and what a
    repair has put aside."""
    environment = core.environment
    found = [path for path in core.manifest.copies if environment.exists(path)]
    lost = f"{core.directory}/lost"
    if environment.exists(lost) and environment.list(lost):
        found.append(lost)
    return tuple(found)


def reader_processes(core: Core) -> tuple[int, ...]:
    """The processes that have this database open read-only."""
    environment, directory = core.environment, f"{core.directory}/readers"
    if not environment.exists(directory):
        return ()
    found = []
    for name in environment.list(directory):
        if not name.isascii() or not name.partition("-")[0].isdigit():
            continue  # none of ours
        path = f"{directory}/{name}"
        if environment.lock_is_held(path):
            found.append(int(name.split("-")[0]))
        else:
            with suppress(FileNotFoundError):  # it has just been closed
                environment.unlink(path)  # of a reader that was killed
    return tuple(sorted(set(found)))
