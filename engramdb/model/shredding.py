"""Shredding: the payloads of memories as attribute columns. (Dremel's word: Melnik et al., 2010.)

A batch is decoded by one call, and each attribute is then taken out of all rows at once by calls
that loop in C. Batches are small, because such a call holds the interpreter lock.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain, compress, repeat
from operator import attrgetter, itemgetter
from typing import Any, Final, get_type_hints

import msgspec
import numpy as np
import numpy.typing as npt

from engramdb.lsm.attribute_columns import (
    ALWAYS_FROM,
    ALWAYS_UNTIL,
    FIELDS_MAX,
    UNTOLD,
    AttributeColumns,
    Mask,
    Path,
)
from engramdb.lsm.dictionary import CUT, EMPTY, Dictionary
from engramdb.lsm.field import (
    ABSENT,
    BOOL,
    BYTES,
    DICT,
    FLOAT,
    INT,
    LIST,
    LIST_MAX,
    LONG_LIST,
    MOMENT,
    NULL,
    TEXT,
    UNKNOWN,
    Field,
    Kinds,
    from_floats,
    from_signed,
)
from engramdb.lsm.keys import U64, Rows
from engramdb.model.attributes import (
    DECODING_ERRORS,
    MOMENT_EXTENSION,
    MOMENT_US_MAX,
    MOMENT_US_MIN,
    MemoryPayload,
    from_extension,
)
from engramdb.model.limits import INTEGER_MAX, INTEGER_MIN
from engramdb.model.moments import DAY_US, to_microseconds

_DECODE_ROWS: Final = 256  # one call decodes so many: about half a millisecond
_BATCH_ROWS: Final = 2048
_WRONG: Final = UNTOLD + 1  # where a moment should be: no datetime can hold it
_PATHS_MAX: Final = 256  # of a batch: what is beyond is left to the payloads
_MOMENT: Final = struct.Struct("<qq")


class _Absent:
    """Stands where a key is not there."""


class _Moment(int):
    """Microseconds since the epoch, of an attribute that is a datetime."""


_ABSENT: Final = _Absent()
_KINDS: Final[dict[type, int]] = {
    _Absent: ABSENT,
    type(None): NULL,
    bool: BOOL,
    int: INT,
    float: FLOAT,
    str: TEXT,
    bytes: BYTES,
    _Moment: MOMENT,
    list: LIST,
    dict: DICT,
    datetime: MOMENT,
}


def shred(payloads: list[bytes]) -> AttributeColumns:
    """The attribute columns of these payloads of memories, one row each; an empty payload is that
    of a tombstone. What cannot be decoded becomes a row that only its payload tells about."""
    parts = [
        _shred_batch(payloads[start : start + _BATCH_ROWS])
        for start in range(0, len(payloads), _BATCH_ROWS)
    ]
    return AttributeColumns.concatenate(parts) if parts else AttributeColumns.untold(0)


def shred_attributes(
    creation_us: int, attributes: Sequence[Mapping[str, Any]]
) -> AttributeColumns | None:
    """The same of memories that were encoded just now from these attributes, without bounds in
    time: nothing need be decoded. None if anything is of a subclass of what can be stored."""
    parts = []
    none = np.empty(0, np.int64)
    try:
        for start in range(0, len(attributes), _BATCH_ROWS):
            dicts = list(attributes[start : start + _BATCH_ROWS])
            if set(map(type, dicts)) != {dict}:
                return None
            count = len(dicts)
            batch = _Batch(count, none)
            batch.shred((), dicts, np.arange(count))  # type: ignore[arg-type]
            created, begins, ends = (
                from_signed(np.full(count, moment, np.int64))
                for moment in (creation_us, ALWAYS_FROM, ALWAYS_UNTIL)
            )
            parts.append(AttributeColumns.of(created, begins, ends, batch.fields, batch.rest))
    except KeyError:  # of a type that is none of _KINDS
        return None
    return AttributeColumns.concatenate(parts) if parts else AttributeColumns.untold(0)


def _moment(code: int, data: memoryview) -> object:
    if code == MOMENT_EXTENSION and len(data) == _MOMENT.size:
        moment_us, offset_us = _MOMENT.unpack(data)
        if (
            MOMENT_US_MIN + DAY_US <= moment_us <= MOMENT_US_MAX - DAY_US
            and -DAY_US < offset_us < DAY_US
        ):
            return _Moment(moment_us)  # a datetime can hold it, which costs less to know than to do
    from_extension(code, data)  # raises, but at the ends of time
    return _Moment(_MOMENT.unpack(data)[0])


def _untracked_payload() -> Any:
    """MemoryPayload as a type that the garbage collector does not follow: thousands are made at
    once, and each few hundred of another type would have it look at all of them again."""
    hints, defaults = get_type_hints(MemoryPayload), MemoryPayload._field_defaults
    fields = [
        (name, hints[name], defaults[name]) if name in defaults else (name, hints[name])
        for name in MemoryPayload._fields
    ]
    return msgspec.defstruct(
        "_Payload", fields, array_like=True, gc=False, forbid_unknown_fields=True
    )


_Payload: Final = _untracked_payload()
_decode_many: Final = msgspec.msgpack.Decoder(
    list[_Payload],  # type: ignore[valid-type]
    ext_hook=_moment,
).decode
_decode_one: Final = msgspec.msgpack.Decoder(_Payload, ext_hook=_moment).decode
_NOTHING: Final = _Payload(0, None, {})


def _decode(payloads: list[bytes]) -> tuple[list[Any], list[int]]:
    """What they say, and which of them cannot be decoded."""
    head = b"\xdd" + len(payloads).to_bytes(4, "big")  # a MessagePack array of so many
    try:
        return _decode_many(head + b"".join(payloads)), []
    except DECODING_ERRORS:
        pass  # one of them is damaged: see which
    said, damaged = [], []
    for row, payload in enumerate(payloads):
        try:
            said.append(_decode_one(payload))
        except DECODING_ERRORS:
            said.append(_NOTHING)
            damaged.append(row)
    return said, damaged


def _shred_batch(payloads: list[bytes]) -> AttributeColumns:
    count = len(payloads)
    filled = np.flatnonzero(np.fromiter(map(bool, payloads), np.bool_, count))
    given = payloads if len(filled) == count else [payloads[row] for row in filled.tolist()]
    said: list[Any] = []
    damaged: list[int] = []
    for start in range(0, len(given), _DECODE_ROWS):
        part, wrong = _decode(given[start : start + _DECODE_ROWS])
        damaged += [start + row for row in wrong]
        said += part
    created = _moments(said, "creation_us", 0, count, filled)
    valid_from = _moments(said, "valid_from_us", ALWAYS_FROM, count, filled)
    valid_to = _moments(said, "valid_to_us", ALWAYS_UNTIL, count, filled)
    wrong_moments = (created == _WRONG) | (valid_from == _WRONG) | (valid_to == _WRONG)
    damaged_rows = np.union1d(filled[np.array(damaged, np.int64)], np.flatnonzero(wrong_moments))
    created[damaged_rows] = UNTOLD
    valid_from[damaged_rows], valid_to[damaged_rows] = ALWAYS_FROM, ALWAYS_UNTIL
    attributes = list(map(attrgetter("attributes"), said))
    for place in np.searchsorted(filled, np.flatnonzero(wrong_moments)).tolist():
        attributes[place] = {}  # else the elements of its lists would be those of other rows
    batch = _Batch(count, damaged_rows)
    batch.shred((), attributes, filled)
    return AttributeColumns.of(
        from_signed(created),
        from_signed(valid_from),
        from_signed(valid_to),
        batch.fields,
        batch.rest,
    )


def _moments(
    said: list[Any], name: str, otherwise: int, count: int, rows: Rows
) -> npt.NDArray[np.int64]:
    """One of the times of each payload; WRONG where no datetime can hold it."""
    moments = np.full(count, otherwise, np.int64)
    values: list[int | None] = list(map(attrgetter(name), said))
    nones = values.count(None)
    if nones == len(values):
        return moments
    if nones:
        values = [otherwise if value is None else value for value in values]
    try:
        given = np.array(values, np.int64)
    except OverflowError:
        given = np.array([_fitting(value) for value in values], np.int64)
    wrong = (given < MOMENT_US_MIN) | (given > MOMENT_US_MAX)
    if nones:
        wrong &= given != otherwise
    given[wrong] = _WRONG
    moments[rows] = given
    return moments


def _fitting(value: int | None) -> int:
    return value if value is not None and INTEGER_MIN <= value <= INTEGER_MAX else _WRONG


class _Batch:
    """Takes the attributes of a batch of rows apart."""

    def __init__(self, count: int, damaged: Rows) -> None:
        self.fields: dict[Path, Field] = {}
        self.rest: Mask = np.zeros(count, np.bool_)
        self.rest[damaged] = True
        self._count, self._damaged = count, damaged
        self._paths_left = _PATHS_MAX

    def shred(self, prefix: Path, dicts: list[dict[Any, Any]], rows: Rows) -> None:
        """The values under each key of these dicts, and of dicts in them."""
        found = np.zeros(len(dicts), np.int64)
        frequent = Counter(chain.from_iterable(dicts)).most_common(FIELDS_MAX)
        for key, _ in frequent:
            if isinstance(key, str) and type(key) is not str:
                raise KeyError(key)  # nothing that was decoded
            if self._paths_left and isinstance(key, str):
                self._paths_left -= 1
                values = list(map(dict.get, dicts, repeat(key), repeat(_ABSENT)))
                found += self._add((*prefix, key), values, rows) != ABSENT
        sizes = np.fromiter(map(len, dicts), np.int64, len(dicts))
        self.rest[rows[found < sizes]] = True

    def _add(self, path: Path, values: list[Any], rows: Rows) -> Kinds:
        kinds = _kinds_of(values)
        field = _field(kinds, values, rows, self._count, self._damaged)
        self.fields[path] = field
        dicts = kinds == DICT
        if bool(dicts.any()):
            self.shred(path, list(compress(values, dicts.tolist())), rows[dicts])
        return kinds


def _kinds_of(values: list[Any]) -> Kinds:
    types = set(map(type, values))
    if len(types) == 1:
        return np.full(len(values), _KINDS[types.pop()], np.uint8)
    return np.fromiter(map(_KINDS.__getitem__, map(type, values)), np.uint8, len(values))


def _field(kinds: Kinds, values: list[Any], rows: Rows, count: int, damaged: Rows) -> Field:
    """The field of `count` rows that has these values in these rows and is absent elsewhere."""
    made = kinds.copy()
    coded = np.zeros(len(kinds), np.uint64)
    dictionary, counts, elements = EMPTY, None, None
    if bool((made == LIST).any()):
        counts, elements = _elements(made, values)
    for kind in (BOOL, INT, FLOAT, MOMENT):
        which = made == kind
        if bool(which.any()):
            _ENCODERS[kind](_chosen(values, which), made, coded, which)
    if bool((made == TEXT).any()) or bool((made == BYTES).any()):
        dictionary = _texts(made, values, coded)
    if len(rows) < count:
        all_kinds, all_values = np.zeros(count, np.uint8), np.zeros(count, np.uint64)
        all_kinds[rows], all_values[rows] = made, coded
        made, coded = all_kinds, all_values
    made[damaged] = UNKNOWN
    return Field.of(made, coded, dictionary, counts, elements)


def _chosen(values: list[Any], which: Mask) -> list[Any]:
    return values if bool(which.all()) else list(compress(values, which.tolist()))


def _elements(kinds: Kinds, values: list[Any]) -> tuple[npt.NDArray[np.uint8], Field]:
    """The lengths of the short lists and the field of their elements; long ones are marked."""
    lists = kinds == LIST
    lengths = np.fromiter(map(len, compress(values, lists.tolist())), np.int64)
    kinds[np.flatnonzero(lists)[lengths > LIST_MAX]] = LONG_LIST
    inside = list(chain.from_iterable(compress(values, (kinds == LIST).tolist())))
    kinds_inside = _kinds_of(inside)
    kinds_inside[kinds_inside == LIST] = LONG_LIST
    none = np.empty(0, np.int64)
    field = _field(kinds_inside, inside, np.arange(len(inside)), len(inside), none)
    return lengths[lengths <= LIST_MAX].astype(np.uint8), field


def _bools(some: list[Any], kinds: Kinds, coded: U64, which: Mask) -> None:
    coded[which] = np.array(some, np.uint64)


def _integers(some: list[Any], kinds: Kinds, coded: U64, which: Mask) -> None:
    try:
        coded[which] = from_signed(np.array(some, np.int64))
    except OverflowError:  # nothing that was encoded here
        fits = np.array([INTEGER_MIN <= value <= INTEGER_MAX for value in some], np.bool_)
        places = np.flatnonzero(which)
        kinds[places[~fits]] = UNKNOWN
        coded[places[fits]] = from_signed(np.array(list(compress(some, fits)), np.int64))


def _instants(some: list[Any], kinds: Kinds, coded: U64, which: Mask) -> None:
    if datetime in set(map(type, some)):  # nothing that was decoded
        some = [to_microseconds(moment, "attributes") for moment in some]
    coded[which] = from_signed(np.array(some, np.int64))


def _floats(some: list[Any], kinds: Kinds, coded: U64, which: Mask) -> None:
    values = np.array(some, np.float64)
    coded[which] = from_floats(values)
    kinds[np.flatnonzero(which)[np.isnan(values)]] = UNKNOWN  # nothing that was encoded here


_ENCODERS: Final[dict[int, Callable[[list[Any], Kinds, U64, Mask], None]]] = {
    BOOL: _bools,
    INT: _integers,
    FLOAT: _floats,
    MOMENT: _instants,
}


def _texts(kinds: Kinds, values: list[Any], coded: U64) -> Dictionary:
    """Fills in the codes of texts and bytes, and returns what they are codes of."""
    entries: list[bytes] = []
    places: list[tuple[Mask, Rows]] = []
    for kind in (TEXT, BYTES):
        which = kinds == kind
        if not bool(which.any()):
            continue
        heads = list(map(itemgetter(slice(CUT)), _chosen(values, which)))
        codes = {head: code for code, head in enumerate(dict.fromkeys(heads), len(entries))}
        entries += map(str.encode, codes) if kind == TEXT else codes
        places.append((which, np.fromiter(map(codes.__getitem__, heads), np.int64, len(heads))))
    dictionary, ranks = Dictionary.of(entries)
    for which, given in places:
        coded[which] = ranks[given].astype(np.uint64)
    return dictionary
