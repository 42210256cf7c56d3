"""Some rows of a run of vectors as a run: what a filter, or a first look, has left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.index import exact
from engramdb.index.owners import KnownOwners
from engramdb.index.without import Without
from engramdb.lsm import VectorRun
from engramdb.lsm.keys import U64, KeyMatrix, Rows, distinct, positions, split

Floats32 = npt.NDArray[np.float32]

_CELLS_MAX: Final = 8 * 1024 * 1024  # of a copy: 32 MB; more are multiplied where they lie
_DENSITY_MAX: Final = 0.1  # of rows that are gathered although codes could find the best of them


class Chosen:
    """These rows, which ascend, as a run of no file. See VectorRun for what each method promises.
    `matrix` is a copy, made when it is asked for."""

    file = 0

    def __init__(self, run: VectorRun, rows: Rows) -> None:
        self._run, self._rows = run, rows
        self.rows, self.dimension = len(rows), run.dimension

    @cached_property
    def matrix(self) -> Floats32:
        """(rows, dimension) float32."""
        return self._run.take(self._rows)

    def take(self, rows: Rows) -> Floats32:
        """A copy of the vectors of these rows."""
        return self._run.take(self._rows[rows])

    def product(self, query: Floats32) -> Floats32:
        """matrix @ query, (rows,) float32."""
        return exact.gathered_product(self._run, self._rows, query)

    @cached_property
    def inverse_norms(self) -> Floats32:
        """(rows,) float32; 0 for a zero vector."""
        return self._run.inverse_norms[self._rows]

    @cached_property
    def extreme_rows(self) -> Rows:
        """Rows for which float32 products are not safe."""
        extreme = self._run.extreme_rows
        return np.isin(self._rows, extreme).nonzero()[0] if len(extreme) else extreme

    def hidden(self, seq: int) -> Rows | None:
        """Those that the run hides; None if there are none."""
        if self._run.is_all_visible(seq):
            return None
        hidden = (~self._run.are_visible(self._rows, seq)).nonzero()[0]
        return hidden if len(hidden) else None

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are visible in the run."""
        return self._run.are_visible(self._rows[rows], seq)

    def is_all_visible(self, seq: int) -> bool:
        """Whether surely no row is hidden."""
        return self._run.is_all_visible(seq)

    def visible_rows(self, seq: int) -> int:
        """How many rows may be visible."""
        return min(self.rows, self._run.visible_rows(seq))

    def rows_of(self, numbers: U64) -> Rows:
        """The row of each of these vector numbers, or -1."""
        rows = self._run.rows_of(numbers)
        at = np.minimum(np.searchsorted(self._rows, rows), max(0, self.rows - 1))
        if not self.rows:
            return np.full(len(numbers), -1, np.int64)
        return np.where((rows >= 0) & (self._rows[at] == rows), at, -1)

    def keys(self, rows: Rows) -> list[bytes]:
        """The 16-byte keys of these rows."""
        return self._run.keys(self._rows[rows])

    @cached_property
    def _owners(self) -> tuple[U64, U64]:
        high, low = self._run.owners()
        return high[self._rows], low[self._rows]

    def owners(self) -> tuple[U64, U64]:
        """(high, low): the keys of all rows."""
        return self._owners


def owned(
    runs: Sequence[VectorRun],
    keys: KeyMatrix,
    *,
    by_these: bool,
    known: KnownOwners | None = None,
    coded: Collection[int] = (),
) -> list[VectorRun]:
    """The runs, with only the vectors of these memories, or with only those of all others.

    known   what is kept of the files `coded`, which are those that have codes
    """
    high, low = distinct(*split(keys))
    rest: list[VectorRun] = []
    for run in runs:
        rows = _rows_of(run, high, low, known, coded)
        if not by_these:
            rest.append(Without(run, rows) if len(rows) else run)
        elif _is_copied(run, len(rows), run.file in coded):
            if len(rows):
                rest.append(Chosen(run, rows))
        else:
            others = np.ones(run.rows, np.bool_)
            others[rows] = False
            rest.append(Without(run, others.nonzero()[0]))
    return rest


def rows_of_memories(
    runs: Sequence[VectorRun],
    keys: KeyMatrix,
    known: KnownOwners | None,
    coded: Collection[int],
) -> list[Chosen]:
    """The rows of these memories, whether visible or not, as runs."""
    high, low = distinct(*split(keys))
    found = [(run, _rows_of(run, high, low, known, coded)) for run in runs]
    return [Chosen(run, rows) for run, rows in found if len(rows)]


def _rows_of(
    run: VectorRun, high: U64, low: U64, known: KnownOwners | None, coded: Collection[int]
) -> Rows:
    """Ascending. `high`, `low`: sorted keys, each once."""
    if known is not None and run.file in coded:
        return known.of(run, coded).rows_of(high, low)
    return (positions(high, low, *run.owners()) >= 0).nonzero()[0]


def _is_copied(run: VectorRun, rows: int, has_codes: bool) -> bool:
    """Whether so many of its rows are better gathered than found among the others."""
    if rows * run.dimension > _CELLS_MAX:
        return False
    if has_codes and rows > _DENSITY_MAX * run.rows:
        return False
    return not exact.is_dense(rows, run.rows, run.dimension)
