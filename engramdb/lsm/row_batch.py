"""Some visible versions of one run, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import EDGE
from engramdb.lsm.rows import EdgeColumns
from engramdb.lsm.segment import Segment

BATCH_ROWS: Final = 16_384


@dataclass(slots=True)
class RowBatch:
    """A batch of visible versions, as columns. Payloads are decoded when asked for."""

    record_class: int
    keys: KeyMatrix
    seqs: U64
    times: U64
    vectors: U64
    _source: Memtable | Segment
    _rows: Rows

    def __len__(self) -> int:
        return len(self.seqs)

    def payloads(self) -> list[bytes]:
        """The payloads, in the order of the keys."""
        if isinstance(self._source, Memtable):
            listed = self._source.payloads
            return [listed[row] for row in self._rows.tolist()]
        first, last = int(self._rows[0]), int(self._rows[-1]) + 1
        part: Payloads = self._source.payloads(first, last)
        if len(part) != len(self._rows):
            part = part.take(self._rows - first)
        return part.to_list()

    def edges(self) -> EdgeColumns:
        """The columns that only edges have."""
        if isinstance(self._source, Memtable):
            return self._source.edge_columns(self._rows.tolist())
        return self._source.edges.take(self._rows - self._source.ranges[EDGE][0])


def batch_of(source: Memtable | Segment, record_class: int, rows: Rows) -> RowBatch:
    """The batch of these rows of a class."""
    if isinstance(source, Memtable):
        picked = rows.tolist()
        return RowBatch(
            record_class,
            from_list([source.keys[r] for r in picked]),
            np.array([source.seq[r] for r in picked], np.uint64),
            np.array([source.time[r] for r in picked], np.uint64),
            np.array([source.vector[r] for r in picked], np.uint64),
            source,
            rows,
        )
    return RowBatch(
        record_class,
        source.keys(rows),
        source.seq.take(rows),
        source.time.take(rows),
        source.vector.take(rows),
        source,
        rows,
    )
