"""The log, byte for byte as documented, and every batch back from it as it went in."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError, EngramError, IncompatibleFormatError
from engramdb.lsm import log_format, log_reader
from engramdb.lsm.log_format import FileHeader, encode_body, record_header, seed_of
from engramdb.lsm.log_writer import VISIBLE, Visible, encode_visible
from engramdb.lsm.records import (
    CLASSES,
    EDGE,
    MEMORY,
    META,
    PATCH,
    PUT,
    TOMBSTONE,
    Ends,
    Operation,
    edge_key,
)

UUID = bytes(range(16))
SEED = seed_of(UUID, 17)


def digest(data: bytes, seed: int = 0) -> bytes:
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(data, seed))


def record(operations: list[Operation], seq: int, first_vector: int, synced: int = 64) -> bytes:
    body = encode_body(operations)
    return (
        record_header(
            body=body,
            body_sum=log_format.body_sum(body, SEED),
            seq=seq,
            time=1000 + seq,
            synced=synced,
            first_vector=first_vector,
            operations=len(operations),
            seed=SEED,
        )
        + body
    )


# Byte for byte


def test_the_file_header() -> None:
    expected = b"ENGRAMWL" + struct.pack("<II", 1, 3) + UUID + struct.pack("<QQQ", 17, 16, 4096)
    header = log_format.file_header(UUID, 17, FileHeader(3, 16, 4096))
    assert header == expected + digest(expected)
    assert log_format.read_file_header(header, "f", UUID, 17) == (3, 16, 4096)


def test_a_record_of_one_memory() -> None:
    vector = np.array([1.0, -2.0, 0.5], np.float32)
    body = bytes.fromhex(
        "01000000 03000000 00000000 05000000"  # vectors, dimension, edges, payload bytes
        "00 00 000000000000"  # class, kind
        "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"  # key
        "ffffffffffffffff"  # the next vector of the body
        "05000000 00000000"  # payload length
        "68656c6c6f 000000"
        "0000803f 000000c0 0000003f 00000000"
    )
    tail = struct.pack("<QqQQ", 9, 1009, 640, 4) + digest(body, SEED) + struct.pack("<II", 1, 0)
    head = b"EREC" + struct.pack("<I", len(body)) + digest(tail, SEED ^ len(body))
    operation = Operation(MEMORY, b"k" * 16, PUT, b"hello", vector)
    assert record([operation], 9, 4, 640).hex(" ", 8) == (head + tail + body).hex(" ", 8)


def test_a_record_of_a_batch() -> None:
    operations = [
        Operation(MEMORY, b"a" * 16, PUT, b"xy", np.array([1.0], np.float32)),
        Operation(MEMORY, b"b" * 16, PATCH, b"", None, 7),
        Operation(EDGE, b"c" * 16, PUT, b"e", None, 0, b"a" * 16, b"b" * 16, "is", 0.5),
    ]
    body = struct.pack("<IIII", 1, 1, 1, 3)
    body += bytes([0, 0, 1, 0, 1, 0, 0, 0])  # classes, kinds
    body += b"a" * 16 + b"b" * 16 + b"c" * 16
    body += struct.pack("<QQQ", 2**64 - 1, 7, 0)
    body += struct.pack("<IIII", 2, 0, 1, 0)  # payload lengths and padding
    body += b"xye" + bytes(5)
    body += b"a" * 16 + b"b" * 16 + struct.pack("<d", 0.5)
    body += struct.pack("<II", 2, 0) + b"is" + bytes(6)
    body += struct.pack("<fI", 1.0, 0)
    assert encode_body(operations).hex(" ", 8) == body.hex(" ", 8)


def test_the_file_visible() -> None:
    data = encode_visible(Visible(17, 640, 704, 9, 1009, 33))
    expected = b"ENGRAMVI" + struct.pack("<QQQQQQ", 17, 640, 704, 9, 1009, 33)
    assert data == expected + digest(expected) and len(data) == VISIBLE.size == 64


# There and back

keys = st.binary(min_size=16, max_size=16)
payloads = st.binary(max_size=20)


@st.composite
def batches(draw: st.DrawFn) -> list[list[Operation]]:
    """Single records and batches, mixed; vectors new, shared and none; edges among them."""
    dimension = draw(st.sampled_from([1, 2, 3, 5]))
    floats = st.floats(width=32, allow_nan=False)
    vectors = st.lists(floats, min_size=dimension, max_size=dimension)

    def memory() -> Operation:
        kind = draw(st.sampled_from([PUT, PUT, PATCH, TOMBSTONE]))
        key = draw(keys)
        if kind == TOMBSTONE:
            return Operation(MEMORY, key, kind)
        if kind == PATCH:
            shares = draw(st.sampled_from([1, 2**32, 2**63, 2**64 - 2]))
            return Operation(MEMORY, key, kind, draw(payloads), None, shares)
        vector = draw(st.none() | vectors)
        array = None if vector is None else np.array(vector, np.float32)
        return Operation(MEMORY, key, kind, draw(payloads), array)

    def edge() -> Operation:
        source, target = draw(keys), draw(keys)
        name = draw(st.sampled_from(["", "Association", "Ü", "x" * 256]))
        kind = draw(st.sampled_from([PUT, TOMBSTONE]))
        strength = draw(st.floats(allow_nan=False))
        key = edge_key(source, target, name)
        return Operation(EDGE, key, kind, draw(payloads), None, 0, source, target, name, strength)

    def operation() -> Operation:
        which = draw(st.sampled_from(["memory", "memory", "edge", "meta"]))
        if which == "meta":
            return Operation(META, draw(keys), PUT, draw(payloads))
        return memory() if which == "memory" else edge()

    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 5]), min_size=1, max_size=8))
    return [[operation() for _ in range(size)] for size in sizes]


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from([0, 8, 64, 4096]))
def test_what_was_written_is_read(groups: list[list[Operation]], zeros: int) -> None:
    data = bytearray(64)
    next_vector = 10
    firsts = []
    for seq, operations in enumerate(groups, 5):
        firsts.append(next_vector)
        data += record(operations, seq, next_vector)
        next_vector += sum(o.vector is not None for o in operations)
    end = len(data)
    log = bytes(data) + bytes(zeros)
    records, valid = log_reader.scan(log, SEED, 64, len(log))
    assert valid == end
    assert [records[i].seq for i in range(len(records))] == list(range(5, 5 + len(groups)))
    assert [records[i].operations for i in range(len(records))] == [len(g) for g in groups]
    rows = log_reader.decode(log, records, "log")

    flat = [(seq, o) for seq, group in enumerate(groups, 5) for o in group]
    assert rows.record_class == [o.record_class for _, o in flat]
    assert rows.kind == [o.kind for _, o in flat]
    assert rows.keys == [o.key for _, o in flat]
    assert rows.seq == [seq for seq, _ in flat]
    assert rows.time == [1000 + seq for seq, _ in flat]
    assert rows.payloads == [o.payload for _, o in flat]
    number = 10
    expected_vectors, owners, stored = [], [], []
    for row, (_, o) in enumerate(flat):
        if o.vector is None:
            expected_vectors.append(o.shares)
        else:
            expected_vectors.append(number)
            owners.append(row)
            stored.append(o.vector.tobytes())
            number += 1
    assert rows.vector == expected_vectors
    assert rows.vector_rows == owners
    assert rows.vector_numbers == list(range(10, number))
    assert [row.tobytes() for matrix in rows.matrices for row in matrix] == stored
    ends: dict[int, Ends] = {
        row: (o.source, o.target, o.type, o.strength)
        for row, (_, o) in enumerate(flat)
        if o.record_class == EDGE
    }
    assert rows.ends == ends


# Damage


def sample_log() -> tuple[bytes, list[int]]:
    data = log_format.file_header(UUID, 17, FileHeader(1, 0, 0))
    ends = []
    for seq in range(1, 4):
        vector = np.array([seq, 2], np.float32)
        data += record([Operation(MEMORY, b"%016d" % seq, PUT, b"x" * seq, vector)], seq, seq)
        ends.append(len(data))
    return data, ends


def test_a_flipped_bit_ends_the_sound_records_before_it() -> None:
    data, ends = sample_log()
    for position in range(64, len(data)):
        bad = bytearray(data)
        bad[position] ^= 1 << position % 8
        records, valid = log_reader.scan(bytes(bad), SEED, 64, len(bad))
        sound = sum(end <= position for end in ends)
        assert (len(records), valid) == (sound, ends[sound - 1] if sound else 64)


def test_a_flipped_length_is_not_trusted() -> None:
    data, _ = sample_log()
    for length in (0, 8, 2**20, 2**32 - 1):
        bad = data[:68] + struct.pack("<I", length) + data[72:]
        records, valid = log_reader.scan(bad, SEED, 64, len(bad))
        assert (len(records), valid) == (0, 64)


@pytest.mark.parametrize("cut", [1, 8, 63, 64, 65, 100])
def test_a_cut_log_ends_at_its_last_whole_record(cut: int) -> None:
    data, ends = sample_log()
    records, valid = log_reader.scan(data[:-cut], SEED, 64, len(data) - cut)
    assert len(records) == sum(end <= len(data) - cut for end in ends)
    assert valid in (64, *ends)


def test_a_record_of_another_log_does_not_count() -> None:
    data, _ = sample_log()
    for seed in (seed_of(UUID, 18), seed_of(bytes(16), 17)):
        records, _ = log_reader.scan(data, seed, 64, len(data))
        assert len(records) == 0


def test_a_header_that_is_not_ours() -> None:
    header = log_format.file_header(UUID, 17, FileHeader(1, 0, 0))
    for position in range(64):
        bad = bytearray(header)
        bad[position] ^= 1
        with pytest.raises(CorruptionError):
            log_format.read_file_header(bytes(bad), "f", UUID, 17)
    with pytest.raises(CorruptionError):
        log_format.read_file_header(header[:63], "f", UUID, 17)
    with pytest.raises(IncompatibleFormatError, match="not ours"):
        log_format.read_file_header(header, "f", UUID, 18)
    with pytest.raises(IncompatibleFormatError, match="not ours"):
        log_format.read_file_header(header, "f", bytes(16), 17)
    future = header[:8] + struct.pack("<I", 2) + header[12:56]
    with pytest.raises(IncompatibleFormatError, match="format 2"):
        log_format.read_file_header(future + digest(future), "f", UUID, 17)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([1, 3]),
    st.lists(st.tuples(st.integers(0, 17), st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1]))),
)
def test_nonsense_under_sound_checksums_is_corruption_and_nothing_else(
    count: int, changes: list[tuple[int, int]]
) -> None:
    operations = [Operation(MEMORY, b"a" * 16, PUT, b"xy", np.ones(1, np.float32))]
    if count == 3:
        source, target = b"a" * 16, b"b" * 16
        operations += [
            Operation(EDGE, b"c" * 16, PUT, b"e", None, 0, source, target, "is", 0.5),
            Operation(META, b"d" * 16, PUT, b"m"),
        ]
    body = bytearray(encode_body(operations))
    for word, value in changes:
        struct.pack_into("<I", body, 4 * word, value)
    log = bytes(64) + record_header(
        body=bytes(body),
        body_sum=log_format.body_sum(bytes(body), SEED),
        seq=1,
        time=1,
        synced=64,
        first_vector=1,
        operations=count,
        seed=SEED,
    )
    log += body
    records, _ = log_reader.scan(log, SEED, 64, len(log))
    assert len(records) == 1
    try:
        rows = log_reader.decode(log, records, "log")
    except CorruptionError:
        return
    except EngramError as error:  # pragma: no cover
        pytest.fail(repr(error))
    assert set(rows.record_class) <= set(CLASSES)


def test_empty_bodies_and_too_many_operations_are_corruption() -> None:
    for body, operations in ((b"", 1), (b"", 0), (bytes(8), 2), (bytes(16), 2**32 - 1)):
        log = bytes(64) + record_header(
            body=body,
            body_sum=log_format.body_sum(body, SEED),
            seq=1,
            time=1,
            synced=64,
            first_vector=1,
            operations=operations,
            seed=SEED,
        )
        records, _ = log_reader.scan(log + body, SEED, 64, len(log + body))
        assert len(records) == 1
        with pytest.raises(CorruptionError):
            log_reader.decode(log + body, records, "log")
