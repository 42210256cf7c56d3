"""Which runs are merged next: neighbours of like size, and never for nothing."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.lsm import KeepAll, KeepFor, KeepLast
from engramdb.lsm.compaction import compact_once
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.marks import Marks
from engramdb.lsm.planner import (
    VECTOR_BYTES_MAX,
    backlog,
    plan_all_vectors,
    plan_segments,
    plan_vectors,
)
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import VectorFile
from tests.unit.lsm_support import core_of, open_engine, put, vec

KIB = 1024


def segments(*rows: int, marked: dict[int, int] | None = None) -> list[Segment]:
    """Segments with so many rows; `marked` puts so many marks, of seq 50, on some of them."""
    made = []
    for i, count in enumerate(rows):
        marks = Marks()
        for row in range((marked or {}).get(i, 0)):
            marks.add(row, 50)
        made.append(cast(Segment, SimpleNamespace(rows=count, marks=marks)))
    return made


def vectors(*files: tuple[int, int, int]) -> list[VectorFile]:
    """Vector files of dimension 256 (a KiB a row): (rows, dead at seq 50, unreferenced)."""
    made: list[Any] = []
    for rows, dead, unreferenced in files:
        made.append(
            SimpleNamespace(
                rows=rows,
                dimension=256,
                dead=SimpleNamespace(count_until=partial(_dead_until, dead)),
                entry=SimpleNamespace(unreferenced=unreferenced),
            )
        )
    return cast("list[VectorFile]", made)


def _dead_until(dead: int, seq: int) -> int:
    return dead if seq >= 50 else 0


def planned(files: list[VectorFile], fan_in: int = 4, flushed_seq: int = 100) -> list[int]:
    """Which of these are rewritten next."""
    chosen = {id(file) for file in plan_vectors(files, fan_in, flushed_seq)}
    return [place for place, file in enumerate(files) if id(file) in chosen]


def planned_all(files: list[VectorFile], flushed_seq: int = 100) -> list[list[int]]:
    """Which of these compact() rewrites into one each."""
    places = {id(file): place for place, file in enumerate(files)}
    return [[places[id(file)] for file in group] for group in plan_all_vectors(files, flushed_seq)]


def plan(found: list[Segment], fan_in: int = 4, policy: Any = None, flushed_seq: int = 100) -> Any:
    return plan_segments(found, fan_in, policy or KeepAll(), flushed_seq)


def test_few_runs_rest() -> None:
    assert plan([]) is None
    assert plan(segments(10, 10, 10)) is None
    assert plan(segments(900_000, 10**5, 10**4, 100)) is None


def test_four_small_neighbours_are_merged() -> None:
    assert plan(segments(10, 10, 10, 10)) == (0, 4)
    assert plan(segments(10**6, 10, 10, 10, 10)) == (1, 5)


def test_only_neighbours_are_merged() -> None:
    assert plan(segments(10, 10, 10**6, 10, 10)) is None
    assert plan(segments(10, 10, 10**6, 10, 10, 10, 10)) == (3, 7)


def test_the_lowest_tier_comes_first_and_smaller_ones_go_along() -> None:
    large, small = 10**5, 100
    assert plan(segments(large, large, large, large, small, small, small, small)) == (4, 8)
    assert plan(segments(large, large, large, large)) == (0, 4)
    assert plan(segments(large, large, small, large, large)) == (0, 5)


@given(st.lists(st.integers(1, 10**7), max_size=30), st.integers(2, 8))
def test_runs_stay_few_and_merging_ends(rows: list[int], fan_in: int) -> None:
    for _ in range(200):
        stretch = plan(segments(*rows), fan_in)
        if stretch is None:
            break
        start, stop = stretch
        assert stop - start >= fan_in
        rows[start:stop] = [sum(rows[start:stop])]
    else:
        pytest.fail("merging never ends")


def test_a_large_run_is_not_rewritten_for_a_few_small_ones() -> None:
    assert plan(segments(10**6, 10, 10, 10)) is None
    assert plan(segments(10**6, 5000, 5000, 5000, 10, 10, 10)) is None


@pytest.mark.parametrize("fan_in", [2, 4, 8])
def test_each_row_is_rewritten_a_logarithmic_number_of_times(fan_in: int) -> None:
    rows: list[int] = []
    rewritten = written = 0
    for _ in range(1000):
        rows.append(5000)
        written += 5000
        while (stretch := plan(segments(*rows), fan_in)) is not None:
            start, stop = stretch
            rewritten += sum(rows[start:stop])
            rows[start:stop] = [sum(rows[start:stop])]
        assert len(rows) <= 10 * fan_in
    assert rewritten <= written * math.ceil(math.log(1000, fan_in))


def test_rows_superseded_since_are_reason_enough_unless_all_are_kept() -> None:
    found = segments(100, 100, marked={1: 51})
    assert plan(found, policy=KeepAll()) is None
    assert plan(found, policy=KeepLast(1)) == (1, 2)
    assert plan(found, policy=KeepFor(timedelta(0))) == (1, 2)
    assert plan(segments(100, marked={0: 50}), policy=KeepLast(1)) is None


def test_what_is_superseded_by_the_log_only_must_wait_for_the_flush() -> None:
    # the rows could not be dropped yet, so the same merge would come up for ever
    found = segments(100, marked={0: 100})
    assert plan(found, policy=KeepLast(1), flushed_seq=49) is None
    assert plan(found, policy=KeepLast(1), flushed_seq=50) == (0, 1)


def test_a_merge_is_not_repeated_while_its_cause_waits_in_the_memtable() -> None:
    with open_engine(MemoryEnvironment(), history=KeepLast(1)) as engine:
        for i in range(10):
            put(engine, i, b"old")
        engine.flush()
        for i in range(10):
            put(engine, i, b"new")
        assert not compact_once(core_of(engine))
        engine.flush()
        for _ in range(5):
            if not compact_once(core_of(engine)):
                break
        else:
            pytest.fail("merging never ends")


def test_the_backlog_is_what_waits_to_be_merged() -> None:
    assert backlog(segments(10, 10, 10), 4) == 0
    assert backlog(segments(*[10] * 13), 4) == 13
    assert backlog(segments(10**6, *[10] * 5), 4) == 5


def test_runs_that_nobody_will_merge_are_no_backlog() -> None:
    # or writes would wait for ever for a merge that is never planned
    found = segments(*[10] * 13)
    assert plan(found, fan_in=16) is None
    assert backlog(found, 16) == 0


# Vector files


def test_vector_files_that_are_mostly_garbage_are_rewritten() -> None:
    assert planned(vectors((100, 0, 50))) == []
    assert planned(vectors((100, 0, 0), (100, 0, 51))) == [1]


def test_the_past_is_separated_from_the_present() -> None:
    assert planned(vectors((100, 51, 0))) == [0]
    assert planned(vectors((100, 50, 0))) == []
    assert planned(vectors((100, 100, 0))) == [], "a file of the past only"
    assert planned(vectors((100, 51, 0)), flushed_seq=49) == [], "the log may still be lost"


def test_small_vector_files_are_merged_and_large_ones_left_alone() -> None:
    small, medium, large = (10, 0, 0), (100 * KIB, 0, 0), (1024 * KIB, 0, 0)
    assert planned(vectors(small, small, small)) == []
    assert planned(vectors(large, small, small, small, small)) == [1, 2, 3, 4]
    assert planned(vectors(medium, medium, medium, medium)) == [0, 1, 2, 3]
    assert planned(vectors(large, large, large, large)) == []
    assert planned(vectors(medium, medium, large, medium, medium)) == []


def test_twenty_batches_become_few_files() -> None:
    rows: list[int] = []
    for _ in range(20):  # of 50,000 x 384 float32, in rows of a KiB
        rows.append(75_000)
        while places := planned(vectors(*((count, 0, 0) for count in rows))):
            rows[places[0] : places[-1] + 1] = [sum(rows[places[0] : places[-1] + 1])]
    assert rows == [1_050_000, 300_000, 75_000, 75_000]
    assert planned_all(vectors(*((count, 0, 0) for count in rows))) == [[0, 1, 2, 3]]


@given(st.lists(st.integers(1, 2 * 1024 * KIB), max_size=30), st.integers(2, 9))
@settings(deadline=None)
def test_no_merge_makes_a_vector_file_above_the_limit(rows: list[int], fan_in: int) -> None:
    for _ in range(200):
        files = vectors(*((count, 0, 0) for count in rows))
        places = planned(files, fan_in)
        if not places:
            break
        first, last = places[0], places[-1] + 1
        assert places == list(range(first, last)) and len(places) >= max(fan_in, 3)
        together = sum(rows[first:last])
        assert together * KIB <= VECTOR_BYTES_MAX
        assert all(rows[place] * KIB < VECTOR_BYTES_MAX // fan_in for place in places)
        rows[first:last] = [together]
    else:
        pytest.fail("merging never ends")


def test_the_past_is_merged_with_the_past_only() -> None:
    now, past = (10, 1, 0), (10, 10, 0)
    assert planned(vectors(now, past, now, past, now, past, now)) == [0, 2, 4, 6]
    assert planned(vectors(now, past, past, now, past, past)) == [1, 2, 4, 5]
    assert planned(vectors(now, past, now, past, now, past)) == []


def test_compact_makes_one_file_of_the_present() -> None:
    now, past, unused = (10, 1, 0), (10, 10, 0), (10, 0, 1)
    assert planned_all([]) == []
    assert planned_all(vectors(now)) == [] == planned_all(vectors(past, now))
    assert planned_all(vectors(unused)) == [[0]]
    assert planned_all(vectors(now, past, unused, now)) == [[0, 2, 3]]
    assert planned_all(vectors(now, now, past, (10, 10, 1))) == [[0, 1], [3]]


@given(st.lists(st.integers(1, 5 * 1024 * KIB), max_size=20))
def test_compact_keeps_below_the_limit_and_is_done_at_once(rows: list[int]) -> None:
    groups = planned_all(vectors(*((count, 0, 0) for count in rows)))
    left = dict(enumerate(rows))
    for group in groups:
        assert len(group) > 1 and group == list(range(group[0], group[-1] + 1))
        left[group[0]] = sum(left.pop(place) for place in group)
        assert left[group[0]] * KIB <= VECTOR_BYTES_MAX
    after = [left[place] for place in sorted(left)]
    assert planned_all(vectors(*((count, 0, 0) for count in after))) == []
    if sum(rows) * KIB <= VECTOR_BYTES_MAX:
        assert len(after) == min(len(rows), 1)


@pytest.mark.parametrize("fan_in", [2, 3, 4])
def test_merging_vectors_ends_although_past_and_present_become_two_files(fan_in: int) -> None:
    # a merge may give two files; with a fan-in of two that was no progress, for ever
    environment = MemoryEnvironment()
    with open_engine(environment, fan_in=fan_in, dimension=4) as engine:
        for round_ in range(4):
            for i in range(10):
                put(engine, i, b"x", vec(round_, i, 1, 2))
            engine.flush()
        core = core_of(engine)
        for _ in range(20):
            if not compact_once(core):
                break
        else:
            pytest.fail("merging never ends")
