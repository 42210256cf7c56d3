"""The one file layout that segments, vector files and mark files share: named, checksummed
sections.

    offset 0    header, 64 bytes
                 0  8s  magic b"ENGRAMDB"
                 8  4s  kind b"SEGM" | b"VECT" | b"MARK" | b"DERV"
                12  u16 format version (1)
                14  u16 zero
                16  16s database uuid
                32  u64 file number
                40  16s zero
                56  u64 xxh3-64 of bytes 0..56
    then        sections, each at a multiple of 64 (a float32 matrix that is not aligned multiplies
                2.8 times slower), zero-filled in between
    then        directory: one 64-byte entry a section
                 0  16s name, NUL padded
                16  u8  encoding: of an integer column (see columns), 254 bytes, 255 chunked
                17  7s  zero
                24  u64 base of the column
                32  u64 count of values (bytes: length)
                40  u64 offset in the file
                48  u64 length in bytes
                56  u64 xxh3-64 of the data (chunked: of the section that holds the chunks' sums)
    last        footer, 64 bytes
                 0  u64 offset of the directory
                 8  u64 sections
                16  u64 xxh3-64 of the directory
                24  16s fingerprint: xxh3-128 of header + directory
                40  8s  zero
                48  8s  magic b"ENGRAMDB"
                56  u64 xxh3-64 of bytes 0..56
All integers are little-endian. The manifest repeats the fingerprint, which covers every checksum in
the file, so a stale or misdirected file is noticed although it is valid in itself. A section is
checked when it is first read; a chunked section is mapped, and checked when it is first touched.
"""

from __future__ import annotations

import errno
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.errors import CorruptionError, EngramError, IncompatibleFormatError
from engramdb.lsm import columns
from engramdb.lsm.columns import Column
from engramdb.lsm.environment import Environment, File
from engramdb.lsm.keys import U64

SEGMENT: Final = b"SEGM"
VECTORS: Final = b"VECT"
MARKS: Final = b"MARK"
DERIVED: Final = b"DERV"

MAGIC: Final = b"ENGRAMDB"
VERSION: Final = 1
BYTES: Final = 254
CHUNKED: Final = 255
CHUNK_BYTES: Final = 2**18
ALIGNMENT: Final = 64

HEADER: Final = struct.Struct("<8s4sHH16sQ16sQ")
ENTRY: Final = struct.Struct("<16sB7sQQQQQ")
FOOTER: Final = struct.Struct("<QQQ16s8s8sQ")
assert HEADER.size == ENTRY.size == FOOTER.size == 64

_PIECE_BYTES: Final = 8 * 2**20
_sum = xxhash.xxh3_64_intdigest
Buffer = bytes | memoryview
Matrix = npt.NDArray[np.float32]


