"""Appends records to one log and knows how much of it is synced."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import xxhash

from engramdb.lsm import log_format
from engramdb.lsm.environment import Environment, File

ALLOCATE_BYTES_MAX: Final = 4 * 2**20
LARGE_BYTES: Final = 2**16

VISIBLE: Final = struct.Struct("<8sQQQQQQQ")
"""The file VISIBLE, 64 bytes: magic, log number, synced bytes of it, visible bytes of it, visible
seq, its time, number of the last durable manifest, xxh3-64 of bytes 0..56. It tells readers in
other processes where to stop, and recovery which manifest, and how much of the log, was once synced
and must therefore be there. It is never synced itself."""
_VISIBLE_HEAD: Final = struct.Struct("<8sQQQQQQ")  # the same without its sum
VISIBLE_MAGIC: Final = b"ENGRAMVI"
READ_TRIES: Final = 20


def log_path(directory: str, number: int) -> str:
    """The path of a log."""
    return f"{directory}/wal/{number:06d}.wal"


class LogWriter:
    """One log, open for appending. Used under the write lock only, but for sync()."""

    def __init__(
        self,
        environment: Environment,
        directory: str,
        database: bytes,
        number: int,
        *,
        fields: log_format.FileHeader,
        allocate_bytes: int,
    ) -> None:
        self.number = number
        self.seed = log_format.seed_of(database, number)
        self._allocate_bytes = allocate_bytes
        self._allocated = 0
        self._file: File = environment.open(log_path(directory, number), "x")
        try:
            header = log_format.file_header(database, number, fields)
            self._file.write_at(0, header + bytes(max(0, allocate_bytes - len(header))))
            self._allocated = max(allocate_bytes, len(header))
            self._file.sync()
            environment.sync_directory(f"{directory}/wal")
        except BaseException:
            self._file.close()
            raise
        self.size = len(header)
        self.synced = self.size

    def append(self, data: bytes) -> None:
        """Write whole records at the end. Not durable until synced."""
        end = self.size + len(data)
        if self._allocated < end and len(data) < LARGE_BYTES and self._allocate_bytes:
            # zeros first, and synced: overwriting them later needs no change of the file's metadata
            grow = min(max(self._allocated, self._allocate_bytes), ALLOCATE_BYTES_MAX)
            target = max(self._allocated + grow, end)
            if target - end > 0:
                self._file.write_at(end, bytes(target - end))
            self._allocated = target
            self._file.write_at(self.size, data)
            self._file.sync()
        else:
            # a large write gains less from zeros than writing them costs
            self._file.write_at(self.size, data)
            self._allocated = max(self._allocated, end)
        self.size = end

    def sync(self) -> None:
        """Make everything appended so far durable. May run beside append()."""
        end = self.size
        if end > self.synced:
            self._file.sync_data()
            self.synced = max(self.synced, end)

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


class Visible(NamedTuple):
    """What the file VISIBLE says."""

    log: int
    synced: int
    visible: int
    seq: int
    time: int
    manifest: int


Shown = tuple[int, int, int, int, int, int]
"""The fields of a Visible, in their order: what the hot path makes."""


def encode_visible(shown: Shown | Visible) -> bytes:
    """The 64 bytes of VISIBLE."""
    head = _VISIBLE_HEAD.pack(VISIBLE_MAGIC, *shown)
    return head + xxhash.xxh3_64_intdigest(head).to_bytes(8, "little")


def read_visible(environment: Environment, directory: str) -> Visible | None:
    """What VISIBLE says; None if it is not there, or was being written when the power went."""
    path = f"{directory}/VISIBLE"
    if not environment.exists(path):
        return None
    file = environment.open(path, "r")
    try:
        for _ in range(READ_TRIES):  # a writer may be writing it at this very moment
            data = file.read_at(0, VISIBLE.size)
            if len(data) == VISIBLE.size:
                magic, *fields, digest = VISIBLE.unpack(data)
                if magic == VISIBLE_MAGIC and xxhash.xxh3_64_intdigest(data[:56]) == digest:
                    return Visible(*fields)
        return None
    finally:
        file.close()
