"""Looks for traces in the files of a database: in the raw bytes, and in everything that is encoded.

It reads containers by docs/formats.md and not by the engine's own reader, and believes no checksum:
columns are decoded (a key is split into two of them, and offset-encoded), blocks decompressed.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import zstandard

from engramdb.lsm.environment import Environment

_ENTRY: Final = struct.Struct("<16sB7sQQQQQ")
_WIDTHS: Final = {2: "<u1", 3: "<u2", 4: "<u4", 5: "<u8"}
_PART_BYTES: Final = 8


class Needles:
    """What must not be found. Everything added is random enough not to occur by chance."""

    def __init__(self) -> None:
        self.strings: set[bytes] = set()
        self.halves: set[int] = set()

    def add_text(self, text: str) -> None:
        self.strings.add(text.encode())

    def add_vector(self, vector: Iterable[float]) -> None:
        """Any 16 bytes of it, wherever they begin, contain one of these parts as a whole."""
        data = np.array(list(vector), "<f4").tobytes()
        for start in range(0, len(data), _PART_BYTES):
            self.strings.add(data[start : start + _PART_BYTES])

    def add_key(self, key: bytes) -> None:
        """An id, or the key of an edge: as text, and its halves as bytes and as numbers."""
        text = str(uuid.UUID(bytes=key))
        self.strings |= {text.encode(), text.replace("-", "").encode()}
        for half in (key[:8], key[8:]):
            self.halves.add(int.from_bytes(half, "big"))
            self.strings |= {half, half[::-1]}

    def found_in(self, data: bytes) -> bytes | None:
        """One that occurs in these bytes."""
        return next((each for each in self.strings if each in data), None)


def files_of(environment: Environment, directory: str) -> dict[str, bytes]:
    """Every file below a directory."""
    found = {}
    for name in environment.list(directory):
        path = f"{directory}/{name}"
        try:
            environment.list(path)
        except NotADirectoryError:
            file = environment.open(path, "r")
            try:
                found[path] = file.read_at(0, file.size())
            finally:
                file.close()
        else:
            found |= files_of(environment, path)
    return found


def traces(files: dict[str, bytes], needles: Needles) -> list[str]:
    """Where any of the needles is, in words."""
    found = []
    for path, data in files.items():
        hit = needles.found_in(data)
        if hit is not None:
            found.append(f"{hit!r} in the bytes of {path}")
        # derived files hold everything as it is, and are not synced: they may be torn anywhere
        if data[:8] == b"ENGRAMDB" and not path.endswith(".drv"):
            found += [f"{what} of {path}" for what in _traces_in_container(data, needles)]
    return found


def _traces_in_container(data: bytes, needles: Needles) -> Iterator[str]:
    start, count = struct.unpack_from("<QQ", data, len(data) - 64)
    sections = {}
    for position in range(count):
        fields = _ENTRY.unpack_from(data, start + 64 * position)
        name, encoding, _, base, length, offset, size, _ = fields
        sections[name.rstrip(b"\0").decode()] = (encoding, base, length, data[offset:][:size])
    for name, (encoding, base, length, stored) in sections.items():
        if encoding < 254:
            values = set(decoded(encoding, base, length, stored).tolist())
            if values & needles.halves:
                yield f"half a key in the column {name}"
        elif name.endswith(".text"):
            texts = zstandard.ZstdDecompressor().decompress(stored)
            hit = needles.found_in(texts)
            if hit is not None:
                yield f"{hit!r} in the dictionary {name}"
    if "blocks" in sections:
        offsets, sizes, raws = (
            decoded(*sections[f"block.{name}"]).tolist() for name in ("offset", "size", "raw")
        )
        blocks = sections["blocks"][3]
        for number, (at, size, raw) in enumerate(zip(offsets, sizes, raws, strict=True)):
            block = zstandard.ZstdDecompressor().decompress(blocks[at : at + size], raw)
            hit = needles.found_in(block)
            if hit is not None:
                yield f"{hit!r} in block {number}"


def decoded(encoding: int, base: int, length: int, stored: bytes) -> np.ndarray:  # type: ignore[type-arg]
    """The values of a column."""
    if encoding == 0:
        return np.full(length, base, np.uint64)
    if encoding == 1:
        return np.uint64(base) + np.arange(length, dtype=np.uint64)
    values = np.frombuffer(stored, _WIDTHS[encoding], length).astype(np.uint64)
    return values + np.uint64(base)
