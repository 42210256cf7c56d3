"""What a load of a memory reads from files, read ahead of it: the block of its payload into the
cache of blocks, and the stretch of its vector into the page cache, checked.

Files are read by calls that let other threads run; touching a mapped page that is not in memory
would make all of them wait for the disk.
"""

from __future__ import annotations

from typing import NamedTuple

from engramdb.lsm.container import CHUNK_BYTES, unreadable
from engramdb.lsm.records import MEMORY, NO_VECTOR
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.version import Version


class Warmth(NamedTuple):
    """What reading ahead was good for since the opening, in blocks of payloads."""

    reads: int
    """Blocks that were read ahead."""
    hits: int
    """Of those, the ones that somebody used."""
    wasted: int
    """Of those, the ones that are gone and nobody used. The others are still there."""
    misses: int
    """Blocks that somebody had to wait for."""


def warm(version: Version, seq: int, key: bytes) -> bool:
    """Read ahead what a load of a memory needs. False if it is in memory, or there is none.

    The vector is only read with the block: who has used the block has used what lies around it.
    """
    if any(table.find(MEMORY, key, seq) >= 0 for table in version.tables()):
        return False
    for segment in reversed(version.segments):
        first, last = segment.find(MEMORY, key)
        if first < last:
            if not segment.warm(first):
                return False
            number = segment.vector[first]
            if number != NO_VECTOR:
                _warm_vector(version.vectors, number)
            return True
    return False


def _warm_vector(files: tuple[VectorFile, ...], number: int) -> None:
    for file in files:
        if file.entry.number_min <= number <= file.entry.number_max:
            row = file.row_of(number)
            if row is not None:
                section = file.reader.section("matrix")
                start = row * 4 * file.dimension // CHUNK_BYTES * CHUNK_BYTES
                end = -(-(row + 1) * 4 * file.dimension // CHUNK_BYTES) * CHUNK_BYTES
                length = min(end, section.length) - start
                try:
                    file.reader.file.read_at(section.offset + start, length)
                except OSError as error:
                    raise unreadable(file.reader.path, section.offset + start, error) from error
                file.vector(row)
                return
