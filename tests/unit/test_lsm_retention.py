"""What compaction may drop, against a model that looks at one version after the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import InvalidInputError
from engramdb.lsm.records import EDGE, MEMORY, META, NEVER, PUT, TOMBSTONE
from engramdb.lsm.retention import (
    History,
    KeepAll,
    KeepFor,
    KeepLast,
    check_history,
    current_tombstones,
    droppable,
)
from engramdb.lsm.rows import EdgeColumns, RowColumns


@dataclass
class Row:
    record_class: int
    key: int
    seq: int
    kind: int
    superseded: int


@st.composite
def databases(draw: st.DrawFn) -> list[Row]:
    """Every version of a few keys, as they came, each with the seq that superseded it."""
    operations = draw(
        st.lists(
            st.tuples(
                st.sampled_from([MEMORY, MEMORY, EDGE, META]),
                st.integers(0, 3),
                st.sampled_from([PUT, PUT, TOMBSTONE]),
            ),
            min_size=1,
            max_size=25,
        )
    )
    rows: list[Row] = []
    newest: dict[tuple[int, int], Row] = {}
    for seq, (record_class, key, kind) in enumerate(operations, 1):
        row = Row(record_class, key, seq, PUT if record_class == META else kind, NEVER)
        before = newest.get((record_class, key))
        if before is not None:
            before.superseded = seq
        newest[record_class, key] = row
        rows.append(row)
    return rows


def columns(rows: list[Row]) -> RowColumns:
    count = len(rows)
    edges = sum(row.record_class == EDGE for row in rows)
    none = np.zeros(edges, np.uint64)
    return RowColumns(
        np.array([row.record_class for row in rows], np.uint8),
        np.zeros(count, np.uint64),
        np.array([row.key for row in rows], np.uint64),
        np.array([row.seq for row in rows], np.uint64),
        np.array([row.seq for row in rows], np.uint64),
        np.array([row.kind for row in rows], np.uint8),
        np.zeros(count, np.uint64),
        np.array([row.superseded for row in rows], np.uint64),
        EdgeColumns(none, none, none, none, none, np.zeros(edges), ["t"]),
    )


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.record_class, row.key, -row.seq))


policies = st.one_of(
    st.just(KeepAll()),
    st.integers(1, 4).map(KeepLast),
    st.just(KeepFor(timedelta(days=1))),
)


def model(
    row: Row, whole: list[Row], policy: History, pins: set[int], durable: int, window: int
) -> bool:
    """Whether one version may go, said as plainly as it can be."""
    if row.superseded > durable:
        return False  # current, or what superseded it may still be lost
    if row.record_class == META:
        return True
    if any(row.seq <= pin < row.superseded for pin in pins):
        return False
    if isinstance(policy, KeepAll):
        return False
    if isinstance(policy, KeepLast):
        newer = [r for r in whole if r.key == row.key and r.record_class == row.record_class]
        return sum(r.seq > row.seq for r in newer) >= policy.versions
    return row.superseded <= window


@settings(max_examples=300)
@given(databases(), policies, st.sets(st.integers(0, 30), max_size=3), st.data())
def test_a_merge_of_everything_drops_exactly_what_it_may(
    rows: list[Row], policy: History, pins: set[int], data: st.DataObject
) -> None:
    durable = data.draw(st.integers(0, 30))
    window = data.draw(st.integers(0, durable))
    rows = in_order(rows)
    mask = droppable(
        columns(rows), policy, np.array(sorted(pins), np.uint64), durable, window
    ).tolist()
    assert mask == [model(row, rows, policy, pins, durable, window) for row in rows]


@settings(max_examples=300)
@given(databases(), policies, st.sets(st.integers(0, 30), max_size=3), st.data())
def test_a_merge_of_a_part_never_drops_more(
    rows: list[Row], policy: History, pins: set[int], data: st.DataObject
) -> None:
    # a stretch of seqs, as neighbouring runs are
    first = data.draw(st.integers(0, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    part = in_order(rows[first:last])
    mask = droppable(
        columns(part), policy, np.array(sorted(pins), np.uint64), len(rows), len(rows) // 2
    ).tolist()
    for row, gone in zip(part, mask, strict=True):
        assert not gone or model(row, rows, policy, pins, len(rows), len(rows) // 2)


@given(databases(), policies, st.data())
def test_a_pinned_moment_stays_whole(rows: list[Row], policy: History, data: st.DataObject) -> None:
    pin = data.draw(st.integers(0, len(rows)))
    rows = in_order(rows)
    mask = droppable(columns(rows), policy, np.array([pin], np.uint64), len(rows), len(rows))
    visible = [row.seq <= pin < row.superseded and row.record_class != META for row in rows]
    assert not (mask & np.array(visible)).any()


@given(databases(), st.integers(0, 30))
def test_current_tombstones(rows: list[Row], durable: int) -> None:
    rows = in_order(rows)
    expected = [
        row.kind == TOMBSTONE and row.superseded == NEVER and row.seq <= durable for row in rows
    ]
    assert current_tombstones(columns(rows), durable).tolist() == expected


@given(databases())
def test_rows_are_ordered_and_keys_start_where_they_start(rows: list[Row]) -> None:
    shuffled = columns(rows)
    ordered = shuffled.take(shuffled.order())
    expected = in_order(rows)
    assert ordered.seq.tolist() == [row.seq for row in expected]
    starts = [
        i == 0 or (row.record_class, row.key) != (expected[i - 1].record_class, expected[i - 1].key)
        for i, row in enumerate(expected)
    ]
    assert ordered.key_starts().tolist() == starts
    assert len(ordered.edges) == sum(row.record_class == EDGE for row in rows)


@pytest.mark.parametrize("versions", [0, -1, 1.0, True, "1", None, 2**32])
def test_keep_last_wants_a_count(versions: object) -> None:
    with pytest.raises(InvalidInputError, match="versions"):
        KeepLast(versions)  # type: ignore[arg-type]


@pytest.mark.parametrize("duration", [timedelta(microseconds=-1), 3, None, "1d"])
def test_keep_for_wants_a_duration(duration: object) -> None:
    with pytest.raises(InvalidInputError, match="duration"):
        KeepFor(duration)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [None, "all", KeepAll, 3])
def test_a_policy_is_one_of_three(policy: object) -> None:
    with pytest.raises(InvalidInputError, match="history"):
        check_history(policy)
