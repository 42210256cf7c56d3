"""What a similarity search multiplies: the vectors of a file, of an arena, of a transaction."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.records import Vector


class VectorRun(Protocol):
    """Vectors that a similarity search multiplies with one matrix product."""

    rows: int
    dimension: int
    file: int
    """The number of the file that they lie in, by which an index knows it; 0 for no file."""

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(rows, dimension) float32, C-contiguous, not to be written to."""

    def take(self, rows: Rows) -> npt.NDArray[np.float32]:
        """A copy of the vectors of these rows (from 0 up), (len(rows), dimension) float32,
        C-contiguous. Of a file only the chunks that they touch are checked: raises
        CorruptionError. `matrix` checks all of it."""

    def product(self, query: Vector) -> npt.NDArray[np.float32]:
        """matrix @ query, (rows,) float32."""

    @property
    def inverse_norms(self) -> npt.NDArray[np.float32]:
        """(rows,) float32; 0 for a zero vector."""

    @property
    def extreme_rows(self) -> Rows:
        """Rows whose norm lies outside 1e-15..1e15: float32 products are not safe there."""

    def hidden(self, seq: int) -> Rows | None:
        """Row numbers not visible at a seq; None if all rows are visible."""

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are visible at a seq: all but those of hidden(seq), without a look
        at the others. A new array."""

    def is_all_visible(self, seq: int) -> bool:
        """Whether surely no row is hidden at a seq: a cheap test, False in doubt."""

    def visible_rows(self, seq: int) -> int:
        """How many rows are visible at a seq; never less than that."""

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, -1 for those that are not in this run."""

    def keys(self, rows: Rows) -> list[bytes]:
        """The 16-byte keys of these rows."""

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the keys of all rows."""
