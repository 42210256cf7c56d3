"""The rows of memories, and some rows of a run as a run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engramdb.index.chosen import Chosen, owned
from engramdb.index.exact import search
from engramdb.index.owners import KnownOwners, Owners
from engramdb.lsm.keys import from_list, split
from tests.unit.lsm_support import key
from tests.unit.test_late_interaction import Run

Rows = npt.NDArray[np.int64]


def run_of(numbers: Rows, seed: int = 1) -> Run:
    """A row for each number of a memory; every fifth row is hidden."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((len(numbers), 4)).astype(np.float32)
    return Run([(key(n), vectors[i], i % 5 != 4) for i, n in enumerate(numbers.tolist())], 4)


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("wanted", [[], [3], [0, 17, 39, 99], list(range(0, 40, 2))])
def test_the_rows_of_some_memories(is_sorted: bool, wanted: list[int]) -> None:
    numbers = np.random.default_rng(5).integers(0, 40, 200)
    if is_sorted:
        numbers.sort()
    run = run_of(numbers)
    owners = Owners(*run.owners())
    high, low = split(from_list([key(n) for n in wanted]).reshape(-1, 16))
    expected = np.isin(numbers, wanted).nonzero()[0]
    assert owners.rows_of(high, low).tolist() == expected.tolist()
    assert len(owners.high) == len(np.unique(numbers))
    of_rows = list(zip(owners.high[owners.memory], owners.low[owners.memory], strict=True))
    assert of_rows == list(zip(*run.owners(), strict=True))


def test_owners_are_kept_as_long_as_there_is_the_file() -> None:
    one, other, known = run_of(np.arange(5)), run_of(np.arange(9)), KnownOwners()
    one.file, other.file = 1, 2  # type: ignore[attr-defined]
    kept = known.of(one, {1, 2})
    assert known.of(one, {1, 2}) is kept
    assert len(known.of(other, {2}).high) == 9  # file 1 is gone
    assert known.of(one, {1, 2}) is not kept
    assert known.of(other, set()) is not known.of(other, set())  # nothing is kept of the unknown


def test_chosen_rows_are_a_run() -> None:
    numbers = np.arange(60) // 3
    run = run_of(numbers)
    run.matrix[6] = 1e20
    run = Run([(key(n), run.matrix[i], i % 5 != 4) for i, n in enumerate(numbers.tolist())], 4)
    rows = np.array([4, 6, 7, 20, 24, 59])
    part = Chosen(run, rows)
    assert part.rows == 6 and part.file == 0
    assert part.matrix.tolist() == run.matrix[rows].tolist()
    assert part.take(np.array([1, 3])).tolist() == run.matrix[[6, 20]].tolist()
    assert part.extreme_rows.tolist() == [1]
    assert part.hidden(1) is not None and part.hidden(1).tolist() == [0, 4, 5]  # type: ignore
    assert part.are_visible(np.array([0, 1, 4]), 1).tolist() == [False, True, False]
    assert part.keys(np.array([2, 5])) == run.keys(np.array([7, 59]))
    assert [each.tolist() for each in part.owners()] == [
        each[rows].tolist() for each in run.owners()
    ]
    query = np.array([1, 2, -1, 0], np.float32)
    seen = {int(n) for n in numbers[[6, 7, 20]]}
    assert {each for each, _ in search([part], 1, query, 10, -1.0)} == {key(n) for n in seen}


def test_few_memories_are_gathered_and_many_masked() -> None:
    run = run_of(np.arange(1000))
    run.file = 3  # type: ignore[attr-defined]
    keys = [key(n) for n in range(1000)]
    query = np.array([1, 2, -1, 0], np.float32)
    everything = search([run], 1, query, 1000, -1.0)
    for count, is_gathered in ((0, True), (10, True), (900, False)):
        chosen = from_list(keys[:count]).reshape(-1, 16)
        for known, coded in ((None, set[int]()), (KnownOwners(), {3})):
            found = owned([run], chosen, by_these=True, known=known, coded=coded)
            assert all(isinstance(each, Chosen) for each in found) == is_gathered
            wanted = [hit for hit in everything if hit[0] in keys[:count]]
            assert search(found, 1, query, 1000, -1.0) == wanted
            found = owned([run], chosen, by_these=False, known=known, coded=coded)
            wanted = [hit for hit in everything if hit[0] not in keys[:count]]
            assert search(found, 1, query, 1000, -1.0) == wanted
