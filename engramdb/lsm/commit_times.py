"""Which commits a run has versions of, by their times in microseconds since the epoch."""

from __future__ import annotations

import numpy as np

from engramdb.lsm.memtable import Memtable
from engramdb.lsm.segment import Segment


def time_of(source: Memtable | Segment, seq: int) -> int | None:
    """When a commit was made, None if the run has nothing of it. Of one row: it may have written a
    million."""
    if isinstance(source, Memtable):
        row = source.rows_until(seq) - 1
        return source.time[row] if row >= 0 and source.seq[row] == seq else None
    if source.entry.seq_max < seq:
        return None
    rows = np.flatnonzero(source.seq.array() == np.uint64(seq))
    return source.time[int(rows[0])] if len(rows) else None


def last_until(source: Memtable | Segment, seq: int, time: int) -> int:
    """The last commit up to `seq` at or before a time; 0 if there is none."""
    if isinstance(source, Memtable):
        at = int(np.searchsorted(_times(source, seq), time, "right"))
        return source.seq[at - 1] if at else 0
    if source.entry.time_max <= time and source.entry.seq_max <= seq:
        return source.entry.seq_max
    if source.entry.time_min > time:
        return 0
    seqs = source.seq.array()
    early = seqs[source.time.array() <= np.uint64(max(time, 0))]
    early = early[early <= np.uint64(seq)]
    return int(early.max()) if len(early) else 0


def first_after(source: Memtable | Segment, seq: int, time: int) -> int | None:
    """The first commit up to `seq`, or of a segment any, after a time; None if there is none."""
    if isinstance(source, Memtable):
        times = _times(source, seq)
        at = int(np.searchsorted(times, time, "right"))
        return source.seq[at] if at < len(times) else None
    if source.entry.time_min > time:
        return source.entry.seq_min
    if source.entry.time_max <= time:
        return None
    return int(source.seq.array()[source.time.array() > np.uint64(max(time, 0))].min())


def _times(table: Memtable, seq: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.frombuffer(table.time[: table.rows_until(seq)], np.int64)
