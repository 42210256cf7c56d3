"""Counts and times of many memories, as arrays: a row for each memory that was ever loaded."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import filterfalse, repeat
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from engramdb.lsm.derived import Values
from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list, to_list
from engramdb.lsm.limits import TIME_MAX

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RECENT: Final = 10
"""How many times of each memory are kept."""
NO_ACCESS: Final = -(2**63)
"""Where there is no time."""
_CAPACITY_MIN: Final = 64


class Accesses(NamedTuple):
    """Of n memories, in microseconds since the epoch; NO_ACCESS where there is none."""

    counts: U64
    """(n,) how often"""
    first_us: Times
    """(n,) the first time"""
    recent_us: Times
    """(n, RECENT) the last times, newest first"""

    def until(self, moment_us: int) -> Accesses:
        """Without what came after a moment, as far as that is known.

        Times are exact. So are counts, unless all RECENT known times are later: of the others,
        which lie between the first and the oldest of these, so many are counted as there would be
        if they were spread evenly.
        """
        known = self.recent_us != NO_ACCESS
        late = known & (self.recent_us > moment_us)
        late_count = np.count_nonzero(late, axis=1)
        left = self.counts.astype(np.int64) - late_count
        all_late = (left > 0) & (late_count == np.count_nonzero(known, axis=1))
        if bool(all_late.any()):
            rows = np.flatnonzero(all_late)
            first = self.first_us[rows]
            oldest = np.where(known[rows], self.recent_us[rows], moment_us).min(axis=1)
            span = np.maximum(oldest - first, 1)
            share = np.clip((moment_us - first) / span, 0.0, 1.0)
            spread = 1 + np.floor(left[rows] * share).astype(np.int64)
            left[rows] = np.minimum(left[rows], spread)
        left[self.first_us > moment_us] = 0
        # the earlier ones move to the front: each row is sorted, and what is late stands first
        columns = np.arange(RECENT) + late_count[:, None]
        recent = np.take_along_axis(self.recent_us, np.minimum(columns, RECENT - 1), axis=1)
        recent[columns >= RECENT] = NO_ACCESS
        recent[left == 0] = NO_ACCESS
        first_us = np.where(left > 0, self.first_us, NO_ACCESS)
        return Accesses(left.astype(np.uint64), first_us, recent)


class AccessTable:
    """Of every memory that was ever loaded: how often, first when, and last when."""

    __slots__ = ("_counts", "_first", "_recent", "_row_of")

    def __init__(self) -> None:
        self._row_of: dict[bytes, int] = {}  # in the order of the rows
        self._counts: U64 = np.empty(0, np.uint64)
        self._first: Times = np.empty(0, np.int64)
        self._recent: Times = np.empty((0, RECENT), np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def keys(self) -> KeyMatrix:
        """The memories, (n, 16) uint8."""
        return from_list(list(self._row_of))

    def add(self, keys: list[bytes], times_us: Times) -> None:
        """Count accesses: one key for each time, in any order. The result does not depend on how
        they are divided among calls."""
        self._make_rows(keys)
        rows = np.fromiter(map(self._row_of.__getitem__, keys), np.int64, len(keys))
        times = np.clip(times_us, 0, TIME_MAX)
        order = np.lexsort((-times, rows))
        rows, times = rows[order], times[order]
        begins = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        touched = rows[begins]
        sizes = np.diff(np.append(begins, len(rows)))
        place = np.arange(len(rows)) - np.repeat(begins, sizes)  # 0: the newest of its memory
        group = np.repeat(np.arange(len(touched)), sizes)
        newest = np.full((len(touched), 2 * RECENT), NO_ACCESS, np.int64)
        newest[:, :RECENT] = self._recent[touched]
        kept = place < RECENT
        newest[group[kept], RECENT + place[kept]] = times[kept]
        newest.sort(axis=1)
        self._counts[touched] += sizes.astype(np.uint64)
        oldest = times[begins + sizes - 1]
        known = self._first[touched]
        self._first[touched] = np.where(known == NO_ACCESS, oldest, np.minimum(known, oldest))
        self._recent[touched] = newest[:, : RECENT - 1 : -1]

    def _make_rows(self, keys: list[bytes]) -> None:
        """A row for each key that has none."""
        row_of = self._row_of
        count = len(row_of)
        new = list(filterfalse(row_of.__contains__, dict.fromkeys(keys)))
        wanted = count + len(new)
        if wanted > len(self._counts):
            more = max(_CAPACITY_MIN, 3 * wanted // 2) - len(self._counts)
            self._counts = np.concatenate((self._counts, np.zeros(more, np.uint64)))
            self._first = np.concatenate((self._first, np.full(more, NO_ACCESS, np.int64)))
            none = np.full((more, RECENT), NO_ACCESS, np.int64)
            self._recent = np.concatenate((self._recent, none))
        row_of.update(zip(new, range(count, wanted), strict=True))

    def take(self, keys: list[bytes]) -> Accesses:
        """The accesses of these memories, as copies."""
        found = np.fromiter(map(self._row_of.get, keys, repeat(-1)), np.int64, len(keys))
        counts = np.zeros(len(keys), np.uint64)
        first = np.full(len(keys), NO_ACCESS, np.int64)
        recent = np.full((len(keys), RECENT), NO_ACCESS, np.int64)
        at = np.flatnonzero(found >= 0)
        rows = found[at]
        counts[at] = self._counts[rows]
        first[at] = self._first[rows]
        recent[at] = self._recent[rows]
        return Accesses(counts, first, recent)

    def where(self, kept: Mask) -> AccessTable:
        """A table of its own with the memories of these rows."""
        rows: Rows = np.flatnonzero(kept)
        table = AccessTable()
        keys = to_list(self.keys()[rows])
        table._row_of = dict(zip(keys, range(len(keys)), strict=True))
        table._counts = self._counts[rows]
        table._first = self._first[rows]
        table._recent = self._recent[rows]
        return table

    def without(self, keys: list[bytes]) -> AccessTable:
        """A table of its own without these memories."""
        kept = np.ones(len(self), np.bool_)
        kept[[self._row_of[key] for key in keys if key in self._row_of]] = False
        return self.where(kept)

    def values(self) -> Values:
        """For the store of derived data."""
        count = len(self)
        return {
            "keys": self.keys(),
            "counts": self._counts[:count],
            "first": self._first[:count],
            "recent": self._recent[:count],
        }

    @classmethod
    def of_values(cls, values: Mapping[str, object]) -> AccessTable | None:
        """What values() gave, or None if it cannot have given this."""
        arrays = [values.get(name) for name in ("keys", "counts", "first", "recent")]
        if len(values) != 4 or not _have_shape(arrays):
            return None
        keys, counts, first, recent = cast("list[npt.NDArray[Any]]", arrays)
        if not _are_sound(counts, first, recent):
            return None
        table = cls()
        table._row_of = dict(zip(to_list(keys), range(len(counts)), strict=True))
        if len(table._row_of) != len(counts):
            return None
        # copies: what was loaded is read-only
        table._counts = counts.astype(np.uint64)
        table._first = first.astype(np.int64)
        table._recent = recent.astype(np.int64)
        return table


def _have_shape(arrays: list[Any]) -> bool:
    """Whether these can be the keys, counts, first and recent times of n memories."""
    if not all(isinstance(each, np.ndarray) and each.ndim for each in arrays):
        return False
    count = len(arrays[0])
    shapes = (count, 16), (count,), (count,), (count, RECENT)
    kinds = np.uint8, np.uint64, np.int64, np.int64
    return all(
        each.shape == shape and each.dtype == kind
        for each, shape, kind in zip(arrays, shapes, kinds, strict=True)
    )


def _are_sound(counts: U64, first: Times, recent: Times) -> bool:
    """Whether accesses can have led to these."""
    if not len(counts):
        return True
    known = recent != NO_ACCESS
    oldest = np.where(known, recent, TIME_MAX).min(axis=1)
    all_known = counts <= RECENT
    return bool(
        counts.min() > 0
        and counts.max() < 2**62
        and (known.sum(axis=1) == np.minimum(counts, np.uint64(RECENT))).all()
        and (recent[:, 1:] <= recent[:, :-1]).all()
        and first.min() >= 0
        and recent.max() <= TIME_MAX
        and (first <= oldest).all()
        and (first == oldest)[all_known].all()
    )
