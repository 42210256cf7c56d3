"""Reads a log as far as it is intact, past places that are damaged.

What stands behind a bad record counts only if that place was certainly synced (see log_reader):
otherwise it is the torn end of the log, of which nothing was promised.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

import numpy as np

from engramdb.errors import CorruptionError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm.arena import Arena
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.log_format import FILE_HEADER, RECORD_HEADER, RECORD_MAGIC
from engramdb.lsm.log_reader import LogRecords
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.repair.healing import heal, read_again
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.retention import Mask
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.vector_file import Matrix

_PAGE_BYTES: Final = 4096


def _read(environment: Environment, path: str) -> bytes:
    """All of a file; zeros where the disk cannot read it."""
    file = environment.open(path, "r")
    try:
        size = file.size()
        try:
            return read_again(file, 0, size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        parts = []
        for at in range(0, size, _PAGE_BYTES):
            length = min(_PAGE_BYTES, size - at)
            try:
                parts.append(read_again(file, at, length))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                parts.append(bytes(length))
        return b"".join(parts)
    finally:
        file.close()


class SalvagedLog:
    """The versions of a log, sorted, and their vectors. `predecessor` is the log before it and its
    length, if the header can be read. Raises IncompatibleFormatError if it belongs elsewhere.

    `synced`: how many bytes were certainly synced, as VISIBLE or a later log says.
    """

    knows_supersession = False

    def __init__(
        self,
        environment: Environment,
        path: str,
        number: int,
        database: bytes,
        synced: int,
        findings: Findings,
        *,
        is_last: bool,
    ) -> None:
        self.path, self.number = path, number
        self._findings = findings
        self._seed = log_format.seed_of(database, number)
        self._table = Memtable(number, 1)
        self._data = _read(environment, path)
        self.predecessor: tuple[int, int] | None = None
        self.end = 0  # of the sound records
        self.is_cut = False  # synced records are missing at its end
        self._scan(database, synced, is_last)
        del self._data
        rows = self._table.columns(len(self._table))
        self.seqs: U64 = np.unique(rows.seq)
        order = rows.order()
        self._rows = rows.take(order)
        self._payloads = self._table.payload_columns(len(self._table)).take(order)
        self.lost: Mask = np.zeros(len(order), np.bool_)

    def _scan(self, database: bytes, synced: int, is_last: bool) -> None:
        path = self.path
        damage: CorruptionError | None = None
        try:
            head = self._data[: FILE_HEADER.size]
            header = log_format.read_file_header(head, path, database, self.number)
            self.predecessor = header.predecessor, header.predecessor_bytes
        except CorruptionError as error:
            damage = error
        at = FILE_HEADER.size
        while True:
            data = self._data
            records, end = log_reader.scan(data, self._seed, at, len(data))
            self._load(records)
            self.end = end
            if self._heal_record(end):
                at = end
                continue
            if end < synced or log_reader.proven_synced(data, self._seed, end) is not None:
                self._findings.damage(
                    path, CorruptionError(path, end, "a record, once synced", "a damaged one")
                )
                following = next(self._sound_places(end + 8), None)
                if following is not None:
                    at = following
                    continue
                self.is_cut = True
            elif not is_last and data[end:].strip(b"\0"):
                self._findings.damage(
                    path, CorruptionError(path, end, "zeros behind the last record", "others")
                )
            break
        if damage is not None and (len(self._table) or synced):
            self._findings.damage(path, damage)

    def _heal_record(self, at: int) -> bool:
        """Find the one bit that is wrong in the record that begins at `at`."""
        data, seed = self._data, self._seed
        start = at + RECORD_HEADER.size

        def is_header(head: bytes) -> bool:
            magic, length, digest = RECORD_HEADER.unpack(head)[:3]
            return bool(
                magic == RECORD_MAGIC and digest == log_format.header_sum(head[16:], length, seed)
            )

        head: bytes | None = data[at:start]
        if head is None or len(head) < RECORD_HEADER.size or not head.strip(b"\0"):
            return False
        if not self._findings.may_heal():
            return False
        is_sound = is_header(head)
        head = head if is_sound else heal(head, is_header)
        if head is None:
            return False
        fields = RECORD_HEADER.unpack(head)
        length, body_sum = fields[1], fields[7]
        body: bytes | None = data[start : start + length]
        if body is None or len(body) < length:
            return False
        if log_format.body_sum(body, seed) != body_sum:
            if not is_sound:
                return False
            body = heal(body, lambda tried: log_format.body_sum(tried, seed) == body_sum)
            if body is None:
                return False
        self._findings.damage(
            self.path, CorruptionError(self.path, at, "a record", "one with a wrong bit")
        )
        self._data = data[:at] + head + body + data[start + length :]
        return True

    def _sound_places(self, start: int) -> Iterator[int]:
        """Where later sound records begin, from `start` on; copies of earlier ones are none."""
        last = self._table.seq[-1] if len(self._table) else 0
        data = self._data
        usable = (len(data) - start) // 8 * 8
        if usable < RECORD_HEADER.size:
            return
        words = np.frombuffer(data, "<u4", usable // 4, start)[::2]
        for position in np.flatnonzero(words == RECORD_MAGIC).tolist():
            at = start + 8 * position
            if at + RECORD_HEADER.size > len(data):
                return
            _, length, digest = RECORD_HEADER.unpack_from(data, at)[:3]
            end = at + RECORD_HEADER.size + length
            if digest == log_format.header_sum(data[at + 16 : at + 64], length, self._seed):
                records, _ = log_reader.scan(data, self._seed, at, min(end, len(data)))
                if len(records) and records[0].seq > last:
                    yield at

    def _load(self, records: LogRecords) -> None:
        try:
            self._append(records)
        except CorruptionError:  # one of them: which?
            for index in range(len(records)):
                one = records.some(slice(index, index + 1))
                try:
                    self._append(one)
                except CorruptionError as error:
                    self._findings.damage(self.path, error)

    def _append(self, records: LogRecords) -> None:
        if not len(records):
            return
        rows = log_reader.decode(self._data, records, self.path)
        known = {space: arena.dimension for space, arena in self._table.arenas.items()}
        for space, matrix in zip(rows.spaces, rows.matrices, strict=True):
            dimension = matrix.shape[1]
            if known.setdefault(space, dimension) != dimension:
                raise CorruptionError(
                    self.path,
                    records[0].offset,
                    f"vectors of dimension {known[space]}",
                    dimension,
                )
        self._table.load(rows)

    # As a source of versions

    def columns(self) -> RowColumns:
        """The versions, sorted."""
        return self._rows

    @property
    def payload_bytes(self) -> int:
        """Of all payloads."""
        return int(self._payloads.words.nbytes)

    def payloads(self, start: int, stop: int) -> Payloads:
        """The payloads of the rows [start, stop)."""
        return self._payloads.take(np.arange(start, stop))

    # As a source of vectors

    def vectors(self) -> list[LogVectors]:
        """Those of each space."""
        return [LogVectors(arena) for arena in self._table.arenas.values() if arena.rows]


class LogVectors:
    """The vectors of one space that a log holds. None of them is lost."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.dimension = arena.dimension
        self.numbers: U64 = np.array(arena.numbers, np.uint64)
        self.lost_vectors: Mask = np.zeros(len(self.numbers), np.bool_)

    def take(self, rows: Rows) -> Matrix:
        """These vectors."""
        taken: Matrix = self._arena.block()[0][rows]
        return taken
