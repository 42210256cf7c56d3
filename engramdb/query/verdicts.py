"""One condition on one field: for each row NO, PERHAPS or YES.

These are the truth values of Kleene's strong logic as small integers: `and` is the minimum, `or`
the maximum, `not` the difference from YES. A verdict is an array of them, or one for all rows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, floor, inf, isinf, nextafter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engramdb.lsm.columns import Column
from engramdb.lsm.dictionary import HEAD_BYTES, Dictionary
from engramdb.lsm.field import (
    ABSENT,
    BOOL,
    BYTES,
    DICT,
    FLOAT,
    LIST,
    LONG_LIST,
    MOMENT,
    NULL,
    TEXT,
    UNKNOWN,
    VALUED,
    Field,
)
from engramdb.lsm.keys import U64, Rows
from engramdb.model.limits import INTEGER_MAX, INTEGER_MIN
from engramdb.model.moments import to_microseconds
from engramdb.query.attribute_filter import AttributeFilter

NO: Final = 0
PERHAPS: Final = 1
YES: Final = 2

Truth = npt.NDArray[np.uint8]
Verdict = int | Truth
Span = tuple[int, int]  # of stored values, both included

_BIAS: Final = 2**63
_SPANS_MAX: Final = 8  # compared one after another
_ORDERS: Final = ("greater_than", "greater_or_equal", "less_than", "less_or_equal", "between")


@dataclass(slots=True)
class _Values:
    """The stored values that match, and those that perhaps do; all others do not."""

    yes: list[Span] = field(default_factory=list)
    perhaps: list[Span] = field(default_factory=list)

    def add(self, low: int, high: int, *, surely: bool = True) -> None:
        if low <= high:
            (self.yes if surely else self.perhaps).append((low, high))


def truth_of(verdict: Verdict) -> Any:
    """What numpy takes: a number of its own type, or the array."""
    return np.uint8(verdict) if isinstance(verdict, int) else verdict


def judge(tested: Field, condition: AttributeFilter, rows: Rows | None = None) -> Verdict:
    """What a condition that is no negation says of these rows of a field, or of all of them."""
    verdicts = {kind: _of_kind(tested, kind, condition, rows) for kind in tested.present}
    if not verdicts:
        return NO
    if len(verdicts) == 1 or len({v if isinstance(v, int) else -1 for v in verdicts.values()}) == 1:
        (first, *others) = verdicts.values()
        if not others or isinstance(first, int):
            return first
    kinds = tested.kind_codes if rows is None else tested.kind_codes[rows]
    told = [
        (kind, verdict)
        for kind, verdict in verdicts.items()
        if not isinstance(verdict, int) or verdict
    ]
    if len(told) == 1:
        ((kind, verdict),) = told
        only: Truth = (kinds == kind).view(np.uint8) * truth_of(verdict)
        return only
    plain = np.zeros(16, np.uint8)
    for kind, verdict in verdicts.items():
        plain[kind] = verdict if isinstance(verdict, int) else NO
    whole = plain[kinds] if bool(plain.any()) else np.zeros(len(kinds), np.uint8)
    for kind, verdict in verdicts.items():
        if not isinstance(verdict, int):
            np.copyto(whole, verdict, where=kinds == kind)
    return whole


def _of_kind(tested: Field, kind: int, condition: AttributeFilter, rows: Rows | None) -> Verdict:
    """The verdict on the rows of this kind; what it says of others does not matter."""
    operator, value = condition.operator, condition.value
    if kind == UNKNOWN:
        return PERHAPS
    if kind == ABSENT:
        return NO
    if operator == "exists":
        return YES
    if kind == NULL:
        return YES if _is_among(None, condition) else NO
    if kind in (LIST, LONG_LIST, DICT):
        return _of_container(tested, kind, condition, rows)
    if kind in (TEXT, BYTES):
        return _of_text(tested, kind, condition, rows)
    if operator in ("equals", "is_in"):
        found = _Values()
        for member in (value,) if operator == "equals" else value:
            span = _scalar_span(kind, "equals", member)
            if span is not None:
                found.add(*span)
        return _in_spans(tested.values, found, rows)
    if operator not in _ORDERS:
        return NO
    found = _Values()
    if operator == "between":
        lows = _scalar_span(kind, "greater_or_equal", value[0])
        highs = _scalar_span(kind, "less_or_equal", value[1])
        if lows is not None and highs is not None:
            found.add(lows[0], highs[1])
    elif (span := _scalar_span(kind, operator, value)) is not None:
        found.add(*span)
    return _in_spans(tested.values, found, rows)


def _is_among(value: None, condition: AttributeFilter) -> bool:
    if condition.operator == "is_in":
        return any(member is value for member in condition.value)
    return condition.operator == "equals" and condition.value is value


# ---- Numbers, bools, moments ---------------------------------------------------------------------


def _scalar_span(kind: int, operator: str, value: Any) -> Span | None:
    """The stored values of this kind that stand so to the value; None if there are none."""
    if kind == BOOL:
        return (int(value), int(value)) if type(value) is bool and operator == "equals" else None
    if kind == MOMENT:
        if not isinstance(value, datetime):
            return None
        span = _whole_span(operator, to_microseconds(value, "where"))
    elif type(value) not in (int, float):
        return None
    elif kind == FLOAT:
        return _float_span(operator, value)
    else:
        span = _whole_span(operator, value)
    low, high = max(span[0], INTEGER_MIN), min(span[1], INTEGER_MAX)
    return (low + _BIAS, high + _BIAS) if low <= high else None


def _whole_span(operator: str, value: float) -> tuple[int, int]:
    """The whole numbers that stand so to a number, which need not be whole: exact."""
    least, most = INTEGER_MIN, INTEGER_MAX
    if isinstance(value, float) and isinf(value):
        below = value > 0 and operator in ("less_than", "less_or_equal")
        above = value < 0 and operator in ("greater_than", "greater_or_equal")
        return (least, most) if below or above else (1, 0)
    if operator == "equals":
        return (floor(value), floor(value)) if floor(value) == value else (1, 0)
    if operator == "greater_than":
        return floor(value) + 1, most
    if operator == "greater_or_equal":
        return ceil(value), most
    if operator == "less_than":
        return least, ceil(value) - 1
    return least, floor(value)


def _float_span(operator: str, value: float) -> Span | None:
    """The codes of the floats that stand so to a number; an int is not rounded to a float."""
    near = float(value)
    if operator == "equals":
        return (_float_code(near, -0.0), _float_code(near, 0.0)) if near == value else None
    if operator in ("greater_than", "greater_or_equal"):
        if near < value or (near == value and operator == "greater_than"):
            if near == inf:
                return None
            near = nextafter(near, inf)
        return _float_code(near, -0.0), _float_code(inf, inf)
    if near > value or (near == value and operator == "less_than"):
        if near == -inf:
            return None
        near = nextafter(near, -inf)
    return _float_code(-inf, -inf), _float_code(near, 0.0)


def _float_code(value: float, zero: float) -> int:
    """How a field stores it; `zero` says which of the two zeros is meant."""
    bits: int = struct.unpack("<Q", struct.pack("<d", value if value else zero))[0]
    return bits ^ (2**64 - 1) if bits >= _BIAS else bits | _BIAS


# ---- Texts and bytes -----------------------------------------------------------------------------


def _of_text(tested: Field, kind: int, condition: AttributeFilter, rows: Rows | None) -> Verdict:
    operator, value, dictionary = condition.operator, condition.value, tested.dictionary
    own: type[Any] = str if kind == TEXT else bytes
    found = _Values()
    if operator == "is_in":
        for member in value:
            if type(member) is own:
                _add_texts(found, dictionary, "equals", _raw(member))
    elif operator == "between":
        if type(value[0]) is own:
            _add_between(found, dictionary, _raw(value[0]), _raw(value[1]))
    elif type(value) is not own or operator == "exists":
        return NO
    elif operator in ("contains", "ends_with"):
        return _in_table(tested, _table(dictionary, operator, _raw(value)), rows)
    else:
        _add_texts(found, dictionary, operator, _raw(value))
    return _in_spans(tested.values, found, rows)


def _raw(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _add_texts(found: _Values, dictionary: Dictionary, operator: str, text: bytes) -> None:
    """The codes of the texts that stand so to a text. Of a cut entry equal to the cut text nobody
    knows; all others stand on one side of it."""
    is_cut = len(text) > HEAD_BYTES
    if operator == "starts_with" and not is_cut:
        first, last = dictionary.prefixed(text)
        found.add(first, last - 1)
        return
    first, last = dictionary.span(text)
    if is_cut or operator in ("equals", "greater_or_equal", "less_or_equal"):
        found.add(first, last - 1, surely=not is_cut)
    if operator in ("greater_than", "greater_or_equal"):
        found.add(last, len(dictionary) - 1)
    elif operator in ("less_than", "less_or_equal"):
        found.add(0, first - 1)


def _add_between(found: _Values, dictionary: Dictionary, low: bytes, high: bytes) -> None:
    first, after_low = dictionary.span(low)
    before_high, last = dictionary.span(high)
    if len(low) > HEAD_BYTES:
        found.add(first, after_low - 1, surely=False)
        first = after_low
    if len(high) > HEAD_BYTES:
        found.add(before_high, last - 1, surely=False)
        last = before_high
    found.add(first, last - 1)


def _table(dictionary: Dictionary, operator: str, part: bytes) -> Truth:
    """A verdict for each code."""
    find = dictionary.containing if operator == "contains" else dictionary.ending
    matching = find(part)
    table = matching.view(np.uint8) * np.uint8(YES)
    if part and operator == "ends_with":
        table[dictionary.cut] = PERHAPS
    elif part:
        table[dictionary.cut] = np.maximum(table[dictionary.cut], PERHAPS)
    return table


# ---- Lists and dicts -----------------------------------------------------------------------------


def _of_container(
    tested: Field, kind: int, condition: AttributeFilter, rows: Rows | None
) -> Verdict:
    operator, value = condition.operator, condition.value
    own: type[Any] = dict if kind == DICT else list
    if operator == "is_in":
        return PERHAPS if any(type(member) is own for member in value) else NO
    if operator == "equals":
        if type(value) is not own:
            return NO
        if kind != LIST:
            return PERHAPS
        likely = PERHAPS if value else YES  # there is one empty list
        return _spread(
            tested, (tested.counts == len(value)).astype(np.uint8) * np.uint8(likely), rows
        )
    if operator != "contains" or kind == DICT:
        return NO
    if kind == LONG_LIST or tested.elements is None:
        return PERHAPS
    inner = judge(tested.elements, AttributeFilter("equals", "", value, ()))
    if isinstance(inner, int):
        if inner == NO:
            return NO
        return _spread(tested, (tested.counts > 0).astype(np.uint8) * np.uint8(inner), rows)
    whole = np.zeros(len(tested), np.uint8)
    for truth in (PERHAPS, YES):
        whole[tested.owners[np.flatnonzero(inner == truth)]] = truth  # YES last: one is enough
    return whole if rows is None else whole[rows]


def _spread(tested: Field, verdicts: Truth, rows: Rows | None) -> Verdict:
    """The verdicts on the rows of kind LIST, where they stand."""
    if not bool(verdicts.any()):
        return NO
    whole = np.zeros(len(tested), np.uint8)
    whole[tested.list_rows] = verdicts
    return whole if rows is None else whole[rows]


# ---- Looking values up ---------------------------------------------------------------------------


def _in_spans(values: Column, found: _Values, rows: Rows | None) -> Verdict:
    """Where the values lie in the spans. What is perhaps so overrules what is."""
    if len(found.yes) + len(found.perhaps) > _SPANS_MAX:
        return _in_many(values, found, rows)
    least, most = values.extremes
    verdict: Verdict = NO
    for spans, truth in ((found.yes, YES), (found.perhaps, PERHAPS)):
        for low, high in spans:
            if low > most or high < least:
                continue
            if low <= least and high >= most:
                verdict = truth
                continue
            here = values.within(low, high, rows)
            if isinstance(verdict, int) and verdict == NO:
                verdict = here.view(np.uint8) * np.uint8(truth)
            elif isinstance(verdict, int):
                verdict = np.where(here, np.uint8(truth), np.uint8(verdict))
            else:
                verdict[here] = truth
    return verdict


def _in_many(values: Column, found: _Values, rows: Rows | None) -> Verdict:
    """The same for many spans, which come from is_in and do not overlap."""
    stored = values.array() if rows is None else values.take(rows)
    whole = np.zeros(len(stored), np.uint8)
    for spans, truth in ((found.yes, YES), (found.perhaps, PERHAPS)):
        if spans:
            bounds = np.array(sorted(set(spans)), np.uint64)
            at = np.searchsorted(bounds[:, 0], stored, "right") - 1
            here = (at >= 0) & (stored <= bounds[at, 1])
            whole[here] = truth
    return whole


def _in_table(tested: Field, table: Truth, rows: Rows | None) -> Verdict:
    """The verdict that a table has for each code."""
    if not len(table) or int(table.min()) == int(table.max()):
        return int(table[0]) if len(table) else NO
    codes: U64 = tested.values.array() if rows is None else tested.values.take(rows)
    if not {TEXT, BYTES}.issuperset(set(VALUED).intersection(tested.present)):
        codes = np.minimum(codes, np.uint64(len(table) - 1))  # of rows of other kinds
    return table[codes.astype(np.int64)]