class ContainerWriter:
    """Collects sections and writes them, the directory and the footer, in one pass."""

    def __init__(self, kind: bytes, database: bytes, number: int) -> None:
        head = HEADER.pack(MAGIC, kind, VERSION, 0, database, number, bytes(16), 0)[:56]
        self.header = head + _sum(head).to_bytes(8, "little")
        self._sections: list[tuple[str, int, int, int, Buffer]] = []
        self._chunked: list[tuple[str, int, Iterable[Buffer]]] = []
        self._stream: tuple[str, Iterable[bytes], Callable[[], None]] | None = None

    def column(self, name: str, values: U64) -> None:
        """A column of unsigned integers, in its smallest encoding."""
        encoding, base, data = columns.pack(values)
        self._sections.append((name, encoding, base, len(values), data))

    def packed(self, name: str, column: Column) -> None:
        """A column that is packed already."""
        fields = (column.encoding, column.base, column.count, column.data)
        self._sections.append((name, *fields))

    def blob(self, name: str, data: Buffer) -> None:
        """Bytes."""
        self._sections.append((name, BYTES, 0, memoryview(data).nbytes, data))

    def stream(self, name: str, parts: Iterable[bytes], then: Callable[[], None]) -> None:
        """Bytes that come in parts, so that they need not be in memory as a whole. They are written
        first; after the last part `then` may add what is known of them only then."""
        self._stream = (name, parts, then)

    def matrix(self, name: str, length: int, parts: Iterable[Matrix]) -> None:
        """A float32 matrix of `length` bytes to be mapped, with a sum for each chunk of it in
        `name`.sums. It comes in parts, so that it need not be in memory as a whole: of a multiple
        of rows_per_part() rows each, the last one apart. It is written last."""
        views = (np.ascontiguousarray(part, "<f4").data.cast("B") for part in parts if part.size)
        self._chunked.append((name, length, views))

    def chunked(self, name: str, data: memoryview) -> None:
        """Bytes to be mapped, with a sum for each chunk of them in `name`.sums."""
        size = data.nbytes
        pieces = (data[at : at + _PIECE_BYTES] for at in range(0, size, _PIECE_BYTES))
        self._chunked.append((name, size, pieces))

    def write(self, environment: Environment, path: str, *, sync: bool = True) -> tuple[int, bytes]:
        """Write the file, which must not exist. Returns its size and fingerprint."""
        file = environment.open(path, "x")
        try:
            file.write_at(0, self.header)
            offset, directory = ALIGNMENT, []
            if self._stream is not None:
                name, pieces, then = self._stream
                length, digest = _write_stream(file, offset, pieces)
                directory.append(
                    ENTRY.pack(name.encode(), BYTES, bytes(7), 0, length, offset, length, digest)
                )
                offset += -(-length // ALIGNMENT) * ALIGNMENT
                then()
            for name, encoding, base, count, data in self._sections:
                directory.append(_entry(name, encoding, base, count, offset, data))
                offset = _write_aligned(file, offset, data)
            for name, length, parts in self._chunked:
                sums = _write_chunked(file, offset, length, parts)
                digest = _sum(sums)
                directory.append(
                    ENTRY.pack(name.encode(), CHUNKED, bytes(7), 0, length, offset, length, digest)
                )
                offset += -(-length // ALIGNMENT) * ALIGNMENT
                directory.append(_entry(f"{name}.sums", BYTES, 0, len(sums), offset, sums))
                offset = _write_aligned(file, offset, sums)
            listing = b"".join(directory)
            fingerprint = xxhash.xxh3_128_digest(self.header + listing)
            foot = FOOTER.pack(
                offset, len(directory), _sum(listing), fingerprint, bytes(8), MAGIC, 0
            )[:56]
            file.write_at(offset, listing + foot + _sum(foot).to_bytes(8, "little"))
            if sync:
                file.sync()
            return offset + len(listing) + FOOTER.size, fingerprint
        finally:
            file.close()


def unreadable(path: str, offset: int, error: OSError) -> EngramError:
    """What to raise when a file cannot be read: damage if the disk says so, or a passing trouble,
    which must not be mistaken for damage."""
    if error.errno == errno.EIO:
        advice = "check the disk, then restore it from a checkpoint"
        return CorruptionError(path, offset, "readable bytes", error, advice)
    return EngramError(f"{path} cannot be read at offset {offset}: {error}; try again")


def rows_per_part(dimension: int) -> int:
    """A number of rows of a float32 matrix that fills whole chunks: about 8 MiB of them."""
    unit = CHUNK_BYTES // math.gcd(CHUNK_BYTES, 4 * dimension)
    return unit * max(1, 8 * 2**20 // (unit * 4 * dimension))


def _entry(name: str, encoding: int, base: int, count: int, offset: int, data: Buffer) -> bytes:
    length = memoryview(data).nbytes
    return ENTRY.pack(name.encode(), encoding, bytes(7), base, count, offset, length, _sum(data))


def _write_aligned(file: File, offset: int, data: Buffer) -> int:
    length = memoryview(data).nbytes
    if length:
        file.write_at(offset, memoryview(data).cast("B"))
    return offset + -(-length // ALIGNMENT) * ALIGNMENT


def _write_stream(file: File, offset: int, parts: Iterable[bytes]) -> tuple[int, int]:
    """Returns the length, and the sum of all."""
    digest, length = xxhash.xxh3_64(), 0
    for part in parts:
        file.write_at(offset + length, part)
        digest.update(part)
        length += len(part)
    return length, digest.intdigest()


def _write_chunked(file: File, offset: int, length: int, parts: Iterable[Buffer]) -> bytes:
    sums: list[int] = []
    written = 0
    for view in parts:
        sums += [_sum(view[i : i + CHUNK_BYTES]) for i in range(0, len(view), CHUNK_BYTES)]
        file.write_at(offset + written, view)
        written += len(view)
    if written != length:
        raise ValueError(f"{written} bytes of a section of {length}")
    return np.array(sums, "<u8").tobytes()


class Section:
    """An entry of the directory."""

    __slots__ = ("base", "count", "digest", "encoding", "entry_offset", "length", "offset")

    def __init__(
        self, entry_offset: int, fields: tuple[bytes, int, bytes, int, int, int, int, int]
    ):
        self.entry_offset = entry_offset
        _, self.encoding, _, self.base, self.count, self.offset, self.length, self.digest = fields


class ContainerReader:
    """An open container. Raises CorruptionError or IncompatibleFormatError when it is not sound."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        *,
        kind: bytes,
        database: bytes,
        number: int,
        size: int,
        fingerprint: bytes | None,
    ) -> None:
        """`fingerprint` is None for a file that no manifest names: it has to agree with itself."""
        self.path = path
        try:
            self.file = self._open_file(environment)
        except FileNotFoundError as error:
            raise CorruptionError(path, 0, "a file that the manifest names", "no file") from error
        try:
            self._open(kind, database, number, size, fingerprint)
        except BaseException:
            self.file.close()
            raise

    def _open_file(self, environment: Environment) -> File:
        """A repair reads it through a layer of its own."""
        return environment.open(self.path, "r")

    def _open(
        self, kind: bytes, database: bytes, number: int, size: int, fingerprint: bytes | None
    ) -> None:
        found = self.file.size()
        if found != size:
            raise CorruptionError(self.path, min(found, size), f"{size} bytes", f"{found} bytes")
        if size < HEADER.size + FOOTER.size:
            raise CorruptionError(self.path, 0, "a header and a footer", f"{size} bytes")
        header = self._read(0, HEADER.size)
        magic, got_kind, version, _, got_database, got_number, _, digest = HEADER.unpack(header)
        if magic != MAGIC:
            raise CorruptionError(self.path, 0, MAGIC, magic)
        if _sum(header[:56]) != digest:
            raise CorruptionError(self.path, 56, f"sum {_sum(header[:56]):#x}", f"{digest:#x}")
        if version != VERSION:
            raise IncompatibleFormatError(
                f"{self.path} has format version {version}, this EngramDB reads {VERSION}: upgrade"
            )
        expected = (kind, database, number)
        if (got_kind, got_database, got_number) != expected:
            raise IncompatibleFormatError(
                f"{self.path} belongs elsewhere: kind, database, number are "
                f"{(got_kind, got_database.hex(), got_number)}, "
                f"expected {(kind, database.hex(), number)}"
            )
        footer = self._read(size - FOOTER.size, FOOTER.size)
        start, count, listing_sum, got_fingerprint, _, magic, digest = FOOTER.unpack(footer)
        where = size - FOOTER.size
        if magic != MAGIC or _sum(footer[:56]) != digest:
            raise CorruptionError(self.path, where, "a sound footer", footer.hex())
        if start < HEADER.size or start + count * ENTRY.size != where:
            raise CorruptionError(self.path, where, "a directory before the footer", start)
        self._directory_offset = start
        listing = self._read(start, where - start)
        if _sum(listing) != listing_sum:
            raise CorruptionError(self.path, start, f"sum {listing_sum:#x}", f"{_sum(listing):#x}")
        if fingerprint is None:
            fingerprint = got_fingerprint
        if not got_fingerprint == fingerprint == xxhash.xxh3_128_digest(header + listing):
            raise CorruptionError(
                self.path, where + 24, f"fingerprint {fingerprint.hex()}", got_fingerprint.hex()
            )
        self._sections = self._directory(listing, start)

    def _directory(self, listing: bytes, start: int) -> dict[str, Section]:
        sections: dict[str, Section] = {}
        end = HEADER.size
        for position, fields in enumerate(ENTRY.iter_unpack(listing)):
            section = Section(start + position * ENTRY.size, fields)
            offset, length = section.offset, section.length
            # none overlaps another: together they cannot ask for more than the file has
            if offset < end or offset % ALIGNMENT or offset + length > start:
                raise CorruptionError(
                    self.path,
                    section.entry_offset,
                    f"a section at a multiple of {ALIGNMENT} within {end}..{start}",
                    f"{length} bytes at {offset}",
                )
            end = offset + length
            name = fields[0].rstrip(b"\0")
            if not name.isascii() or (text := name.decode("ascii")) in sections:
                raise CorruptionError(self.path, section.entry_offset, "a name of its own", name)
            sections[text] = section
        return sections

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self.file.read_at(offset, length)
        except OSError as error:
            raise unreadable(self.path, offset, error) from error

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def names(self) -> list[str]:
        """The names of all sections."""
        return list(self._sections)

    def section(self, name: str) -> Section:
        """The directory entry of a section. Raises CorruptionError if there is none."""
        try:
            return self._sections[name]
        except KeyError:
            raise CorruptionError(self.path, 0, f"a section {name!r}", self.names()) from None

    def blob(self, name: str) -> bytes:
        """The bytes of a section, checked."""
        section = self.section(name)
        return self._checked(section, section.offset, section.length, section.digest)

    def part(self, name: str, start: int, length: int, digest: int) -> bytes:
        """A part of a section that has a sum of its own, checked."""
        section = self.section(name)
        if start + length > section.length:
            raise CorruptionError(
                self.path,
                section.offset,
                f"a part of the {section.length} bytes of {name}",
                f"{length} bytes at {start}",
            )
        return self._checked(section, section.offset + start, length, digest)

    def _checked(self, section: Section, offset: int, length: int, digest: int) -> bytes:
        data = self._read(offset, length)
        if len(data) != length or _sum(data) != digest:
            raise CorruptionError(self.path, offset, f"sum {digest:#x}", f"{_sum(data):#x}")
        return data

    def column(self, name: str, rows: int | None = None) -> Column:
        """A column, checked. One that takes no bytes may claim any number of values: whoever makes
        an array of it says how many `rows` there have to be."""
        section = self.section(name)
        if section.encoding > columns.RAW:
            raise CorruptionError(self.path, section.entry_offset, "a column", section.encoding)
        if rows is not None and section.count != rows:
            raise CorruptionError(
                self.path, section.entry_offset, f"{rows} values of {name}", section.count
            )
        expected = columns.encoded_size(section.encoding, section.count)
        if expected != section.length:
            raise CorruptionError(
                self.path, section.entry_offset, f"{expected} bytes", f"{section.length} bytes"
            )
        column = Column(section.encoding, section.base, section.count, self.blob(name))
        if fault := column.fault():
            raise CorruptionError(
                self.path, section.entry_offset, f"64-bit values of {name}", fault
            )
        return column

    def bounded(
        self, name: str, rows: int, low: int, high: int, *, exactly: bool = False
    ) -> Column:
        """A column of so many values from `low` to `high`, checked; both occur, if `exactly`."""
        column = self.column(name, rows)
        least, most = column.extremes
        sound = (least, most) == (low, high) if exactly else low <= least <= most <= high
        if rows and not sound:
            raise CorruptionError(
                self.path,
                self.section(name).entry_offset,
                f"{name} from {low} to {high}",
                f"from {least} to {most}",
            )
        return column

    def mapped(self) -> memoryview:
        """All bytes of the file, none of them checked. Nothing needs the file to stay open."""
        try:
            return self.file.map()
        except OSError as error:
            raise unreadable(self.path, 0, error) from error

    def chunked(self, name: str, whole: memoryview | None = None) -> memoryview:
        """The mapped bytes of a chunked section, not yet checked: see check_chunk(). `whole`: what
        mapped() gave, for one map of many sections."""
        section = self.section(name)
        if section.encoding != CHUNKED:
            raise CorruptionError(
                self.path, section.entry_offset, "a chunked section", section.encoding
            )
        data = self.mapped() if whole is None else whole
        return data[section.offset : section.offset + section.length]

    def chunk_sums(self, name: str) -> list[int]:
        """The sum of each chunk of a chunked section."""
        section = self.section(f"{name}.sums")
        chunks = -(-self.section(name).length // CHUNK_BYTES)
        if section.length != 8 * chunks:
            raise CorruptionError(
                self.path,
                section.entry_offset,
                f"a sum for each of {chunks} chunks",
                f"{section.length} bytes",
            )
        sums: list[int] = np.frombuffer(self.blob(f"{name}.sums"), "<u8").tolist()
        return sums

    def check_chunk(self, name: str, data: memoryview, chunk: int, expected: int) -> None:
        """Check one chunk of the bytes of a chunked section."""
        got = _sum(data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        if got != expected:
            at = self.section(name).offset + chunk * CHUNK_BYTES
            raise CorruptionError(self.path, at, f"sum {expected:#x}", f"{got:#x}")

    def verify(self) -> int:
        """Check every byte of the file. Returns the bytes read."""
        for name, section in self._sections.items():
            if section.encoding == CHUNKED:
                # read, not mapped: what the disk holds now, not what was mapped long ago
                for chunk, expected in enumerate(self.chunk_sums(name)):
                    at = chunk * CHUNK_BYTES
                    length = min(CHUNK_BYTES, section.length - at)
                    self._checked(section, section.offset + at, length, expected)
            else:
                self._check_section(section)
        self.check_padding()
        return self.file.size()

    def _check_section(self, section: Section) -> None:
        digest = xxhash.xxh3_64()  # piece by piece: the blocks of a segment may be gigabytes
        for at in range(0, section.length, _PIECE_BYTES):
            digest.update(self._read(section.offset + at, min(_PIECE_BYTES, section.length - at)))
        if digest.intdigest() != section.digest:
            expected, got = f"sum {section.digest:#x}", f"{digest.intdigest():#x}"
            raise CorruptionError(self.path, section.offset, expected, got)

    def check_padding(self) -> None:
        """Between the sections stand zeros, which no sum covers. Raises CorruptionError."""
        at = HEADER.size
        places = sorted(
            (each.offset, each.offset + each.length) for each in self._sections.values()
        )
        for start, end in [*places, (self._directory_offset, 0)]:
            padding = self._read(at, start - at) if at < start else b""
            if padding.strip(b"\0"):
                raise CorruptionError(self.path, at, "zeros between sections", padding.hex())
            at = max(at, end)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the file if what is done within fails."""
        try:
            yield
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        """Close the file. What was mapped stays readable."""
        self.file.close()
