"""The write-ahead log, byte by byte. A log record is an atomic batch, columnar inside.

    file header, 64 bytes
         0  8s  magic b"ENGRAMWL"
         8  u32 format version (1)
        12  u32 writer epoch
        16  16s database uuid
        32  u64 log number
        40  u64 number of the log before it, 0 if none is needed any more
        48  u64 bytes of that log that count: it was synced up to there before this one was made
        56  u64 xxh3-64 of bytes 0..56
    record, at a multiple of 8: header, 64 bytes
         0  u32 magic b"EREC"
         4  u32 body length in bytes, a multiple of 8
         8  u64 xxh3-64 of bytes 16..64 and of the body length, seeded with the log's seed
        16  u64 seq
        24  i64 time, microseconds since the epoch
        32  u64 how much of this log was known to be synced when the record was written
        40  u64 number of the first vector in the body; the others follow
        48  u64 xxh3-64 of the body, seeded with the log's seed
        56  u32 operations (n)
        60  u32 zero
    body
         0  u32 vectors (m)
         4  u32 dimension, 0 if m is 0, 2**32-1 if some of them are vectors of edges
         8  u32 edges (e)
        12  u32 payload bytes
        16  n x u8  class, then n x u8 kind, zero-padded to 8
            n x 16s key
            n x u64 vector: 0 none, 2**64-1 the next one of the body, else the number that it shares
            n x u32 payload length, zero-padded to 8
            payloads one after another, zero-padded to 8
            for edges: e x 16s source, e x 16s target, e x f64 strength, e x u32 type length, padded
                       to 8, types (UTF-8) one after another, padded to 8
            m x dimension x f32 vectors, zero-padded to 8; if the dimension is 2**32-1: before them
                       m x u32 dimensions, zero-padded to 8
The seed is the xxh3-64 of database uuid and log number: a record of another log, or of another
database, does not check out here. A log is written on zeros that were synced before (overwriting is
almost twice as fast to sync as appending), so after the last record stand zeros.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
import xxhash

from engramdb.errors import CorruptionError, IncompatibleFormatError, InvalidInputError
from engramdb.lsm.limits import BATCH_BYTES_MAX
from engramdb.lsm.records import EDGE, Operation, Vector

MAGIC: Final = b"ENGRAMWL"
VERSION: Final = 1
RECORD_MAGIC: Final = int.from_bytes(b"EREC", "little")
OWN_VECTOR: Final = 2**64 - 1
EACH_ITS_OWN: Final = 2**32 - 1  # dimension: each vector tells its own, and an edge may have one

FILE_HEADER: Final = struct.Struct("<8sII16sQQQQ")
RECORD_HEADER: Final = struct.Struct("<IIQQqQQQII")
RECORD_TAIL: Final = struct.Struct("<QqQQQII")  # bytes 16..64, which the header's sum covers
PREFIX: Final = struct.Struct("<IIII")
SINGLE: Final = struct.Struct("<IIIIBB6x16sQI4x")  # prefix and columns of one memory
assert FILE_HEADER.size == RECORD_HEADER.size == 64
assert RECORD_TAIL.size == 48 and PREFIX.size == 16 and SINGLE.size == 56

_sum = xxhash.xxh3_64_intdigest
_PADS: Final = [bytes(-i & 7) for i in range(8)]


def seed_of(database: bytes, number: int) -> int:
    """The seed of the checksums of one log."""
    return _sum(database + number.to_bytes(8, "little"))


class FileHeader(NamedTuple):
    """What the first 64 bytes of a log say."""

    epoch: int
    predecessor: int
    predecessor_bytes: int


def file_header(database: bytes, number: int, fields: FileHeader) -> bytes:
    """The first 64 bytes of a log."""
    head = FILE_HEADER.pack(
        MAGIC,
        VERSION,
        fields.epoch,
        database,
        number,
        fields.predecessor,
        fields.predecessor_bytes,
        0,
    )[:56]
    return head + _sum(head).to_bytes(8, "little")


def read_file_header(data: bytes, path: str, database: bytes, number: int) -> FileHeader:
    """Raises CorruptionError or IncompatibleFormatError."""
    if len(data) < FILE_HEADER.size:
        raise CorruptionError(path, 0, "the header of a log", f"{len(data)} bytes")
    magic, version, epoch, uuid, got, predecessor, bytes_, digest = FILE_HEADER.unpack(data)
    if magic != MAGIC or _sum(data[:56]) != digest:
        raise CorruptionError(path, 0, "the header of a log", data.hex())
    if version != VERSION:
        raise IncompatibleFormatError(f"{path} has log format {version}, this reads {VERSION}")
    if (uuid, got) != (database, number):
        raise IncompatibleFormatError(f"{path} is log {got} of database {uuid.hex()}: not ours")
    return FileHeader(epoch, predecessor, bytes_)


def header_sum(tail: bytes, body_length: int, seed: int) -> int:
    """The checksum of a record header."""
    return _sum(tail, seed ^ body_length)


def record_header(
    *,
    body: bytes,
    body_sum: int,
    seq: int,
    time: int,
    synced: int,
    first_vector: int,
    operations: int,
    seed: int,
) -> bytes:
    """The header of a record whose body is given."""
    tail = RECORD_TAIL.pack(seq, time, synced, first_vector, body_sum, operations, 0)
    length = len(body)
    return b"".join(
        (
            b"EREC",
            length.to_bytes(4, "little"),
            header_sum(tail, length, seed).to_bytes(8, "little"),
            tail,
        )
    )


def body_sum(body: bytes | memoryview, seed: int) -> int:
    """The checksum of a record's body."""
    return _sum(body, seed)


