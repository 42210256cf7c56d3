"""Writes a segment: sorted versions as columns, payloads in compressed blocks. See segment.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import zstandard

from engramdb.lsm import attribute_sections
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.container import SEGMENT, ContainerWriter, _sum
from engramdb.lsm.environment import Environment
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import CLASSES, NEVER
from engramdb.lsm.rows import RowColumns

COMPRESSION_LEVEL = 1  # measured on chat turns: level 3 gains 1%, and costs a third more


class _Blocks:
    """Compresses payloads, some thousand at a time, and then says where each block stands."""

    def __init__(self, writer: ContainerWriter, payloads: Iterable[Payloads]) -> None:
        self._writer, self._payloads = writer, payloads
        self._sizes: list[int] = []
        self._raw_sizes: list[int] = []
        self._sums: list[int] = []

    def compressed(self) -> Iterator[bytes]:
        """The blocks of each piece of payloads, joined."""
        compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=False).compress
        for piece in self._payloads:
            blocks = piece.blocks()
            stored = list(map(compress, blocks))
            self._raw_sizes += map(len, blocks)
            self._sizes += map(len, stored)
            self._sums += map(_sum, stored)
            yield b"".join(stored)

    def describe(self) -> None:
        """Add the columns that tell where they are."""
        sizes = np.array(self._sizes, np.uint64)
        self._writer.column("block.offset", np.cumsum(sizes, dtype=np.uint64) - sizes)
        self._writer.column("block.size", sizes)
        self._writer.column("block.raw", np.array(self._raw_sizes, np.uint64))
        self._writer.column("block.sum", np.array(self._sums, np.uint64))


def write_segment(
    environment: Environment,
    path: str,
    database: bytes,
    number: int,
    rows: RowColumns,
    payloads: Iterable[Payloads],
    attributes: AttributeColumns | None = None,
) -> tuple[int, bytes]:
    """Write and sync one segment. Returns its size and fingerprint.

    `rows` are sorted; `payloads` yields their payloads in the same order, in pieces whose sizes
    are multiples of BLOCK_ROWS (the last one apart), so that a merge need not hold them all.
    `attributes` is what the rows of class MEMORY say.
    """
    writer = ContainerWriter(SEGMENT, database, number)
    counts = [int(np.count_nonzero(rows.record_class == c)) for c in CLASSES]
    writer.column("class.rows", np.array(counts, np.uint64))
    writer.column("key.high", rows.high)
    writer.column("key.low", rows.low)
    writer.column("seq", rows.seq)
    writer.column("time", rows.time)
    writer.column("kind", rows.kind.astype(np.uint64))
    writer.column("vector", rows.vector)
    writer.column(
        "superseded", np.where(rows.superseded == np.uint64(NEVER), np.uint64(0), rows.superseded)
    )
    blocks = _Blocks(writer, payloads)
    writer.stream("blocks", blocks.compressed(), blocks.describe)
    if len(rows.edges):
        edges = rows.edges
        writer.column("source.high", edges.source_high)
        writer.column("source.low", edges.source_low)
        writer.column("target.high", edges.target_high)
        writer.column("target.low", edges.target_low)
        # only the types that occur: a merge, or an erasure, may have dropped the last edge of one
        used, codes = np.unique(edges.type_code, return_inverse=True)
        writer.column("type", codes.astype(np.uint64))
        writer.blob("strength", edges.strength.astype("<f8").tobytes())
        writer.blob("types", msgspec.msgpack.encode([edges.types[code] for code in used.tolist()]))
        by_source = np.lexsort((edges.source_low, edges.source_high))
        by_target = np.lexsort((edges.target_low, edges.target_high))
        writer.column("by.source", by_source.astype(np.uint64))
        writer.column("by.target", by_target.astype(np.uint64))
    if attributes is not None:
        attribute_sections.write(writer, attributes)
    return writer.write(environment, path)
