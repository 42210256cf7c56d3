"""Variable-length payloads as arrays: padded to 8 bytes, so that they are gathered as words.

Gathering bytes one index at a time costs 16 us for a 450-byte record; gathering its 8-byte words
costs a fortieth of that, and no Python loop over records.

In a segment the payloads of `BLOCK_ROWS` consecutive rows form a block: u32 lengths, zero-padded to
8 bytes, then the payloads, each zero-padded to 8 bytes; compressed as one zstd frame.
"""

from __future__ import annotations

import threading
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from engramdb.lsm.keys import U64, Rows

BLOCK_ROWS: Final = 64
_PADS: Final = [bytes(-i & 7) for i in range(8)]

_RATIO_MAX: Final = 2**16  # zstd stores 128 KiB of one byte in four; and no block in less

Lengths = npt.NDArray[np.uint32]


class Payloads:
    """n payloads: `words` (uint64), of which row i owns ceil(lengths[i] / 8) from starts[i] on."""

    __slots__ = ("lengths", "starts", "words")

    def __init__(self, words: U64, lengths: Lengths) -> None:
        self.words, self.lengths = words, lengths
        counts = word_counts(lengths)
        self.starts: Rows = np.cumsum(counts) - counts

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def from_list(cls, payloads: list[bytes]) -> Payloads:
        """From a list of bytes."""
        sizes = list(map(len, payloads))
        pads = [_PADS[size & 7] for size in sizes]
        joined = b"".join(chain.from_iterable(zip(payloads, pads, strict=True)))
        return cls(np.frombuffer(joined, "<u8"), np.array(sizes, np.uint32))

    def take(self, rows: Rows) -> Payloads:
        """These rows, in this order."""
        counts = word_counts(self.lengths)[rows]
        ends = np.cumsum(counts)
        indices = np.repeat(self.starts[rows] - (ends - counts), counts)
        indices += np.arange(len(indices))
        return Payloads(self.words.take(indices), self.lengths[rows])

    @staticmethod
    def concatenate(parts: list[Payloads]) -> Payloads:
        """One after another."""
        return Payloads(
            np.concatenate([part.words for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )

    def to_list(self) -> list[bytes]:
        """As a list of bytes."""
        data = self.words.tobytes()
        starts = (self.starts * 8).tolist()
        return [
            data[start : start + size]
            for start, size in zip(starts, self.lengths.tolist(), strict=True)
        ]

    def blocks(self) -> list[bytes]:
        """The uncompressed blocks of all rows."""
        count = len(self)
        ends = (self.starts + word_counts(self.lengths)).tolist()
        starts = self.starts.tolist()
        made = []
        for first in range(0, count, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, count)
            lengths = self.lengths[first:last].astype("<u4").tobytes()
            body = self.words[starts[first] : ends[last - 1]].tobytes()
            made.append(lengths + _PADS[len(lengths) & 7] + body)
        return made


def word_counts(lengths: Lengths) -> Rows:
    """The 8-byte words that payloads of these lengths take."""
    return (lengths.astype(np.int64) + 7) >> 3


def open_block(block: bytes, rows: int) -> Payloads:
    """The payloads of an uncompressed block. Raises ValueError if it does not add up."""
    lengths = np.frombuffer(block, "<u4", rows)
    head = -(-4 * rows // 8) * 8
    words = np.frombuffer(block, "<u8", -1, head) if len(block) > head else np.empty(0, "<u8")
    if int(word_counts(lengths).sum()) != len(words):
        raise ValueError("the block's lengths do not add up")
    return Payloads(words, lengths)


_local = threading.local()


def decompress(data: bytes, raw_size: int) -> bytes:
    """One zstd frame of so many bytes. Raises ValueError or ZstdError."""
    # the size in the frame is what is allocated, whatever else is asked for
    if zstandard.frame_content_size(data) != raw_size or raw_size > _RATIO_MAX * len(data):
        raise ValueError(f"{len(data)} bytes are not {raw_size} bytes compressed")
    # a decompressor must not be shared between threads, and making one costs more than using it
    try:
        decompressor = _local.decompressor
    except AttributeError:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    out: bytes = decompressor.decompress(data, max_output_size=raw_size)
    return out
