"""What is kept of a segment's edges once they are followed: their order by either end, and when
each ceased to be current."""

from __future__ import annotations

from collections.abc import Sequence

from engramdb.lsm import columns
from engramdb.lsm.columns import Column
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.marks import Marks


class EdgeEnds:
    """The numbers of the edges (0 is the first edge) in the order of one of their ends, and the
    keys of these ends in that order."""

    __slots__ = ("_high", "_low", "high", "low", "order", "view")

    def __init__(self, order: Rows, high: U64, low: U64) -> None:
        self.order, self.high, self.low = order, high, low
        # one key, or one number, is found faster without numpy
        self.view = memoryview(order.data).cast("B").cast("q")
        self._high = Column(columns.RAW, 0, len(order), high.data.cast("B"))
        self._low = Column(columns.RAW, 0, len(order), low.data.cast("B"))

    def stretch(self, key: bytes) -> tuple[int, int]:
        """Where the edges of one memory stand: [first, last)."""
        first, last = self._high.find(int.from_bytes(key[:8], "big"), 0, len(self.order))
        if first == last:
            return first, last
        return self._low.find(int.from_bytes(key[8:], "big"), first, last)


class EdgeUntil:
    """The superseding seqs of the edges of a file as an array that follows the marks.

    A row is superseded once, so readers write their marks into the shared array as they come, each
    all that it may see: what another one has written already is the same.
    """

    __slots__ = ("_first_row", "_followed", "_marks", "_until", "_view")

    def __init__(self, until: U64, marks: Marks, first_row: int) -> None:
        self._until = until
        self._view = until.data.cast("B").cast("Q")
        self._marks = marks
        self._first_row = first_row
        self._followed = 0

    def view(self) -> Sequence[int]:
        """The same as array(), for a few edges."""
        if len(self._marks) != self._followed:
            self.array()
        return self._view

    def array(self) -> U64:
        """One seq for each edge. It is shared: do not write to it."""
        count = len(self._marks)
        if count != self._followed:
            rows, seqs = self._marks.arrays(self._followed, count)
            at = rows - self._first_row
            mine = (at >= 0) & (at < len(self._until))
            # a tombstone is never visible, whatever came after it
            mine[mine] = self._until[at[mine]] != 0
            self._until[at[mine]] = seqs[mine]
            self._followed = count
        return self._until
