"""Which rows of a run belong to which memories, the other way round than a run says it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from engramdb.lsm import VectorRun
from engramdb.lsm.keys import U64, Rows, order_of, positions, ranges

Mask = npt.NDArray[np.bool_]


class Owners:
    """The memories of one run, sorted by key, and the rows of each.

    high, low   (k,) the keys, each once
    memory      (rows,) int32: the place of each row's memory among them
    """

    def __init__(self, high: U64, low: U64) -> None:
        """`high`, `low`: the memory that each row belongs to."""
        is_ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))
        order = None if bool(is_ascending.all()) else order_of(high, low)
        if order is not None:
            high, low = high[order], low[order]
        new = np.ones(len(high), np.bool_)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        starts = new.nonzero()[0]
        self.high, self.low = high[starts], low[starts]
        self._starts = np.append(starts, len(high))
        self.memory = np.cumsum(new, dtype=np.int32)
        self.memory -= 1
        self._order: npt.NDArray[np.int32] | None = None
        if order is not None:
            self._order = order.astype(np.int32)
            sorted_memory, self.memory = self.memory, np.empty(len(high), np.int32)
            self.memory[order] = sorted_memory

    def places(self, high: U64, low: U64) -> Rows:
        """The places of those of these memories that are here, in the order of the keys given."""
        found = positions(self.high, self.low, high, low)
        return found[found >= 0]

    def rows_of(self, high: U64, low: U64) -> Rows:
        """All rows of these memories, each of which is given once; ascending."""
        places = self.places(high, low)
        if 4 * len(places) > len(self.high):
            wanted = np.zeros(len(self.high), np.bool_)
            wanted[places] = True
            return wanted[self.memory].nonzero()[0]
        rows, _ = ranges(self._starts[places], self._starts[places + 1])
        if self._order is not None:
            rows = self._order[rows].astype(np.int64)
        rows.sort()
        return rows


class KnownOwners:
    """What is kept of vector files, which never change. Thread-safe: at worst made twice."""

    def __init__(self) -> None:
        self._files: dict[int, Owners] = {}  # replaced, never changed

    def of(self, run: VectorRun, files: Collection[int]) -> Owners:
        """Of a run; kept if it is one of these files, those that there are."""
        found = self._files.get(run.file) if run.file in files else None
        if found is None:
            found = Owners(*run.owners())
            if run.file in files:
                rest = {number: each for number, each in self._files.items() if number in files}
                self._files = {**rest, run.file: found}
        return found
