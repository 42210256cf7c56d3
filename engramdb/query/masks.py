"""Conditions as masks over columns: which of some rows of a run meet them.

Each condition gives a verdict for each row: no, perhaps, yes (see verdicts.py). Where it is
perhaps, the payload decides. So the answer is that of AttributeFilter.matches for each row.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from engramdb.lsm.attribute_columns import UNTOLD, AttributeColumns, Path
from engramdb.lsm.field import ABSENT, Field
from engramdb.lsm.keys import Rows
from engramdb.lsm.memory_run import MemoryRun
from engramdb.model.attributes import Validity, decode_memory, may_say_when
from engramdb.model.limits import INTEGER_MAX, INTEGER_MIN
from engramdb.query.attribute_filter import AttributeFilter
from engramdb.query.temporal_filter import TemporalFilter
from engramdb.query.verdicts import NO, PERHAPS, YES, Truth, Verdict, judge, truth_of

_BIAS: Final = 2**63
_NARROW: Final = 4  # when fewer than one in so many rows are left, only these are looked at
_COMPOUND: Final = ("and", "or", "not")
_COSTLY: Final = ("contains", "ends_with", "is_in")


def matching(run: MemoryRun, rows: Rows, where: AttributeFilter) -> Rows:
    """Those of these rows of a run that match, in their order.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    columns = run.columns()
    if not len(rows):
        return rows
    if _NARROW * len(rows) < len(columns):
        verdict = _verdict(columns, where, rows)
    else:
        verdict = _verdict(columns, where, None)
        if not isinstance(verdict, int) and len(rows) < len(columns):
            verdict = verdict[rows]
    if isinstance(verdict, int):
        if verdict != PERHAPS:
            return rows if verdict == YES else rows[:0]
        verdict = np.full(len(rows), PERHAPS, np.uint8)
    elif len(verdict) != len(rows):
        verdict = verdict[rows]
    open_ = np.flatnonzero(verdict == PERHAPS)
    if len(open_):
        payloads = run.payloads(rows[open_])
        decided = [where.matches(decode_memory(payload)[2]) for payload in payloads]
        verdict[open_] = np.array(decided, np.uint8) * np.uint8(YES)
    return rows[np.flatnonzero(verdict != NO)]  # three times as fast as by the mask


def _verdict(columns: AttributeColumns, where: AttributeFilter, rows: Rows | None) -> Verdict:
    operator = where.operator
    if operator == "not":
        return _negated(_verdict(columns, where.parts[0], rows))
    if operator in ("and", "or"):
        parts = sorted(where.parts, key=_cost)
        if operator == "and":
            return _all_of(columns, parts, rows)
        return _negated(_all_of(columns, [~part for part in parts], rows))
    if operator == "not_equals":
        return _negated(_leaf(columns, AttributeFilter("equals", where.key, where.value, ()), rows))
    if operator == "not_exists":
        return _negated(_leaf(columns, AttributeFilter("exists", where.key, None, ()), rows))
    return _leaf(columns, where, rows)


def _cost(where: AttributeFilter) -> int:
    """What is cheap is asked first: the rest is asked of fewer rows then."""
    if where.operator in _COMPOUND:
        return 2 + max(map(_cost, where.parts), default=0)
    return int(where.operator in _COSTLY)


def _negated(verdict: Verdict) -> Verdict:
    return YES - verdict


def _lesser(one: Verdict, other: Verdict) -> Verdict:
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    lesser: Truth = np.minimum(truth_of(one), truth_of(other))
    return lesser


def _all_of(columns: AttributeColumns, parts: list[AttributeFilter], rows: Rows | None) -> Verdict:
    whole: Verdict = YES
    for place, part in enumerate(parts):
        verdict = _verdict(columns, part, rows)
        if isinstance(verdict, int) and verdict == NO:
            return NO
        whole = _lesser(whole, verdict)
        if isinstance(whole, int) or place + 1 == len(parts):
            continue
        left = np.flatnonzero(whole != NO)
        if _NARROW * len(left) < len(whole):
            if not len(left):
                return NO
            chosen = left if rows is None else rows[left]
            whole[left] = np.minimum(whole[left], _all_of(columns, parts[place + 1 :], chosen))
            return whole
    return whole


# ---- Finding the fields of a key -----------------------------------------------------------------


