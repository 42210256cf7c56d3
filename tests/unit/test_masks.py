"""Filters as masks over columns: the same answers as row by row, without reading the rows."""

from __future__ import annotations

import operator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.lsm import AttributeColumns
from engramdb.model.attributes import Validity, decode_memory, encode_memory
from engramdb.model.moments import from_microseconds
from engramdb.model.shredding import shred
from engramdb.query.attribute_filter import AttributeFilter as F
from engramdb.query.masks import matching, temporal, valid
from engramdb.query.temporal_filter import TemporalFilter
from tests.unit.attribute_support import (
    KEYS,
    NOON,
    ListedRun,
    attributes,
    filters,
    payload_of,
)


def run_of(*said: dict[str, Any]) -> ListedRun:
    payloads = [payload_of(each) for each in said]
    return ListedRun(shred(payloads), payloads)


def rows_of(run: ListedRun, where: F) -> list[int]:
    found: list[int] = matching(run, run.rows, where).tolist()
    return found


@st.composite
def runs(draw: st.DrawFn) -> ListedRun:
    """Columns of some rows, after any cutting, shuffling and joining."""
    columns, payloads = [], []
    for _ in range(draw(st.integers(1, 3))):
        listed = draw(st.lists(st.one_of(attributes.map(payload_of), st.just(b"")), max_size=8))
        part = draw(st.sampled_from([shred, lambda given: AttributeColumns.untold(len(given))]))(
            listed
        )
        if listed and draw(st.booleans()):
            rows = draw(st.lists(st.integers(0, len(listed) - 1), max_size=8))
            part, listed = part.take(np.array(rows, np.int64)), [listed[row] for row in rows]
        columns.append(part)
        payloads += listed
    return ListedRun(AttributeColumns.concatenate(columns), payloads)


@settings(max_examples=250, deadline=None)
@given(runs(), st.lists(filters, min_size=1, max_size=6), st.data())
def test_a_mask_answers_as_row_by_row(run: ListedRun, asked: list[F], data: st.DataObject) -> None:
    rows = run.rows
    if len(rows) and data.draw(st.booleans()):
        rows = rows[data.draw(st.integers(0, len(rows) - 1)) :]
    said = [decode_memory(payload).attributes for payload in run.payloads(rows)]
    for where in asked:
        expected = [
            row for row, each in zip(rows.tolist(), said, strict=True) if where.matches(each)
        ]
        assert matching(run, rows, where).tolist() == expected, where


TAGGED = [{"tags": ["a", "b"]}, {"tags": []}, {"tags": ["c"]}, {"tags": "a"}, {}]
NESTED = [{"a": {"b": 1}}, {"a.b": 2}, {"a": {"b": None}, "a.b": 3}, {"a": 4}, {"a": {"c": 1}}]


