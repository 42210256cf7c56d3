"""Reads a segment as far as it is intact.

Blocks of payloads that are damaged cost their rows, tombstones apart; damaged columns of edges cost
the edges; a damaged column that every row needs costs the segment.
"""

from __future__ import annotations

import msgspec
import numpy as np

from engramdb.errors import CorruptionError
from engramdb.lsm.attribute_sections import StoredColumns, names_in
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.container import SEGMENT
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import Rows, join, to_list
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.marks import Marks
from engramdb.lsm.payloads import BLOCK_ROWS, Payloads
from engramdb.lsm.records import CLASSES, EDGE, MEMORY, NEVER, TOMBSTONE
from engramdb.lsm.repair.healing import HealingReader
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.retention import Mask
from engramdb.lsm.rows import EdgeColumns, RowColumns
from engramdb.lsm.segment import Segment

_NEEDED = ("high", "low", "seq", "time", "kind", "vector")


class SalvagedSegment(Segment):
    """A segment of which some rows may be lost. Raises CorruptionError or IncompatibleFormatError
    if none can be read.

    `marks` is None if they are lost, or if nobody knows which they are: then it is not certain when
    a row was superseded. `entry` is None if no manifest that can be read names the file.
    """

    def __init__(
        self,
        environment: Environment,
        path: str,
        number: int,
        database: bytes,
        entry: SegmentEntry | None,
        marks: Marks | None,
        findings: Findings,
    ) -> None:
        self.reader = HealingReader(
            environment,
            path,
            findings,
            kind=SEGMENT,
            database=database,
            number=number,
            size=entry.size if entry is not None else None,
            fingerprint=bytes.fromhex(entry.fingerprint) if entry is not None else None,
        )
        self.number, self._database = number, database
        self.path = path
        self.marks = marks or Marks()
        self._cache = BlockCache(1)
        self._count_rows()
        self.entry = entry or self._describe()
        for name in _NEEDED:
            getattr(self, name)
        self.knows_supersession = marks is not None
        self._lost_blocks: set[int] = set()
        self._edges_are_lost = False
        self._findings = findings
        self.lost = self._look_for_losses()

    def is_undated(self) -> bool:
        """Whether only a manifest that is lost could tell the commit of its rows: a bulk load."""
        return bool(self.rows) and self.seq.extremes == (0, 0)

    def date(self, seq: int, time: int) -> None:
        """What that manifest would have said."""
        self.entry = msgspec.structs.replace(self.entry, commit_seq=seq, commit_time=time)
        del self.__dict__["seq"], self.__dict__["time"]

    def _describe(self) -> SegmentEntry:
        """What a manifest would say of it."""
        seqs = self.reader.column("seq", self.rows).extremes
        times = self.reader.column("time", self.rows).extremes
        return SegmentEntry(
            number=self.number,
            origin=self._database.hex(),
            size=0,
            fingerprint="",
            rows=self.rows,
            seq_min=seqs[0],
            seq_max=seqs[1],
            time_min=times[0],
            time_max=times[1],
            live=(0, 0, 0),
        )

    def _look_for_losses(self) -> Mask:
        for block in range(-(-self.rows // BLOCK_ROWS)):
            try:
                self._open_block(block)
            except CorruptionError as error:
                self._findings.damage(self.path, error)
                self._lost_blocks.add(block)
        lost = np.zeros(self.rows, np.bool_)
        for block in self._lost_blocks:
            lost[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS] = True
        lost &= self.kind.array() != np.uint64(TOMBSTONE)
        try:
            _ = self.edges
        except CorruptionError as error:
            self._findings.damage(self.path, error)
            self._edges_are_lost = True
            start, stop = self.ranges[EDGE]
            lost[start:stop] = True
        try:
            _ = self.superseded
        except CorruptionError as error:
            self._findings.damage(self.path, error)
            self.knows_supersession = False
        for name in ("by.source", "by.target"):  # made anew, but what is wrong is said
            if name in self.reader:
                try:
                    self.reader.column(name)
                except CorruptionError as error:
                    self._findings.damage(self.path, error)
        if self.has_attributes:
            self._check_attributes()
        return lost

    def _check_attributes(self) -> None:
        """They are not written again: the next merge makes them of the payloads."""
        try:
            for name in names_in(self.reader):
                self.reader.blob(name)
            StoredColumns(self.reader, self.ranges[MEMORY][1]).read_all()
        except CorruptionError as error:
            self._findings.damage(self.path, error)

    def lost_versions(self, rows: Rows) -> list[tuple[int, bytes, int]]:
        """(class, key, seq) of these rows."""
        classes = np.searchsorted(np.array([stop for _, stop in self.ranges]), rows, "right")
        keys = to_list(join(self.high.take(rows), self.low.take(rows)))
        seqs = self.seq.take(rows).tolist()
        return list(zip(classes.tolist(), keys, seqs, strict=True))

    def payloads(self, start: int, stop: int) -> Payloads:
        """The payloads of the rows [start, stop); those of lost rows are empty."""
        first, last = start // BLOCK_ROWS, (stop - 1) // BLOCK_ROWS
        parts = [self._payloads_of(block) for block in range(first, last + 1)]
        offset = first * BLOCK_ROWS
        return Payloads.concatenate(parts).take(np.arange(start - offset, stop - offset))

    def _payloads_of(self, block: int) -> Payloads:
        if block in self._lost_blocks:
            rows = min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)
            return Payloads(np.empty(0, np.uint64), np.zeros(rows, np.uint32))
        return self._open_block(block)[1]

    def columns(self) -> RowColumns:
        """As Segment.columns(); `superseded` is NEVER where it is not known, and lost edges have
        empty ends."""
        start, stop = self.ranges[EDGE]
        if self._edges_are_lost:
            none = np.zeros(stop - start, np.uint64)
            self.__dict__["edges"] = EdgeColumns(
                none, none, none, none, none, np.zeros(stop - start), [""]
            )
        return RowColumns(
            np.repeat(np.array(CLASSES, np.uint8), [b - a for a, b in self.ranges]),
            self.high.array(),
            self.low.array(),
            self.seq.array(),
            self.time.array(),
            self.kind.array().astype(np.uint8),
            self.vector.array(),
            self.superseded.array()
            if self.knows_supersession
            else np.full(self.rows, NEVER, np.uint64),
            self.edges,
        )
