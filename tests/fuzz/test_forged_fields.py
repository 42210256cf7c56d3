"""One test for each bug that forged files have found: a sound checksum over what cannot be is
damage, told as such, with its file, and before anything is allocated for it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard
from xxhash import xxh3_64_intdigest

from engramdb.errors import CorruptionError, DatabaseLockedError
from engramdb.lsm.limits import TIME_MAX
from engramdb.lsm.payloads import Payloads, open_block
from engramdb.lsm.records import EDGE
from tests.fuzz.checking import BYTES_AT_LEAST, no_hang, traced
from tests.fuzz.containers import ForgedContainer, ForgedSection
from tests.fuzz.databases import ForgedDatabase
from tests.fuzz.logs import ForgedLog, ForgedRecord
from tests.fuzz.reading import exercise, open_database
from tests.fuzz.samples import NAMES, PATH, disk_of, memory, sample

SEGMENT, VECTORS, MARKS = "seg/000002.seg", "vec/000003.vec", "seg/000007.mark"
LOG = "wal/000009.wal"
BATCH, SINGLE, WITH_VECTOR = 0, 4, 1  # records of that log
U64 = 2**64

Forge = Callable[[Any], object]
"""Changes a ForgedContainer or a ForgedLog; what it returns is of no interest."""


def damage_of(database: ForgedDatabase) -> list[CorruptionError]:
    """What is said about the damage, by everything that reads it; little memory is taken."""
    peak: list[int] = []
    with no_hang(), traced(peak):
        damage = exercise(disk_of(database.build())).damage
    assert peak[0] < BYTES_AT_LEAST
    return damage


def assert_damaged(database: ForgedDatabase, file: str) -> None:
    """The damage is found, and the file is named."""
    assert f"{PATH}/{file}" in {error.file for error in damage_of(database)}


def section_of(container: ForgedContainer, name: str) -> ForgedSection:
    """A section that is there."""
    found = container.section(name)
    assert found is not None
    return found


def said(name: str, **fields: int) -> Forge:
    """The directory says something else of a section."""
    return lambda c: section_of(c, name).forged.update(fields)


def holds(name: str, data: bytes) -> Forge:
    """A section holds other bytes."""

    def forge(container: ForgedContainer) -> None:
        section = section_of(container, name)
        section.data, section.sums = data, False

    return forge


def numbers(name: str, change: Callable[[list[int]], list[int]]) -> Forge:
    """A column holds other numbers."""

    def forge(container: ForgedContainer) -> None:
        section = section_of(container, name)
        listed = section.numbers()
        assert listed is not None
        section.pack(change(listed))

    return forge


def constant(name: str, count: int, encoding: int = 0, base: int = 1) -> Forge:
    """A column that takes no bytes."""

    def forge(container: ForgedContainer) -> None:
        section = section_of(container, name)
        section.encoding, section.base, section.count, section.data = encoding, base, count, b""

    return forge


def blocks(frame: bytes, raw: int) -> Forge:
    """The first and only block is this frame."""

    def forge(container: ForgedContainer) -> None:
        section_of(container, "blocks").data = frame
        facts = {"size": len(frame), "raw": raw, "sum": xxh3_64_intdigest(frame)}
        for name, number in facts.items():
            section_of(container, f"block.{name}").pack([number])

    return forge


def all_rows(count: int) -> Forge:
    """Every column agrees that there are so many rows; none of them takes a byte."""

    def forge(container: ForgedContainer) -> None:
        for section in container.sections:
            if section.name == b"class.rows":
                section.pack([count, 0, 0])
            elif section.name.startswith(b"block."):
                section.encoding, section.count, section.data = 0, -(-count // 64), b""
            elif section.encoding < 254:
                section.encoding, section.count, section.data = 0, count, b""

    return forge


def renamed(name: str, to: bytes) -> Forge:
    """A section has another name."""

    def forge(container: ForgedContainer) -> None:
        section_of(container, name).name = to

    return forge


def huge_frame() -> bytes:
    """A zstd frame that says that it holds an exabyte."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**60) + b"\x01\0\0"


