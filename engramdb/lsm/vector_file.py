"""An immutable file of vectors: one aligned float32 matrix, mapped and multiplied as it lies.

Sections (see container.py for the frame): number (vector numbers, ascending), key.high, key.low,
born (seq of the first version that has the vector), dead (seq of the first later version that does
not; 0: none when written), norm (float32 bits of the Euclidean norms), matrix, matrix.sums.

A version may share the vector of its immediate predecessor only. Hence a vector is visible in one
interval of seqs, born <= seq < dead, belongs to one memory, and no search has to look at segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import CorruptionError
from engramdb.lsm import columns
from engramdb.lsm.chunks import Chunks
from engramdb.lsm.columns import Column
from engramdb.lsm.container import VECTORS, ContainerReader, ContainerWriter
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64, Rows, join, to_list
from engramdb.lsm.limits import NUMBER_MAX
from engramdb.lsm.manifest import VectorEntry
from engramdb.lsm.marks import Marks, Supersession
from engramdb.lsm.records import DEFAULT_SPACE, NEVER, Vector

Matrix = npt.NDArray[np.float32]

# float32 products of rows outside these norms can overflow or vanish
SAFE_NORM_MIN = 1e-15
SAFE_NORM_MAX = 1e15

_STRETCH_BYTES: Final = 2**20  # fits the second-level cache


def norms_of(matrix: Matrix) -> npt.NDArray[np.float32]:
    """The Euclidean norm of each row, accumulated in float64 (a square may overflow float32)."""
    norms = np.empty(len(matrix), np.float32)
    step = max(1, 2**18 // max(1, matrix.shape[1]))  # 2 MiB of float64 at a time: stays in cache
    for start in range(0, len(matrix), step):
        part = matrix[start : start + step].astype(np.float64)
        with np.errstate(over="ignore"):  # infinite is right: an extreme row, see extreme()
            norms[start : start + step] = np.sqrt(np.einsum("ij,ij->i", part, part))
    return norms


def inverse(norms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """1 / norm, and 0 for a zero vector."""
    made = np.zeros(len(norms), np.float32)
    np.divide(np.float32(1), norms, out=made, where=norms > np.float32(1e-38))
    return made


def extreme(norms: npt.NDArray[np.float32]) -> Rows:
    """The rows that need float64: norms too small or too large, zero apart."""
    outside = (norms > SAFE_NORM_MAX) | ((norms < SAFE_NORM_MIN) & (norms > 0))
    return np.flatnonzero(outside)


@dataclass(slots=True)
class VectorColumns:
    """What belongs to each vector, as arrays. `dead` is NEVER for a current one."""

    number: U64
    high: U64
    low: U64
    born: U64
    dead: U64
    norm: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: Rows) -> VectorColumns:
        """These rows, in this order."""
        return VectorColumns(
            self.number[rows],
            self.high[rows],
            self.low[rows],
            self.born[rows],
            self.dead[rows],
            self.norm[rows],
        )

    @staticmethod
    def concatenate(parts: list[VectorColumns]) -> VectorColumns:
        """One after another."""
        return VectorColumns(
            np.concatenate([part.number for part in parts]),
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.born for part in parts]),
            np.concatenate([part.dead for part in parts]),
            np.concatenate([part.norm for part in parts]),
        )


class VectorFile:
    """An open vector file."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        entry: VectorEntry,
        marks: Marks,
        known: VectorFile | None = None,
        *,
        space: str = DEFAULT_SPACE,
    ) -> None:
        """`known` is the same file, open already: what was read of it is shared. `space`: the name
        of the space that its vectors are in."""
        if known is not None:
            self.__dict__.update(known.__dict__)
            self.__dict__.pop("dead", None)
            self.entry, self.marks = entry, marks
            return
        self.entry = entry
        self.number = self.file = entry.number
        self.rows = entry.rows
        self.space = space
        self.dimension = entry.dimension
        self.marks = marks
        self._gone_from = NEVER  # the lowest seq at which no row was found alive
        self.reader = ContainerReader(
            environment,
            path,
            kind=VECTORS,
            database=bytes.fromhex(entry.origin),
            number=entry.number,
            size=entry.size,
            fingerprint=bytes.fromhex(entry.fingerprint),
        )
        with self.reader.closed_on_error():
            matrix = self.reader.section("matrix")
            if matrix.length != 4 * entry.rows * entry.dimension:
                # this is what ties the number of rows to the size of the file
                raise CorruptionError(
                    path,
                    matrix.entry_offset,
                    f"{entry.rows} x {entry.dimension} floats",
                    f"{matrix.length} bytes",
                )

    def _column(self, name: str) -> Column:
        return self.reader.column(name, self.rows)

    def _bounded(self, name: str, low: int, high: int) -> Column:
        return self.reader.bounded(name, self.rows, low, high)

    @cached_property
    def numbers(self) -> Column:
        return self._bounded("number", self.entry.number_min, self.entry.number_max)

    @cached_property
    def high(self) -> Column:
        return self._column("key.high")

    @cached_property
    def low(self) -> Column:
        return self._column("key.low")

    @cached_property
    def born(self) -> Column:
        if self.entry.commit_seq:
            return Column(columns.CONSTANT, self.entry.commit_seq, self.rows, b"")
        return self._bounded("born", 0, NUMBER_MAX)

    @cached_property
    def dead(self) -> Supersession:
        return Supersession(self._bounded("dead", 0, NUMBER_MAX), self.marks)

    @cached_property
    def norms(self) -> npt.NDArray[np.float32]:
        return self._bounded("norm", 0, 2**32 - 1).array().astype(np.uint32).view(np.float32)

    @cached_property
    def inverse_norms(self) -> npt.NDArray[np.float32]:
        return inverse(self.norms)

    @cached_property
    def extreme_rows(self) -> Rows:
        return extreme(self.norms)

    @cached_property
    def _mapped(self) -> Matrix:
        return np.frombuffer(self._chunks.data, "<f4").reshape(self.rows, self.dimension)

    @cached_property
    def _chunks(self) -> Chunks:
        return Chunks(self.reader, "matrix", 4 * self.dimension)

    @property
    def matrix(self) -> Matrix:
        """All vectors, checked."""
        if self._chunks.unchecked:
            self._chunks.check(0, self.rows)
        return self._mapped

    def take(self, rows: Rows) -> Matrix:
        """A copy of these vectors; only the chunks that they touch are checked."""
        if self._chunks.unchecked:
            self._chunks.check_rows(rows)
        return self._mapped.take(rows, axis=0)

    def product(self, query: Vector) -> npt.NDArray[np.float32]:
        """matrix @ query, (rows,) float32. The first time each stretch is checked and multiplied
        while it is in the cache, so that a first search reads the file once, not twice."""
        if not self._chunks.unchecked:
            return self._mapped @ query
        products = np.empty(self.rows, np.float32)
        step = max(1, _STRETCH_BYTES // (4 * self.dimension))
        for start in range(0, self.rows, step):
            stop = min(start + step, self.rows)
            self._chunks.check(start, stop)
            np.dot(self._mapped[start:stop], query, out=products[start:stop])
        return products

    def columns(self) -> VectorColumns:
        """Everything but the matrix, as arrays."""
        return VectorColumns(
            self.numbers.array(),
            self.high.array(),
            self.low.array(),
            self.born.array(),
            self.dead.array(),
            self.norms,
        )

    def row_of(self, number: int) -> int | None:
        """The row of a vector number, if it is in this file."""
        first, last = self.numbers.find(number, 0, self.rows)
        return first if first < last else None

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, -1 for those that are not in this file."""
        return self.numbers.places(numbers)

    def vector(self, row: int) -> Vector:
        """A read-only copy of one vector."""
        self._chunks.check(row, row + 1)
        copy: Vector = self._mapped[row].copy()
        copy.flags.writeable = False
        return copy

    def hidden(self, seq: int) -> Rows | None:
        """The rows not visible at a seq; None if all are."""
        rows = self.dead.rows_until(seq)
        if self.born.extremes[1] > seq:
            unborn = np.flatnonzero(self.born.array() > np.uint64(seq))
            rows = np.concatenate((rows, unborn))
        return rows if len(rows) else None

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are visible at a seq."""
        visible = self.dead.are_current(rows, seq)
        if self.born.extremes[1] > seq:
            visible &= self.born.within(0, seq, rows)
        return visible

    def is_all_visible(self, seq: int) -> bool:
        """Whether surely no row is hidden at a seq: a cheap test."""
        return self.born.extremes[1] <= seq and not self.dead.count_until(seq)

    def visible_rows(self, seq: int) -> int:
        """How many rows are visible at a seq."""
        born = self.rows
        if self.born.extremes[1] > seq:
            born = int(np.count_nonzero(self.born.within(0, seq)))
        return born - self.dead.count_until(seq)

    def is_visible(self, seq: int) -> bool:
        """Whether any row may be visible at a seq: a cheap test, True in doubt."""
        if seq >= self._gone_from or self.born.extremes[0] > seq:
            return False
        if self.dead.count_until(seq) < self.rows:
            return True
        self._gone_from = seq  # what is dead stays dead: later searches need not count again
        return False

    def keys(self, rows: Rows) -> list[bytes]:
        """The memories that these rows belong to."""
        return to_list(join(self.high.take(rows), self.low.take(rows)))

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the memory that each row belongs to."""
        return self.high.array(), self.low.array()

    def vectors(self, first_row: int, last_row: int) -> Matrix:
        """A read-only copy of the vectors [first_row, last_row)."""
        self._chunks.check(first_row, last_row)
        copy: Matrix = self._mapped[first_row:last_row].copy()
        copy.flags.writeable = False
        return copy


def write_vector_file(
    environment: Environment,
    path: str,
    database: bytes,
    number: int,
    columns_: VectorColumns,
    dimension: int,
    parts: Iterable[Matrix],
) -> tuple[int, bytes]:
    """Write and sync one vector file. Returns its size and fingerprint. For `parts` see
    ContainerWriter.matrix()."""
    writer = ContainerWriter(VECTORS, database, number)
    writer.column("number", columns_.number)
    writer.column("key.high", columns_.high)
    writer.column("key.low", columns_.low)
    writer.column("born", columns_.born)
    writer.column("dead", np.where(columns_.dead == np.uint64(NEVER), np.uint64(0), columns_.dead))
    writer.column("norm", columns_.norm.view(np.uint32).astype(np.uint64))
    writer.matrix("matrix", 4 * dimension * len(columns_), parts)
    return writer.write(environment, path)
