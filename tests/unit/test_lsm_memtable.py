"""Memtable and arena: the newest versions and their vectors, as of any moment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.lsm import arena as arenas
from engramdb.lsm.arena import Arena, ArenaRun
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.memtable import NO_ROW, Memtable
from engramdb.lsm.records import EDGE, MEMORY, NEVER, PUT, TOMBSTONE, Operation
from engramdb.lsm.vector_file import inverse, norms_of
from tests.unit.lsm_support import Floats, key, vec


def test_each_moment_finds_its_version() -> None:
    table = Memtable(1, 1 << 20)
    for seq, (i, kind) in enumerate([(1, PUT), (2, PUT), (1, PUT), (1, TOMBSTONE), (2, PUT)], 1):
        table.append(Operation(MEMORY, key(i), kind, b"%d" % seq), seq, 100 + seq, 0)
    found = [[table.find(MEMORY, key(i), seq) for seq in range(7)] for i in (1, 2, 3)]
    assert found == [
        [NO_ROW, 0, 0, 2, 3, 3, 3],
        [NO_ROW, NO_ROW, 1, 1, 1, 4, 4],
        [NO_ROW] * 7,
    ]
    assert table.find(EDGE, key(1), 9) == NO_ROW, "classes do not mix"
    assert list(table.superseded) == [3, 5, 4, NEVER, NEVER]
    assert [table.rows_until(seq) for seq in range(7)] == [0, 1, 2, 3, 4, 5, 5]
    assert (table.seq_min, table.seq_max, len(table)) == (1, 5, 5)
    record = table.record(MEMORY, 2)
    assert record[:6] == (key(1), 3, 103, PUT, b"3", 0)


class Counting(list[int]):
    """A column that counts how often it is read."""

    reads = 0

    def __getitem__(self, row: int) -> int:  # type: ignore[override]
        self.reads += 1
        return super().__getitem__(row)


@pytest.mark.parametrize("others", [0, 1, 7, 100])
def test_an_old_version_among_very_many_is_found_in_few_steps(others: int) -> None:
    table, rows = Memtable(1, 1 << 30), 20_000
    for seq in range(1, rows + 1):
        i = 0 if seq % (others + 1) == 0 else 1 + seq % 50
        table.append(Operation(MEMORY, key(i), PUT, b""), seq, seq, 0)
    expected = {0: [NO_ROW] * (rows + 1), 3: [NO_ROW] * (rows + 1)}
    for i, column in expected.items():
        for seq in range(1, rows + 1):
            mine = table.keys[seq - 1] == key(i)
            column[seq] = seq - 1 if mine else column[seq - 1]
    table.previous = steps = Counting(table.previous)  # type: ignore[assignment]
    for seq in (*range(0, rows + 1, 97), *range(200)):
        for i, column in expected.items():
            steps.reads = 0
            assert table.find(MEMORY, key(i), seq) == column[seq]
            assert table.find(EDGE, key(i), seq) == NO_ROW
            assert steps.reads <= 2 * rows**0.5


def test_it_is_full_by_what_it_holds() -> None:
    table = Memtable(1, 5000)
    seq = 0
    while not table.is_full():
        seq += 1
        table.append(Operation(MEMORY, key(seq), PUT, bytes(800)), seq, seq, 0)
    assert 5 <= seq <= 6
    table = Memtable(1, 5000)
    table.append_vector(np.zeros(1250, np.float32), 1, key(1), 1)
    assert table.is_full()


def test_edges_are_found_from_both_ends_and_become_columns() -> None:
    table = Memtable(1, 1 << 20)
    for seq, (source, target, name) in enumerate([(1, 2, "a"), (2, 1, "b"), (1, 3, "a")], 1):
        operation = Operation(
            EDGE, key(90 + seq), PUT, b"", None, 0, key(source), key(target), name, seq / 2
        )
        table.append(operation, seq, seq, 0)
        table.append(Operation(MEMORY, key(seq), PUT, b"m"), seq, seq, 0)
    assert table.outgoing == {key(1): [0, 4], key(2): [2]}
    assert table.incoming == {key(2): [0], key(1): [2], key(3): [4]}
    columns = table.columns(4)
    assert columns.record_class.tolist() == [EDGE, MEMORY, EDGE, MEMORY]
    assert columns.edges.strength.tolist() == [0.5, 1.0]
    assert [columns.edges.types[int(c)] for c in columns.edges.type_code] == ["a", "b"]
    assert columns.edges.sources().tobytes() == key(1) + key(2)
    assert len(Memtable(1, 1).columns(0)) == 0


# The arena

EXTREMES = [0.0, 1e-30, 1e-16, 1.0, 1e16, 3e38, -3e38]


@given(
    st.lists(st.lists(st.sampled_from(EXTREMES), min_size=2, max_size=2), min_size=1, max_size=12),
    st.booleans(),
)
def test_norms_are_those_of_float64_and_extremes_are_listed(
    vectors: list[list[float]], at_once: bool
) -> None:
    arena = Arena(2, 100)
    matrix = np.array(vectors, np.float32)
    keys, seqs = [key(i) for i in range(len(matrix))], list(range(1, len(matrix) + 1))
    if at_once:
        arena.extend(matrix, seqs, keys, seqs)
    else:
        for i, vector in enumerate(matrix):
            arena.append(vector, i + 1, keys[i], i + 1)
    run = arena.run(len(matrix))
    assert run is not None and run.matrix.tobytes() == matrix.tobytes()
    wide = np.sqrt((matrix.astype(np.float64) ** 2).sum(1))
    with np.errstate(over="ignore"):
        assert norms_of(matrix).tolist() == wide.astype(np.float32).tolist()
    np.testing.assert_allclose(run.inverse_norms, inverse(norms_of(matrix)), rtol=1e-6)
    outside = np.flatnonzero((wide > 0) & ((wide < 1e-15) | (wide > 1e15)))
    assert run.extreme_rows.tolist() == outside.tolist()
    assert run.keys(np.arange(run.rows)) == keys


def test_a_row_is_found_by_its_number_and_cannot_be_written_to() -> None:
    arena = Arena(2, 100)
    for i, number in enumerate((3, 7, 2**63)):
        arena.append(vec(i, 1), number, key(i), i + 1)
    assert [arena.row_of(n) for n in (3, 7, 2**63, 1, 5, 2**64 - 1)] == [0, 1, 2, None, None, None]
    with pytest.raises(ValueError):
        arena.vector(1)[0] = 5


def test_growing_moves_nothing_under_a_reader() -> None:
    arena = Arena(3, 100)
    arena.append(vec(1, 2, 3), 1, key(1), 1)
    run = arena.run(1)
    assert run is not None
    for i in range(2, 500):
        arena.append(vec(i, i, i), i, key(i), i)
    assert run.matrix.tolist() == [[1, 2, 3]] and run.rows == 1
    assert run.hidden(1) is None


def model_of(history: list[int], seq: int) -> dict[bytes, float]:
    """Which vector each memory has at a seq, if commit i (from 1 on) writes memory history[i-1]."""
    return {key(i): float(at) for at, i in enumerate(history[:seq], 1)}


def seen(runs: list[ArenaRun], seq: int) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for run in runs:
        rows = np.arange(run.rows)
        hidden = run.hidden(seq)
        if hidden is not None:
            rows = np.delete(rows, hidden)
        matrix: Floats = run.matrix
        for owner, row in zip(run.keys(rows), rows.tolist(), strict=True):
            assert owner not in found, "visible in two rows"
            found[owner] = float(matrix[row, 0])
    return found


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.data())
def test_a_search_sees_each_memory_once_however_often_it_was_written(
    history: list[int], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arenas, "_DENSE_ROWS_MIN", 4)  # so that compact copies are made at once
        arena = Arena(2, 100)
        rows: dict[int, int] = {}
        held: list[tuple[int, list[ArenaRun]]] = []
        for seq, i in enumerate(history, 1):
            if i in rows:
                arena.marks.add(rows[i], seq)
            rows[i] = arena.append(vec(seq, i), seq, key(i), seq)
            at = data.draw(st.integers(1, seq))
            runs = arena.runs(at)
            assert seen(runs, at) == model_of(history, at), f"as of {at} of {seq}"
            held.append((at, runs))
        for at, runs in held:
            assert seen(runs, at) == model_of(history, at), "a run held does not change"


def test_a_memory_written_again_and_again_does_not_slow_the_search() -> None:
    arena = Arena(2, 100)
    for seq in range(1, 20_001):
        if seq > 10:
            arena.marks.add(seq - 11, seq)
        arena.append(vec(seq, 1), seq, key(seq % 10), seq)
    runs = arena.runs(20_000)
    assert sum(run.rows for run in runs) <= 2048
    assert len(seen(runs, 20_000)) == 10


# The cache of blocks


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = BlockCache(2)
    blocks = [(b"%d" % i, [0], [1]) for i in range(3)]
    cache.put((1, 0), blocks[0])
    cache.put((2, 0), blocks[1])
    assert cache.get((1, 0)) == blocks[0]
    cache.put((3, 0), blocks[2])
    assert cache.get((2, 0)) is None and cache.get((1, 0)) == blocks[0] and len(cache) == 2
    cache.drop(1)
    assert cache.get((1, 0)) is None and cache.get((3, 0)) == blocks[2]
    assert (cache.hits, cache.misses) == (3, 2)
