"""What rows of a run have under a key: as values, as numbers, as counts, in groups.

Like filters these read columns, and payloads only where columns cannot tell. A key may be a path
into nested dicts, as in AttributeFilter. Moments come back in UTC,
if they have a reading there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engramdb.errors import CorruptionError
from engramdb.lsm import field as kinds_of
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.dictionary import CUT
from engramdb.lsm.field import (
    BOOL,
    BYTES,
    FLOAT,
    INT,
    LIST,
    MOMENT,
    NULL,
    TEXT,
    VALUED,
    Field,
    to_floats,
    to_signed,
)
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.memory_run import MemoryRun
from engramdb.model.attributes import MOMENT_US_MAX, MOMENT_US_MIN, decode_memory
from engramdb.model.moments import DAY_US, from_microseconds
from engramdb.query.attribute_filter import ABSENT, kind_of, look_up
from engramdb.query.masks import candidates

Counted = tuple[str, Any]
"""A value with its kind, as attribute_filter.kind_of() names it: 1 and 1.0 are one, True is not."""

_NEGATIVE_ZERO: Final = 2**63 - 1  # as a field stores it

_NAMES: Final = {
    NULL: "null",
    BOOL: "bool",
    INT: "number",
    FLOAT: "number",
    TEXT: "str",
    BYTES: "bytes",
    MOMENT: "datetime",
}


def values_of(run: MemoryRun, rows: Rows, key: str) -> list[Any]:
    """The value in each of these rows, ABSENT where there is none.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    found = np.full(len(rows), ABSENT, object)
    resolved = _Resolved(run.columns(), rows, key)
    for field, kind, places in resolved.told():
        if kind == NULL:
            found[places] = None
        elif kind in VALUED:
            places = resolved.whole(field, kind, places)
            stored = field.values.take(rows[places])
            if kind in (BOOL, INT, FLOAT):
                found[places] = _decoded(field, kind, stored)
            else:  # each text and moment is made once
                distinct, which = np.unique(stored, return_inverse=True)
                found[places] = _decoded(field, kind, distinct)[which]
        else:
            resolved.untold.append(places)
    for place, value in resolved.from_payloads(run):
        found[place] = value
    listed: list[Any] = found.tolist()
    return listed


def numbers_of(run: MemoryRun, rows: Rows, key: str) -> npt.NDArray[np.float64]:
    """The number in each of these rows, float64; NaN where there is none. A bool is not a number,
    and an int beyond 2**53 is rounded.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    found = np.full(len(rows), np.nan, np.float64)
    resolved = _Resolved(run.columns(), rows, key)
    for field, kind, places in resolved.told():
        if kind == INT:
            found[places] = to_signed(field.values.take(rows[places])).astype(np.float64)
        elif kind == FLOAT:
            found[places] = to_floats(field.values.take(rows[places]))
    for place, value in resolved.from_payloads(run):
        if kind_of(value) == "number":
            found[place] = value
    return found


def counts_of(run: MemoryRun, rows: Rows, key: str) -> Counter[Counted]:
    """How many of these rows have each value, or have it in a list, where it counts once. Dicts,
    and lists in lists, are not counted.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    counts: Counter[Counted] = Counter()
    resolved = _Resolved(run.columns(), rows, key)
    for field, kind, places in resolved.told():
        if kind == LIST:
            _count_elements(counts, resolved, field, places)
        elif kind == NULL or kind in VALUED:
            places = resolved.whole(field, kind, places)
            _count(counts, field, kind, field.values.take(rows[places]))
    for _, value in resolved.from_payloads(run):
        if value is ABSENT:
            continue
        each_of = value if isinstance(value, list) else [value]
        for pair in {(kind_of(each), each) for each in each_of if _is_counted(each)}:
            counts[pair] += 1
    return counts


def _is_counted(value: object) -> bool:
    return not isinstance(value, (list, dict))


class _Resolved:
    """Which field tells what each row has under a key. `untold`: places in `rows` of which only the
    payload does."""

    def __init__(self, columns: AttributeColumns, rows: Rows, key: str) -> None:
        self._rows, self._key = rows, key
        self._fields = candidates(columns, key)
        self.untold: list[Rows] = []
        self._open = np.arange(len(rows))
        rest = columns.rest
        if rest is not None and (not self._fields or "." in key):
            beyond = rest[rows]
            self.untold.append(np.flatnonzero(beyond))
            self._open = np.flatnonzero(~beyond)

    def told(self) -> Iterator[tuple[Field, int, Rows]]:
        """(field, kind, places in `rows`): every place that a field tells something of. Kinds
        without a value, LIST apart, go to `untold`."""
        for field in self._fields:
            kinds = field.kind_codes[self._rows[self._open]]
            for kind in field.present:
                places = self._open[kinds == kind]
                if kind == kinds_of.ABSENT or not len(places):
                    continue
                if kind in (NULL, LIST, *VALUED):
                    yield field, kind, places
                else:
                    self.untold.append(places)
            self._open = self._open[kinds == kinds_of.ABSENT]

    def whole(self, field: Field, kind: int, places: Rows) -> Rows:
        """These places but for those of cut texts, and of moments without a reading in UTC: these
        are untold."""
        if kind == MOMENT:
            is_whole = _in_utc(field.values.take(self._rows[places]))
        elif kind in (TEXT, BYTES) and len(field.dictionary.cut):
            codes = field.values.take(self._rows[places]).astype(np.int64)
            is_whole = field.dictionary.sizes[codes] != CUT
        else:
            return places
        self.untold.append(places[~is_whole])
        kept: Rows = places[is_whole]
        return kept

    def from_payloads(self, run: MemoryRun) -> Iterator[tuple[int, Any]]:
        """(place, value or ABSENT) of every place that no field tells of."""
        places = np.concatenate([np.empty(0, np.int64), *self.untold])
        for place, payload in zip(places.tolist(), run.payloads(self._rows[places]), strict=True):
            yield place, look_up(decode_memory(payload).attributes, self._key)