def encode_body(operations: list[Operation]) -> bytes:
    """The body of a record. Raises InvalidInputError if it would be too large.

    An operation that shares a vector carries `vector` None and its number in `shares`.
    """
    if len(operations) == 1 and operations[0].record_class != EDGE:
        return _encode_single(operations[0])
    payloads = [operation.payload for operation in operations]
    vectors = [operation.vector for operation in operations if operation.vector is not None]
    edges = [operation for operation in operations if operation.record_class == EDGE]
    payload = b"".join(payloads)
    dimension = len(vectors[0]) if vectors else 0
    if any(o.vector is not None and o.record_class == EDGE for o in operations):
        dimension = EACH_ITS_OWN
    flags = bytes([operation.record_class for operation in operations]) + bytes(
        [operation.kind for operation in operations]
    )
    numbers = np.array(
        [operation.shares if operation.vector is None else OWN_VECTOR for operation in operations],
        "<u8",
    )
    lengths = np.fromiter(map(len, payloads), "<u4", len(payloads)).tobytes()
    parts = [
        PREFIX.pack(len(vectors), dimension, len(edges), len(payload)),
        flags,
        _PADS[len(flags) & 7],
        b"".join([operation.key for operation in operations]),
        numbers.tobytes(),
        lengths,
        _PADS[len(lengths) & 7],
        payload,
        _PADS[len(payload) & 7],
    ]
    if edges:
        types = [edge.type.encode() for edge in edges]
        listed = b"".join(types)
        sizes = np.fromiter(map(len, types), "<u4", len(types)).tobytes()
        parts += [
            b"".join([edge.source for edge in edges]),
            b"".join([edge.target for edge in edges]),
            np.array([edge.strength for edge in edges], "<f8").tobytes(),
            sizes,
            _PADS[len(sizes) & 7],
            listed,
            _PADS[len(listed) & 7],
        ]
    floats = len(vectors) * dimension
    if dimension == EACH_ITS_OWN:
        widths = np.fromiter(map(len, vectors), "<u4", len(vectors))
        floats = int(widths.sum())
        parts += [widths.tobytes(), _PADS[4 * len(vectors) & 7]]
    parts += [vector.tobytes() for vector in vectors]
    if floats & 1:
        parts.append(bytes(4))
    return _checked(b"".join(parts))


def _encode_single(operation: Operation) -> bytes:
    vector: Vector | None = operation.vector
    payload = operation.payload
    size = len(payload)
    if vector is None:
        columns = SINGLE.pack(
            0,
            0,
            0,
            size,
            operation.record_class,
            operation.kind,
            operation.key,
            operation.shares,
            size,
        )
        return _checked(b"".join((columns, payload, _PADS[size & 7])))
    columns = SINGLE.pack(
        1,
        len(vector),
        0,
        size,
        operation.record_class,
        operation.kind,
        operation.key,
        OWN_VECTOR,
        size,
    )
    data = vector.tobytes()
    return _checked(b"".join((columns, payload, _PADS[size & 7], data, _PADS[len(data) & 7])))


def _checked(body: bytes) -> bytes:
    if len(body) > BATCH_BYTES_MAX:
        raise InvalidInputError(
            "batch",
            f"{len(body):,} bytes are too many for one commit (at most "
            f"{BATCH_BYTES_MAX:,}); use save_columns(), or commit in parts",
        )
    return body
