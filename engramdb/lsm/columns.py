"""A column of unsigned 64-bit integers, packed so that it needs no decoding to be searched.

Encodings, all little-endian:
    CONSTANT  no data: every value is `base`
    RANGE     no data: value i is `base` + i
    OFFSET8, OFFSET16, OFFSET32   value i is `base` + the unsigned integer of that width at i
    RAW       the values themselves
Ids made in one batch, sequence numbers of a bulk load, vector numbers: most columns of most runs
are CONSTANT, RANGE or a byte a row. (Frame of reference: Goldstein, Ramakrishnan and Shaft, 1998.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, Rows

CONSTANT: Final = 0
RANGE: Final = 1
OFFSET8: Final = 2
OFFSET16: Final = 3
OFFSET32: Final = 4
RAW: Final = 5

_WIDTHS: Final = {OFFSET8: "<u1", OFFSET16: "<u2", OFFSET32: "<u4", RAW: "<u8"}
_CASTS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {
    OFFSET8: "B",
    OFFSET16: "H",
    OFFSET32: "I",
    RAW: "Q",
}
_MASK: Final = 2**64 - 1


def encoded_size(encoding: int, count: int) -> int:
    """Bytes that a column takes in a file. Raises KeyError for an unknown encoding."""
    if encoding in (CONSTANT, RANGE):
        return 0
    return np.dtype(_WIDTHS[encoding]).itemsize * count


def pack(values: U64) -> tuple[int, int, bytes]:
    """The (encoding, base, data) that takes the fewest bytes for these values."""
    if not len(values):
        return CONSTANT, 0, b""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return CONSTANT, low, b""
    base = np.uint64(low)
    counts_up = high - low == len(values) - 1 and int(values[0]) == low
    if counts_up and bool((values - base == np.arange(len(values), dtype=np.uint64)).all()):
        return RANGE, low, b""
    for encoding, bits in ((OFFSET8, 8), (OFFSET16, 16), (OFFSET32, 32)):
        if high - low < 1 << bits:
            return encoding, low, (values - base).astype(_WIDTHS[encoding]).tobytes()
    return RAW, 0, values.astype("<u8").tobytes()


class Column:
    """A packed column as it lies in a file. Immutable."""

    __slots__ = ("__dict__", "base", "count", "data", "encoding")

    def __init__(self, encoding: int, base: int, count: int, data: bytes | memoryview) -> None:
        self.encoding, self.base, self.count, self.data = encoding, base, count, data

    def __len__(self) -> int:
        return self.count

    @cached_property
    def _stored(self) -> npt.NDArray[np.unsignedinteger]:
        return np.frombuffer(self.data, _WIDTHS[self.encoding], self.count)

    @cached_property
    def _view(self) -> Sequence[int]:
        # bisect over a cast memoryview costs 0.5 us; numpy.searchsorted of one scalar costs more
        if self.encoding == RANGE:
            return range(self.count)
        return memoryview(self.data).cast(_CASTS[self.encoding])

    def fault(self) -> str:
        """What no column that was written here has; "" if it is sound. Its length was checked."""
        if self.encoding == RAW:
            return f"base {self.base} of raw values" if self.base else ""
        if self.encoding == CONSTANT or not self.count:
            return ""
        if self.encoding == RANGE:
            above = self.count - 1
        else:
            above = (1 << 8 * self._stored.itemsize) - 1
            if self.base + above > _MASK:  # only then is it worth a look at all of them
                above = int(self._stored.max())
        return "" if self.base + above <= _MASK else f"{self.base} + {above}, beyond 64 bits"

    @classmethod
    def of(cls, values: U64) -> Column:
        """These values, packed."""
        encoding, base, data = pack(values)
        return cls(encoding, base, len(values), data)

    def within(self, low: int, high: int, rows: Rows | None = None) -> npt.NDArray[np.bool_]:
        """Which values, of these rows or of all, are from `low` to `high`; they are compared as
        they are stored. A new array."""
        least, most = self.extremes
        count = self.count if rows is None else len(rows)
        if low > most or high < least or low > high:
            return np.zeros(count, np.bool_)
        if low <= least and high >= most:
            return np.ones(count, np.bool_)
        if self.encoding == RANGE:
            offsets = np.arange(count) if rows is None else rows
            return (offsets >= low - self.base) & (offsets <= high - self.base)
        stored = self._stored if rows is None else self._stored[rows]
        cast = stored.dtype.type
        mask: npt.NDArray[np.bool_]
        if low == high:
            mask = stored == cast(low - self.base)
        elif low <= least:
            mask = stored <= cast(high - self.base)
        else:
            mask = stored >= cast(low - self.base)
            if high < most:
                mask &= stored <= cast(high - self.base)
        return mask

    def distinct(self, below: int) -> tuple[int, ...]:
        """The values that occur, which are all below this small number."""
        least, most = self.extremes
        if least == most or not self.count:
            return (least,) if self.count else ()
        return tuple(
            value
            for value in range(least, min(most + 1, below))
            if bool(self.within(value, value).any())
        )

    def array(self) -> U64:
        """All values, as a new or shared uint64 array that must not be written to."""
        if self.encoding == CONSTANT:
            return np.full(self.count, self.base, np.uint64)
        if self.encoding == RANGE:
            return np.uint64(self.base) + np.arange(self.count, dtype=np.uint64)
        if self.encoding == RAW:
            return self._stored.astype(np.uint64, copy=False)
        return self._stored.astype(np.uint64) + np.uint64(self.base)

    def take(self, rows: Rows) -> U64:
        """The values of these rows."""
        if self.encoding == CONSTANT:
            return np.full(len(rows), self.base, np.uint64)
        if self.encoding == RANGE:
            return np.uint64(self.base) + rows.astype(np.uint64)
        if self.encoding == RAW:
            return self._stored[rows].astype(np.uint64, copy=False)
        return self._stored[rows].astype(np.uint64) + np.uint64(self.base)

    def places(self, values: U64) -> Rows:
        """The row that holds each of these values, -1 where there is none; the rows ascend and no
        two are equal."""
        offsets = values - np.uint64(self.base)  # wraps below the base: larger than any offset
        if self.encoding in (CONSTANT, RANGE):
            within = offsets < np.uint64(self.count)
            return np.where(within, offsets, np.uint64(0)).astype(np.int64) - ~within
        stored = self._stored
        most = np.uint64(np.iinfo(stored.dtype).max)
        found = np.searchsorted(stored, np.minimum(offsets, most).astype(stored.dtype))
        inside = np.minimum(found, self.count - 1)
        return np.where(stored[inside] == offsets, inside, -1)

    def __getitem__(self, row: int) -> int:
        if self.encoding == CONSTANT:
            return self.base
        return self.base + self._view[row]

    def find(self, value: int, start: int, stop: int) -> tuple[int, int]:
        """The rows [first, last) of [start, stop) that hold this value; the rows are sorted.

        If there is none, first == last is where it would stand.
        """
        offset = value - self.base
        if offset < 0:
            return start, start
        if self.encoding == CONSTANT:
            return (start, stop) if offset == 0 else (stop, stop)
        view = self._view
        first = bisect_left(view, offset, start, stop)
        if first == stop or view[first] != offset:
            return first, first
        if first + 1 == stop or view[first + 1] != offset:
            return first, first + 1
        return first, bisect_right(view, offset, first, stop)

    @cached_property
    def extremes(self) -> tuple[int, int]:
        """The smallest and the largest value; (0, 0) of an empty column."""
        if not self.count:
            return 0, 0
        if self.encoding == CONSTANT:
            return self.base, self.base
        if self.encoding == RANGE:
            return self.base, self.base + self.count - 1
        return self.base + int(self._stored.min()), self.base + int(self._stored.max())
