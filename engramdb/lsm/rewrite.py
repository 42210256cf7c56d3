"""What flush, compaction, bulk load and purge share: sort, retain, write, carry marks over.

A rewrite is a pure function of its input rows and the policy. What was superseded after the
manifest's last seq stays current in the new file, because what superseded it may still be lost with
the log; it is carried over as marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from engramdb.errors import ClosedError
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.container import rows_per_part
from engramdb.lsm.core import Core
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.manifest import SegmentEntry, VectorEntry
from engramdb.lsm.marks import Marks
from engramdb.lsm.payloads import BLOCK_ROWS, Payloads
from engramdb.lsm.records import CLASSES, META, NEVER, NO_VECTOR, TOMBSTONE
from engramdb.lsm.retention import KeepFor, Mask, current_tombstones, droppable
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.segment import Segment
from engramdb.lsm.segment_writer import write_segment
from engramdb.lsm.vector_file import Matrix, VectorColumns, VectorFile, write_vector_file

PIECE_BLOCKS_MAX: Final = 64  # of payloads gathered at once: short enough for the foreground
PIECE_BYTES: Final = 8 * 2**20  # and about so many bytes of them: memory does not grow with them
_SPLIT_SHARE: Final = 0.25  # of dead rows, from which on they get a file of their own

Take = Callable[[Rows], Matrix]


@dataclass(slots=True)
class Kept:
    """What a rewrite keeps: `order` picks the kept input rows, sorted; `floor` is the new history
    floor, 0 if nothing was dropped that a past moment could see."""

    rows: RowColumns
    order: Rows
    floor: int


def retain(
    core: Core,
    rows: RowColumns,
    *,
    durable_seq: int,
    has_oldest: bool,
    also_drop: Callable[[RowColumns], Mask] | None = None,
) -> Kept:
    """Sort the rows and drop what the policy lets go. `has_oldest`: no older version of these keys
    can lie in any other run, so that a tombstone without anything below it may go too."""
    superseded = rows.superseded
    late = (superseded > np.uint64(durable_seq)) & (superseded != np.uint64(NEVER))
    if bool(late.any()):
        rows.superseded = np.where(late, np.uint64(NEVER), superseded)
    order = rows.order()
    rows = rows.take(order)
    policy = core.manifest.policy()
    window_seq = 0
    if isinstance(policy, KeepFor):
        microseconds = round(policy.duration.total_seconds() * 1e6)
        window_seq = core.snapshot().seq_at(core.environment.now() - microseconds)
    pins = np.array(sorted(seq for seq, _ in core.manifest.pins.values()), np.uint64)
    gone = droppable(rows, policy, pins, durable_seq, window_seq)
    visible_gone = gone & (rows.record_class != META)
    floor = int(rows.superseded[visible_gone].max()) if bool(visible_gone.any()) else 0
    if also_drop is not None:
        gone |= also_drop(rows)
    if has_oldest and len(rows):
        starts = np.flatnonzero(rows.key_starts())
        kept_below = np.add.reduceat((~gone).astype(np.int64), starts) - 1
        lonely = np.zeros(len(rows), np.bool_)
        lonely[starts] = kept_below == 0
        gone |= lonely & current_tombstones(rows, durable_seq)
    kept = np.flatnonzero(~gone)
    return Kept(rows.take(kept), order[kept], floor)


def inverse_order(order: Rows, count: int) -> Rows:
    """For each of `count` input rows its output row, or -1."""
    positions = np.full(count, -1, np.int64)
    positions[order] = np.arange(len(order))
    return positions


def pieces(rows: int, payload_bytes: int = 0) -> Iterator[tuple[int, int]]:
    """[start, stop) of the pieces in which payloads are gathered, which take so many bytes in
    all."""
    in_block = BLOCK_ROWS * payload_bytes // max(1, rows)
    step = BLOCK_ROWS * max(1, min(PIECE_BLOCKS_MAX, PIECE_BYTES // max(1, in_block)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def write_rows(
    core: Core,
    rows: RowColumns,
    payloads: Iterable[Payloads],
    attributes: AttributeColumns | None = None,
) -> SegmentEntry | None:
    """Write a segment under tmp/, with what its memories say. None if there are no rows."""
    if not len(rows):
        return None
    number = core.new_number()
    size, fingerprint = write_segment(
        core.environment,
        core.temporary("seg", number),
        core.database,
        number,
        rows,
        payloads,
        attributes,
    )
    current = (rows.superseded == np.uint64(NEVER)) & (rows.kind != TOMBSTONE)
    live = [int(np.count_nonzero(current & (rows.record_class == c))) for c in CLASSES]
    return SegmentEntry(
        number=number,
        origin=core.manifest.database,
        size=size,
        fingerprint=fingerprint.hex(),
        rows=len(rows),
        seq_min=int(rows.seq.min()),
        seq_max=int(rows.seq.max()),
        time_min=int(rows.time.min()),
        time_max=int(rows.time.max()),
        live=(live[0], live[1], live[2]),
    )


@dataclass(slots=True)
class WrittenVectors:
    """A vector file under tmp/ and the input row of each of its rows."""

    entry: VectorEntry
    order: Rows


def write_vectors(
    core: Core, columns: VectorColumns, dimension: int, take: Take, keep: Mask, space: int = 0
) -> list[WrittenVectors]:
    """Write the kept vectors of one space (its number), sorted by their numbers: current ones and,
    if they are many, past ones in a file of their own, which a search of now never touches. If
    `take` raises ClosedError what was written is removed."""
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(columns.number[kept], kind="stable")]
    current = columns.dead[kept] == np.uint64(NEVER)
    past_count = int(np.count_nonzero(~current))
    groups = [kept]
    if _SPLIT_SHARE * len(kept) < past_count < len(kept):
        groups = [kept[current], kept[~current]]
    groups = [group for group in groups if len(group)]
    numbers = [core.new_number() for _ in groups]
    try:
        return [
            _write_group(core, columns, dimension, take, group, space, number)
            for group, number in zip(groups, numbers, strict=True)
        ]
    except ClosedError:
        for number in numbers:
            with suppress(OSError):  # else the next opening removes it
                core.environment.unlink(core.temporary("vec", number))
        raise


def _write_group(
    core: Core,
    columns: VectorColumns,
    dimension: int,
    take: Take,
    order: Rows,
    space: int,
    number: int,
) -> WrittenVectors:
    chosen = columns.take(order)
    step = rows_per_part(dimension)
    parts = (take(order[start : start + step]) for start in range(0, len(order), step))
    size, fingerprint = write_vector_file(
        core.environment,
        core.temporary("vec", number),
        core.database,
        number,
        chosen,
        dimension,
        parts,
    )
    entry = VectorEntry(
        number=number,
        origin=core.manifest.database,
        size=size,
        fingerprint=fingerprint.hex(),
        rows=len(order),
        dimension=dimension,
        space=space,
        number_min=int(chosen.number[0]),
        number_max=int(chosen.number[-1]),
    )
    return WrittenVectors(entry, order)


def open_segment(core: Core, entry: SegmentEntry) -> Segment:
    """Move a written segment into place and open it. Under the manifest lock."""
    core.place("seg", entry.number)
    path = core.path("seg", entry.number)
    return Segment(
        core.environment, path, entry, core.cache, Marks(), columns_of=core.options.columns_of
    )


def open_vectors(core: Core, entry: VectorEntry) -> VectorFile:
    """Move a written vector file into place and open it. Under the manifest lock."""
    core.place("vec", entry.number)
    space = list(core.spaces)[entry.space]
    path = core.path("vec", entry.number)
    return VectorFile(core.environment, path, entry, Marks(), space=space)


class Carrier:
    """Carries the marks of input files or tables over to output files, as rows move."""

    def __init__(self) -> None:
        self._sources: list[tuple[Marks, list[tuple[Marks, Rows]]]] = []

    def add(self, source: Marks, targets: list[tuple[Marks, Rows]]) -> None:
        """`targets`: marks of an output, and for each row of the source its row there, or -1."""
        self._sources.append((source, targets))

    def carry(self, above_seq: int, until_seq: int) -> None:
        """Carry the marks with above_seq < seq <= until_seq."""
        moved: dict[int, tuple[Marks, list[Rows], list[U64]]] = {}
        for source, targets in self._sources:
            first, last = source.count_until(above_seq), source.count_until(until_seq)
            if first == last:
                continue
            rows, seqs = source.arrays(first, last)
            for target, positions in targets:
                at = positions[rows]
                here = at >= 0
                if bool(here.any()):
                    _, all_rows, all_seqs = moved.setdefault(id(target), (target, [], []))
                    all_rows.append(at[here])
                    all_seqs.append(seqs[here])
        for target, all_rows, all_seqs in moved.values():
            joined, stamps = np.concatenate(all_rows), np.concatenate(all_seqs)
            order = np.argsort(stamps, kind="stable")
            target.extend(joined[order], stamps[order])


def referenced(numbers: U64, uses: Sequence[U64]) -> Mask:
    """Which of these ascending vector numbers occur in any of the columns."""
    mask = np.zeros(len(numbers), np.bool_)
    if not len(numbers):
        return mask
    for column in uses:
        wanted = column[column != np.uint64(NO_VECTOR)]
        at = np.searchsorted(numbers, wanted)
        inside = np.minimum(at, len(numbers) - 1)
        mask[inside[numbers[inside] == wanted]] = True
    return mask
