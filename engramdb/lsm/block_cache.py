"""The most recently used decompressed payload blocks: so many, and so many bytes, at most."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from engramdb.lsm.payloads import BLOCK_ROWS
from engramdb.lsm.records import Edge

Block = tuple[bytes, list[int], list[int]]  # bytes, starts in bytes, lengths in bytes


BLOCK_BYTES_MEAN_MAX: Final = 2**16  # blocks of large payloads count as several
EDGE_BYTES_MAX: Final = 1024  # of the payload of an edge that is kept; as many as fill the blocks


class BlockCache:
    """A least-recently-used cache, shared by all segments of an engine. It holds at most
    `blocks_max` blocks and, in bytes, `blocks_max` times BLOCK_BYTES_MEAN_MAX."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._edges_max = blocks_max * BLOCK_ROWS
        self.edges: dict[int, Edge] = {}
        self._lock = Lock()
        self._bytes = 0
        self.hits = 0
        self.misses = 0
        self._ahead: set[tuple[int, int]] = set()  # read ahead of their use, and not used yet
        self.ahead_reads = 0
        """Blocks that were read ahead of their use."""
        self.ahead_hits = 0
        """How many of these were used then."""
        self.ahead_wasted = 0
        """How many made room for others, or came too late, before anybody used them."""

    def get(self, key: tuple[int, int]) -> Block | None:
        """The block, which becomes the most recent."""
        with self._lock:  # drop() must not meet a change of the order while it looks for a file
            block = self._blocks.get(key)
            if block is None:
                self.misses += 1
                return None
            self.hits += 1
            self._blocks.move_to_end(key)
            if self._ahead and key in self._ahead:
                self._ahead.remove(key)
                self.ahead_hits += 1
            return block

    def put(self, key: tuple[int, int], block: Block) -> None:
        """Keep a block."""
        with self._lock:
            self._put(key, block)

    def put_ahead(self, key: tuple[int, int], block: Block) -> None:
        """Keep a block that nobody has asked for yet, unless somebody has meanwhile."""
        with self._lock:
            self.ahead_reads += 1
            if key in self._blocks:
                self.ahead_wasted += 1
                return
            self._ahead.add(key)
            self._put(key, block)

    def _put(self, key: tuple[int, int], block: Block) -> None:
        before = self._blocks.get(key)
        if before is not None and key in self._ahead:  # whoever puts it now has read it too
            self._waste(key)
        self._bytes += len(block[0]) - (0 if before is None else len(before[0]))
        self._blocks[key] = block
        while self._blocks and (
            len(self._blocks) > self._blocks_max
            or self._bytes > self._blocks_max * BLOCK_BYTES_MEAN_MAX
        ):
            oldest, (raw, _, _) = self._blocks.popitem(last=False)
            self._bytes -= len(raw)
            if oldest in self._ahead:
                self._waste(oldest)

    def _waste(self, key: tuple[int, int]) -> None:
        self._ahead.remove(key)
        self.ahead_wasted += 1

    def drop(self, number: int) -> None:
        """Forget the blocks of a file."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == number]:
                self._bytes -= len(self._blocks.pop(key)[0])
                self._ahead.discard(key)
            for name in [name for name in self.edges if name >> 32 == number]:
                del self.edges[name]

    # Edges: those of one memory lie in as many blocks, so they are kept one by one

    def put_edge(self, name: int, edge: Edge) -> None:
        """Keep an edge as it is now, unless it is large; the one that came first makes room. It is
        found in `edges`, without a lock, by the number of its file << 32 | its row."""
        if len(edge.payload) > EDGE_BYTES_MAX:
            return
        with self._lock:
            if len(self.edges) >= self._edges_max:
                del self.edges[next(iter(self.edges))]
            self.edges[name] = edge

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: object) -> bool:
        return key in self._blocks