def _in_utc(moments: U64) -> npt.NDArray[np.bool_]:
    """All but those of a day at either end of time, which no datetime in UTC can hold: they need
    their own offset, which the payload has."""
    least, most = MOMENT_US_MIN + 2**63, MOMENT_US_MAX + 2**63
    early = (moments < np.uint64(least)) & (moments >= np.uint64(least - DAY_US))
    late = (moments > np.uint64(most)) & (moments <= np.uint64(most + DAY_US))
    within: npt.NDArray[np.bool_] = ~(early | late)
    return within


def _decoded(field: Field, kind: int, stored: U64) -> npt.NDArray[np.object_]:
    """These stored values as values, an array of objects. Raises CorruptionError."""
    try:
        values = list(_values(field, kind, stored))
    except (UnicodeDecodeError, OverflowError, ValueError) as error:
        raise CorruptionError("the columns of a segment", 0, "values", error) from error
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _values(field: Field, kind: int, stored: U64) -> Iterable[Any]:
    if kind == BOOL:
        return map(bool, stored.tolist())
    if kind == INT:
        return to_signed(stored).tolist()  # type: ignore[no-any-return]
    if kind == FLOAT:
        return to_floats(stored).tolist()  # type: ignore[no-any-return]
    if kind == MOMENT:
        return map(from_microseconds, to_signed(stored).tolist())
    entries = field.dictionary.entries(stored.astype(np.int64))
    return map(bytes.decode, entries) if kind == TEXT else entries


def _count(counts: Counter[Counted], field: Field, kind: int, stored: U64) -> None:
    if kind == NULL:
        counts["null", None] += len(stored)
        return
    if kind in (TEXT, BYTES) and len(field.dictionary) <= len(stored):
        by_code = np.bincount(stored.astype(np.int64))
        codes = np.flatnonzero(by_code)
        times, distinct = by_code[codes], codes.astype(np.uint64)
    else:
        distinct, times = np.unique(stored, return_counts=True)
    name = _NAMES[kind]
    for value, count in zip(_decoded(field, kind, distinct).tolist(), times.tolist(), strict=True):
        counts[name, value] += count


def _count_elements(
    counts: Counter[Counted], resolved: _Resolved, field: Field, places: Rows
) -> None:
    """Of the lists in these places, those that are told as a whole."""
    elements = field.elements
    assert elements is not None
    rows = resolved._rows[places]
    plain = np.isin(elements.kind_codes, (NULL, *VALUED))
    if len(elements.dictionary.cut):
        texts = (elements.kind_codes == TEXT) | (elements.kind_codes == BYTES)
        cut = np.zeros(len(elements), np.bool_)
        codes = elements.values.array()[texts].astype(np.int64)
        cut[texts] = elements.dictionary.sizes[codes] == CUT
        plain &= ~cut
    if MOMENT in elements.present:
        plain &= (elements.kind_codes != MOMENT) | _in_utc(elements.values.array())
    whole = np.zeros(len(field), np.bool_)
    whole[rows] = True
    doubtful = np.zeros(len(field), np.bool_)
    doubtful[field.owners[~plain]] = True
    if INT in elements.present and FLOAT in elements.present:  # 1 and 1.0 in a list are one value
        doubtful |= np.bincount(field.owners[elements.kind_codes == INT], minlength=len(field)) > 0
    if FLOAT in elements.present:  # and so are 0.0 and -0.0
        zeros = elements.values.within(_NEGATIVE_ZERO, _NEGATIVE_ZERO)
        doubtful[field.owners[zeros & (elements.kind_codes == FLOAT)]] = True
    resolved.untold.append(places[doubtful[rows]])
    chosen = (whole & ~doubtful)[field.owners]
    for kind in elements.present:
        here = np.flatnonzero(chosen & (elements.kind_codes == kind))
        if len(here):
            stored, owners = elements.values.take(here), field.owners[here]
            order = np.lexsort((stored, owners))
            stored, owners = stored[order], owners[order]
            again = (stored[1:] == stored[:-1]) & (owners[1:] == owners[:-1])
            first = np.append(True, ~again)
            _count(counts, elements, kind, stored[first])
