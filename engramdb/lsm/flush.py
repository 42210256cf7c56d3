"""Turns the oldest frozen memtable into a segment and vector files, and its log into nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from engramdb.errors import EngramError
from engramdb.lsm.arena import Arena
from engramdb.lsm.core import Core
from engramdb.lsm.keys import Rows, from_list, split
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import MEMORY, NEVER
from engramdb.lsm.rewrite import (
    Carrier,
    Kept,
    WrittenVectors,
    inverse_order,
    open_segment,
    open_vectors,
    pieces,
    referenced,
    retain,
    write_rows,
    write_vectors,
)
from engramdb.lsm.vector_file import VectorColumns

Guard = AbstractContextManager[Any]


def flush_oldest(core: Core) -> bool:
    """Flush one frozen memtable. Returns whether there was one. Poisons on failure."""
    with core.flush_lock:
        frozen = core.state.version.frozen
        if not frozen:
            return False
        flush_table(core, frozen[0], core.manifest_lock, core.write_lock)
        return True


def flush_table(core: Core, table: Memtable, manifest_lock: Guard, write_lock: Guard) -> None:
    """Flush the oldest frozen memtable, under the flush lock; the other locks are taken here unless
    the caller, who holds them, passes something else."""
    try:
        _flush(core, table, manifest_lock, write_lock)
    except (OSError, EngramError) as error:
        raise core.fail(error) from error


def _flush(core: Core, table: Memtable, manifest_lock: Guard, write_lock: Guard) -> None:
    count = len(table)
    flushed_seq = table.seq_max
    rows = table.columns(count)
    kept = retain(core, rows, durable_seq=flushed_seq, has_oldest=not core.state.version.segments)
    payloads = table.payload_columns(count)
    attributes = None
    if core.options.columns_of is not None:
        memories = kept.order[kept.rows.record_class == MEMORY]
        attributes = table.attributes(count, core.options.columns_of).take(memories)
    entry = write_rows(core, kept.rows, _gather(payloads, kept.order), attributes)
    vectors = [
        (arena, written)
        for space, arena in table.arenas.items()
        for written in _write_arena(core, arena, space, kept, flushed_seq)
    ]
    with manifest_lock:
        carrier = Carrier()
        segments = core.state.version.segments
        if entry is not None:
            segment = open_segment(core, entry)
            segments = (*segments, segment)
        files = core.state.version.vectors
        for arena, written in vectors:
            file = open_vectors(core, written.entry)
            files = (*files, file)
            positions = inverse_order(written.order, arena.rows)
            carrier.add(arena.marks, [(file.marks, positions)])
        floor = max(core.manifest.history_floor, kept.floor)
        with write_lock:
            remaining = core.state.version
            later = remaining._replace(frozen=remaining.frozen[1:])
            log_floor = core.log_floor(later)
        core.publish(
            segments,
            files,
            seq=flushed_seq,
            time=table.time[-1],
            log_floor=log_floor,
            history_floor=floor,
        )
        with write_lock:
            # what superseded its rows since then stands in later tables, whose logs stay
            until = np.frombuffer(table.superseded, np.uint64)
            late = np.flatnonzero((until > np.uint64(flushed_seq)) & (until != np.uint64(NEVER)))
            if len(late) and entry is not None:
                late = late[np.argsort(until[late], kind="stable")]
                rows_there = inverse_order(kept.order, count)[late]
                there = rows_there >= 0  # a tombstone with nothing below it was dropped
                segment.marks.extend(rows_there[there], until[late][there])
            carrier.carry(flushed_seq, core.last_seq)
            state = core.state
            version = state.version
            core.state = state._replace(
                version=version._replace(
                    frozen=version.frozen[1:], segments=segments, vectors=files
                ),
                floor=floor,
            )
            core.room.notify_all()
        core.remove_obsolete()


def _gather(payloads: Payloads, order: Rows) -> Iterator[Payloads]:
    for start, stop in pieces(len(order)):
        yield payloads.take(order[start:stop])


def _write_arena(
    core: Core, arena: Arena, space: str, kept: Kept, flushed_seq: int
) -> list[WrittenVectors]:
    matrix, norms = arena.block()
    high, low = split(from_list(arena.keys))
    numbers = np.array(arena.numbers, np.uint64)
    dead = arena.deaths()
    dead[dead > np.uint64(flushed_seq)] = np.uint64(NEVER)
    born = np.array(arena.born, np.uint64)
    keep = referenced(numbers, [kept.rows.vector])
    columns = VectorColumns(numbers, high, low, born, dead, norms)
    number = list(core.spaces).index(space)
    return write_vectors(core, columns, arena.dimension, lambda rows: matrix[rows], keep, number)
