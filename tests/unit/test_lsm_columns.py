"""A packed column gives back what was packed, and finds values without being decoded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engramdb.lsm import columns
from engramdb.lsm.columns import Column, encoded_size, pack

TOP = 2**64 - 1
EDGES = [0, 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, TOP - 1, TOP]

# Values that lie in a window somewhere, so that every width comes up, at the top of the range too.
windows = st.builds(
    lambda base, offsets, up: [min(base + o, TOP) if up else max(base - o, 0) for o in offsets],
    st.sampled_from(EDGES) | st.integers(0, TOP),
    st.lists(
        st.integers(0, 3) | st.integers(0, 255) | st.integers(0, 2**16) | st.integers(0, 2**33),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
counting = st.builds(
    lambda start, n: list(range(start, min(start + n, TOP + 1))),
    st.sampled_from(EDGES) | st.integers(0, TOP),
    st.integers(1, 40),
)
lists = windows | counting | st.lists(st.integers(0, TOP), min_size=1, max_size=40)


def packed(values: list[int]) -> Column:
    encoding, base, data = pack(np.array(values, np.uint64))
    return Column(encoding, base, len(values), data)


@given(lists)
@example([TOP])
@example([TOP - 1, TOP])
@example([0, TOP])
@example([TOP - 255, TOP])
@example([TOP - 256, TOP])
def test_it_gives_back_what_was_packed(values: list[int]) -> None:
    column = packed(values)
    assert column.array().tolist() == values
    assert [column[i] for i in range(len(values))] == values
    assert len(column) == len(values)
    assert encoded_size(column.encoding, len(values)) == len(column.data)


@given(lists, st.data())
def test_it_takes_rows(values: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20))
    taken = packed(values).take(np.array(rows, np.int64))
    assert taken.dtype == np.uint64
    assert taken.tolist() == [values[row] for row in rows]


@given(lists)
def test_it_knows_its_extremes(values: list[int]) -> None:
    assert packed(values).extremes == (min(values), max(values))


@given(lists, st.data())
def test_it_finds_a_value_as_bisect_does(values: list[int], data: st.DataObject) -> None:
    values.sort()
    column = packed(values)
    near = [v + d for v in values for d in (-1, 0, 1) if 0 <= v + d <= TOP]
    wanted = data.draw(st.sampled_from(near) | st.integers(0, TOP))
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    expected = (
        bisect_left(values, wanted, start, stop),
        bisect_right(values, wanted, start, stop),
    )
    assert column.find(wanted, start, stop) == expected


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        ([], columns.CONSTANT),
        ([7], columns.CONSTANT),
        ([TOP, TOP, TOP], columns.CONSTANT),
        ([5, 6, 7], columns.RANGE),
        ([TOP - 1, TOP], columns.RANGE),
        ([7, 6, 5], columns.OFFSET8),
        ([1000, 1255], columns.OFFSET8),
        ([1000, 1256], columns.OFFSET16),
        ([0, 2**16 - 1], columns.OFFSET16),
        ([0, 2**16], columns.OFFSET32),
        ([TOP - 2**32 + 1, TOP], columns.OFFSET32),
        ([0, 2**32], columns.RAW),
        ([0, TOP], columns.RAW),
    ],
)
def test_it_takes_the_smallest_encoding(values: list[int], encoding: int) -> None:
    assert packed(values).encoding == encoding
    assert packed(values).array().tolist() == values


def test_the_bytes_are_little_endian_offsets_from_the_base() -> None:
    assert pack(np.array([300, 302, 301, 300], np.uint64)) == (2, 300, b"\x00\x02\x01\x00")
    assert pack(np.array([0x201, 0, 1], np.uint64)) == (3, 0, b"\x01\x02\x00\x00\x01\x00")
    raw = pack(np.array([TOP, 1], np.uint64))
    assert raw == (5, 0, b"\xff" * 8 + b"\x01" + bytes(7))


def test_an_empty_column_finds_nothing() -> None:
    column = packed([])
    assert column.find(0, 0, 0) == (0, 0)
    assert column.extremes == (0, 0)
    assert column.array().tolist() == []


def test_an_unknown_encoding_has_no_size() -> None:
    with pytest.raises(KeyError):
        encoded_size(6, 1)


@pytest.mark.parametrize(
    "values",
    [
        [7, 7, 7],
        [5, 6, 7, 8],
        [1000, 1003, 1001],
        [1000, 1300, 1001],
        [10**9, 10**9 + 70_000, 10**9],
        [1, 2**63, 2**64 - 1, 0],
        [2**64 - 1, 2**64 - 3, 2**64 - 2],
        [],
    ],
)
def test_values_are_compared_as_they_are_stored(values: list[int]) -> None:
    column = Column.of(np.array(values, np.uint64))
    rows = np.arange(len(values))[::-1]
    probes = {0, 2**64 - 1, *values, *(value - 1 for value in values if value)}
    for low in probes:
        for high in probes:
            expected = [low <= value <= high for value in values]
            assert column.within(low, high).tolist() == expected
            assert column.within(low, high, rows).tolist() == expected[::-1]
    if values and max(values) < 2000:
        assert column.distinct(2000) == tuple(sorted(set(values)))
