"""The most recently used decompressed payload blocks: at most `blocks_max` of them."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from threading import Lock

Block = tuple[bytes, list[int], list[int]]  # bytes, starts in bytes, lengths in bytes


class BlockCache:
    """A least-recently-used cache, shared by all segments of an engine."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._lock = Lock()
        self.hits = 0
        self.misses = 0

    def get(self, key: tuple[int, int]) -> Block | None:
        """The block, which becomes the most recent."""
        block = self._blocks.get(key)
        if block is None:
            self.misses += 1
            return None
        self.hits += 1
        with suppress(KeyError):  # evicted by another thread in between; the block is still good
            self._blocks.move_to_end(key)
        return block

    def put(self, key: tuple[int, int], block: Block) -> None:
        """Keep a block."""
        with self._lock:
            self._blocks[key] = block
            while len(self._blocks) > self._blocks_max:
                self._blocks.popitem(last=False)

    def drop(self, number: int) -> None:
        """Forget the blocks of a file."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == number]:
                del self._blocks[key]

    def __len__(self) -> int:
        return len(self._blocks)
