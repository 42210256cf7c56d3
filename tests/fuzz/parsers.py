"""Each parser as a function of bytes. What surrounds the bytes is sound and every checksum right;
only errors of EngramDB may escape. For Hypothesis, for the campaign, and for atheris."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final

import msgspec
import xxhash

from engramdb.errors import EngramError
from engramdb.lsm import AttributeColumns, log_format, log_reader
from engramdb.lsm import manifest as manifests
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.columns import Column
from engramdb.lsm.container import ENTRY, FOOTER, HEADER, MAGIC, SEGMENT, VERSION, ContainerReader
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.marks import Marks
from engramdb.lsm.payloads import open_block
from engramdb.lsm.records import CLASSES
from engramdb.lsm.segment import Segment
from engramdb.lsm.segment_edges import edges_around, edges_between
from engramdb.model.attributes import decode_edge, decode_memory
from tests.fuzz import values
from tests.fuzz.databases import ForgedDatabase, seal
from tests.fuzz.logs import ForgedLog, ForgedRecord
from tests.fuzz.samples import NAMES, PATH, disk_of, memory, sample

Parser = Callable[[bytes], object]
_DATABASE: Final = bytes(range(16))
_SEED: Final = log_format.seed_of(_DATABASE, 1)
_LOG_HEAD: Final = struct.Struct("<II")  # operations, low half of the first vector's number
_FRAME: Final = struct.Struct("<BBB")  # sections; rows, blocks of rows, of what the manifest says
_SECTION: Final = struct.Struct("<BBQQHH")  # name, encoding, base, count, place in 64s, length
_FIELD_PARTS: Final = (
    *("kind", "value", "text", "size", "count", "e.kind", "e.value", "e.text", "e.size"),
)
_SECTION_NAMES: Final = (
    *("class.rows", "key.high", "key.low", "seq", "time", "kind", "vector", "superseded"),
    *("block.offset", "block.size", "block.raw", "block.sum", "blocks", "source.high"),
    *("source.low", "target.high", "target.low", "type", "types", "strength", "by.source"),
    *("by.target", "matrix", "matrix.sums", "row", "attr.created", "attr.from", "attr.until"),
    *("attr.rest", "attr.fields"),
    *(f"f{number:02d}.{part}" for number in range(16) for part in _FIELD_PARTS),
)


def attributes(data: bytes) -> None:
    """The payload of a memory, and of a connection."""
    for decode in (decode_memory, decode_edge):
        _tolerant(decode, data)


def manifest(data: bytes) -> None:
    """The body of a manifest."""
    _tolerant(manifests.decode, seal(data), "MANIFEST")


def log(data: bytes) -> None:
    """The body of a log record."""
    if len(data) < _LOG_HEAD.size:
        return
    operations, first = _LOG_HEAD.unpack_from(data)
    fields = {"seq": 1, "time": 1, "synced": 0, "first_vector": first, "operations": operations}
    record = ForgedRecord(fields, data[_LOG_HEAD.size :]).build(_SEED)
    records, end = log_reader.scan(record, _SEED, 0, len(record))
    assert end == len(record)
    rows = _tolerant(log_reader.decode, record, records, "wal")
    if isinstance(rows, log_reader.LogRows):
        assert len(rows) == len(rows.keys) == len(rows.payloads) == len(rows.kind) == operations


def block(data: bytes) -> None:
    """An uncompressed block of payloads. The caller turns its ValueError into damage."""
    if not data:
        return
    try:
        payloads = open_block(data[1:], data[0] % 64 + 1)
    except ValueError:
        return
    assert len(payloads.to_list()) == data[0] % 64 + 1


def container(data: bytes) -> None:
    """The directory and the sections of a container, which is read as one, and as a segment."""
    if len(data) < _FRAME.size:
        return
    count, rows, _ = _FRAME.unpack_from(data)
    listed, body = data[_FRAME.size :], b""
    entries = [
        _SECTION.unpack_from(listed, i * _SECTION.size)
        for i in range(min(count, len(listed) // _SECTION.size))
    ]
    body = listed[len(entries) * _SECTION.size :]
    file, fingerprint = _container(entries, body)
    disk = disk_of({"seg/000001.seg": file})
    path = f"{PATH}/seg/000001.seg"
    expected = {"size": len(file), "fingerprint": fingerprint, "number": 1}
    reader = _tolerant(ContainerReader, disk, path, kind=SEGMENT, database=_DATABASE, **expected)
    if isinstance(reader, ContainerReader):
        for name in reader.names():
            _tolerant(reader.column, name)
            _tolerant(reader.bounded, name, rows + 1, 0, 2**63)
            _tolerant(reader.chunked, name)
        _tolerant(reader.verify)
        _tolerant(Marks().read, reader, 1, rows + 1)
        seqs, times = _extremes(reader, "seq"), _extremes(reader, "time")
        entry = _entry(len(file), fingerprint, rows + 1, seqs, times)
        segment = _tolerant(Segment, disk, path, entry, BlockCache(4), Marks())
        if isinstance(segment, Segment):
            _read(segment)


def _extremes(reader: ContainerReader, name: str) -> tuple[int, int]:
    column = _tolerant(reader.column, name)
    return column.extremes if isinstance(column, Column) else (1, 1)


def _entry(
    size: int, fingerprint: bytes, rows: int, seqs: tuple[int, int], times: tuple[int, int]
) -> SegmentEntry:
    return SegmentEntry(
        number=1,
        origin=_DATABASE.hex(),
        size=size,
        fingerprint=fingerprint.hex(),
        rows=rows,
        seq_min=seqs[0],
        seq_max=seqs[1],
        time_min=times[0],
        time_max=times[1],
        live=(0, 0, 0),
    )


def _read(segment: Segment) -> None:
    _tolerant(segment.columns)
    columns = _tolerant(lambda: segment.attributes)
    if isinstance(columns, AttributeColumns):
        for path in columns.fields:
            _tolerant(columns.fields.__getitem__, path)
        for name in ("created", "valid_from", "valid_to", "rest"):
            _tolerant(getattr, columns, name)
    for record_class in CLASSES:
        first, last = segment.ranges[record_class]
        for row in range(first, min(last, first + 3)):
            _tolerant(segment.record, record_class, row)
            found = _tolerant(segment.key, row)
            if isinstance(found, bytes):
                _tolerant(segment.find, record_class, found)
                _tolerant(segment.carriers_of, found)
                _tolerant(edges_between, segment, found, found, 2**62)
                for incoming in (False, True):
                    _tolerant(edges_around, segment, found, 2**62, incoming=incoming)


def _container(entries: list[tuple[int, ...]], body: bytes) -> tuple[bytes, bytes]:
    head = HEADER.pack(MAGIC, SEGMENT, VERSION, 0, _DATABASE, 1, bytes(16), 0)[:56]
    file = head + xxhash.xxh3_64_intdigest(head).to_bytes(8, "little") + body
    file += bytes(-len(file) % 64)
    listing = b""
    for name, encoding, base, count, place, length in entries:
        chosen = _SECTION_NAMES[name % len(_SECTION_NAMES)].encode()
        offset = 64 * place
        digest = xxhash.xxh3_64_intdigest(file[offset : offset + length])
        listing += ENTRY.pack(chosen, encoding, bytes(7), base, count, offset, length, digest)
    fingerprint = xxhash.xxh3_128_digest(file[:64] + listing)
    listed = xxhash.xxh3_64_intdigest(listing)
    foot = FOOTER.pack(len(file), len(entries), listed, fingerprint, bytes(8), MAGIC, 0)[:56]
    file += listing + foot + xxhash.xxh3_64_intdigest(foot).to_bytes(8, "little")
    return file, fingerprint


def _tolerant(function: Callable[..., object], *arguments: object, **named: object) -> object:
    try:
        return function(*arguments, **named)
    except EngramError as error:
        str(error)
        return None


PARSERS: Final[dict[str, Parser]] = {
    "attributes": attributes,
    "block": block,
    "container": container,
    "log": log,
    "manifest": manifest,
}


@cache
def seeds(parser: str) -> list[bytes]:
    """Sound bytes to begin with."""
    databases = [sample(name) for name in NAMES]
    if parser == "attributes":
        return [memory(i) for i in range(4)] + [msgspec.msgpack.encode((5, {"since": 3}))]
    if parser == "manifest":
        return [
            data[manifests.HEADER.size :]
            for files in databases
            for name, data in files.items()
            if name.startswith("MANIFEST-")
        ]
    if parser == "log":
        records = [
            record
            for files in databases
            for name, data in files.items()
            if name.endswith(".wal")
            for record in ForgedLog(data).records
        ]
        return [_LOG_HEAD.pack(r.fields["operations"], 7) + r.body for r in records]
    if parser == "block":
        return [b"\x02" + struct.pack("<IIII", 0, 5, 17, 0) + b"three\0\0\0" + b"17 bytes" * 3]
    return [_described(files) for files in databases[:3]]


def _described(files: dict[str, bytes]) -> bytes:
    """The first segment of a database, as the container parser takes it."""
    name = min(name for name in files if name.endswith(".seg"))
    forged = ForgedDatabase(files).containers[name]
    entries, body = b"", b""
    seqs = forged.section("seq")
    assert seqs is not None
    rows = seqs.count
    for section in forged.sections:
        number = _SECTION_NAMES.index(section.name.decode())
        place, length = 1 + len(body) // 64, len(section.data)
        count = section.count if section.encoding <= 5 else length
        entries += _SECTION.pack(number, section.encoding, section.base, count, place, length)
        body += section.data + bytes(-length % 64)
    return _FRAME.pack(len(forged.sections), min(rows, 256) - 1, 0) + entries + body


def mutated(random: Random, parser: str) -> bytes:
    """Sound bytes with one to eight places changed."""
    data = random.choice(seeds(parser))
    tokens = (
        values.PACKED if parser == "attributes" else values.JSON if parser == "manifest" else ()
    )
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        data = values.stretch(random, data, tokens)
    return data
