"""A version of the database: which memtables and files it consists of. Immutable but for its
memtable.

One assignment swaps it (multi-version concurrency control): a reader that holds a version holds its
files open, whatever compaction does to their names.
"""

from __future__ import annotations

from typing import NamedTuple

from engramdb.lsm.memtable import Memtable
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import VectorFile


class Version(NamedTuple):
    """Older data stand further right in `frozen` reversed, and further left in `segments`."""

    active: Memtable
    frozen: tuple[Memtable, ...]  # oldest first
    segments: tuple[Segment, ...]  # oldest first: their seqs do not overlap
    vectors: tuple[VectorFile, ...]

    def tables(self) -> tuple[Memtable, ...]:
        """All memtables, newest first."""
        return (self.active, *reversed(self.frozen)) if self.frozen else (self.active,)


class State(NamedTuple):
    """What a reader takes in one step: a version and the last visible commit of it."""

    version: Version
    seq: int
    time: int
    floor: int  # states before this seq are not complete any more
