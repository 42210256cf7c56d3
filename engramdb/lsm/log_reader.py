"""Reads a log back: finds the records that count, tells a torn tail from corruption, makes columns.

A power cut leaves the end of a log in any state, so a bad record there is the end. A bad record
that was once synced is corruption, and opening refuses it: everything behind it would be lost
silently. Three things prove that a place was synced: the file VISIBLE, a later record of the same
log whose `synced` lies beyond it (unsynced writes may land out of order, so a later record alone
proves nothing: Pebble's rule), and a later log, which is made only after this one was synced.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.errors import CorruptionError
from engramdb.lsm.environment import File
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.limits import DIMENSION_MAX, PAYLOAD_BYTES_MAX, TIME_MAX, VECTOR_NUMBER_MAX
from engramdb.lsm.log_format import (
    EACH_ITS_OWN,
    OWN_VECTOR,
    PREFIX,
    RECORD_HEADER,
    RECORD_MAGIC,
    SINGLE,
    body_sum,
    header_sum,
)
from engramdb.lsm.records import CLASSES, DEFAULT_SPACE, EDGE, TOMBSTONE, Ends, space_of
from engramdb.lsm.vector_file import Matrix

PIECE_BYTES: Final = 8 * 2**20


class LogRecord(NamedTuple):
    """Where a sound record stands and what its header says."""

    offset: int
    length: int  # of the body
    seq: int
    time: int
    first_vector: int
    operations: int


class LogRecords:
    """The sound records of a log, as columns; one by one they are LogRecords."""

    __slots__ = ("first_vector", "length", "offset", "operations", "seq", "time")

    def __init__(self, data: bytes, offsets: list[int]) -> None:
        at = np.array(offsets, np.int64)
        narrow = np.frombuffer(data, "<u4", len(data) // 4)
        wide = np.frombuffer(data, "<u8", len(data) // 8)
        self.offset: Rows = at
        self.length: Rows = narrow[at // 4 + 1].astype(np.int64)
        self.seq: U64 = wide[at // 8 + 2]
        self.time: U64 = wide[at // 8 + 3]
        self.first_vector: U64 = wide[at // 8 + 5]
        self.operations: Rows = narrow[at // 4 + 14].astype(np.int64)

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: int) -> LogRecord:
        return LogRecord(
            int(self.offset[index]),
            int(self.length[index]),
            int(self.seq[index]),
            int(self.time[index]),
            int(self.first_vector[index]),
            int(self.operations[index]),
        )

    def after(self, seq: int) -> LogRecords:
        """Those above a seq."""
        kept = self.seq > np.uint64(seq)
        return self if bool(kept.all()) else self.some(kept)

    def some(self, chosen: npt.NDArray[np.bool_] | slice) -> LogRecords:
        """These of them."""
        made = LogRecords.__new__(LogRecords)
        for name in self.__slots__:
            setattr(made, name, getattr(self, name)[chosen])
        return made


def scan(data: bytes, seed: int, start: int, stop: int) -> tuple[LogRecords, int]:
    """The sound records from `start` on, and where they end."""
    offsets: list[int] = []
    view = memoryview(data)
    unpack = RECORD_HEADER.unpack_from
    offset = start
    last = stop - RECORD_HEADER.size
    while offset <= last:
        magic, length, digest, _, _, _, _, body, _, _ = unpack(data, offset)
        end = offset + 64 + length
        if (
            magic != RECORD_MAGIC
            or end > stop
            or length % 8
            or digest != header_sum(data[offset + 16 : offset + 64], length, seed)
            or body != body_sum(view[offset + 64 : end], seed)
        ):
            break
        offsets.append(offset)
        offset = end
    return LogRecords(data, offsets), offset


class LogPieces:
    """The sound records of a log file, some 8 MiB at a time, so that a large log is never in memory
    as a whole: (bytes, where they stand in the file, the records in them). `end` is where the sound
    ones that were read so far end."""

    def __init__(self, file: File, seed: int, start: int, stop: int) -> None:
        self._file, self._seed, self._stop = file, seed, stop
        self.end = start

    def __iter__(self) -> Iterator[tuple[bytes, int, LogRecords]]:
        while self.end + RECORD_HEADER.size <= self._stop:
            length = min(PIECE_BYTES, self._stop - self.end)
            data = self._file.read_at(self.end, length)
            records, used = scan(data, self._seed, 0, len(data))
            if not used:
                needed = self._length_at(data)
                if not length < needed <= self._stop - self.end:
                    return
                data = self._file.read_at(self.end, needed)
                records, used = scan(data, self._seed, 0, len(data))
                if not used:
                    return
            base = self.end
            self.end += used
            yield data, base, records

    def _length_at(self, data: bytes) -> int:
        if len(data) < RECORD_HEADER.size:
            return 0
        magic, length, digest = RECORD_HEADER.unpack_from(data)[:3]
        if magic != RECORD_MAGIC or digest != header_sum(data[16:64], length, self._seed):
            return 0
        return RECORD_HEADER.size + int(length)


def proven_synced(data: bytes, seed: int, bad: int, base: int = 0) -> int | None:
    """Where a sound header stands behind the offset `bad` of the file that says that `bad` was
    synced; None if there is none. `data` stands at `base`, a multiple of 8, in the file."""
    bad -= base
    aligned = -(-bad // 8) * 8
    usable = (len(data) - aligned) // 8 * 8
    if usable < RECORD_HEADER.size:
        return None
    words = np.frombuffer(data, "<u4", usable // 4, aligned)[::2]
    for position in np.flatnonzero(words == RECORD_MAGIC).tolist():
        offset = aligned + 8 * position
        if offset + RECORD_HEADER.size > len(data):
            break
        _, length, digest, _, _, synced, _, _, _, _ = RECORD_HEADER.unpack_from(data, offset)
        if (
            digest == header_sum(data[offset + 16 : offset + 64], length, seed)
            and synced > base + bad
        ):
            return base + offset
    return None


@dataclass(slots=True)
class LogRows:
    """The rows of a log as columns, in the order of their seq."""

    record_class: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    seq: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    vector: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    ends: dict[int, Ends] = field(default_factory=dict)
    matrices: list[Matrix] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)  # of each matrix
    vector_numbers: list[int] = field(default_factory=list)
    vector_rows: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.seq)

    def vectors(self) -> Iterator[tuple[str, Matrix, list[int], list[int]]]:
        """Of each matrix: the space, the vectors, their numbers, and the rows that have them."""
        at = 0
        for space, matrix in zip(self.spaces, self.matrices, strict=True):
            until = at + len(matrix)
            yield space, matrix, self.vector_numbers[at:until], self.vector_rows[at:until]
            at = until

    def owners(self, places: list[int]) -> list[bytes]:
        """The memories that the vectors of these rows belong to."""
        if not self.ends:
            return [self.keys[row] for row in places]
        ends = self.ends
        return [ends[row][0] if row in ends else self.keys[row] for row in places]


def decode(data: bytes, records: LogRecords, path: str, base: int = 0) -> LogRows:
    """The rows of these records; `data` stands at `base` in the file.

    Raises CorruptionError if a body does not add up."""
    rows = LogRows()
    if not len(records):
        return rows
    _check_headers(records, path, base)
    # stretches of single memory records (one save each) are decoded as arrays
    words = np.frombuffer(data, "<u4", len(data) // 4)
    single = (records.operations == 1) & (records.length >= SINGLE.size)
    edges = words[np.where(single, records.offset // 4 + 18, 0)]
    single &= edges == 0
    turns = (np.flatnonzero(np.diff(single)) + 1).tolist()
    for start, stop in zip([0, *turns], [*turns, len(records)], strict=True):
        try:
            if single[start]:
                _decode_singles(data, words, records, slice(start, stop), rows)
            else:
                for index in range(start, stop):
                    _decode_batch(data, records[index], rows)
        except (ValueError, struct.error) as error:
            raise CorruptionError(path, base + records[start].offset, "a batch", error) from error
    return rows


def _check_headers(records: LogRecords, path: str, base: int) -> None:
    """What no record has that a writer made, although its sums are right."""
    wrong = (
        (records.operations == 0)
        | (records.time > np.uint64(TIME_MAX))  # a negative one is above it too
        | (records.first_vector > np.uint64(VECTOR_NUMBER_MAX))
    )
    if bool(wrong.any()):
        record = records[int(np.argmax(wrong))]
        raise CorruptionError(
            path, base + record.offset, "operations, a time and a vector number in range", record
        )


def _check_columns(classes: bytes, kinds: bytes, largest: int) -> None:
    """The columns of operations and the largest payload. Raises ValueError."""
    if max(classes) not in CLASSES or max(kinds) > TOMBSTONE:
        raise ValueError("an unknown class or kind")
    if largest > PAYLOAD_BYTES_MAX:
        raise ValueError("a payload that is too large")


def _decode_singles(
    data: bytes,
    words: npt.NDArray[np.uint32],
    records: LogRecords,
    some: slice,
    rows: LogRows,
) -> None:
    offsets = records.offset[some]
    body = offsets // 4 + 16
    vectors, dimensions, sizes = words[body], words[body + 1], words[body + 3].astype(np.int64)
    flags = words[body + 4]
    needed = 56 + (sizes + 7) // 8 * 8 + (4 * vectors.astype(np.int64) * dimensions + 7) // 8 * 8
    if bool((vectors > 1).any()) or bool((needed != records.length[some]).any()):
        raise ValueError("the lengths of a record do not add up")
    if bool((words[body + 12] != sizes).any()):
        raise ValueError("the payload lengths do not add up")
    shared = words[body + 10].astype(np.uint64) | words[body + 11].astype(np.uint64) << np.uint64(
        32
    )
    if bool(((shared == np.uint64(OWN_VECTOR)) != (vectors == 1)).any()):
        raise ValueError("a vector that is not there, or is nobody's")
    classes, kinds = (flags & 255).astype(np.uint8), (flags >> 8 & 255).astype(np.uint8)
    if bool((classes == EDGE).any()):
        raise ValueError("an edge without ends")
    _check_columns(classes.tobytes(), kinds.tobytes(), int(sizes.max()))
    base = len(rows)
    rows.record_class += classes.tolist()
    rows.kind += kinds.tolist()
    starts = (offsets + 64).tolist()
    rows.keys += [data[at + 24 : at + 40] for at in starts]
    rows.seq += records.seq[some].tolist()
    rows.time += records.time[some].tolist()
    first = records.first_vector[some]
    rows.vector += np.where(shared == np.uint64(OWN_VECTOR), first, shared).tolist()
    rows.payloads += [
        data[at + 56 : at + 56 + size] for at, size in zip(starts, sizes.tolist(), strict=True)
    ]
    with_vector = np.flatnonzero(vectors == 1)
    if not len(with_vector):
        return
    dimension = int(dimensions[with_vector[0]])
    if not 1 <= dimension <= DIMENSION_MAX:
        raise ValueError(f"vectors of dimension {dimension}")
    if bool((dimensions[with_vector] != dimension).any()):
        raise ValueError("vectors of different dimensions")
    floats = words.view("<f4")
    windows = np.lib.stride_tricks.as_strided(
        floats, (len(floats) - dimension + 1, dimension), (4, 4), writeable=False
    )
    at = body[with_vector] + 14 + (sizes[with_vector] + 7) // 8 * 2
    rows.matrices.append(windows[at])
    rows.spaces.append(DEFAULT_SPACE)
    rows.vector_numbers += first[with_vector].tolist()
    rows.vector_rows += (with_vector + base).tolist()


def _decode_batch(data: bytes, record: LogRecord, rows: LogRows) -> None:
    at = record.offset + 64
    end = at + record.length
    count = record.operations
    vectors, dimension, edges, payload_bytes = PREFIX.unpack_from(data, at)
    at += PREFIX.size
    classes = data[at : at + count]
    kinds = data[at + count : at + 2 * count]
    at += -(-2 * count // 8) * 8
    base = len(rows)
    if at + 28 * count > end:
        raise ValueError("more operations than bytes")
    lengths = np.frombuffer(data, "<u4", count, at + 24 * count).tolist()
    _check_columns(classes, kinds, max(lengths))
    numbers = np.frombuffer(data, "<u8", count, at + 16 * count)
    rows.keys += [data[i : i + 16] for i in range(at, at + 16 * count, 16)]
    at += 16 * count
    own = np.flatnonzero(numbers == np.uint64(OWN_VECTOR))
    if len(own) != vectors:
        raise ValueError(f"{len(own)} of {vectors} vectors")
    resolved = numbers.copy()
    resolved[own] = np.arange(record.first_vector, record.first_vector + vectors, dtype=np.uint64)
    at += 8 * count + -(-4 * count // 8) * 8
    if sum(lengths) != payload_bytes or at + payload_bytes > end:
        raise ValueError("the payload lengths do not add up")
    rows.payloads += [
        data[stop - size : stop]
        for stop, size in zip(accumulate(lengths, initial=at), [0, *lengths], strict=True)
    ][1:]
    at += -(-payload_bytes // 8) * 8
    if edges or EDGE in classes:
        at = _decode_ends(data, at, end, edges, classes, base, rows)
    if vectors:
        at = _decode_vectors(data, at, end, dimension, classes, own, base, rows)
        rows.vector_numbers += resolved[own].tolist()
        rows.vector_rows += (own + base).tolist()
    if at != end:
        raise ValueError("a batch of another length")
    rows.record_class += classes
    rows.kind += kinds
    rows.seq += [record.seq] * count
    rows.time += [record.time] * count
    rows.vector += resolved.tolist()


def _decode_vectors(
    data: bytes,
    at: int,
    end: int,
    dimension: int,
    classes: bytes,
    own: Rows,
    base: int,
    rows: LogRows,
) -> int:
    """The vectors of the operations `own`. Returns where they end."""
    count = len(own)
    spaces = [_space_of(rows, base + row, classes[row]) for row in own.tolist()]
    widths = [dimension] * count
    if dimension == EACH_ITS_OWN:
        if at + 4 * count > end:
            raise ValueError("more vectors than bytes")
        widths = np.frombuffer(data, "<u4", count, at).tolist()
        at += -(-4 * count // 8) * 8
    elif any(spaces):
        raise ValueError("vectors of a named space without dimensions of their own")
    for (space, width), group in groupby(zip(spaces, widths, strict=True)):
        if not 1 <= width <= DIMENSION_MAX:
            raise ValueError(f"vectors of dimension {width}")
        length = len(list(group))
        matrix = np.frombuffer(data, "<f4", length * width, at).reshape(length, width)
        rows.matrices.append(matrix)
        rows.spaces.append(space)
        at += matrix.nbytes
    return -(-at // 8) * 8


def _space_of(rows: LogRows, row: int, record_class: int) -> str:
    if record_class != EDGE:
        return DEFAULT_SPACE
    space = space_of(rows.ends[row][2])
    if space is None:
        raise ValueError("a connection with a vector")
    return space


def _decode_ends(
    data: bytes, at: int, end: int, edges: int, classes: bytes, base: int, rows: LogRows
) -> int:
    places = [base + i for i, record_class in enumerate(classes) if record_class == EDGE]
    if len(places) != edges or at + 44 * edges > end:
        raise ValueError(f"{len(places)} of {edges} edges")
    sources = [data[i : i + 16] for i in range(at, at + 16 * edges, 16)]
    at += 16 * edges
    targets = [data[i : i + 16] for i in range(at, at + 16 * edges, 16)]
    at += 16 * edges
    strengths = np.frombuffer(data, "<f8", edges, at).tolist()
    at += 8 * edges
    sizes = np.frombuffer(data, "<u4", edges, at).tolist()
    at += -(-4 * edges // 8) * 8
    stop = at
    for place, source, target, strength, size in zip(
        places, sources, targets, strengths, sizes, strict=True
    ):
        stop += size
        if stop > end:
            raise ValueError("edge types beyond the record")
        type_ = data[stop - size : stop]
        if rows.keys[place] != xxhash.xxh3_128_digest(source + target + type_):
            raise ValueError("the key of another edge")
        rows.ends[place] = (source, target, type_.decode(), strength)
    return at + -(-(stop - at) // 8) * 8
