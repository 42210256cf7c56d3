"""The vectors of a memtable: float32 rows that BLAS multiplies as they lie.

Writers append under the write lock; readers take no lock. A reader knows its seq first and then
sees the rows born up to it: rows are only appended, and an array that is outgrown is replaced, not
changed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.lsm.columns import RANGE, RAW, Column
from engramdb.lsm.keys import U64, Rows, from_list, split
from engramdb.lsm.marks import Marks
from engramdb.lsm.records import NEVER, Vector
from engramdb.lsm.vector_file import Matrix, extreme, inverse, norms_of

_ROWS_AT_FIRST: Final = 65_536  # untouched memory costs nothing, growing costs a copy
_DENSE_ROWS_MIN: Final = 2048  # below this many rows a scan costs less than sorting out the dead


class Arena:
    """Vectors with their numbers, keys, births and deaths."""

    def __init__(self, dimension: int, bytes_expected: int) -> None:
        self.dimension = dimension
        self.rows = 0
        capacity = min(_ROWS_AT_FIRST, bytes_expected // (4 * dimension) + 64)
        self._matrix: Matrix = np.empty((capacity, dimension), np.float32)
        self._norms = np.empty(capacity, np.float32)
        self._inverse = np.empty(capacity, np.float32)
        self._extreme: list[int] = []
        self.numbers = array("Q")
        self.keys: list[bytes] = []
        self.born = array("Q")
        self.marks = Marks()
        self._dense: ArenaRun | None = None

    def reserve(self, rows: int) -> None:
        """Make room for so many rows in all. Untouched room costs no memory."""
        if rows <= len(self._matrix):
            return
        capacity = max(rows, 2 * len(self._matrix))
        for name in ("_matrix", "_norms", "_inverse"):
            old = getattr(self, name)
            new = np.empty((capacity, *old.shape[1:]), np.float32)
            new[: self.rows] = old[: self.rows]
            setattr(self, name, new)

    def append(self, vector: Vector, number: int, key: bytes, seq: int) -> int:
        """Add one vector; returns its row."""
        row = self.rows
        self.reserve(row + 1)
        self._matrix[row] = vector
        square = float(np.vdot(vector, vector))  # may overflow: then it is worked out in float64
        if 1e-30 < square < 1e30:
            norm = square**0.5
            self._norms[row] = norm
            self._inverse[row] = 1.0 / norm
        else:
            self._store_norms(row, vector[None])
        self.numbers.append(number)
        self.keys.append(key)
        self.born.append(seq)
        self.rows = row + 1
        return row

    def extend(
        self, matrix: Matrix, numbers: list[int], keys: list[bytes], seqs: list[int]
    ) -> None:
        """Add many vectors; their numbers and seqs ascend."""
        row, count = self.rows, len(matrix)
        self.reserve(row + count)
        self._matrix[row : row + count] = matrix
        self._store_norms(row, matrix)
        self.numbers.extend(numbers)
        self.keys += keys
        self.born.extend(seqs)
        self.rows = row + count

    def _store_norms(self, row: int, matrix: Matrix) -> None:
        norms = norms_of(matrix)
        self._norms[row : row + len(norms)] = norms
        self._inverse[row : row + len(norms)] = inverse(norms)
        self._extreme += (extreme(norms) + row).tolist()

    def row_of(self, number: int) -> int | None:
        """The row of a vector number, if it is here."""
        row = bisect_left(self.numbers, number)
        return row if row < self.rows and self.numbers[row] == number else None

    def places(self, numbers: U64, start: int, stop: int) -> Rows:
        """Where among the rows [start, stop) each of these vector numbers stands, or -1."""
        if start == stop:
            return np.full(len(numbers), -1, np.int64)
        first, last = self.numbers[start], self.numbers[stop - 1]
        if last - first == stop - 1 - start:  # as nearly always: nothing was numbered in between
            known = Column(RANGE, first, stop - start, b"")
        else:
            # the slice is a copy: an array with an exported buffer cannot be appended to
            known = Column(RAW, 0, stop - start, memoryview(self.numbers[start:stop]))
        return known.places(numbers)

    def vector(self, row: int) -> Vector:
        """A read-only copy of one vector."""
        copy: Vector = self._matrix[row].copy()
        copy.flags.writeable = False
        return copy

    def vectors(self, first_row: int, last_row: int) -> Matrix:
        """A read-only copy of the vectors [first_row, last_row)."""
        copy: Matrix = self._matrix[first_row:last_row].copy()
        copy.flags.writeable = False
        return copy

    def deaths(self) -> U64:
        """When each row ceased to be current, or NEVER: a new array."""
        dead = np.full(self.rows, NEVER, np.uint64)
        rows, seqs = self.marks.arrays(0, len(self.marks))
        dead[rows] = seqs
        return dead

    def block(self) -> tuple[Matrix, np.ndarray[tuple[int], np.dtype[np.float32]]]:
        """The matrix and the norms of all rows."""
        return self._matrix[: self.rows], self._norms[: self.rows]

    def run(self, seq: int) -> ArenaRun | None:
        """What a search at this seq multiplies; None if it sees nothing here."""
        rows = self.rows
        if rows and self.born[rows - 1] > seq:
            rows = bisect_right(self.born, seq, 0, rows)
        if rows == self.marks.count_until(seq):
            return None
        return ArenaRun(self, rows)

    def runs(self, seq: int) -> list[ArenaRun]:
        """As run(), but where most rows are dead a compact copy of the others takes their place.

        A memory that is written again and again leaves dead rows behind, and a search must not
        pay for them. The copy is made when less than half of what would be scanned is alive, so
        its cost is spread over as many writes.
        """
        whole = self.run(seq)
        if whole is None:
            return []
        dense = self._dense
        alive = whole.rows - self.marks.count_until(seq)
        if dense is not None and dense.seq <= seq:
            scanned = dense.rows + whole.rows - dense.until
            if scanned <= max(2 * alive, _DENSE_ROWS_MIN):
                rest = ArenaRun(self, whole.rows, dense.until, seq=dense.seq)
                return [dense, rest] if rest.rows else [dense]
        if whole.rows <= max(2 * alive, _DENSE_ROWS_MIN):
            return [whole]
        keep = np.ones(whole.rows, np.bool_)
        keep[self.marks.rows_until(seq)] = False
        made = ArenaRun(self, whole.rows, 0, np.flatnonzero(keep), seq)
        if dense is None or dense.seq <= seq:
            self._dense = made
        return [made]


class ArenaRun:
    """The rows [start, until) of an arena, or a copy of some of them, as a search sees them."""

    file = 0
    __slots__ = (
        "_arena",
        "_chosen",
        "_positions",
        "_start",
        "dimension",
        "extreme_rows",
        "inverse_norms",
        "matrix",
        "rows",
        "seq",
        "until",
    )

    def __init__(
        self, arena: Arena, until: int, start: int = 0, chosen: Rows | None = None, seq: int = 0
    ) -> None:
        self._arena, self._start, self._chosen, self.seq, self.until = (
            arena,
            start,
            chosen,
            seq,
            until,
        )
        self.dimension = arena.dimension
        bad = np.array(arena._extreme, np.int64)
        self._positions: Rows | None = None
        if chosen is None:
            self.rows = until - start
            self.matrix: Matrix = arena._matrix[start:until]
            self.inverse_norms = arena._inverse[start:until]
            self.extreme_rows = bad[(bad >= start) & (bad < until)] - start if len(bad) else bad
        else:
            self.rows = len(chosen)
            self.matrix = arena._matrix[chosen]
            self.inverse_norms = arena._inverse[chosen]
            self.extreme_rows = np.flatnonzero(np.isin(chosen, bad))
            self._positions = np.full(until, -1, np.int64)
            self._positions[chosen] = np.arange(len(chosen))

    def product(self, query: Vector) -> npt.NDArray[np.float32]:
        """matrix @ query, (rows,) float32."""
        return self.matrix @ query

    def take(self, rows: Rows) -> Matrix:
        """A copy of these vectors."""
        return self.matrix.take(rows, axis=0)

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are visible at a seq that is not below that of the run."""
        there = rows + self._start if self._chosen is None else self._chosen[rows]
        return ~self._arena.marks.are_marked(there, seq)

    def is_all_visible(self, seq: int) -> bool:
        """Whether surely no row is hidden at a seq that is not below that of the run."""
        marks = self._arena.marks
        # a copy left out what was dead when it was made
        return marks.count_until(seq) == (marks.count_until(self.seq) if self.seq else 0)

    def visible_rows(self, seq: int) -> int:
        """How many rows are visible at a seq that is not below that of the run."""
        hidden = self.hidden(seq)
        return self.rows - (0 if hidden is None else len(hidden))

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, -1 for those that are not among these rows."""
        rows = self._arena.places(numbers, self._start, self.until)
        return rows if self._positions is None else np.where(rows < 0, -1, self._positions[rows])

    def hidden(self, seq: int) -> Rows | None:
        """The rows not visible at a seq that is not below that of the run; None if all are."""
        marks = self._arena.marks
        dead = marks.rows_until(seq)
        if self.seq:
            # a copy left out what was dead then, and rows behind a copy are younger than it
            dead = dead[marks.count_until(self.seq) :]
        if not len(dead):
            return None
        dead = dead[(dead >= self._start) & (dead < self.until)]
        if self._positions is not None:
            dead = self._positions[dead]
        elif self._start:
            dead = dead - self._start
        return dead if len(dead) else None

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the memory that each row belongs to."""
        keys = self._arena.keys
        if self._chosen is None:
            return split(from_list(keys[self._start : self.until]))
        high, low = split(from_list(keys[: self.until]))
        return high[self._chosen], low[self._chosen]

    def keys(self, rows: Rows) -> list[bytes]:
        """The memories that these rows belong to."""
        keys = self._arena.keys
        if self._chosen is not None:
            rows = self._chosen[rows]
        return [keys[row + self._start] for row in rows.tolist()]