def _leaf(columns: AttributeColumns, condition: AttributeFilter, rows: Rows | None) -> Verdict:
    """A condition on one key, which may be a path: the first field that is there decides."""
    fields = candidates(columns, condition.key)
    verdict: Verdict = NO
    for field in reversed(fields):
        verdict = _first_of(field, judge(field, condition, rows), verdict, rows)
    rest = columns.rest
    if rest is not None and (not fields or "." in condition.key):
        beyond = rest if rows is None else rest[rows]
        verdict = np.where(beyond, np.uint8(PERHAPS), truth_of(verdict))
    return verdict


def _first_of(field: Field, verdict: Verdict, otherwise: Verdict, rows: Rows | None) -> Verdict:
    """The verdict on a field, where it is there, and otherwise another one."""
    if ABSENT not in field.present or (isinstance(otherwise, int) and otherwise == NO):
        return verdict
    codes = field.kind_codes if rows is None else field.kind_codes[rows]
    chosen: Truth = np.where(codes == ABSENT, truth_of(otherwise), truth_of(verdict))
    return chosen


def candidates(columns: AttributeColumns, key: str) -> list[Field]:
    """The fields that a key may mean; in each row the first one that is there counts.

    A key is one of a dict, or a path into nested dicts. At each level the longest key of a dict
    that leads on wins, as in AttributeFilter.matches.
    """
    if "." not in key:
        field = columns.fields.get((key,))
        return [] if field is None else [field]
    paths = list(columns.fields)
    heads = {path[:end] for path in paths for end in range(1, len(path) + 1)}
    found: list[Path] = []
    _split(key, (), heads, found)
    return [columns.fields[path] for path in found if path in columns.fields]


def _split(key: str, prefix: Path, heads: set[Path], found: list[Path]) -> None:
    """The paths that a dotted key may mean, the first choice first; only those that begin as the
    path of some field."""
    if (*prefix, key) in heads:
        found.append((*prefix, key))
    end = key.rfind(".")
    while end >= 0:
        head = (*prefix, key[:end])
        if head in heads:
            _split(key[end + 1 :], head, heads, found)
        end = key.rfind(".", 0, end)


# ---- Time ----------------------------------------------------------------------------------------


def temporal(run: MemoryRun, rows: Rows, when: TemporalFilter, now_us: int) -> Rows:
    """Those of these rows that meet a condition on their time, in their order.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    low = INTEGER_MIN if when.earliest_us is None else when.earliest_us
    high = INTEGER_MAX if when.latest_us is None else when.latest_us
    if when.age_us_max is not None:
        low = max(low, now_us - when.age_us_max)
    low, high = max(low, INTEGER_MIN), min(high, INTEGER_MAX)
    if when.last_modified:
        times = run.times(rows).view(np.int64)
        return rows[(times >= low) & (times <= high)]
    columns = run.columns()
    kept = columns.created.within(low + _BIAS, high + _BIAS, rows)
    untold = _untold(columns, rows)
    kept[untold] = [
        low <= decode_memory(payload).creation_us <= high for payload in run.payloads(rows[untold])
    ]
    return rows[kept]


def valid(run: MemoryRun, rows: Rows, at_us: int) -> Rows:
    """Those of these rows that hold in the world at a moment, in their order.

    Raises CorruptionError if a payload that is needed cannot be decoded.
    """
    columns = run.columns()
    bounded = columns.valid_from is not None or columns.valid_to is not None
    if not bounded and not columns.is_untold():
        return rows  # as in most runs
    kept = np.ones(len(rows), np.bool_)
    if columns.valid_from is not None:
        kept &= columns.valid_from.within(0, at_us + _BIAS, rows)
    if columns.valid_to is not None:
        kept &= columns.valid_to.within(at_us + _BIAS + 1, 2**64 - 1, rows)
    untold = _untold(columns, rows)
    kept[untold] = [
        not may_say_when(payload) or _is_valid(decode_memory(payload).validity, at_us)
        for payload in run.payloads(rows[untold])
    ]
    return rows[kept]


def _untold(columns: AttributeColumns, rows: Rows) -> Rows:
    """Which of these rows only tell their times in their payloads."""
    if not columns.is_untold():
        return rows[:0]
    return np.flatnonzero(columns.created.within(UNTOLD + _BIAS, UNTOLD + _BIAS, rows))


def _is_valid(validity: Validity, at_us: int) -> bool:
    begins, ends = validity
    return (begins is None or begins <= at_us) and (ends is None or at_us < ends)
