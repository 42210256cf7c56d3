"""Opens a container although some of its bytes are wrong, where what they were can be proven.

- Header and footer say nothing that is not known from elsewhere: they are made anew, and count if
  they fit the fingerprint.
- One flipped bit of a small checked piece is found by trying: the right one is the one with which
  the 64-bit sum agrees, and chance agrees once in 10**13 such pieces.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

import xxhash

from engramdb.errors import CorruptionError, EngramError
from engramdb.lsm.container import (
    ENTRY,
    FOOTER,
    MAGIC,
    ContainerReader,
    ContainerWriter,
    Section,
    unreadable,
)
from engramdb.lsm.environment import Environment, File
from engramdb.lsm.environment.base import Data
from engramdb.lsm.repair.report import Findings

HEALED_BYTES_MAX: Final = 2**15  # tried bit by bit: a second or so
READ_TRIES: Final = 3
_SECTIONS_MAX: Final = 1024  # of a segment with many attributes
_sum = xxhash.xxh3_64_intdigest


def heal(data: bytes, is_right: Callable[[bytes], bool]) -> bytes | None:
    """`data` with the one bit flipped that makes it right; None if there is none."""
    if len(data) > HEALED_BYTES_MAX:
        return None
    tried = bytearray(data)
    for at in range(len(tried)):
        for bit in range(8):
            tried[at] ^= 1 << bit
            if is_right(bytes(tried)):
                return bytes(tried)
            tried[at] ^= 1 << bit
    return None


def read_again(file: File, offset: int, length: int) -> bytes:
    """Read, and again if the disk cannot: it may the next time. Raises OSError."""
    for _ in range(READ_TRIES - 1):
        try:
            return file.read_at(offset, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    return file.read_at(offset, length)


class HealingReader(ContainerReader):
    """Reads a container; what can be healed is, and noted as damage of the file."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        findings: Findings,
        *,
        kind: bytes,
        database: bytes,
        number: int,
        size: int | None = None,
        fingerprint: bytes | None = None,
    ) -> None:
        """Without `size` and `fingerprint`, which a manifest would tell, the file's own count.

        Raises CorruptionError or IncompatibleFormatError if it cannot be read at all.
        """
        self._findings = findings
        self._size = size
        self._patches: list[tuple[int, bytes]] = []
        frame = _Frame(environment, path, size)
        if size is None or fingerprint is None:
            size, fingerprint = frame.size, frame.fingerprint()
        try:
            self._read_frame(environment, path, kind, database, number, size, fingerprint)
        except CorruptionError as error:
            header = ContainerWriter(kind, database, number).header
            patches = frame.patches(header, size, fingerprint)
            if patches is None:
                raise
            findings.damage(path, error)
            self._size, self._patches = size, patches
            self._read_frame(environment, path, kind, database, number, size, fingerprint)
        try:
            self.check_padding()
        except CorruptionError as error:
            findings.damage(path, error)

    def _read_frame(
        self,
        environment: Environment,
        path: str,
        kind: bytes,
        database: bytes,
        number: int,
        size: int,
        fingerprint: bytes,
    ) -> None:
        super().__init__(
            environment,
            path,
            kind=kind,
            database=database,
            number=number,
            size=size,
            fingerprint=fingerprint,
        )

    def _open_file(self, environment: Environment) -> File:
        file = super()._open_file(environment)
        if not self._patches or self._size is None:
            return file
        return _PatchedFile(file, self._patches, self._size)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return read_again(self.file, offset, length)
        except OSError as error:
            raise unreadable(self.path, offset, error) from error

    def part_of(self, name: str, start: int, length: int) -> bytes:
        """Some bytes of a section, unchecked."""
        return self._read(self.section(name).offset + start, length)

    def _checked(self, section: Section, offset: int, length: int, digest: int) -> bytes:
        try:
            return super()._checked(section, offset, length, digest)
        except CorruptionError as error:
            data = self._read(offset, length)
            healed = None
            if self._findings.may_heal():
                healed = heal(data, lambda tried: _sum(tried) == digest)
            if healed is None:
                raise
            self._findings.damage(self.path, error)
            return healed


