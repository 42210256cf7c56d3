"""The table of accesses, against lists of times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.access.table import NO_ACCESS, RECENT, Accesses, AccessTable
from engramdb.lsm.derived import Values
from engramdb.lsm.limits import TIME_MAX

KEYS = [bytes([i]) * 15 + b"\0" for i in range(7)]
batches = st.lists(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 60)), max_size=50))


def add(table: AccessTable, accesses: list[tuple[bytes, int]]) -> None:
    times = np.array([time for _, time in accesses], np.int64)
    table.add([key for key, _ in accesses], times)


def check(accesses: Accesses, times_of: dict[bytes, list[int]], keys: list[bytes]) -> None:
    for i, key in enumerate(keys):
        times = sorted(times_of.get(key, []), reverse=True)
        recent = (times + [NO_ACCESS] * RECENT)[:RECENT]
        assert accesses.counts[i] == len(times)
        assert accesses.first_us[i] == (times[-1] if times else NO_ACCESS)
        assert accesses.recent_us[i].tolist() == recent


@settings(deadline=None, max_examples=200)
@given(batches)
def test_it_knows_what_lists_know(batches: list[list[tuple[bytes, int]]]) -> None:
    table, times_of = AccessTable(), dict[bytes, list[int]]()
    for batch in batches:
        if batch:
            add(table, batch)
        for key, time in batch:
            times_of.setdefault(key, []).append(time)
    check(table.take(KEYS), times_of, KEYS)
    assert len(table) == len(times_of)
    again = AccessTable.of_values(table.values())
    assert again is not None
    check(again.take(KEYS), times_of, KEYS)
    less = table.without(KEYS[:3])
    kept = {key: times for key, times in times_of.items() if key not in KEYS[:3]}
    check(less.take(KEYS), kept, KEYS)
    for grown in (again, less):
        add(grown, [(KEYS[0], 99)])
        assert grown.take(KEYS[:1]).recent_us[0, 0] == 99


@settings(deadline=None, max_examples=200)
@given(batches, st.integers(-1, 61))
def test_until_a_moment(batches: list[list[tuple[bytes, int]]], moment: int) -> None:
    table, times_of = AccessTable(), dict[bytes, list[int]]()
    for key, time in (access for batch in batches for access in batch):
        add(table, [(key, time)])
        times_of.setdefault(key, []).append(time)
    found = table.take(KEYS).until(moment)
    for i, key in enumerate(KEYS):
        times = sorted(times_of.get(key, []), reverse=True)
        known = [time for time in times[:RECENT] if time <= moment]
        true_count = sum(time <= moment for time in times)
        assert [time for time in found.recent_us[i].tolist() if time != NO_ACCESS] == known
        assert found.recent_us[i].tolist() == (known + [NO_ACCESS] * RECENT)[:RECENT]
        assert found.first_us[i] == (times[-1] if true_count else NO_ACCESS)
        if known or not true_count or len(times) <= RECENT:
            assert found.counts[i] == true_count, "exact where it can be"
        else:
            assert 1 <= found.counts[i] <= len(times) - RECENT
    again = found.until(moment)
    for one, other in zip(found, again, strict=True):
        assert (one == other).all()


def test_what_is_not_known_is_taken_to_be_spread_evenly() -> None:
    table = AccessTable()
    add(table, [(KEYS[0], time) for time in range(0, 1010, 10)])
    assert table.take(KEYS[:1]).until(450).counts.tolist() == [46]
    assert table.take(KEYS[:1]).until(0).counts.tolist() == [1]
    assert table.take(KEYS[:1]).until(-1).counts.tolist() == [0]


def test_a_memory_that_is_asked_for_twice_and_one_that_is_not_there() -> None:
    table = AccessTable()
    add(table, [(KEYS[1], 5)])
    found = table.take([KEYS[1], KEYS[2], KEYS[1]])
    assert found.counts.tolist() == [1, 0, 1]
    assert found.first_us.tolist() == [5, NO_ACCESS, 5]


def test_it_grows() -> None:
    table, rng = AccessTable(), np.random.default_rng(3)
    keys = [rng.bytes(16) for _ in range(5000)]
    for start in range(0, 5000, 77):
        add(table, [(key, start) for key in keys[start : start + 77]])
    found = table.take(keys)
    assert (found.counts == 1).all() and len(table) == 5000
    assert (found.first_us == np.arange(5000) // 77 * 77).all()


def test_times_that_no_datetime_can_hold_are_not_kept() -> None:
    table = AccessTable()
    add(table, [(KEYS[0], -5), (KEYS[1], 2**62)])
    assert table.take(KEYS[:2]).first_us.tolist() == [0, TIME_MAX]


def sound() -> Values:
    table = AccessTable()
    add(table, [(KEYS[0], 5), (KEYS[1], 7), (KEYS[1], 9)] + [(KEYS[2], i) for i in range(12)])
    return table.values()


def test_sound_values_are_taken() -> None:
    table = AccessTable.of_values(sound())
    assert table is not None and len(table) == 3
    empty = AccessTable.of_values(AccessTable().values())
    assert empty is not None and len(empty) == 0


def changed(name: str, at: Any, value: int) -> Values:
    values = sound()
    array = values[name]
    assert isinstance(array, np.ndarray)
    values[name] = array.copy()
    values[name][at] = value  # type: ignore[index]
    return values


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**sound(), "more": b""},
        {**sound(), "keys": b""},
        {**sound(), "counts": np.zeros(2, np.uint64)},
        {**sound(), "counts": np.ones(3, np.int64)},
        {**sound(), "keys": np.zeros((3, 15), np.uint8)},
        {**sound(), "keys": np.zeros((3, 16), np.uint8)},
        {**sound(), "recent": np.zeros((3, 9), np.int64)},
        {**sound(), "first": np.array(3)},
        changed("counts", 0, 0),
        changed("counts", 0, 2),
        changed("counts", 2, 9),
        changed("counts", 2, 2**62),
        changed("first", 0, 4),
        changed("first", 0, -1),
        changed("first", 2, 3),
        changed("recent", (0, 0), TIME_MAX + 1),
        changed("recent", (1, 0), 6),
        changed("recent", (2, 9), NO_ACCESS),
    ],
)
def test_values_that_cannot_be_are_not_taken(values: Values) -> None:
    assert AccessTable.of_values(values) is None
