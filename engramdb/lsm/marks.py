"""When the rows of an immutable file ceased to be current.

A row is superseded by a later version of its key. What was known when the file was written is a
column of the file; what happened since is marks: (row, seq) pairs, in the order of their seq. They
are written beside the file in a mark file at each manifest, up to the seq that the manifest covers;
later ones come back from the log. So opening costs O(files + log), not O(rows).

Marks are only appended, under the write lock, and always with a seq above that of every snapshot
that exists: a reader takes the prefix that its snapshot may see, and needs no lock.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import CorruptionError
from engramdb.lsm.columns import Column
from engramdb.lsm.container import MARKS, ContainerReader, ContainerWriter
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.limits import NUMBER_MAX
from engramdb.lsm.records import NEVER

_NONE = np.empty(0, np.int64)
_NOWHERE: Final = np.uint32(2**32 - 1)

Places = npt.NDArray[np.uint32]
"""For each row which mark is its own, or _NOWHERE."""


class Marks:
    """The marks of one file. `number` is the mark file that holds the first `persisted` of them."""

    __slots__ = ("_by_row", "_cache", "_places", "number", "persisted", "rows", "seqs")

    def __init__(self) -> None:
        self.rows = array("q")
        self.seqs = array("Q")
        self._by_row: dict[int, int] = {}
        self.number = 0
        self.persisted = 0
        self._cache: tuple[int, Rows] = (0, _NONE)
        self._places: tuple[int, Places] = (0, np.empty(0, np.uint32))

    def __len__(self) -> int:
        return len(self.seqs)

    def add(self, row: int, seq: int) -> None:
        """Mark one row. Under the write lock."""
        self._by_row[row] = seq
        self.rows.append(row)
        self.seqs.append(seq)  # last: a reader counts these

    def extend(self, rows: Rows, seqs: U64) -> None:
        """Mark many rows, in the order of their seq. Under the write lock."""
        self._by_row.update(zip(rows.tolist(), seqs.tolist(), strict=True))
        self.rows.frombytes(rows.astype("<i8").tobytes())
        self.seqs.frombytes(seqs.astype("<u8").tobytes())

    def of(self, row: int) -> int:
        """The seq that superseded this row, or NEVER."""
        return self._by_row.get(row, NEVER)

    def count_until(self, seq: int) -> int:
        """How many marks have a seq that is not above this one."""
        seqs = self.seqs
        count = len(seqs)  # once: a mark of a later commit may be added at any moment
        if not count or seqs[count - 1] <= seq:
            return count
        return bisect_right(seqs, seq, 0, count)

    def rows_until(self, seq: int) -> Rows:
        """The rows marked up to this seq. The array is shared: do not write to it."""
        count = self.count_until(seq)
        if not count:
            return _NONE
        known, rows = self._cache
        if known != count:
            # slicing copies first, so a concurrent append never meets an exported buffer
            rows = np.frombuffer(self.rows[:count], np.int64)
            self._cache = (count, rows)
        return rows

    def are_marked(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows are marked up to this seq, in time that grows with their number and
        with that of the marks since the last call."""
        count = self.count_until(seq)
        if not count or not len(rows):
            return np.zeros(len(rows), np.bool_)
        done, places = self._places
        if done < count:
            new, _ = self.arrays(done, count)
            places = _with_room(places, int(new.max()) + 1)
            places[new] = np.arange(done, count, dtype=np.uint32)
            # whoever does this at the same time writes the same: a row is marked once
            self._places = (count, places)
        if int(rows.max()) >= len(places):
            places = _with_room(places, int(rows.max()) + 1)
            self._places = (max(done, count), places)
        marked: npt.NDArray[np.bool_] = places[rows] < count
        return marked

    def arrays(self, start: int, stop: int) -> tuple[Rows, U64]:
        """The rows and seqs of the marks [start, stop)."""
        return (
            np.frombuffer(self.rows[start:stop], np.int64),
            np.frombuffer(self.seqs[start:stop], np.uint64),
        )

    def write(
        self, environment: Environment, path: str, database: bytes, number: int, count: int
    ) -> tuple[int, bytes]:
        """Write the first `count` marks as a mark file. Returns its size and fingerprint."""
        rows, seqs = self.arrays(0, count)
        writer = ContainerWriter(MARKS, database, number)
        writer.column("row", rows.astype(np.uint64))
        writer.column("seq", seqs)
        return writer.write(environment, path)

    def read(self, reader: ContainerReader, number: int, file_rows: int) -> None:
        """Fill from a mark file of a file with so many rows. Raises CorruptionError."""
        count = reader.section("row").count
        if count > file_rows:  # a row is superseded once
            raise CorruptionError(reader.path, 0, f"marks of {file_rows} rows", f"{count} marks")
        rows = reader.bounded("row", count, 0, file_rows - 1).array()
        seqs = reader.bounded("seq", count, 1, NUMBER_MAX).array()
        if bool((seqs[1:] < seqs[:-1]).any()):
            raise CorruptionError(reader.path, 0, "marks in the order of their seq", "disorder")
        self.extend(rows.astype(np.int64), seqs)
        self.number, self.persisted = number, len(self)