@pytest.mark.parametrize(
    ("said", "where", "expected"),
    [
        ([{"n": 2**53}, {"n": 2.0**53}, {"n": 2**53 + 1}], F.equals("n", 2**53), [0, 1]),
        ([{"n": 2**53}, {"n": 2.0**53}, {"n": 2**53 + 1}], F.greater_than("n", 2.0**53), [2]),
        ([{"n": 1}, {"n": True}, {"n": 1.0}, {"n": "1"}], F.equals("n", 1), [0, 2]),
        ([{"n": 1}, {"n": True}, {"n": 1.0}], F.equals("n", True), [1]),
        ([{"n": -0.0}, {"n": 0.0}, {"n": 0}], F.equals("n", 0), [0, 1, 2]),
        ([{"n": -0.0}, {"n": 0.0}, {"n": -5e-324}], F.less_than("n", 0), [2]),
        ([{"n": -0.0}, {"n": 5e-324}], F.greater_than("n", -0.0), [1]),
        ([{"n": float("inf")}, {"n": 2**63 - 1}], F.less_than("n", float("inf")), [1]),
        ([{"s": "a"}, {"s": "é"}, {"s": "𝄞"}, {"s": "\uffff"}], F.greater_than("s", "é"), [2, 3]),
        ([{"s": "a"}, {"s": "a\0"}, {"s": ""}], F.equals("s", "a"), [0]),
        ([{"s": "a"}, {"s": b"a"}], F.equals("s", b"a"), [1]),
        ([{"s": "x" * 32}, {"s": "x" * 33}, {"s": "x" * 31}], F.equals("s", "x" * 33), [1]),
        ([{"s": "x" * 32}, {"s": "x" * 33}, {"s": "x" * 31}], F.greater_than("s", "x" * 32), [1]),
        ([{"s": "x" * 31 + "é"}, {"s": "x" * 31}], F.ends_with("s", "é"), [0]),
        ([{"s": "x" * 33}, {"s": "y"}], F.equals("s", "x" * 32), []),
        ([{"s": "x" * 33}, {"s": "y"}], F.less_or_equal("s", "x" * 32), []),
        ([{"s": "x" * 40 + "y"}, {"s": "y"}, {"s": "z"}], F.contains("s", "y"), [0, 1]),
        ([{"s": "x" * 31 + "é!"}, {"s": "é"}, {"s": "z"}], F.contains("s", "é!"), [0]),
        ([{"t": NOON}, {"t": NOON + timedelta(microseconds=1)}], F.less_or_equal("t", NOON), [0]),
        ([{}, {"n": None}, {"n": 1}], F.exists("n"), [1, 2]),
        ([{}, {"n": None}, {"n": 1}], F.equals("n", None), [1]),
        ([{}, {"n": None}, {"n": 1}], F.not_equals("n", 1), [0, 1]),
        (TAGGED, F.contains("tags", "a"), [0, 3]),
        (TAGGED, F.equals("tags", []), [1]),
        (TAGGED, F.is_in("tags", [["c"], "a"]), [2, 3]),
        (NESTED, F.equals("a.b", 1), [0]),
        (NESTED, F.exists("a.b"), [0, 1, 2]),
        (NESTED, F.greater_than("a.b", 1), [1, 2]),
        (NESTED, F.equals("a", {"b": 1}), [0]),
    ],
)
def test_what_comparisons_mean(said: list[dict[str, Any]], where: F, expected: list[int]) -> None:
    assert rows_of(run_of(*said), where) == expected
    assert rows_of(run_of(*said), ~where) == [
        row for row in range(len(said)) if row not in expected
    ]


BOUNDS = [1, 2, 3, 1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize("bound", [1, 2, 3, 0.5, 1.0, 1.5, 2.0, 2.5, -1, 9, 1e300])
@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("less_than", operator.lt),
        ("less_or_equal", operator.le),
        ("greater_than", operator.gt),
        ("greater_or_equal", operator.ge),
        ("equals", operator.eq),
    ],
)
def test_numbers_stand_to_each_other_as_in_python(name: str, stands: Any, bound: float) -> None:
    run = run_of(*[{"n": value} for value in BOUNDS])
    expected = [row for row, value in enumerate(BOUNDS) if stands(value, bound)]
    assert rows_of(run, getattr(F, name)("n", bound)) == expected


PLAIN = [{"c": f"c{i % 3}", "n": i, "x": i / 2, "tags": [f"t{i % 4}"]} for i in range(60)]


@pytest.mark.parametrize(
    "where",
    [
        F.equals("c", "c1"),
        F.between("n", 3, 7) & F.greater_than("x", 2.0),
        F.contains("tags", "t1") | F.starts_with("c", "c2"),
        ~F.is_in("n", [1, 2, 3]),
        F.is_in("n", list(range(0, 60, 3))),
        F.exists("nothing"),
        F.ends_with("c", "1") & F.contains("c", "c"),
    ],
    ids=str,
)
def test_no_payload_is_read_for_what_columns_tell(where: F) -> None:
    run = run_of(*PLAIN)
    found = rows_of(run, where)
    assert not run.asked
    assert found == [row for row, said in enumerate(PLAIN) if where.matches(said)]


