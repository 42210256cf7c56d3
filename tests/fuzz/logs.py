"""A log taken apart into records, so that any field can be forged and every checksum made right."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

import xxhash

from engramdb.lsm import log_format
from engramdb.lsm.log_format import FILE_HEADER, RECORD_HEADER
from tests.fuzz import values

_sum = xxhash.xxh3_64_intdigest
_FIELDS: Final = {"seq": 64, "time": 64, "synced": 64, "first_vector": 64, "operations": 32}
_PREFIX_WORDS: Final = 4


@dataclass(slots=True)
class ForgedRecord:
    """A record: the fields of its header that are not sums, and its body."""

    fields: dict[str, int]
    body: bytes
    length: int | None = None  # what the header says instead of the truth

    def build(self, seed: int) -> bytes:
        """The bytes, padded to 8 unless the length is forged."""
        body = self.body
        if self.length is None:
            body += bytes(-len(body) % 8)
        length = len(body) if self.length is None else self.length
        fields = [value % 2 ** _FIELDS[name] for name, value in self.fields.items()]
        seq, time, synced, first, operations = fields
        time -= 2**64 if time >= 2**63 else 0
        tail = log_format.RECORD_TAIL.pack(
            seq, time, synced, first, log_format.body_sum(body[:length], seed), operations, 0
        )
        digest = log_format.header_sum(tail, length, seed).to_bytes(8, "little")
        return b"EREC" + length.to_bytes(4, "little") + digest + tail + body


class ForgedLog:
    """A log as records."""

    def __init__(self, data: bytes) -> None:
        self.header = list(FILE_HEADER.unpack(data[: FILE_HEADER.size]))
        self.records: list[ForgedRecord] = []
        self.tail = b""
        offset = FILE_HEADER.size
        while data[offset : offset + 4] == b"EREC":
            _, length, _, *fields, _, operations, _ = RECORD_HEADER.unpack_from(data, offset)
            named = dict(zip(_FIELDS, (*fields, operations), strict=True))
            start = offset + RECORD_HEADER.size
            self.records.append(ForgedRecord(named, data[start : start + length]))
            offset = start + length

    def build(self) -> bytes:
        """The bytes of the file."""
        seed = log_format.seed_of(self.header[3], self.header[4])
        head = FILE_HEADER.pack(*self.header)[:56]
        parts = [head, _sum(head).to_bytes(8, "little")]
        return b"".join(parts + [record.build(seed) for record in self.records] + [self.tail])

    def forge(self, random: Random, near: tuple[int, ...]) -> None:
        """Change one thing."""
        if not self.records:
            self._forge_header(random, near)
            return
        place = random.randrange(len(self.records))
        record = self.records[place]
        near = (*near, *record.fields.values(), len(record.body))
        way = random.randrange(16)
        if way == 0:
            self._forge_header(random, near)
        elif way == 1:
            del self.records[place]
        elif way == 2:
            self.records.insert(random.randrange(len(self.records) + 1), _copy(record))
        elif way == 3:
            random.shuffle(self.records)
        elif way == 4:
            self.tail = values.stretch(random, self.tail or record.build(random.getrandbits(64)))
        elif way == 5:
            record.length = values.number(random, len(record.body), 32, near)
        elif way in (6, 7):
            name = random.choice(list(_FIELDS))
            record.fields[name] = values.number(random, record.fields[name], _FIELDS[name], near)
        elif way == 8:
            record.body = values.packed(random, record.body)
        elif way == 9:
            record.body = values.stretch(random, record.body)
        else:
            _forge_words(random, record, near)

    def _forge_header(self, random: Random, near: tuple[int, ...]) -> None:
        place = random.randrange(1, 7)
        was = self.header[place]
        if isinstance(was, bytes):
            self.header[place] = random.randbytes(16)
        else:
            self.header[place] = values.number(random, was, 32 if place < 3 else 64, near)


def _copy(record: ForgedRecord) -> ForgedRecord:
    return ForgedRecord(dict(record.fields), record.body, record.length)


def _places(record: ForgedRecord) -> list[list[tuple[int, int]]]:
    """Where the numbers of a body stand, as (offset, width), by what they are: the prefix, classes
    and kinds, vector numbers, payload lengths, and anything."""
    count, length = record.fields["operations"], len(record.body)
    count = count if 16 + 28 * count <= length else 0
    vectors = 16 + -(-2 * count // 8) * 8 + 16 * count
    groups = [
        [(at, 4) for at in range(0, 4 * _PREFIX_WORDS, 4)],
        [(16 + i, 1) for i in range(2 * count)],
        [(vectors + 8 * i, 8) for i in range(count)],
        [(vectors + 8 * count + 4 * i, 4) for i in range(count)],
        [(at, width) for width in (1, 4, 8) for at in range(0, length - width + 1, width)],
    ]
    return [[place for place in group if sum(place) <= length] for group in groups]


def _forge_words(random: Random, record: ForgedRecord, near: tuple[int, ...]) -> None:
    """Change numbers of the body, each in its place."""
    groups = [group for group in _places(record) if group]
    body = bytearray(record.body)
    for _ in range(random.choice((1, 1, 2, 3)) if groups else 0):
        at, width = random.choice(random.choice(groups))
        was = int.from_bytes(body[at : at + width], "little")
        made = values.number(random, was, 8 * width, near)
        body[at : at + width] = made.to_bytes(width, "little")
    record.body = bytes(body)
