"""docs/formats.md is byte-exact: the engine writes each of its dumps, here and now.

After a change of a format, run this file with the environment variable ENGRAMDB_REWRITE_DUMPS=1:
it writes the dumps into the document anew. Look at the difference, and raise the format's number.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engramdb.access.table import AccessTable
from engramdb.lsm import Batch, Options, StorageEngine, log_format
from engramdb.lsm import columns as column_format
from engramdb.lsm import manifest as manifests
from engramdb.lsm.container import CHUNKED, ENTRY, FOOTER, HEADER
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.payloads import Payloads
from engramdb.model.attributes import encode_edge, encode_memory
from engramdb.model.shredding import shred

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BLOCK = re.compile(r"(?<=<!-- dump: )(?P<name>[\w-]+)(?: -->\n```\w+\n)(?P<text>.*?)(?=```)", re.S)
REWRITE = bool(os.environ.get("ENGRAMDB_REWRITE_DUMPS"))

# The contents are chosen so that zstd finds nothing to gain and stores the block as it is: what it
# makes of one that it can compress may change from version to version.
ALICE = bytes.fromhex("0190b6a47e1f7c3a9d2b5f0e8a6c1d42")
BOB = bytes.fromhex("0190b6a47e1f7c3a9d2b5f0e8a6c1d43")
CREATED_US = {ALICE: 1_234_567_890_123_456, BOB: 1_700_000_000_000_000}
DIRECTORY = "/db"

PADDING = "zeros up to the next multiple of 64"

Values = dict[str, object]
Labels = dict[int, str]
"""What begins at an offset."""


class FixedEnvironment(SimulatedDisk):
    """A disk whose clock ticks once a second and whose random bytes count up."""

    def now(self) -> int:
        self._now_us += 1_000_000
        return self._now_us

    def random_bytes(self, length: int) -> bytes:
        return bytes(range(length))

    def process_id(self) -> int:
        return 4242


class World:
    """A small database on a disk of its own."""

    def __init__(self, **given: Any) -> None:
        self.disk = FixedEnvironment()
        options = Options(background=False, log_allocate_bytes=0, **given)
        self.engine = StorageEngine.open(DIRECTORY, options, environment=self.disk)

    def save(self, key: bytes, vector: list[float], attributes: Values, shares: int = 0) -> Batch:
        batch = Batch()
        payload = encode_memory(CREATED_US[key], None, attributes)
        batch.put(key, payload, np.array(vector, np.float32), shares)
        return batch

    def read(self, path: str) -> bytes:
        file = self.disk.open(f"{DIRECTORY}/{path}", "r")
        return file.read_at(0, file.size())

    def only(self, folder: str, ending: str, place: int = 0) -> bytes:
        names = [n for n in self.disk.list(f"{DIRECTORY}/{folder}") if n.endswith(ending)]
        return self.read(f"{folder}/{names[place]}")


@cache
def logged() -> World:
    """Two commits in the log: a memory; a second one together with a connection to the first."""
    world = World()
    world.engine.commit(world.save(ALICE, [3.0, 4.0], {"no": 7}))
    batch = world.save(BOB, [0.0, -1.0], {"ok": True})
    batch.put_edge(BOB, ALICE, "Knows", 0.5, encode_edge(CREATED_US[BOB], {}))
    world.engine.commit(batch)
    return world


@cache
def spaced() -> World:
    """A memory with a vector of its own, and one of another length in a named space."""
    world = World()
    batch = world.save(ALICE, [3.0, 4.0], {"no": 7})
    batch.put_vector(ALICE, "title", 0, np.array([1.0, 2.0, 2.0], np.float32))
    world.engine.commit(batch)
    return world


@cache
def deleted() -> World:
    """A memory that was saved and deleted, in files."""
    world = World()
    world.engine.commit(world.save(ALICE, [3.0, 4.0], {"no": 7}))
    batch = Batch()
    batch.delete(ALICE)
    world.engine.commit(batch)
    world.engine.flush()
    return world


@cache
def marked() -> World:
    """Two memories in files; then one of them was deleted, which is in a second file."""
    world = World()
    world.engine.commit(world.save(ALICE, [3.0, 4.0], {"no": 7}))
    world.engine.commit(world.save(BOB, [0.0, -1.0], {"ok": True}))
    world.engine.flush()
    batch = Batch()
    batch.delete(BOB)
    world.engine.commit(batch)
    world.engine.flush()
    return world


@cache
def connected() -> World:
    """Two memories, connected both ways, in files."""
    world = World()
    world.engine.commit(world.save(ALICE, [3.0, 4.0], {"no": 7}))
    batch = world.save(BOB, [0.0, -1.0], {"ok": True})
    batch.put_edge(BOB, ALICE, "Knows", 0.5, encode_edge(CREATED_US[BOB], {}))
    batch.put_edge(ALICE, BOB, "Likes", 1.0, encode_edge(CREATED_US[BOB], {}))
    world.engine.commit(batch)
    world.engine.flush()
    return world


@cache
def shredded() -> World:
    """A memory in a file with columns of attributes."""
    world = World(columns_of=shred)
    world.engine.commit(world.save(BOB, [3.0, 4.0], {"s": "tea", "tags": ["a", 7]}))
    world.engine.flush()
    return world


# ---- Dumps ---------------------------------------------------------------------------------------


def lines_of(data: bytes, start: int, stop: int) -> Iterator[str]:
    """As `hexdump -C` prints bytes; of equal lines one, and a star for the others."""
    before = b""
    for offset in range(start, stop, 16):
        part = data[offset : min(offset + 16, stop)]
        if part == before:
            yield "*"
            continue
        before = part if len(part) == 16 else b""
        pairs = " ".join(f"{byte:02x}" for byte in part)
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{offset:08x}  {pairs:<47}  |{text}|"


def dump(data: bytes, labels: Labels, only: tuple[str, ...] = ()) -> str:
    """The bytes under the labels of what begins there, or only some of these stretches."""
    starts = sorted(labels)
    lines: list[str] = []
    for start, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        if labels[start] == PADDING or (only and labels[start] not in only):
            continue
        lines.append(f"; {labels[start]}")
        for line in lines_of(data, start, stop):
            if line != "*" or lines[-1] != "*":
                lines.append(line)
    return "\n".join(lines) + "\n"


def log_labels(data: bytes) -> Labels:
    labels = {0: "file header"}
    offset = log_format.FILE_HEADER.size
    commit = 0
    while offset < len(data):
        commit += 1
        _, length, _, _, _, _, _, _, count, _ = log_format.RECORD_HEADER.unpack_from(data, offset)
        labels[offset] = f"commit {commit}: record header"
        at = offset + log_format.RECORD_HEADER.size
        vectors, dimension, edges, payload_bytes = log_format.PREFIX.unpack_from(data, at)
        payload_at = at + 16 + padded(2 * count) + 24 * count + padded(4 * count)
        sizes = struct.unpack_from(f"<{count}I", data, payload_at - padded(4 * count))
        assert sum(sizes) == payload_bytes
        parts = [
            ("body: vectors, dimension, edges, payload bytes", 16),
            ("classes, kinds", padded(2 * count)),
            ("keys", 16 * count),
            ("vector numbers", 8 * count),
            ("payload lengths", padded(4 * count)),
            ("payloads", padded(payload_bytes)),
        ]
        if edges:
            type_sizes = struct.unpack_from(
                f"<{edges}I", data, payload_at + padded(payload_bytes) + 40 * edges
            )
            parts += [
                ("edges: sources", 16 * edges),
                ("edges: targets", 16 * edges),
                ("edges: strengths", 8 * edges),
                ("edges: type lengths", padded(4 * edges)),
                ("edges: types", padded(sum(type_sizes))),
            ]
        if vectors and dimension == log_format.EACH_ITS_OWN:
            widths = struct.unpack_from(f"<{vectors}I", data, at + sum(size for _, size in parts))
            parts.append(("dimensions", padded(4 * vectors)))
            parts.append(("vectors", padded(4 * sum(widths))))
        elif vectors:
            parts.append(("vectors", padded(4 * vectors * dimension)))
        for label, size in parts:
            labels[at] = label
            at += size
        offset += log_format.RECORD_HEADER.size + length
        assert at == offset
    return labels


def padded(size: int) -> int:
    return -(-size // 8) * 8


def container_labels(data: bytes) -> Labels:
    start, count, *_ = FOOTER.unpack(data[-FOOTER.size :])
    labels = {0: "header", len(data) - FOOTER.size: "footer"}
    for number in range(count):
        at = start + number * ENTRY.size
        name, encoding, _, _, _, offset, length, _ = ENTRY.unpack_from(data, at)
        text = name.rstrip(b"\0").decode()
        labels[at] = f"directory: {text}"
        if length:
            kind = ", chunked" if encoding == CHUNKED else ""
            labels[offset] = f"section {text}{kind}"
            labels.setdefault(-(-(offset + length) // 16) * 16, PADDING)
    return labels


def latest_manifest(world: World) -> bytes:
    names = manifests.numbers_in(world.disk.list(DIRECTORY))
    return world.read(manifests.name_of(names[-1]))


def derived_dump() -> str:
    """An access history of two loads."""
    world = World()
    table = AccessTable()
    table.add([ALICE, ALICE], np.array([CREATED_US[BOB], CREATED_US[BOB] + 10**6]))
    assert world.engine.derived.store("access", table.values(), erasures=0)
    data = world.only("derived", ".drv")
    return dump(data, container_labels(data))


def block_dump() -> str:
    block = Payloads.from_list([b"", b"three", b"seventeen bytes !"]).blocks()[0]
    labels = {0: "lengths of 3 payloads", 16: "row 1: three", 24: "row 2"}
    return dump(block, labels)


def column_table() -> str:
    rows = []
    for values in (
        [7, 7, 7],
        [5, 6, 7],
        [1000, 1003, 1001],
        [1000, 1300, 1001],
        [10**9, 10**9 + 70_000, 10**9],
        [1, 2**63, 2],
    ):
        encoding, base, data = column_format.pack(np.array(values, np.uint64))
        rows.append(f"{values!s:<38} {encoding}  base {base:<11} {data.hex(' ', -8) or '-'}")
    return "\n".join(rows) + "\n"


def memory_dump() -> str:
    zone = timezone(timedelta(hours=2))
    attributes = {
        "title": "tea",
        "when": datetime(2026, 3, 22, 9, 30, tzinfo=zone),
        "score": 0.5,
        "tags": ["a", None, True, -2, b"\x00"],
    }
    payload = encode_memory(CREATED_US[BOB], "first", attributes)
    labels = {0: "array of 3; creation_us"}
    for needle, label in (
        (b"\xa5first", "reason"),
        (b"\x84\xa5title", "map of 4; title"),
        (b"\xa4when", "when: fixext 16 (d8), type 1"),
        (b"\xa5score", "score: float 64"),
        (b"\xa4tags", "tags: array of 5"),
    ):
        labels[payload.index(needle)] = label
    return dump(payload, labels)


def spaced_log() -> str:
    data = spaced().only("wal", ".wal")
    wanted = ("body: vectors, dimension, edges, payload bytes", "vector numbers")
    edges = ("edges: sources", "edges: targets", "edges: strengths", "edges: types")
    return dump(data, log_labels(data), (*wanted, *edges, "dimensions", "vectors"))


def spaced_memory() -> str:
    payload = encode_memory(CREATED_US[BOB], None, {}, spaces={"title": 0, "words": 2})
    return dump(payload, {0: "array of 6; creation_us", 10: "nil, map of 0, nil, nil; map of 2"})


def edge_dump() -> str:
    return dump(
        encode_edge(CREATED_US[BOB], {"since": 2019}), {0: "array of 2: creation_us, map of 1"}
    )


def pretty_manifest() -> str:
    text = msgspec.json.format(latest_manifest(marked())[manifests.HEADER.size :], indent=1)
    return text.decode() + "\n"


def edge_sections() -> str:
    data = connected().only("seg", ".seg")
    labels = container_labels(data)
    wanted = ("source.", "target.", "type", "strength", "by.")
    sections = tuple(
        label for label in labels.values() if label.removeprefix("section ").startswith(wanted)
    )
    return dump(data, labels, sections)


def attribute_sections() -> str:
    data = shredded().only("seg", ".seg")
    labels = container_labels(data)
    wanted = tuple(
        label
        for label in labels.values()
        if label.removeprefix("section ").startswith(("attr.", "f0"))
    )
    return dump(data, labels, wanted)


def build() -> dict[str, str]:
    """Every dump of the document, by name."""
    log = logged().only("wal", ".wal")
    segment, vectors = deleted().only("seg", ".seg"), marked().only("vec", ".vec")
    marks = marked().only("seg", ".mark")
    first = logged().read(manifests.name_of(1))
    visible = logged().read("VISIBLE")
    return {
        "lock": dump(logged().read("LOCK"), {0: "process 4242"}),
        "visible": dump(visible, {0: "after commit 2"}),
        "log": dump(log, log_labels(log)),
        "log-spaces": spaced_log(),
        "container": dump(segment, container_labels(segment), ("header", "footer")),
        "segment": dump(segment, container_labels(segment)),
        "segment-edges": edge_sections(),
        "segment-attributes": attribute_sections(),
        "vectors": dump(vectors, container_labels(vectors)),
        "marks": dump(marks, container_labels(marks)),
        "manifest": dump(first, {0: "header", manifests.HEADER.size: "body"}),
        "manifest-json": pretty_manifest(),
        "derived": derived_dump(),
        "block": block_dump(),
        "columns": column_table(),
        "memory": memory_dump(),
        "memory-spaces": spaced_memory(),
        "edge": edge_dump(),
    }


def test_the_document_shows_what_the_engine_writes() -> None:
    built = build()
    document = DOCUMENT.read_text(encoding="utf-8")
    if REWRITE:

        def fresh(match: re.Match[str]) -> str:
            whole = match.group(0)
            return whole[: match.start("text") - match.start()] + built[match["name"]]

        document = BLOCK.sub(fresh, document)
        DOCUMENT.write_text(document, encoding="utf-8")
    shown = {match["name"]: match["text"] for match in BLOCK.finditer(document)}
    assert shown.keys() == built.keys()
    for name, text in built.items():
        assert shown[name] == text, f"the dump {name!r}; see the docstring of this file"


@pytest.mark.parametrize("made", [deleted, connected])
def test_every_section_is_in_the_document(made: Callable[[], World]) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    for folder, ending in (("seg", ".seg"), ("vec", ".vec")):
        for label in container_labels(made().only(folder, ending)).values():
            if label.startswith("directory: "):
                assert f"`{label.removeprefix('directory: ')}`" in document, label


def test_every_field_of_the_manifest_is_in_the_document() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    for kind in (manifests.Manifest, manifests.SegmentEntry, manifests.VectorEntry):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in document, field.encode_name


def test_the_frames_have_the_sizes_that_the_document_names() -> None:
    assert HEADER.size == ENTRY.size == FOOTER.size == 64
    assert log_format.FILE_HEADER.size == log_format.RECORD_HEADER.size == 64
    assert manifests.HEADER.size == 32


def test_two_worlds_are_the_same_to_the_byte() -> None:
    one = build()
    for world in (logged, deleted, marked, connected):
        world.cache_clear()
    assert one == build()
