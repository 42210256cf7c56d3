"""Tells older rows that a later version of their key has come. Under the write lock.

Within one memtable the chain of previous rows does it; this module is for what lies in older
memtables and in files, and for vectors, which die when the version after them does not share them.
"""

from __future__ import annotations

import numpy as np

from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.marks import Marks
from engramdb.lsm.memtable import NO_ROW, Memtable
from engramdb.lsm.records import NO_VECTOR
from engramdb.lsm.version import Version


def newest_vector(version: Version, record_class: int, key: bytes) -> int:
    """The vector number of the newest sequenced version of a key, or NO_VECTOR."""
    for table in version.tables():
        row = table.newest[record_class].get(key, NO_ROW)
        if row >= 0:
            return table.vector[row]
    for segment in reversed(version.segments):
        first, last = segment.find(record_class, key)
        if first < last:
            return segment.vector[first]
    return NO_VECTOR


def supersede(version: Version, record_class: int, key: bytes, seq: int) -> int:
    """Mark the newest version of a key that is not in the active memtable.

    Returns its vector number, or NO_VECTOR.
    """
    for table in reversed(version.frozen):
        row = table.newest[record_class].get(key, NO_ROW)
        if row >= 0:
            table.supersede(row, seq)
            return table.vector[row]
    for segment in reversed(version.segments):
        first, last = segment.find(record_class, key)
        if first < last:
            segment.marks.add(first, seq)
            return segment.vector[first]
    return NO_VECTOR


def _marks_of(version: Version, number: int) -> tuple[Marks, int] | None:
    for table in version.tables():
        for arena in table.arenas.values():
            row = arena.row_of(number)
            if row is not None:
                return arena.marks, row
    for file in version.vectors:
        if file.entry.number_min <= number <= file.entry.number_max:
            row = file.row_of(number)
            if row is not None:
                return file.marks, row
    return None


def kill_vector(version: Version, number: int, seq: int) -> None:
    """The vector with this number is not visible from this seq on."""
    found = _marks_of(version, number)
    if found is not None:  # not found: a later purge or retention has removed it
        found[0].add(found[1], seq)


class Superseder:
    """As supersede() and kill_vector(), for many rows at once.

    Marks must be appended in the order of their seq, so they are collected first and applied last.
    """

    def __init__(self, version: Version) -> None:
        self._version = version
        self._marks: dict[int, tuple[Marks, list[Rows], list[U64]]] = {}
        self._dying: list[tuple[U64, U64]] = []

    def _collect(self, marks: Marks, rows: Rows, seqs: U64) -> None:
        _, all_rows, all_seqs = self._marks.setdefault(id(marks), (marks, [], []))
        all_rows.append(rows)
        all_seqs.append(seqs)

    def supersede(
        self,
        tables: tuple[Memtable, ...],
        record_class: int,
        high: U64,
        low: U64,
        keys: list[bytes],
        seqs: U64,
        vectors: U64,
    ) -> None:
        """The versions before these, of different keys, which lie outside the table of these.

        `tables` are the memtables to look into, newest first; `vectors` are the new versions' own.
        """
        left: Rows = np.arange(len(keys))
        for table in tables:
            newest = table.newest[record_class]
            if not newest or not len(left):
                continue
            rows = np.array([newest.get(keys[i], NO_ROW) for i in left.tolist()], np.int64)
            found = rows >= 0
            listed = rows[found].tolist()
            for row, seq in zip(listed, seqs[left[found]].tolist(), strict=True):
                table.supersede(row, seq)
            numbers = np.array([table.vector[row] for row in listed], np.uint64)
            self.kill(numbers, vectors[left[found]], seqs[left[found]])
            left = left[~found]
        for segment in reversed(self._version.segments):
            if not len(left):
                break
            wanted, rows = segment.find_many(record_class, high[left], low[left])
            if len(wanted):
                at = left[wanted]
                self._collect(segment.marks, rows, seqs[at])
                self.kill(segment.vector.take(rows), vectors[at], seqs[at])
                left = np.delete(left, wanted)

    def kill(self, numbers: U64, successors: U64, seqs: U64) -> None:
        """The vectors of versions, unless the versions that follow them at these seqs share
        them."""
        dying = (numbers != np.uint64(NO_VECTOR)) & (numbers != successors)
        if bool(dying.any()):
            self._dying.append((numbers[dying], seqs[dying]))

    def apply(self) -> None:
        """Append all marks."""
        if self._dying:
            numbers = np.concatenate([part for part, _ in self._dying])
            seqs = np.concatenate([part for _, part in self._dying])
            self._find_vectors(numbers, seqs)
        for marks, all_rows, all_seqs in self._marks.values():
            rows, seqs = np.concatenate(all_rows), np.concatenate(all_seqs)
            order = np.argsort(seqs, kind="stable")
            marks.extend(rows[order], seqs[order])

    def _find_vectors(self, numbers: U64, seqs: U64) -> None:
        places: list[tuple[U64, Marks]] = []
        for table in self._version.tables():
            for arena in table.arenas.values():
                # a copy: an exported buffer would make a concurrent append fail
                if arena.rows:
                    places.append((np.array(arena.numbers, np.uint64), arena.marks))
        for file in self._version.vectors:
            low, high = np.uint64(file.entry.number_min), np.uint64(file.entry.number_max)
            if bool(((numbers >= low) & (numbers <= high)).any()):
                places.append((file.numbers.array(), file.marks))
        for known, marks in places:
            rows = np.searchsorted(known, numbers)
            found = known[np.minimum(rows, len(known) - 1)] == numbers
            if bool(found.any()):
                self._collect(marks, rows[found], seqs[found])
                numbers, seqs = numbers[~found], seqs[~found]
