"""All vectors that are intact, and the space of each: that of the versions that refer to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.records import NO_VECTOR
from engramdb.lsm.repair.logs import LogVectors
from engramdb.lsm.repair.sources import Sources
from engramdb.lsm.repair.vectors import SalvagedVectors
from engramdb.lsm.retention import Mask
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.spaces import table_of
from engramdb.lsm.vector_file import Matrix, VectorColumns, norms_of


class SalvagedSpaces:
    """The vectors of `sources` by number, and the table of their spaces."""

    def __init__(self, sources: Sources) -> None:
        inputs: list[SalvagedVectors | LogVectors] = [*sources.vectors]
        inputs += [vectors for log in sources.logs for vectors in log.vectors()]
        self._inputs = [source for source in inputs if len(source.numbers)]
        self.table: dict[str, int] = {**table_of(sources.manifest.spaces)}
        lengths = [len(source.numbers) for source in self._inputs]
        numbers = _joined([source.numbers for source in self._inputs], np.uint64)
        lost = _joined([source.lost_vectors for source in self._inputs], np.bool_)
        source = np.repeat(np.arange(len(lengths)), lengths)
        row = _joined([np.arange(length) for length in lengths], np.int64)
        intact = np.flatnonzero(~lost)
        self._numbers, first = np.unique(numbers[intact], return_index=True)
        self._source, self._row = source[intact[first]], row[intact[first]]
        widths = np.array([source.dimension for source in self._inputs], np.int64)
        self._width: Rows = widths[self._source]

    def settle(self, rows: RowColumns) -> None:
        """Give every space that versions have vectors in a dimension: what the manifest says, or
        else that of most of them."""
        used = self._used(rows)
        spaces = rows.spaces()[used]
        width = self._width_of(rows.vector[used])
        for name in dict.fromkeys(spaces.tolist()):
            if not self.table.get(name):
                found = width[(spaces == name) & (width > 0)]
                if len(found):
                    self.table[name] = int(np.bincount(found).argmax())

    def have(self, rows: RowColumns) -> Mask:
        """Whether the vector of each row is intact, and as long as those of its space."""
        found = np.zeros(len(rows), np.bool_)
        used = self._used(rows)
        wanted = [self.table.get(name, 0) for name in rows.spaces()[used]]
        width = self._width_of(rows.vector[used])
        found[used] = (width > 0) & (width == np.array(wanted, np.int64))
        return found

    @staticmethod
    def _used(rows: RowColumns) -> Rows:
        return np.flatnonzero(rows.vector != np.uint64(NO_VECTOR))

    def _width_of(self, numbers: U64) -> Rows:
        """The dimension of each of these vectors; 0 if it is not intact."""
        if not len(self._numbers):
            return np.zeros(len(numbers), np.int64)
        at = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
        return np.where(self._numbers[at] == numbers, self._width[at], 0)

    def dimension_of(self, space: int) -> int:
        """Of the vectors of a space, given by its number."""
        return list(self.table.values())[space]

    def columns(self, rows: RowColumns) -> list[tuple[int, VectorColumns]]:
        """The number of each space and its vectors that versions refer to, by their numbers."""
        used = self._used(rows)
        spaces = rows.spaces()[used]
        found = []
        for number, name in enumerate(self.table):
            some = used[spaces == name]
            if len(some):
                found.append((number, self._columns(rows, some)))
        return found

    def _columns(self, rows: RowColumns, used: Rows) -> VectorColumns:
        used = used[np.lexsort((rows.seq[used], rows.vector[used]))]
        numbers, first, count = np.unique(rows.vector[used], return_index=True, return_counts=True)
        born, final = used[first], used[first + count - 1]
        high, low = rows.owners()
        return VectorColumns(
            numbers,
            high[born],
            low[born],
            rows.seq[born],
            rows.superseded[final],
            self._norms(numbers),
        )

    def take(self, numbers: U64) -> Matrix:
        """(n, dimension) float32: vectors of one space."""
        at = np.searchsorted(self._numbers, numbers)
        made = np.empty((len(numbers), int(self._width[at[0]]) if len(at) else 0), np.float32)
        for i, source in enumerate(self._inputs):
            mine = np.flatnonzero(self._source[at] == i)
            if len(mine):
                made[mine] = source.take(self._row[at[mine]])
        return made

    def _norms(self, numbers: U64) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The Euclidean norms, worked out anew, some thousand rows at a time."""
        norms = np.empty(len(numbers), np.float32)
        step = max(1, 2**22 // int(self._width_of(numbers[:1])[0]))
        for start in range(0, len(numbers), step):
            norms[start : start + step] = norms_of(self.take(numbers[start : start + step]))
        return norms


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts])