def nameless_frame() -> bytes:
    """A zstd frame that does not say what it holds: 4 MiB of zeros."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**22))


CONTAINERS: dict[str, tuple[str, Forge]] = {
    "a name that is no ASCII": (SEGMENT, renamed("kind", b"\xff\xfe")),
    "a name twice": (SEGMENT, renamed("kind", b"time")),
    "a section over another": (SEGMENT, said("time", offset=64)),
    "a section behind the end": (SEGMENT, said("blocks", offset=2**62)),
    "a section askew": (SEGMENT, said("blocks", offset=1601)),
    "raw values with a base": (SEGMENT, said("key.low", base=1)),
    "offsets that run over": (SEGMENT, said("seq", base=U64 - 1)),
    "a range that runs over": (VECTORS, constant("number", 7, 1, U64 - 2)),
    "sums that are no numbers": (VECTORS, holds("matrix.sums", b"1234567")),
    "a matrix that is not chunked": (VECTORS, said("matrix", encoding=254)),
    "classes without an end": (SEGMENT, constant("class.rows", 2**40)),
    "marks without an end": (MARKS, constant("row", 2**40)),
    "marks, a range of them": (MARKS, constant("row", 2**40, 1)),
    "marks, and the seqs fewer": (MARKS, constant("seq", 1)),
    "a mark of commit 0": (MARKS, numbers("seq", lambda n: [0] * len(n))),
    "edges without an end": (SEGMENT, constant("source.high", 2**40)),
    "an order without an end": (SEGMENT, constant("by.target", 2**40)),
    "an order that leads outside": (SEGMENT, numbers("by.source", lambda n: [*n[:-1], 2**63])),
    "an order with one twice": (SEGMENT, numbers("by.source", lambda n: [n[0], *n[:-1]])),
    "a type that is not there": (SEGMENT, numbers("type", lambda n: [2] * len(n))),
    "types that are no text": (SEGMENT, holds("types", b"\x92\x01\x02")),
    "types that are no UTF-8": (SEGMENT, holds("types", b"\x92\xa1\xff\xa1a")),
    "types that are cut": (SEGMENT, holds("types", b"\xdd\xff\xff\xff\xff")),
    "types of other edges": (SEGMENT, numbers("type", lambda n: [1 - i for i in n])),
    "strengths that are no numbers": (SEGMENT, holds("strength", bytes(23))),
    "strengths, too few": (SEGMENT, holds("strength", bytes(16))),
    "a kind that there is not": (SEGMENT, numbers("kind", lambda n: [9] * len(n))),
    "a time before the others": (SEGMENT, numbers("time", lambda n: [n[0] - 1, *n[1:]])),
    "a time that no datetime has": (SEGMENT, numbers("time", lambda n: [2**63, *n[1:]])),
    "rows in disorder": (SEGMENT, numbers("key.high", lambda n: [*n[:6][::-1], *n[6:]])),
    "a part beyond the section": (SEGMENT, numbers("block.size", lambda n: [2**63])),
    "a part that begins beyond it": (SEGMENT, numbers("block.offset", lambda n: [2**62])),
    "a block of an exabyte": (SEGMENT, blocks(huge_frame(), 2**60)),
    "a block that hides its size": (SEGMENT, blocks(nameless_frame(), 2**22)),
    "a block of another size": (SEGMENT, numbers("block.raw", lambda n: [n[0] + 8])),
    "superseded by what cannot be": (SEGMENT, numbers("superseded", lambda n: [U64 - 1] * len(n))),
    "a norm of more than 32 bits": (VECTORS, numbers("norm", lambda n: [2**40] * len(n))),
    "vectors born after the end": (VECTORS, numbers("born", lambda n: [2**63] * len(n))),
    "vectors without an end": (VECTORS, constant("dead", 2**40)),
}


@pytest.mark.parametrize("what", CONTAINERS)
def test_a_container(what: str) -> None:
    file, forge = CONTAINERS[what]
    database = ForgedDatabase(sample("mixed"))
    forge(database.containers[file])
    assert_damaged(database, file)


@pytest.mark.parametrize("rows", [2**14, 2**24, 2**32 - 1])
def test_rows_of_which_nothing_takes_a_byte(rows: int) -> None:
    """All columns and the manifest agree; but the blocks of payloads would need more bytes."""
    database = ForgedDatabase(sample("mixed"))
    all_rows(rows)(database.containers[SEGMENT])
    database.manifest["segments"][0]["rows"] = rows
    assert_damaged(database, SEGMENT)


@pytest.mark.parametrize("rows", [2**14, 2**32 - 1])
def test_vectors_of_which_nothing_takes_a_byte(rows: int) -> None:
    database = ForgedDatabase(sample("mixed"))
    all_rows(rows)(database.containers[VECTORS])
    database.manifest["vectors"][0]["rows"] = rows
    assert_damaged(database, VECTORS)


def test_a_file_shorter_than_its_frame() -> None:
    database = ForgedDatabase(sample("mixed"))
    files = database.build()
    database.raw[SEGMENT] = files[SEGMENT][:64]
    database.keep_said(SEGMENT)
    database.manifest["segments"][0]["size"] = 64
    assert_damaged(database, SEGMENT)


def words(at: int, width: int, value: int) -> Forge:
    """A number in the body of a record."""

    def forge(record: ForgedRecord) -> None:
        body = bytearray(record.body)
        body[at : at + width] = value.to_bytes(width, "little")
        record.body = bytes(body)

    return forge


def field(name: str, value: int) -> Forge:
    """A number in the header of a record."""
    return lambda record: record.fields.update({name: value})


RECORDS: dict[str, tuple[int, Forge]] = {
    "no operations": (BATCH, field("operations", 0)),
    "one operation without operations": (SINGLE, field("operations", 0)),
    "more operations than bytes": (BATCH, field("operations", 2**32 - 1)),
    "a time before 1970": (SINGLE, field("time", U64 - 5)),
    "a time that no datetime has": (SINGLE, field("time", TIME_MAX + 1)),
    "a vector number that runs over": (WITH_VECTOR, field("first_vector", U64 - 2)),
    "a class that there is not": (SINGLE, words(16, 1, 3)),
    "an edge without ends": (SINGLE, words(16, 1, EDGE)),
    "an edge more, without ends": (BATCH, words(16, 1, EDGE)),
    "a kind that there is not": (SINGLE, words(17, 1, 9)),
    "a kind that there is not, in a batch": (BATCH, words(20, 1, 9)),
    "a length said twice, not the same": (SINGLE, words(48, 4, 7)),
    "a vector that is not there": (SINGLE, words(40, 8, U64 - 1)),
    "a vector that is nobody's": (WITH_VECTOR, words(40, 8, 3)),
    "a dimension of four thousand million": (WITH_VECTOR, words(4, 4, 2**32 - 1)),
    "payloads of four thousand million bytes": (BATCH, words(12, 4, 2**32 - 1)),
    "an edge with the key of another": (BATCH, lambda r: flip(r, r.body.index(b"Knows"))),
    "a type that is no UTF-8": (BATCH, lambda r: put(r, r.body.index(b"Knows"), 0xFF)),
}


def flip(record: ForgedRecord, at: int) -> None:
    """One letter of a body becomes another."""
    put(record, at, record.body[at] ^ 1)


def put(record: ForgedRecord, at: int, byte: int) -> None:
    """A byte of a body."""
    record.body = record.body[:at] + bytes([byte]) + record.body[at + 1 :]


@pytest.mark.parametrize("what", RECORDS)
def test_a_record_of_a_log(what: str) -> None:
    place, forge = RECORDS[what]
    database = ForgedDatabase(sample("mixed"))
    log: ForgedLog = database.logs[LOG]
    forge(log.records[place])
    assert_damaged(database, LOG)


@pytest.mark.parametrize("payload", [b"", b"\xc1", memory(1) + b"\xc1", bytes(2**16)])
def test_a_payload_that_nobody_encoded(payload: bytes) -> None:
    database = ForgedDatabase(sample("mixed"))
    record = database.logs[LOG].records[SINGLE]
    record.body = struct.pack("<IIII", 0, 0, 0, len(payload)) + record.body[16:48]
    record.body += struct.pack("<I4x", len(payload)) + payload
    assert "the payload of a memory" in {error.file for error in damage_of(database)}


def payloads(change: Callable[[list[bytes]], list[bytes]]) -> Forge:
    """The first and only block holds other payloads."""

    def forge(container: ForgedContainer) -> None:
        frame = section_of(container, "blocks").data
        raw = zstandard.ZstdDecompressor().decompress(frame)
        rows = section_of(container, "kind").count
        made = Payloads.from_list(change(open_block(raw, rows).to_list())).blocks()[0]
        blocks(zstandard.ZstdCompressor(level=1).compress(made), len(made))(container)

    return forge


def test_an_idempotency_key_that_remembers_no_commit() -> None:
    database = ForgedDatabase(sample("mixed"))
    payloads(lambda listed: [*listed[:-1], b"x" * 24])(database.containers[SEGMENT])
    assert "the record of an idempotency key" in {error.file for error in damage_of(database)}


def test_a_year_that_there_is_not_in_the_payload_of_an_edge() -> None:
    database = ForgedDatabase(sample("mixed"))
    forged = msgspec.msgpack.encode([2**62, {}])
    edges = {len(memory(i)) for i in range(9)}
    payloads(lambda listed: [p if len(p) in edges or len(p) == 16 else forged for p in listed])(
        database.containers[SEGMENT]
    )
    assert "the payload of a connection" in {error.file for error in damage_of(database)}


def test_a_vector_of_a_memory_that_is_not_there() -> None:
    database = ForgedDatabase(sample("columns"))
    latest = max(name for name in database.containers if name.endswith(".vec"))
    numbers("key.low", lambda listed: [5] * len(listed))(database.containers[latest])
    assert any("as a vector file says" in str(error) for error in damage_of(database))


@pytest.mark.parametrize("content", [b"9" * 5000, b"", b"\xff\xfe", b"-1", b"12", bytes(64)])
def test_a_lock_with_any_content(content: bytes) -> None:
    disk = disk_of(sample("bare"))
    held = disk.lock(f"{PATH}/LOCK", content)
    with pytest.raises(DatabaseLockedError) as error:
        open_database(disk)
    assert error.value.pid == (12 if content == b"12" else None)
    held.release()
    open_database(disk).close()


@pytest.mark.parametrize("name", ["9" * 200 + "-a", "-", "12-", "x", "1-" + "f" * 200])
def test_a_reader_with_any_name_and_content(name: str) -> None:
    disk = disk_of(sample("mixed"))
    disk.make_directory(f"{PATH}/readers")
    disk.open(f"{PATH}/readers/{name}", "x").write_at(0, b"\xff" * 99)
    assert not exercise(disk).damage


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_forged_is_sound(name: str) -> None:
    files = sample(name)
    assert ForgedDatabase(files).build() == files
    assert not exercise(disk_of(files)).damage
