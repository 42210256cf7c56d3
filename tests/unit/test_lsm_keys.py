"""Keys as two integer columns: the same order as bytes have, and no trailing NUL lost."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engramdb.lsm import keys as columns
from engramdb.lsm.keys import first_at_least, from_list, join, split, to_list

# Few distinct halves, so that keys share one of them; NULs and 0xff at the ends.
halves = st.sampled_from([bytes(8), b"\0" * 7 + b"\1", b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7)])
halves = halves | st.sampled_from([b"\xff" * 8, b"abcdefg\0"]) | st.binary(min_size=8, max_size=8)
keys = st.builds(bytes.__add__, halves, halves)


@given(st.lists(keys, max_size=30))
@example([bytes(16)])
@example([b"x" + bytes(15)])
def test_a_list_of_keys_comes_back_whole(listed: list[bytes]) -> None:
    matrix = from_list(listed)
    assert matrix.shape == (len(listed), 16)
    assert to_list(matrix) == listed
    assert to_list(join(*split(matrix))) == listed


@given(st.lists(keys, min_size=1, max_size=30))
def test_columns_sort_as_bytes_do(listed: list[bytes]) -> None:
    high, low = split(from_list(listed))
    order = np.lexsort((low, high))
    assert [listed[i] for i in order] == sorted(listed)


@given(st.lists(keys, max_size=40), st.lists(keys, min_size=1, max_size=20))
def test_many_keys_are_bisected_at_once(listed: list[bytes], wanted: list[bytes]) -> None:
    listed.sort()
    wanted += listed[:5]
    rows = first_at_least(*split(from_list(listed)), *split(from_list(wanted)))
    assert rows.tolist() == [bisect_left(listed, one) for one in wanted]


def test_halves_above_2_to_the_53_are_not_rounded() -> None:
    listed = [(2**64 - i).to_bytes(8, "big") + bytes(8) for i in (3, 2, 1)]
    high, low = split(from_list(listed))
    assert high.tolist() == [2**64 - 3, 2**64 - 2, 2**64 - 1]
    found = first_at_least(high, low, *split(from_list(listed)))
    assert found.tolist() == [0, 1, 2]


def test_the_columns_are_native_and_contiguous() -> None:
    for column in split(from_list([bytes(range(16)), bytes(16)])):
        assert column.dtype == np.uint64 and column.flags.c_contiguous


PAIRS = st.tuples(
    st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]), st.sampled_from([0, 1, 5, 2**64 - 1])
)


@given(st.lists(PAIRS, max_size=40), st.lists(PAIRS, max_size=20), st.sampled_from([1, 16]))
def test_keys_as_pairs_of_columns_are_sorted_and_found(
    held: list[tuple[int, int]], wanted: list[tuple[int, int]], few: int
) -> None:
    high, low = columns_of(held)
    order = columns.order_of(high, low)
    assert pairs_of(high[order], low[order]) == sorted(held)
    assert pairs_of(*columns.distinct(high, low)) == sorted(set(held))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_HALVES_MAX", few)  # so few halves are looked up one by one
        first, last = columns.spans(high[order], low[order], *columns_of(sorted(set(wanted))))
    for key, start, stop in zip(sorted(set(wanted)), first.tolist(), last.tolist(), strict=True):
        assert sorted(held)[start:stop] == [key] * held.count(key)

    found = columns.positions(*columns.distinct(high, low), *columns_of(wanted))
    distinct = sorted(set(held))
    assert found.tolist() == [distinct.index(k) if k in distinct else -1 for k in wanted]


def test_ranges_become_numbers() -> None:
    numbers, whose = columns.ranges(np.array([3, 7, 7, 0]), np.array([5, 7, 10, 1]))
    assert numbers.tolist() == [3, 4, 7, 8, 9, 0] and whose.tolist() == [0, 0, 2, 2, 2, 3]


def columns_of(pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
    array = np.array(pairs, np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])


def pairs_of(high: Any, low: Any) -> list[tuple[int, int]]:
    return list(zip(high.tolist(), low.tolist(), strict=True))