class _Frame:
    """The frame of a container, read without trust."""

    def __init__(self, environment: Environment, path: str, size: int | None) -> None:
        try:
            file = environment.open(path, "r")
        except FileNotFoundError as error:
            raise CorruptionError(path, 0, "a file that the manifest names", "no file") from error
        try:
            self.size = file.size() if size is None else size
            self._tail_start = max(0, self.size - FOOTER.size - _SECTIONS_MAX * ENTRY.size)
            self._tail = read_again(file, self._tail_start, self.size - self._tail_start)
        except OSError as error:
            raise unreadable(path, 0, error) from error
        finally:
            file.close()
        self._path = path

    def fingerprint(self) -> bytes:
        """What the footer says. Raises CorruptionError."""
        footer = _sound_footer(self._tail[-FOOTER.size :])
        if footer is None:
            raise CorruptionError(
                self._path, max(0, self.size - FOOTER.size), "a sound footer", "another"
            )
        fingerprint: bytes = FOOTER.unpack(footer)[3]
        return fingerprint

    def patches(
        self, header: bytes, size: int, fingerprint: bytes
    ) -> list[tuple[int, bytes]] | None:
        """What to lay over the file so that its frame is sound; None if that cannot be known."""
        where = size - FOOTER.size
        end = where - self._tail_start  # of the directory, in the tail
        if end < ENTRY.size:
            return None

        def fits(listing: bytes) -> bool:
            return xxhash.xxh3_128_digest(header + listing) == fingerprint

        starts = range(end - ENTRY.size, -1, -ENTRY.size)
        listing = next((self._tail[s:end] for s in starts if fits(self._tail[s:end])), None)
        if listing is None:
            footer = _sound_footer(self._tail[end : end + FOOTER.size])
            if footer is None:
                return None
            start = FOOTER.unpack(footer)[0] - self._tail_start
            listing = heal(self._tail[start:end], fits) if 0 <= start < end else None
            if listing is None:
                return None
        foot = FOOTER.pack(
            where - len(listing),
            len(listing) // ENTRY.size,
            _sum(listing),
            fingerprint,
            bytes(8),
            MAGIC,
            0,
        )[:56]
        footer = foot + _sum(foot).to_bytes(8, "little")
        return [(0, header), (where - len(listing), listing + footer)]


def _sound_footer(footer: bytes) -> bytes | None:
    def is_right(data: bytes) -> bool:
        return _sum(data[:56]) == int.from_bytes(data[56:], "little")

    if len(footer) != FOOTER.size:
        return None
    return footer if is_right(footer) else heal(footer, is_right)


class _PatchedFile(File):
    """A file of which some bytes are other ones when it is read."""

    def __init__(self, file: File, patches: list[tuple[int, bytes]], size: int) -> None:
        self.path, self._file, self._patches, self._size = file.path, file, patches, size

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self._size - offset))
        data = bytearray(self._file.read_at(offset, length).ljust(length, b"\0"))
        for at, patch in self._patches:
            first, last = max(at, offset), min(at + len(patch), offset + length)
            if first < last:
                data[first - offset : last - offset] = patch[first - at : last - at]
        return bytes(data)

    def size(self) -> int:
        return self._size

    def map(self) -> memoryview:
        """Not patched: what is mapped has sums of its own."""
        return self._file.map()

    def close(self) -> None:
        self._file.close()

    def write_at(self, offset: int, data: Data) -> None:
        raise EngramError(f"{self.path} is only read")

    def truncate(self, length: int) -> None:
        raise EngramError(f"{self.path} is only read")

    def sync(self) -> None:
        raise EngramError(f"{self.path} is only read")

    def sync_data(self) -> None:
        raise EngramError(f"{self.path} is only read")
