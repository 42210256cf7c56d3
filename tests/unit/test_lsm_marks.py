"""Marks tell when a row ceased to be current: a prefix of them is what a moment may see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.lsm.columns import Column, pack
from engramdb.lsm.container import MARKS, ContainerReader, ContainerWriter
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.marks import Marks, Supersession
from engramdb.lsm.records import NEVER

UUID = bytes(16)
ROWS = 20

# For each row: 0 current, or the seq that superseded it, before (base) or after it was written.
bases = st.lists(st.integers(0, 30), min_size=ROWS, max_size=ROWS)
later = st.dictionaries(st.integers(0, ROWS - 1), st.integers(31, 60))


def marks_of(listed: dict[int, int]) -> Marks:
    marks = Marks()
    for row, seq in sorted(listed.items(), key=lambda item: item[1]):
        marks.add(row, seq)
    return marks


def open_marks(environment: MemoryEnvironment, size: int, fingerprint: bytes) -> ContainerReader:
    return ContainerReader(
        environment, "/m", kind=MARKS, database=UUID, number=1, size=size, fingerprint=fingerprint
    )


@given(later, st.integers(0, 70))
def test_a_moment_sees_a_prefix(listed: dict[int, int], seq: int) -> None:
    marks = marks_of(listed)
    expected = {row for row, at in listed.items() if at <= seq}
    assert set(marks.rows_until(seq).tolist()) == expected
    assert marks.count_until(seq) == len(expected)
    assert [marks.of(row) for row in range(ROWS)] == [listed.get(r, NEVER) for r in range(ROWS)]


@given(bases, later, st.integers(0, 70), st.lists(st.integers(0, ROWS - 1), max_size=8))
def test_base_and_marks_are_one_column(
    base: list[int], listed: dict[int, int], seq: int, rows: list[int]
) -> None:
    listed = {row: at for row, at in listed.items() if not base[row]}
    encoding, low, data = pack(np.array(base, np.uint64))
    superseded = Supersession(Column(encoding, low, ROWS, data), marks_of(listed))
    expected = [base[row] or listed.get(row, NEVER) for row in range(ROWS)]
    assert superseded.array().tolist() == expected
    assert [superseded.of(row) for row in range(ROWS)] == expected
    assert superseded.take(np.array(rows, np.int64)).tolist() == [expected[row] for row in rows]
    gone = [row for row in range(ROWS) if expected[row] <= seq]
    assert sorted(superseded.rows_until(seq).tolist()) == gone
    assert superseded.count_until(seq) == len(gone)


@given(later, st.integers(0, 70))
def test_a_file_holds_a_prefix(listed: dict[int, int], until: int) -> None:
    environment = MemoryEnvironment()
    marks = marks_of(listed)
    count = marks.count_until(until)
    size, fingerprint = marks.write(environment, "/m", UUID, 1, count)
    again = Marks()
    again.read(open_marks(environment, size, fingerprint), 1, ROWS)
    assert (len(again), again.persisted, again.number) == (count, count, 1)
    for row in range(ROWS):
        assert again.of(row) == (marks.of(row) if marks.of(row) <= until else NEVER)


def test_an_array_once_given_out_does_not_change_under_its_reader() -> None:
    marks = marks_of({3: 31})
    before = marks.rows_until(50)
    marks.add(4, 40)
    marks.extend(np.array([5, 6]), np.array([41, 42], np.uint64))
    assert before.tolist() == [3]
    assert marks.rows_until(41).tolist() == [3, 4, 5]
    assert marks.rows_until(99).tolist() == [3, 4, 5, 6]


def write_raw(rows: list[int], seqs: list[int]) -> ContainerReader:
    environment = MemoryEnvironment()
    writer = ContainerWriter(MARKS, UUID, 1)
    writer.column("row", np.array(rows, np.uint64))
    writer.column("seq", np.array(seqs, np.uint64))
    return open_marks(environment, *writer.write(environment, "/m"))


@pytest.mark.parametrize(
    ("rows", "seqs"),
    [([ROWS], [1]), ([2**64 - 1], [1]), ([1, 2], [1]), ([1, 2], [5, 4])],
    ids=["row outside", "row far outside", "unequal", "disorder"],
)
def test_marks_that_cannot_be_are_corruption(rows: list[int], seqs: list[int]) -> None:
    with pytest.raises(CorruptionError):
        Marks().read(write_raw(rows, seqs), 1, ROWS)
