"""The most recently used decompressed payload blocks: so many, and so many bytes, at most."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

Block = tuple[bytes, list[int], list[int]]  # bytes, starts in bytes, lengths in bytes


BLOCK_BYTES_MEAN_MAX: Final = 2**16  # blocks of large payloads count as several


class BlockCache:
    """A least-recently-used cache, shared by all segments of an engine. It holds at most
    `blocks_max` blocks and, in bytes, `blocks_max` times BLOCK_BYTES_MEAN_MAX."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._lock = Lock()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: tuple[int, int]) -> Block | None:
        """The block, which becomes the most recent."""
        with self._lock:  # drop() must not meet a change of the order while it looks for a file
            block = self._blocks.get(key)
            if block is None:
                self.misses += 1
                return None
            self.hits += 1
            self._blocks.move_to_end(key)
            return block

    def put(self, key: tuple[int, int], block: Block) -> None:
        """Keep a block."""
        with self._lock:
            before = self._blocks.get(key)
            self._bytes += len(block[0]) - (0 if before is None else len(before[0]))
            self._blocks[key] = block
            while self._blocks and (
                len(self._blocks) > self._blocks_max
                or self._bytes > self._blocks_max * BLOCK_BYTES_MEAN_MAX
            ):
                self._bytes -= len(self._blocks.popitem(last=False)[1][0])

    def drop(self, number: int) -> None:
        """Forget the blocks of a file."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == number]:
                self._bytes -= len(self._blocks.pop(key)[0])

    def __len__(self) -> int:
        return len(self._blocks)