def test_only_rows_that_the_rest_of_a_condition_leaves_are_read() -> None:
    long = "x" * 40
    run = run_of(*[{"n": i, "s": long if i % 2 else long + "y"} for i in range(60)])
    assert rows_of(run, F.equals("s", long) & F.less_than("n", 4)) == [1, 3]
    assert sorted(set(run.asked)) == [0, 1, 2, 3]


def test_attributes_beyond_the_columns_are_read_from_payloads() -> None:
    said: list[dict[str, Any]] = [{f"k{i}": i, "all": 1} for i in range(100)]
    run = run_of(*said)
    assert len(run.columns().fields) == 64
    for i in (0, 50, 99):
        assert rows_of(run, F.equals(f"k{i}", i)) == [i]
        assert rows_of(run, F.not_exists(f"k{i}")) == [row for row in range(100) if row != i]


def test_a_path_may_lead_to_what_has_no_column() -> None:
    many = {f"k{i}": {"in": i} for i in range(90)}
    payloads = [payload_of({**many, "k0.in": 7}), payload_of({"k0": {"in": 7}}), payload_of({})]
    columns = AttributeColumns.concatenate([shred(payloads[:1]), shred(payloads[1:])])
    run = ListedRun(columns, payloads)
    for i in range(90):
        assert rows_of(run, F.exists(f"k{i}.in")) == ([0, 1] if i == 0 else [0])
    assert rows_of(run, F.equals("k0.in", 7)) == [0, 1]


def test_a_column_that_only_some_parts_have_does_not_speak_for_the_others() -> None:
    many = payload_of({f"k{i}": i for i in range(90)})
    others = [payload_of({f"k{i}": i}) for i in range(40, 90)]
    columns = AttributeColumns.concatenate([shred([many]), shred(others), shred(others)])
    run = ListedRun(columns, [many, *others, *others])
    for i in range(90):
        found = rows_of(run, F.equals(f"k{i}", i))
        assert found == ([0, i - 39, i + 11] if i >= 40 else [0])


def test_a_payload_that_is_damaged_is_told_as_damage_when_it_matters() -> None:
    payloads = [payload_of({"n": 1}), b"\xc1", payload_of({"n": 2})]
    run = ListedRun(shred(payloads), payloads)
    assert matching(run, np.array([0, 2]), F.equals("n", 2)).tolist() == [2]
    with pytest.raises(CorruptionError):
        matching(run, run.rows, F.equals("n", 2))
    with pytest.raises(CorruptionError):
        temporal(run, run.rows, TemporalFilter(0, 10), 0)
    assert valid(run, run.rows, 5).tolist() == [0, 1, 2]  # it has no bounds, whatever it is
    payloads[1] = b"\x95\xc1"
    run = ListedRun(shred(payloads), payloads)
    with pytest.raises(CorruptionError):
        valid(run, run.rows, 5)


@pytest.mark.parametrize("columns_of", [shred, lambda given: AttributeColumns.untold(len(given))])
def test_times(columns_of: Any) -> None:
    bounds = [(None, None), (5, None), (None, 9), (5, 9)]
    payloads = [encode_memory(row, None, {}, Validity(*each)) for row, each in enumerate(bounds, 3)]
    run = ListedRun(columns_of(payloads), payloads)
    for at_us, expected in ((4, [0, 2]), (5, [0, 1, 2, 3]), (8, [0, 1, 2, 3]), (9, [0, 1])):
        assert valid(run, run.rows, at_us).tolist() == expected
    for when, expected in (
        (TemporalFilter.before(from_microseconds(5)), [0, 1]),
        (TemporalFilter.after(from_microseconds(5)), [3]),
        (TemporalFilter.between(from_microseconds(4), from_microseconds(5)), [1, 2]),
        (TemporalFilter.within_last(timedelta(microseconds=2)), [2, 3]),
        (TemporalFilter.before(from_microseconds(2), last_modified=True), [0, 1]),
        (TemporalFilter(latest_us=-(2**70)), []),
        (TemporalFilter(earliest_us=-(2**70)), [0, 1, 2, 3]),
    ):
        assert temporal(run, run.rows, when, 7).tolist() == expected
    assert matching(run, run.rows[:0], F.exists(KEYS[0])).tolist() == []
