"""One attribute of many memories, as columns: of which kind it is in each row, and its value.

Values are unsigned 64-bit integers in the order of what they stand for: of a bool 0 or 1; of an int
its value plus 2**63; of a float its bits, negative ones inverted, the sign bit set on others; of a
moment its microseconds plus 2**63; of a text or bytes the code in the dictionary. What stands where
there is no value is that of another row, so that columns stay narrow.

The elements of short lists are a field of their own. Whatever a field cannot tell is told by the
payload of the row.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.lsm.columns import Column
from engramdb.lsm.dictionary import EMPTY, Dictionary
from engramdb.lsm.keys import U64, Rows

ABSENT: Final = 0
NULL: Final = 1
BOOL: Final = 2
INT: Final = 3
FLOAT: Final = 4
TEXT: Final = 5
BYTES: Final = 6
MOMENT: Final = 7
LIST: Final = 8
DICT: Final = 9
LONG_LIST: Final = 10  # or one inside a list: it is there, its elements are not
UNKNOWN: Final = 11  # perhaps not even there
KINDS: Final = 12

LIST_MAX: Final = 32  # elements of a list that are kept as a field
VALUED: Final = (BOOL, INT, FLOAT, TEXT, BYTES, MOMENT)
_SIGN: Final = np.uint64(1 << 63)

Kinds = npt.NDArray[np.uint8]


def from_signed(values: npt.NDArray[np.int64]) -> U64:
    """Signed integers as unsigned ones in the same order."""
    return values.view(np.uint64) ^ _SIGN


def to_signed(values: U64) -> npt.NDArray[np.int64]:
    """What from_signed() was given."""
    return (values ^ _SIGN).view(np.int64)


def from_floats(values: npt.NDArray[np.float64]) -> U64:
    """Floats as unsigned integers in the same order; -0.0 comes just before 0.0."""
    bits = values.view(np.uint64)
    return np.where(bits >= _SIGN, ~bits, bits | _SIGN)


def to_floats(values: U64) -> npt.NDArray[np.float64]:
    """What from_floats() was given."""
    return np.where(values >= _SIGN, values ^ _SIGN, ~values).view(np.float64)


class Field:
    """n rows. `counts` (uint8) has the length of the list of each row of kind LIST, and `elements`
    the elements of all of them, one after another. Immutable; made by of()."""

    __slots__ = ("__dict__", "counts", "dictionary", "elements", "kinds", "values")

    def __init__(
        self,
        kinds: Column,
        values: Column,
        dictionary: Dictionary,
        counts: npt.NDArray[np.uint8],
        elements: Field | None,
    ) -> None:
        self.kinds, self.values = kinds, values
        self.dictionary, self.counts, self.elements = dictionary, counts, elements

    @staticmethod
    def of(
        kinds: Kinds,
        values: U64,
        dictionary: Dictionary = EMPTY,
        counts: npt.NDArray[np.uint8] | None = None,
        elements: Field | None = None,
    ) -> Field:
        """Packs the columns. Entries of the dictionary that no row uses are dropped, and so is
        whatever stands where there is no value."""
        coded = (kinds == TEXT) | (kinds == BYTES)
        if len(dictionary):
            codes = values[coded].astype(np.int64)
            used = np.zeros(len(dictionary), np.bool_)
            used[codes] = True
            if not bool(used.all()):
                values = values.copy()
                values[coded] = (np.cumsum(used) - 1).astype(np.uint64)[codes]
                dictionary = dictionary.keep(used)
        valued = coded | ((kinds >= BOOL) & (kinds <= FLOAT)) | (kinds == MOMENT)
        if not bool(valued.all()):
            least = values[valued].min() if bool(valued.any()) else np.uint64(0)
            values = np.where(valued, values, least)
        if counts is None:
            counts = np.empty(0, np.uint8)
        packed = Column.of(kinds.astype(np.uint64))
        return Field(packed, Column.of(values), dictionary, counts, elements)

    @staticmethod
    def constant(kind: int, count: int) -> Field:
        """Every row of one kind that has no value."""
        return Field(
            Column.of(np.full(count, kind, np.uint64)),
            Column.of(np.zeros(count, np.uint64)),
            EMPTY,
            np.empty(0, np.uint8),
            None,
        )

    def __len__(self) -> int:
        return self.kinds.count

    @cached_property
    def present(self) -> tuple[int, ...]:
        """The kinds that occur."""
        return self.kinds.distinct(KINDS)

    @cached_property
    def kind_codes(self) -> Kinds:
        """The kind of each row. Shared: not to be written to."""
        return self.kinds.array().astype(np.uint8)

    @cached_property
    def there(self) -> int:
        """In how many rows it is."""
        absent = np.count_nonzero(self.kinds.within(ABSENT, ABSENT))
        return len(self) - int(absent) - int(np.count_nonzero(self.kinds.within(UNKNOWN, UNKNOWN)))

    @cached_property
    def list_rows(self) -> Rows:
        """The rows of kind LIST."""
        return np.flatnonzero(self.kinds.within(LIST, LIST))

    @cached_property
    def owners(self) -> Rows:
        """For each element the row of its list."""
        return np.repeat(self.list_rows, self.counts)

    def take(self, rows: Rows) -> Field:
        """These rows, in this order."""
        kinds = self.kinds.take(rows).astype(np.uint8)
        counts, elements = self.counts, self.elements
        if elements is not None:
            rank = np.cumsum(self.kinds.within(LIST, LIST))[rows[kinds == LIST]] - 1
            starts = np.cumsum(counts, dtype=np.int64) - counts
            counts = counts[rank]
            ends = np.cumsum(counts, dtype=np.int64)
            wanted = np.repeat(starts[rank] - (ends - counts), counts)
            elements = elements.take(wanted + np.arange(len(wanted)))
        return Field.of(kinds, self.values.take(rows), self.dictionary, counts, elements)

    @staticmethod
    def concatenate(parts: list[Field]) -> Field:
        """One after another, under one dictionary."""
        dictionary, maps = Dictionary.merge([part.dictionary for part in parts])
        all_kinds, all_values = [], []
        for part, codes in zip(parts, maps, strict=True):
            kinds, values = part.kinds.array().astype(np.uint8), part.values.array()
            if len(part.dictionary) and len(part.dictionary) != len(dictionary):
                coded = (kinds == TEXT) | (kinds == BYTES)
                values = values.copy()
                values[coded] = codes.astype(np.uint64)[values[coded].astype(np.int64)]
            all_kinds.append(kinds)
            all_values.append(values)
        elements = [part.elements for part in parts if part.elements is not None]
        return Field.of(
            np.concatenate(all_kinds),
            np.concatenate(all_values),
            dictionary,
            np.concatenate([part.counts for part in parts]),
            Field.concatenate(elements) if elements else None,
        )
