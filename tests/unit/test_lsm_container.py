"""The layout of segment, vector and mark files: byte for byte as documented, and self-checking."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash

from engramdb.errors import CorruptionError, EngramError, IncompatibleFormatError
from engramdb.lsm.container import (
    CHUNK_BYTES,
    MARKS,
    SEGMENT,
    ContainerReader,
    ContainerWriter,
    rows_per_part,
)
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.memory import MemoryFile

UUID = bytes(range(16))
PATH = "/d/file"


def make(kind: bytes = MARKS) -> tuple[MemoryEnvironment, int, bytes]:
    environment = MemoryEnvironment()
    environment.make_directory("/d")
    writer = ContainerWriter(kind, UUID, 7)
    writer.column("row", np.array([3, 5, 4], np.uint64))
    writer.blob("text", b"hello")
    size, fingerprint = writer.write(environment, PATH)
    return environment, size, fingerprint


def reader(
    environment: MemoryEnvironment,
    size: int,
    fingerprint: bytes,
    *,
    kind: bytes = MARKS,
    database: bytes = UUID,
    number: int = 7,
) -> ContainerReader:
    return ContainerReader(
        environment,
        PATH,
        kind=kind,
        database=database,
        number=number,
        size=size,
        fingerprint=fingerprint,
    )


def content(environment: MemoryEnvironment) -> bytes:
    return environment.open(PATH, "r").read_at(0, 1 << 20)


def test_a_tiny_file_byte_by_byte() -> None:
    environment, size, fingerprint = make()

    def digest(data: bytes) -> bytes:
        return struct.pack("<Q", xxhash.xxh3_64_intdigest(data))

    header = (
        b"ENGRAMDB"
        b"MARK" + bytes.fromhex("0100 0000") + UUID + bytes.fromhex("0700000000000000") + bytes(16)
    )
    header += digest(header)
    row = bytes([0, 2, 1])
    text = b"hello"
    directory = (
        b"row".ljust(16, b"\0")
        + bytes([2])  # OFFSET8
        + bytes(7)
        + struct.pack("<QQQQ", 3, 3, 64, 3)  # base, count, offset, length
        + digest(row)
        + b"text".ljust(16, b"\0")
        + bytes([254])
        + bytes(7)
        + struct.pack("<QQQQ", 0, 5, 128, 5)
        + digest(text)
    )
    expected_fingerprint = xxhash.xxh3_128_digest(header + directory)
    footer = struct.pack("<QQ", 192, 2) + digest(directory) + expected_fingerprint + bytes(8)
    footer += b"ENGRAMDB"
    footer += digest(footer)
    expected = header + row.ljust(64, b"\0") + text.ljust(64, b"\0") + directory + footer
    assert content(environment).hex(" ") == expected.hex(" ")
    assert (size, fingerprint) == (len(expected), expected_fingerprint)


def test_it_reads_what_was_written() -> None:
    environment, size, fingerprint = make()
    file = reader(environment, size, fingerprint)
    assert file.column("row").array().tolist() == [3, 5, 4]
    assert file.blob("text") == b"hello"
    assert file.names() == ["row", "text"] and "row" in file and "other" not in file
    assert file.verify() == size


def test_no_bit_of_it_can_flip_unnoticed() -> None:
    environment, size, fingerprint = make()
    good = content(environment)
    for position in range(size):
        file = environment.open(PATH, "w")
        file.write_at(position, bytes([good[position] ^ 1 << position % 8]))
        with pytest.raises((CorruptionError, IncompatibleFormatError)):
            reader(environment, size, fingerprint).verify()
        file.write_at(position, good[position : position + 1])
    reader(environment, size, fingerprint).verify()


@pytest.mark.parametrize("length", [0, 1, 63, 64, 200, -1, 1])
def test_a_file_of_another_length_is_refused(length: int) -> None:
    environment, size, fingerprint = make()
    environment.open(PATH, "w").truncate(length if length >= 0 else size + 1)
    with pytest.raises(CorruptionError) as caught:
        reader(environment, size, fingerprint)
    assert caught.value.file == PATH


def test_a_missing_file_is_named() -> None:
    environment, size, fingerprint = make()
    environment.unlink(PATH)
    with pytest.raises(CorruptionError, match="no file"):
        reader(environment, size, fingerprint)


def test_a_sound_file_in_the_wrong_place_is_refused() -> None:
    environment, size, fingerprint = make()
    with pytest.raises(IncompatibleFormatError, match="elsewhere"):
        reader(environment, size, fingerprint, number=8)
    with pytest.raises(IncompatibleFormatError, match="elsewhere"):
        reader(environment, size, fingerprint, database=bytes(16))
    with pytest.raises(IncompatibleFormatError, match="elsewhere"):
        reader(environment, size, fingerprint, kind=SEGMENT)


def test_a_stale_file_with_the_right_name_is_refused() -> None:
    environment, size, _ = make()
    with pytest.raises(CorruptionError, match="fingerprint"):
        reader(environment, size, bytes(16))


def test_a_future_version_says_upgrade() -> None:
    environment, size, fingerprint = make()
    header = bytearray(content(environment)[:56])
    header[12] = 2
    header += struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(header)))
    environment.open(PATH, "w").write_at(0, bytes(header))
    with pytest.raises(IncompatibleFormatError, match=r"version 2.*upgrade"):
        reader(environment, size, fingerprint)


def test_damage_is_found_when_the_section_is_read_and_says_where() -> None:
    environment, size, fingerprint = make()
    environment.open(PATH, "w").write_at(129, b"E")
    file = reader(environment, size, fingerprint)
    assert file.column("row").array().tolist() == [3, 5, 4]
    with pytest.raises(CorruptionError) as caught:
        file.blob("text")
    assert (caught.value.file, caught.value.offset) == (PATH, 128)


def test_a_section_that_is_not_there_is_corruption() -> None:
    environment, size, fingerprint = make()
    with pytest.raises(CorruptionError, match="other"):
        reader(environment, size, fingerprint).blob("other")
    with pytest.raises(CorruptionError, match="a column"):
        reader(environment, size, fingerprint).column("text")


# The matrix, which is mapped


def make_matrix(rows: int, dimension: int) -> tuple[MemoryEnvironment, ContainerReader, bytes]:
    environment = MemoryEnvironment()
    environment.make_directory("/d")
    matrix = np.arange(rows * dimension, dtype=np.float32).reshape(rows, dimension)
    step = rows_per_part(dimension)
    writer = ContainerWriter(SEGMENT, UUID, 7)
    parts = [matrix[i : i + step] for i in range(0, rows, step)]
    writer.matrix("matrix", matrix.nbytes, parts)
    size, fingerprint = writer.write(environment, PATH)
    file = reader(environment, size, fingerprint, kind=SEGMENT)
    return environment, file, matrix.tobytes()


@pytest.mark.parametrize(("rows", "dimension"), [(1, 1), (3, 5), (1000, 300), (70_000, 3)])
def test_a_matrix_is_mapped_as_it_was(rows: int, dimension: int) -> None:
    _, file, expected = make_matrix(rows, dimension)
    mapped = file.chunked("matrix")
    assert mapped.tobytes() == expected
    assert file.section("matrix").offset % 64 == 0
    file.verify()


def test_damage_in_a_matrix_names_its_chunk() -> None:
    environment, file, _ = make_matrix(1000, 300)
    at = file.section("matrix").offset + 3 * CHUNK_BYTES + 17
    environment.open(PATH, "w").write_at(at, b"\xff")
    with pytest.raises(CorruptionError) as caught:
        file.verify()
    assert caught.value.offset == file.section("matrix").offset + 3 * CHUNK_BYTES


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 7, 64, 100, 384, 768, 1536, 65_536, 65_535])
def test_parts_fill_whole_chunks(dimension: int) -> None:
    rows = rows_per_part(dimension)
    assert rows * 4 * dimension % CHUNK_BYTES == 0


def test_an_empty_column_and_an_empty_blob() -> None:
    environment = MemoryEnvironment()
    environment.make_directory("/d")
    writer = ContainerWriter(MARKS, UUID, 7)
    writer.column("row", np.empty(0, np.uint64))
    writer.blob("text", b"")
    size, fingerprint = writer.write(environment, PATH)
    file = reader(environment, size, fingerprint)
    assert file.column("row").array().tolist() == [] and file.blob("text") == b""


def test_a_file_that_exists_is_never_overwritten() -> None:
    environment, size, fingerprint = make()
    with pytest.raises(FileExistsError):
        ContainerWriter(MARKS, UUID, 7).write(environment, PATH)
    with pytest.raises(EngramError):
        reader(environment, size, bytes(16))
    reader(environment, size, fingerprint).verify()


def test_verifying_reads_a_large_section_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = MemoryEnvironment()
    environment.make_directory("/d")
    writer = ContainerWriter(MARKS, UUID, 7)
    writer.blob("large", bytes(40 * 2**20) + b"end")
    size, fingerprint = writer.write(environment, PATH)
    lengths: list[int] = []

    def read_at(file: MemoryFile, offset: int, length: int) -> bytes:
        lengths.append(length)
        return whole(file, offset, length)

    whole = MemoryFile.read_at
    opened = reader(environment, size, fingerprint)
    monkeypatch.setattr(MemoryFile, "read_at", read_at)
    assert opened.verify() == size
    assert sum(lengths) > 40 * 2**20 and max(lengths) <= 8 * 2**20
    environment.open(PATH, "w").write_at(64 + 40 * 2**20 + 2, b"!")
    with pytest.raises(CorruptionError):
        opened.verify()
