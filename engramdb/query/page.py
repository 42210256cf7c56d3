"""Pages of an answer that stay what they were while others write: all of one snapshot.

A cursor names the snapshot (the number of its commit), the moment that the query was asked from,
how far the reader is, and which query it belongs to. It holds no memories and no secret.

    1 byte    version (1)
    u64       number of the commit
    i64       moment in microseconds since the epoch
    u64       memories before the next page
    u64       xxh3-64 of the query as text
    u64       xxh3-64 of the bytes before
in base64, for URLs. All integers are little-endian.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final, NamedTuple

import xxhash

from engramdb.errors import InvalidInputError
from engramdb.model.memory_node import MemoryNode

_VERSION: Final = 1
_CURSOR: Final = struct.Struct("<BQqQQQ")
assert _CURSOR.size == 41


class Page(NamedTuple):
    """Some memories of an answer. `cursor` asks for the next page; None: this is the last one."""

    memories: list[MemoryNode]
    cursor: str | None


class Place(NamedTuple):
    """Where the next page begins."""

    seq: int
    now_us: int
    offset: int


def encode_cursor(place: Place, query: str) -> str:
    """As text that can stand in a URL."""
    body = _CURSOR.pack(_VERSION, *place, xxhash.xxh3_64_intdigest(query.encode()), 0)[:-8]
    digest = xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")
    return base64.urlsafe_b64encode(body + digest).decode().rstrip("=")


def decode_cursor(cursor: object, query: str) -> Place:
    """Raises InvalidInputError if it is no cursor, or one of another query."""
    if not isinstance(cursor, str):
        raise InvalidInputError("cursor", f"expected a Page's cursor, got {cursor!r:.80}")
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != _CURSOR.size or data[-8:] != xxhash.xxh3_64_intdigest(data[:-8]).to_bytes(
        8, "little"
    ):
        raise InvalidInputError("cursor", f"is not one that a Page had: {cursor!r:.80}")
    version, seq, now_us, offset, digest, _ = _CURSOR.unpack(data)
    if version != _VERSION:
        raise InvalidInputError("cursor", f"is of version {version}; ask for the first page again")
    if digest != xxhash.xxh3_64_intdigest(query.encode()):
        raise InvalidInputError("cursor", "belongs to another query; ask for its first page")
    return Place(seq, now_us, offset)
