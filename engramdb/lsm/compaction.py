"""Merges runs, and rewrites vector files, under the retention policy.

Kernel: concatenate the columns, lexsort, mask, gather. Vectors are not moved with their records:
they have files of their own, which are rewritten when most of them are dead or nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from engramdb.errors import ClosedError, EngramError
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.core import Core
from engramdb.lsm.keys import Rows
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.planner import by_space, plan_all_vectors, plan_segments, plan_vectors
from engramdb.lsm.records import MEMORY, NEVER
from engramdb.lsm.retention import KeepAll
from engramdb.lsm.rewrite import (
    Carrier,
    Kept,
    inverse_order,
    open_segment,
    open_vectors,
    pieces,
    referenced,
    retain,
    write_rows,
    write_vectors,
)
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import Matrix, VectorColumns, VectorFile


def compact_once(core: Core) -> bool:
    """Do the most useful merge, if there is one. Poisons on failure."""
    with core.compaction_lock:
        version = core.state.version
        stretch = plan_segments(
            version.segments,
            core.options.fan_in,
            core.manifest.policy(),
            core.manifest.last_seq,
        )
        if stretch is not None:
            merge_segments(core, version.segments[slice(*stretch)])
            return True
        files = _vectors_to_merge(core)
        if files:
            merge_vectors(core, files)
        return bool(files)


def _vectors_to_merge(core: Core) -> list[VectorFile]:
    """The vector files to rewrite next, all of one space; none if there is nothing to do."""
    for files in by_space(core.state.version.vectors):
        planned = plan_vectors(files, core.options.fan_in, core.manifest.last_seq)
        if planned:
            return planned
    return []


def compact_all(core: Core) -> None:
    """One run, the policy applied to all of it, one file of the vectors of now in each space as far
    as VECTOR_BYTES_MAX allows, and no vectors kept that nobody refers to."""
    with core.compaction_lock:
        core.check_may_begin()
        segments = core.state.version.segments
        keeps_all = isinstance(core.manifest.policy(), KeepAll)
        if len(segments) > 1 or (segments and not keeps_all):
            merge_segments(core, segments)
        for files in by_space(core.state.version.vectors):
            for group in plan_all_vectors(files, core.manifest.last_seq):
                merge_vectors(core, group)
        while files := _vectors_to_merge(core):
            merge_vectors(core, files)


def merge_segments(core: Core, inputs: Sequence[Segment]) -> None:
    """Merge neighbouring segments into one. Under the compaction lock."""
    try:
        _merge_segments(core, inputs)
    except (OSError, EngramError) as error:
        raise core.fail(error) from error


def merge_vectors(core: Core, inputs: Sequence[VectorFile]) -> None:
    """Rewrite vector files of one space. Under the compaction lock. Raises ClosedError, with
    nothing done, if the database is being closed meanwhile."""
    try:
        _merge_vectors(core, inputs)
    except ClosedError:
        raise  # no failure
    except (OSError, EngramError) as error:
        raise core.fail(error) from error


def _merge_segments(core: Core, inputs: Sequence[Segment]) -> None:
    flushed_seq = core.manifest.last_seq
    columns = RowColumns.concatenate([segment.columns() for segment in inputs])
    total = len(columns)
    kept = retain(
        core,
        columns,
        durable_seq=flushed_seq,
        has_oldest=inputs[0] is core.state.version.segments[0],
    )
    del columns
    bases = np.cumsum([0, *(segment.rows for segment in inputs)])
    attributes = gather_attributes(core, inputs, bases, kept)
    entry = write_rows(core, kept.rows, gather(inputs, bases, kept.order), attributes)
    with core.manifest_lock:
        swap_segments(core, inputs, kept, entry, flushed_seq, total, bases)
        if len(kept.rows) < total:
            sweep(core)
        core.remove_obsolete()


def swap_segments(
    core: Core,
    inputs: Sequence[Segment],
    kept: Kept,
    entry: SegmentEntry | None,
    flushed_seq: int,
    total: int,
    bases: Rows,
) -> None:
    """Publish the merged segment in the place of its inputs. Under the manifest lock."""
    output = open_segment(core, entry) if entry is not None else None
    carrier = Carrier()
    if output is not None:
        positions = inverse_order(kept.order, total)
        for i, segment in enumerate(inputs):
            part = positions[bases[i] : bases[i + 1]]
            carrier.add(segment.marks, [(output.marks, part)])
    now_flushed = core.manifest.last_seq
    carrier.carry(flushed_seq, now_flushed)

    def replaced(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        at = segments.index(inputs[0])
        middle = (output,) if output is not None else ()
        return (*segments[:at], *middle, *segments[at + len(inputs) :])

    version = core.state.version
    floor = max(core.manifest.history_floor, kept.floor)
    core.publish(
        replaced(version.segments),
        version.vectors,
        seq=now_flushed,
        time=core.manifest.last_time,
        log_floor=core.manifest.log_floor,
        history_floor=floor,
    )
    with core.write_lock:
        carrier.carry(now_flushed, core.last_seq)
        state = core.state
        segments = replaced(state.version.segments)
        core.state = state._replace(version=state.version._replace(segments=segments), floor=floor)
        core.room.notify_all()


def gather(inputs: Sequence[Segment], bases: Rows, order: Rows) -> Iterator[Payloads]:
    """The payloads of the merged rows, piece by piece. All inputs are sorted, so the rows of a
    piece lie close together in each of them."""
    for start, stop in pieces(len(order), sum(segment.payload_bytes for segment in inputs)):
        wanted = order[start:stop]
        source = np.searchsorted(bases, wanted, "right") - 1
        parts: list[Payloads] = []
        places: list[Rows] = []
        for i, segment in enumerate(inputs):
            mine = np.flatnonzero(source == i)
            if not len(mine):
                continue
            rows = wanted[mine] - bases[i]
            first = int(rows[0])
            part = segment.payloads(first, int(rows[-1]) + 1)
            parts.append(part if len(part) == len(rows) else part.take(rows - first))
            places.append(mine)
        if len(parts) == 1:
            yield parts[0]
        else:
            yield Payloads.concatenate(parts).take(
                inverse_order(np.concatenate(places), stop - start)
            )


def gather_attributes(
    core: Core, inputs: Sequence[Segment], bases: Rows, kept: Kept
) -> AttributeColumns | None:
    """What the merged memories say; None if nobody here can read payloads."""
    columns_of = core.options.columns_of
    if columns_of is None:
        return None
    parts = [
        segment.attributes if segment.has_attributes else segment.made_attributes(columns_of)
        for segment in inputs
    ]
    wanted = kept.order[kept.rows.record_class == MEMORY]
    source = np.searchsorted(bases, wanted, "right") - 1
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    return AttributeColumns.concatenate(parts).take(wanted + (starts - bases[:-1])[source])


def sweep(core: Core) -> None:
    """Count, for each vector file, the vectors that no version refers to. Under the manifest
    lock."""
    version = core.state.version
    uses = [segment.vector.array() for segment in version.segments]
    for file in version.vectors:
        used = int(np.count_nonzero(referenced(file.numbers.array(), uses)))
        if file.entry.unreferenced != file.rows - used:
            file.entry = msgspec.structs.replace(file.entry, unreferenced=file.rows - used)


def _merge_vectors(core: Core, inputs: Sequence[VectorFile]) -> None:
    flushed_seq = core.manifest.last_seq
    columns = VectorColumns.concatenate([file.columns() for file in inputs])
    total = len(columns)
    late = (columns.dead > np.uint64(flushed_seq)) & (columns.dead != np.uint64(NEVER))
    columns.dead = np.where(late, np.uint64(NEVER), columns.dead)
    uses = [segment.vector.array() for segment in core.state.version.segments]
    keep = np.concatenate([referenced(file.numbers.array(), uses) for file in inputs])
    bases = np.cumsum([0, *(file.rows for file in inputs)])

    def take(rows: Rows) -> Matrix:
        core.check_may_begin()  # a part: all of it may take minutes, and close() waits for it
        if len(inputs) == 1:
            return inputs[0].take(rows)
        made = np.empty((len(rows), inputs[0].dimension), np.float32)
        source = np.searchsorted(bases, rows, "right") - 1
        for i, file in enumerate(inputs):
            mine = np.flatnonzero(source == i)
            if len(mine) == len(rows):
                return file.take(rows - bases[i])
            made[mine] = file.take(rows[mine] - bases[i])
        return made

    space = inputs[0].entry.space
    written = write_vectors(core, columns, inputs[0].dimension, take, keep, space)
    with core.manifest_lock:
        outputs = [open_vectors(core, part.entry) for part in written]
        carrier = Carrier()
        inverses = [inverse_order(part.order, total) for part in written]
        for i, file in enumerate(inputs):
            targets = [
                (output.marks, inverse[bases[i] : bases[i + 1]])
                for output, inverse in zip(outputs, inverses, strict=True)
            ]
            carrier.add(file.marks, targets)
        now_flushed = core.manifest.last_seq
        carrier.carry(flushed_seq, now_flushed)

        def replaced(files: tuple[VectorFile, ...]) -> tuple[VectorFile, ...]:
            at = files.index(inputs[0])
            rest = tuple(file for file in files[at:] if file not in inputs)
            return (*files[:at], *outputs, *rest)

        version = core.state.version
        core.publish(
            version.segments,
            replaced(version.vectors),
            seq=now_flushed,
            time=core.manifest.last_time,
            log_floor=core.manifest.log_floor,
        )
        with core.write_lock:
            carrier.carry(now_flushed, core.last_seq)
            state = core.state
            files = replaced(state.version.vectors)
            core.state = state._replace(version=state.version._replace(vectors=files))
            core.room.notify_all()
        core.remove_obsolete()
