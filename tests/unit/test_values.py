"""Values, numbers and counts of a key, read from columns as from payloads."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.lsm import AttributeColumns
from engramdb.lsm.field import MOMENT, TEXT, Field
from engramdb.model.attributes import decode_memory
from engramdb.model.shredding import shred
from engramdb.query.attribute_filter import ABSENT, kind_of, look_up
from engramdb.query.values import counts_of, numbers_of, values_of
from tests.unit.attribute_support import KEYS, ListedRun, attributes, payload_of


def same(one: Any, other: Any) -> bool:
    """Equal, of one type, and of one sign."""
    if type(one) is not type(other) or one != other:
        return False
    return type(one) is not float or math.copysign(1, one) == math.copysign(1, other)


@settings(max_examples=60, deadline=None)
@given(st.lists(attributes, max_size=10), st.booleans(), st.sampled_from([*KEYS, "k1", "a.c"]))
def test_columns_say_what_payloads_say(said: list[Any], untold: bool, wanted: str) -> None:
    payloads = list(map(payload_of, said))
    columns = shred(payloads)
    if untold:
        columns = AttributeColumns.concatenate([columns, AttributeColumns.untold(len(payloads))])
        payloads += payloads
    run = ListedRun(columns, payloads)
    rows = run.rows[::-1][1:]
    expected = [look_up(decode_memory(payloads[row]).attributes, wanted) for row in rows.tolist()]
    assert all(map(same, values_of(run, rows, wanted), expected))
    numbers = [float(each) if type(each) in (int, float) else math.nan for each in expected]
    assert np.array_equal(numbers_of(run, rows, wanted), np.array(numbers), equal_nan=True)
    counts: Counter[Any] = Counter()
    for value in expected:
        listed = value if isinstance(value, list) else [value]
        plain = [each for each in listed if not isinstance(each, (list, dict))]
        counts.update({(kind_of(each), each) for each in plain if each is not ABSENT})
    assert counts_of(run, rows, wanted) == counts


def test_counts_tell_kinds_apart_but_not_numbers() -> None:
    said = [{"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": [1, "1"]}, {"n": None}, {}]
    payloads = list(map(payload_of, said))
    run = ListedRun(shred(payloads), payloads)
    assert counts_of(run, run.rows, "n") == {
        ("number", 1): 3,
        ("bool", True): 1,
        ("str", "1"): 2,
        ("null", None): 1,
    }
    assert not run.asked


@pytest.mark.parametrize(
    ("said", "kind", "forged"), [({"v": "é"}, TEXT, b"\xff\xff"), ({"v": 1}, MOMENT, b"")]
)
def test_values_that_cannot_be_are_damage(said: Any, kind: int, forged: bytes) -> None:
    columns = shred([payload_of(said)])
    field = columns.fields["v",]
    if forged:
        field.dictionary.data = forged
    else:
        made = Field.of(np.array([kind], np.uint8), np.array([2**64 - 1], np.uint64))
        columns = AttributeColumns(columns.created, None, None, {("v",): made}, None)
    run = ListedRun(columns, [payload_of(said)])
    with pytest.raises(CorruptionError):
        values_of(run, run.rows, "v")