def _with_room(places: Places, rows: int) -> Places:
    """The same for so many rows at least: these, or a copy of them that has room to grow."""
    if rows <= len(places):
        return places
    grown = np.full(max(rows, 2 * len(places)), _NOWHERE)
    grown[: len(places)] = places
    return grown


class Supersession:
    """The base column of a file (0: current when written) together with its marks."""

    __slots__ = ("_base", "_base_rows", "_base_seqs", "marks")

    def __init__(self, base: Column, marks: Marks) -> None:
        self._base = base
        self.marks = marks
        self._base_rows: Rows | None = None
        self._base_seqs: U64 = np.empty(0, np.uint64)

    def of(self, row: int) -> int:
        """The seq that superseded this row, or NEVER."""
        return self._base[row] or self.marks.of(row)

    def base(self, rows: Rows) -> U64:
        """What was known of these rows when the file was written: a new array."""
        values = self._base.take(rows)
        return np.where(values == 0, np.uint64(NEVER), values)

    def array(self) -> U64:
        """The superseding seq of every row, or NEVER: a new array."""
        values = self._base.array()
        dense = np.where(values == 0, np.uint64(NEVER), values)
        rows, seqs = self.marks.arrays(0, len(self.marks))
        dense[rows] = seqs
        return dense

    def take(self, rows: Rows) -> U64:
        """The superseding seq of these rows, or NEVER."""
        return self.array()[rows] if self.marks else self.base(rows)

    def are_current(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        """Which of these rows were not superseded at or before this seq: a new array."""
        current = ~self.marks.are_marked(rows, seq)
        if self._base.extremes != (0, 0):
            dead = self._base.take(rows)
            current &= (dead > np.uint64(seq)) | (dead == 0)
        return current

    def _load_base(self) -> Rows:
        if self._base_rows is None:
            if self._base.extremes == (0, 0):
                self._base_rows = _NONE
            else:
                values = self._base.array()
                rows = np.flatnonzero(values)
                order = np.argsort(values[rows], kind="stable")
                self._base_seqs = values[rows][order]
                self._base_rows = rows[order]
        return self._base_rows

    def rows_until(self, seq: int) -> Rows:
        """The rows superseded at or before this seq."""
        base = self._load_base()
        if len(base) and self._base_seqs[-1] > seq:
            base = base[: int(np.searchsorted(self._base_seqs, np.uint64(seq), "right"))]
        marked = self.marks.rows_until(seq)
        if not len(base):
            return marked
        return np.concatenate((base, marked)) if len(marked) else base

    def count_until(self, seq: int) -> int:
        """How many rows were superseded at or before this seq."""
        base = self._load_base()
        count = len(base)
        if count and self._base_seqs[-1] > seq:
            count = int(np.searchsorted(self._base_seqs, np.uint64(seq), "right"))
        return count + self.marks.count_until(seq)
