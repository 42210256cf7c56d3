"""A container taken apart, so that any field of it can be forged and every checksum made right."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np
import xxhash
import zstandard

from engramdb.lsm import columns
from engramdb.lsm.container import (
    ALIGNMENT,
    CHUNK_BYTES,
    CHUNKED,
    ENTRY,
    FOOTER,
    HEADER,
    MAGIC,
)
from tests.fuzz import values

_sum = xxhash.xxh3_64_intdigest
_FIELDS: Final = ("encoding", "base", "count", "offset", "length", "name")
_ROWS_MAX: Final = 2**16
_ENCODINGS: Final = (0, 1, 2, 3, 4, 5, 6, 253, 254, 255)


@dataclass(slots=True)
class ForgedSection:
    """A section. `forged` holds what the directory says instead of the truth; `sums` tells that its
    data are the sums of the chunks of another section, to be made again."""

    name: bytes
    encoding: int
    base: int
    count: int
    data: bytes
    forged: dict[str, int] = field(default_factory=dict)
    sums: bool = False

    def numbers(self) -> list[int] | None:
        """The values of a column; None if it is none, or is not one any more."""
        if self.encoding > columns.RAW or self.count > _ROWS_MAX:
            return None
        if columns.encoded_size(self.encoding, self.count) != len(self.data):
            return None
        column = columns.Column(self.encoding, self.base, self.count, self.data)
        listed: list[int] = column.array().tolist()
        return listed

    def pack(self, numbers: list[int]) -> None:
        """Make it the column of these values."""
        listed = np.array([n % 2**64 for n in numbers], np.uint64)
        self.encoding, self.base, self.data = columns.pack(listed)
        self.count = len(numbers)


class ForgedContainer:
    """A container as sections."""

    def __init__(self, data: bytes) -> None:
        self.header = list(HEADER.unpack(data[: HEADER.size]))
        start, count, *_ = FOOTER.unpack(data[-FOOTER.size :])
        self.footer: dict[str, int] = {}
        self.sections: list[ForgedSection] = []
        for i in range(count):
            name, encoding, _, base, total, offset, length, _ = ENTRY.unpack_from(
                data, start + 64 * i
            )
            body = data[offset : offset + length]
            is_sums = name.rstrip(b"\0").endswith(b".sums")
            self.sections.append(
                ForgedSection(name.rstrip(b"\0"), encoding, base, total, body, sums=is_sums)
            )

    def section(self, name: str) -> ForgedSection | None:
        """The first section of a name."""
        return next((s for s in self.sections if s.name == name.encode()), None)

    def build(self) -> tuple[bytes, bytes]:
        """The bytes of the file, and its fingerprint."""
        self._renew_sums()
        head = HEADER.pack(*self.header)[:56]
        out = bytearray(head + _sum(head).to_bytes(8, "little"))
        offsets = []
        for section in self.sections:
            offsets.append(len(out))
            out += section.data + bytes(-len(section.data) % ALIGNMENT)
        listing = b"".join(
            self._entry(section, offset, out)
            for section, offset in zip(self.sections, offsets, strict=True)
        )
        fingerprint = xxhash.xxh3_128_digest(bytes(out[:64]) + listing)
        start = self.footer.get("start", len(out))
        count = self.footer.get("count", len(self.sections))
        foot = FOOTER.pack(start, count, _sum(listing), fingerprint, bytes(8), MAGIC, 0)[:56]
        return bytes(out) + listing + foot + _sum(foot).to_bytes(8, "little"), fingerprint

    def _entry(self, section: ForgedSection, offset: int, out: bytearray) -> bytes:
        said = section.forged
        at, length = said.get("offset", offset), said.get("length", len(section.data))
        covered: bytes = bytes(out[at : at + length]) if at < len(out) else b""
        if section.encoding == CHUNKED and (sums := self._sums_of(section)) is not None:
            covered = sums.data
        count = section.count if section.encoding <= columns.RAW else len(section.data)
        return ENTRY.pack(
            section.name[:16],
            said.get("encoding", section.encoding),
            bytes(7),
            said.get("base", section.base),
            said.get("count", count),
            at,
            length,
            _sum(covered),
        )

    def _sums_of(self, section: ForgedSection) -> ForgedSection | None:
        return self.section(section.name.decode("latin-1") + ".sums")

    def _renew_sums(self) -> None:
        for section in self.sections:
            sums = self._sums_of(section) if section.encoding == CHUNKED else None
            if sums is not None and sums.sums:
                parts = range(0, len(section.data), CHUNK_BYTES)
                digests = [_sum(section.data[i : i + CHUNK_BYTES]) for i in parts]
                sums.data = np.array(digests, "<u8").tobytes()

    # Forging

    def forge(self, random: Random, near: tuple[int, ...]) -> None:
        """Change one thing."""
        near = (*near, *(s.count for s in self.sections), *(len(s.data) for s in self.sections))
        section = random.choice(self.sections)
        way = random.randrange(16)
        if way == 0:
            self._forge_frame(random)
        elif way == 1:
            self._forge_sections(random)
        elif way == 2:
            section.data = values.stretch(random, section.data)
            section.sums = False
        elif way in (3, 4):
            self._forge_field(random, section, near)
        elif way in (5, 6) and self.section("blocks") is not None:
            self._forge_block(random)
        elif way == 7:
            self._forge_rows(random)
        elif way == 8 and (named := self.section("types") or self.section("matrix")) is not None:
            named.data = values.packed(random, named.data)
        else:
            self._forge_numbers(random, section, near)

    def _forge_frame(self, random: Random) -> None:
        way = random.randrange(6)
        if way == 0:
            self.footer["start"] = values.number(random, 64, 64)
        elif way == 1:
            self.footer["count"] = values.number(random, len(self.sections), 64)
        elif way == 2:
            self.header[1] = random.choice((b"SEGM", b"VECT", b"MARK", b"ABCD"))
        elif way == 3:
            self.header[2] = values.number(random, self.header[2], 16)
        elif way == 4:
            self.header[4] = random.randbytes(16)
        else:
            self.header[5] = values.number(random, self.header[5], 64)

    def _forge_sections(self, random: Random) -> None:
        place = random.randrange(len(self.sections))
        way = random.randrange(4)
        if way == 0 and len(self.sections) > 1:
            del self.sections[place]
        elif way == 1:
            self.sections.insert(random.randrange(len(self.sections)), self.sections[place])
        elif way == 2:
            random.shuffle(self.sections)
        else:
            other = random.choice(self.sections)
            section = self.sections[place]
            section.data, other.data = other.data, section.data

    def _forge_field(self, random: Random, section: ForgedSection, near: tuple[int, ...]) -> None:
        name = random.choice(_FIELDS)
        if name == "name":
            odd = (b"", b"\xff\xfe", random.choice(self.sections).name, b"x" * 16, b"a\0b")
            section.name = random.choice(odd)
        elif name == "encoding":
            section.forged[name] = random.choice(_ENCODINGS)
        else:
            was = {"base": section.base, "count": section.count, "offset": 64}
            section.forged[name] = values.number(random, was.get(name, len(section.data)), 64, near)

    def _forge_numbers(self, random: Random, section: ForgedSection, near: tuple[int, ...]) -> None:
        numbers = section.numbers()
        if not numbers:
            section.data = values.stretch(random, section.data)
            return
        way = random.randrange(8)
        if way == 0:
            random.shuffle(numbers)
        elif way == 1:
            numbers = numbers[: random.randrange(len(numbers) + 1)]
        elif way == 2:
            numbers += numbers[: random.randrange(1, len(numbers) + 1)]
        elif way == 3:
            numbers = [values.number(random, numbers[0], 64, near)] * len(numbers)
        else:
            for _ in range(random.choice((1, 1, 2, len(numbers)))):
                at = random.randrange(len(numbers))
                numbers[at] = values.number(random, numbers[at], 64, (*near, *numbers[:8]))
        section.pack(numbers)

    def _forge_rows(self, random: Random) -> None:
        """All columns without data claim more rows than there are: a lie that is consistent."""
        rows = random.choice((2**10, 2**16, 2**20, 2**31, 2**40, 2**62))
        wanted = max(s.count for s in self.sections if s.encoding <= columns.RAW)
        for section in self.sections:
            if section.encoding > columns.RAW:
                continue
            if section.name == b"class.rows":
                section.pack([rows, 0, 0])
            elif section.count == wanted or section.name in (b"row", b"seq"):
                section.encoding, section.data = random.choice((0, 0, 1)), b""
                section.count, section.base = rows, section.base or 1
            elif section.name.startswith(b"block.") and random.randrange(2):
                section.encoding, section.data, section.count = 0, b"", -(-rows // 64)

    def _forge_block(self, random: Random) -> None:
        """Change payloads inside their compressed block, or what is said about the blocks."""
        sizes, stored, raws = self.section("block.size"), self.section("blocks"), []
        listed = sizes.numbers() if sizes is not None else None
        if not listed or stored is None:
            return
        frames, start = [], 0
        for size in listed:
            frames.append(stored.data[start : start + size])
            start += size
        try:
            opened = [zstandard.ZstdDecompressor().decompress(frame) for frame in frames]
        except zstandard.ZstdError:
            return  # an earlier change has been here
        at = random.randrange(len(opened))
        way = random.randrange(6)
        if way == 0:
            opened[at] = bytes(random.choice((0, 8, 256, 2**16, 2**22)))
        elif way == 1:
            opened[at] = values.stretch(random, opened[at])
        else:
            opened[at] = values.packed(random, opened[at])
            opened[at] += bytes(-len(opened[at]) % 8)
        says_size = random.randrange(4) > 0
        compressor = zstandard.ZstdCompressor(level=1, write_content_size=says_size)
        frames[at] = compressor.compress(opened[at])
        if random.randrange(4) == 0:
            frames[at] = values.stretch(random, frames[at])
        raws = [len(block) for block in opened]
        offsets = np.cumsum([0, *map(len, frames)])[:-1].tolist()
        stored.data = b"".join(frames)
        facts = {"offset": offsets, "size": [*map(len, frames)], "raw": raws}
        for name, numbers in {**facts, "sum": [*map(_sum, frames)]}.items():
            section = self.section(f"block.{name}")
            if section is not None:
                if random.randrange(12) == 0:
                    numbers[at] = values.number(random, numbers[at], 64)
                section.pack(numbers)
