"""A run of vectors of which some further rows are hidden: what a transaction has overwritten, and
what does not hold at the moment that is asked about."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from engramdb.lsm import VectorRun
from engramdb.lsm.keys import U64, Rows

Floats32 = npt.NDArray[np.float32]


class Without:
    """The run, without these rows. See VectorRun for what each method promises."""

    def __init__(self, run: VectorRun, rows: Rows) -> None:
        self._run, self._rows = run, rows
        self.rows, self.dimension, self.file = run.rows, run.dimension, run.file

    @property
    def matrix(self) -> Floats32:
        """(rows, dimension) float32."""
        return self._run.matrix

    def take(self, rows: Rows) -> Floats32:
        """A copy of the vectors of these rows."""
        return self._run.take(rows)

    def product(self, query: Floats32) -> Floats32:
        """matrix @ query, (rows,) float32."""
        return self._run.product(query)

    @property
    def inverse_norms(self) -> Floats32:
        """(rows,) float32; 0 for a zero vector."""
        return self._run.inverse_norms

    @property
    def extreme_rows(self) -> Rows:
        """Rows for which float32 products are not safe."""
        return self._run.extreme_rows

    def hidden(self, seq: int) -> Rows:
        """The run's own hidden rows and these."""
        hidden = self._run.hidden(seq)
        return self._rows if hidden is None else np.concatenate((hidden, self._rows))

    @cached_property
    def _is_hidden(self) -> npt.NDArray[np.bool_]:
        mask = np.zeros(self.rows, np.bool_)
        mask[self._rows] = True
        return mask

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are visible: in the run, and not among those that are left out."""
        visible = self._run.are_visible(rows, seq)
        visible &= ~self._is_hidden[rows]
        return visible

    def is_all_visible(self, seq: int) -> bool:
        """Whether surely no row is hidden."""
        return not len(self._rows) and self._run.is_all_visible(seq)

    def visible_rows(self, seq: int) -> int:
        """How many rows may be visible."""
        rest = self.rows - int(np.count_nonzero(self._is_hidden))
        return min(rest, self._run.visible_rows(seq))

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, or -1."""
        rows = self._run.rows_of(numbers)
        return np.where(np.isin(rows, self._rows), -1, rows)

    def keys(self, rows: Rows) -> list[bytes]:
        """The 16-byte keys of these rows."""
        return self._run.keys(rows)

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the keys of all rows."""
        return self._run.owners()


def without(runs: list[VectorRun], numbers: U64) -> list[VectorRun]:
    """The runs, without the vectors of these numbers."""
    rest: list[VectorRun] = []
    for run in runs:
        rows = run.rows_of(numbers)
        rows = rows[rows >= 0]
        rest.append(Without(run, rows) if len(rows) else run)
    return rest
