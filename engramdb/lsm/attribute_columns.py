"""What the memories of a run say, as columns: when they were created, when they hold, and their
attributes by path. The engine stores, sorts and cuts them; what they mean is decided above it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.lsm.columns import Column
from engramdb.lsm.field import ABSENT, UNKNOWN, Field, from_signed
from engramdb.lsm.keys import U64, Rows

FIELDS_MAX: Final = 64  # of a run; the most frequent ones
UNTOLD: Final = -(2**63)  # in `created`: only the payload tells
ALWAYS_FROM: Final = -(2**63)
ALWAYS_UNTIL: Final = 2**63 - 1

Path = tuple[str, ...]
Fields = Mapping[Path, Field]
Mask = npt.NDArray[np.bool_]


class AttributeColumns:
    """n rows. Times are microseconds since the epoch, biased as by from_signed().

    `created`: UNTOLD where only the payload tells, which then goes for the whole row. `valid_from`,
    `valid_to`: None where no row has a bound, else ALWAYS_FROM and ALWAYS_UNTIL in rows without.
    `fields`: by path, ("source", "tool") for a dict in a dict. `rest`: the rows that have
    attributes without a field, or None. Immutable; a file's read these when they are first used.
    """

    def __init__(
        self,
        created: Column,
        valid_from: Column | None,
        valid_to: Column | None,
        fields: Fields,
        rest: Mask | None,
    ) -> None:
        self.created, self.fields, self.rest = created, fields, rest
        self.valid_from, self.valid_to = valid_from, valid_to

    def __len__(self) -> int:
        return self.created.count

    @staticmethod
    def of(
        created: U64, valid_from: U64, valid_to: U64, fields: Fields, rest: Mask | None
    ) -> AttributeColumns:
        """Packs the columns. A field that tells nothing of any row is left out, for its name may be
        what was to be erased; the rarest beyond FIELDS_MAX are left to the payloads."""
        kept, rest = _bounded(fields, rest)
        return AttributeColumns(
            Column.of(created),
            _bound(valid_from, ALWAYS_FROM),
            _bound(valid_to, ALWAYS_UNTIL),
            kept,
            rest if rest is not None and bool(rest.any()) else None,
        )

    @staticmethod
    def untold(count: int) -> AttributeColumns:
        """So many rows of which only the payloads tell."""
        created = Column.of(from_signed(np.full(count, UNTOLD, np.int64)))
        return AttributeColumns(created, None, None, {}, np.ones(count, np.bool_))

    def is_untold(self) -> bool:
        """Whether of some rows only the payload tells."""
        return self.created.extremes[0] == 0  # UNTOLD, biased

    def take(self, rows: Rows) -> AttributeColumns:
        """These rows, in this order."""
        taken = {path: field.take(rows) for path, field in self.fields.items()}
        return AttributeColumns.of(
            self.created.take(rows),
            _filled(self.valid_from, ALWAYS_FROM, len(self))[rows],
            _filled(self.valid_to, ALWAYS_UNTIL, len(self))[rows],
            taken,
            None if self.rest is None else self.rest[rows],
        )

    @staticmethod
    def concatenate(parts: list[AttributeColumns]) -> AttributeColumns:
        """One after another."""
        if len(parts) == 1:
            return parts[0]
        paths = dict.fromkeys(path for part in parts for path in part.fields)
        fields = {
            path: Field.concatenate([_field_of(part, path) for part in parts]) for path in paths
        }
        rest = None
        if any(part.rest is not None for part in parts):
            rest = np.concatenate([_rest_of(part) for part in parts])
        return AttributeColumns.of(
            np.concatenate([part.created.array() for part in parts]),
            np.concatenate([_filled(part.valid_from, ALWAYS_FROM, len(part)) for part in parts]),
            np.concatenate([_filled(part.valid_to, ALWAYS_UNTIL, len(part)) for part in parts]),
            fields,
            rest,
        )


def _bounded(fields: Fields, rest: Mask | None) -> tuple[Fields, Mask | None]:
    """At most FIELDS_MAX fields, in the order of their paths."""
    kept = [path for path in fields if not {ABSENT, UNKNOWN}.issuperset(fields[path].present)]
    if len(kept) > FIELDS_MAX:
        counts = Counter({path: fields[path].there for path in sorted(kept)})
        kept = [path for path, _ in counts.most_common(FIELDS_MAX)]
    for path in fields.keys() - set(kept):
        if fields[path].present != (ABSENT,):
            beyond = ~fields[path].kinds.within(ABSENT, ABSENT)
            rest = beyond if rest is None else rest | beyond
    return {path: fields[path] for path in sorted(kept)}, rest


def _field_of(part: AttributeColumns, path: Path) -> Field:
    field = part.fields.get(path)
    if field is None and part.rest is None:
        return Field.constant(ABSENT, len(part))
    if field is None:
        kinds = np.where(_rest_of(part), np.uint8(UNKNOWN), np.uint8(ABSENT))
        return Field.of(kinds, np.zeros(len(part), np.uint64))
    return field


def _rest_of(part: AttributeColumns) -> Mask:
    return np.zeros(len(part), np.bool_) if part.rest is None else part.rest


def _filled(column: Column | None, bound: int, count: int) -> U64:
    """The column, or so many times no bound."""
    if column is None:
        return np.full(count, from_signed(np.array([bound], np.int64))[0], np.uint64)
    return column.array()


def _bound(values: U64, bound: int) -> Column | None:
    """None if no row has a bound."""
    return None if _all_are(values, bound) else Column.of(values)


def _all_are(values: U64, bound: int) -> bool:
    return bool((values == from_signed(np.array([bound], np.int64))[0]).all())


ColumnsOf = Callable[[list[bytes]], AttributeColumns]
"""Makes them of payloads, one row each: an empty one is that of a tombstone."""


def untold(payloads: list[bytes]) -> AttributeColumns:
    """What is known of payloads that nobody can read here."""
    return AttributeColumns.untold(len(payloads))
