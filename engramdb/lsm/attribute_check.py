"""Compares attribute columns with those that the payloads give: checksums tell that a file holds
what was written, this tells that what was written is so."""

from __future__ import annotations

import numpy as np

from engramdb.lsm.attribute_columns import AttributeColumns, Mask
from engramdb.lsm.field import ABSENT, LIST, UNKNOWN, VALUED, Field
from engramdb.lsm.keys import Rows


def contradictions(
    told: AttributeColumns, fresh: AttributeColumns, names: Rows | None = None
) -> list[str]:
    """Where they differ, one line each. `fresh` is made of the payloads of the same rows; which
    attributes have a field, and which are left to the payloads, may differ. `names`: what each row
    is called, its number by default."""
    problems = []
    names = np.arange(len(told)) if names is None else names
    for name in ("created", "valid_from", "valid_to"):
        one, other = getattr(told, name), getattr(fresh, name)
        same = (one is None) == (other is None)
        if not same or (one is not None and not bool((one.array() == other.array()).all())):
            problems.append(f"{name} is not what the payloads say")
    hidden = _rest_of(fresh)
    for path, field in told.fields.items():
        expected = fresh.fields.get(path)
        if expected is None:
            expected = Field.constant(ABSENT, len(fresh))
        wrong = _wrong_rows(field, expected) & ~hidden
        if bool(wrong.any()):
            row = int(names[np.flatnonzero(wrong)[0]])
            problems.append(f"{'.'.join(path)!r:.80} is not what the payload of row {row} says")
    beyond = _rest_of(told)
    for path, field in fresh.fields.items():
        if path not in told.fields:
            missed = (field.kind_codes != ABSENT) & ~beyond
            if bool(missed.any()):
                row = int(names[np.flatnonzero(missed)[0]])
                problems.append(f"{'.'.join(path)!r:.80} of row {row} is in no column")
    return problems


def _rest_of(columns: AttributeColumns) -> Mask:
    return np.zeros(len(columns), np.bool_) if columns.rest is None else columns.rest


def _wrong_rows(told: Field, expected: Field) -> Mask:
    """Where they differ, but for rows of which one of them tells nothing."""
    both = Field.concatenate([told, expected])  # under one dictionary: equal texts, equal codes
    count = len(told)
    kinds, values = both.kind_codes, both.values.array()
    one, other = kinds[:count], kinds[count:]
    valued = np.isin(one, VALUED)
    wrong: Mask = (one != other) | (valued & (values[:count] != values[count:]))
    wrong &= (one != UNKNOWN) & (other != UNKNOWN)
    lists = np.flatnonzero((one == LIST) & (other == LIST))
    if len(lists):
        mine, theirs = both.take(lists), both.take(lists + count)
        longer = mine.counts != theirs.counts
        wrong[lists[longer]] = True
        if not bool(longer.any()) and mine.elements is not None and theirs.elements is not None:
            wrong[lists[mine.owners[_wrong_rows(mine.elements, theirs.elements)]]] = True
    return wrong
