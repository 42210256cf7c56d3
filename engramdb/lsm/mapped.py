"""An array of a derived file that is mapped, not read."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from engramdb.lsm.chunks import Chunks
from engramdb.lsm.keys import Rows


class Mapped:
    """An array as it lies in its file, and what checks it, each chunk once.

    It stays valid when the file is replaced or removed and when the database is closed; the map
    is given back when the last view of the array is gone. Whoever meets damage tells the store
    (Derived.refuse) and makes the values anew. Thread-safe.
    """

    __slots__ = ("_chunks", "array")

    def __init__(self, array: npt.NDArray[Any], chunks: Chunks) -> None:
        self.array = array
        """Read-only. Nothing of it is checked but what check() was told of."""
        self._chunks = chunks

    @property
    def is_checked(self) -> bool:
        """Whether all of it was checked."""
        return not self._chunks.unchecked

    def check(self, first_row: int, last_row: int) -> None:
        """Check what holds array[first_row:last_row]. Raises CorruptionError."""
        if self._chunks.unchecked:
            self._chunks.check(first_row, last_row)

    def check_rows(self, rows: Rows) -> None:
        """Check what holds array[rows], rows counted from 0 up. Raises CorruptionError."""
        if self._chunks.unchecked:
            self._chunks.check_rows(rows)

    def check_all(self) -> None:
        """Check what nobody has checked yet. Raises CorruptionError."""
        if self._chunks.unchecked:
            self._chunks.check(0, len(self.array) if self.array.ndim else 1)
