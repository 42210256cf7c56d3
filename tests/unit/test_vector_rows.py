"""Single rows of a run of vectors: taken, and asked for their visibility, without the others."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.index.chosen import owned
from engramdb.index.without import Without, without
from engramdb.lsm import StorageEngine, VectorRun
from engramdb.lsm.chunks import Chunks
from engramdb.lsm.container import CHUNK_BYTES, ContainerReader
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.keys import from_list
from engramdb.lsm.marks import Marks
from engramdb.lsm.records import NEVER
from engramdb.lsm.vector_file import VectorFile
from engramdb.overlay import UnsavedVectors
from tests.unit.lsm_support import PATH, columns, core_of, key, open_engine, put, vec


def assert_agrees(run: VectorRun, seq: int, rng: random.Random) -> None:
    """Asked by rows it answers as hidden() and matrix do."""
    hidden = run.hidden(seq)
    seen = np.ones(run.rows, np.bool_)
    seen[[] if hidden is None else hidden] = False
    every = np.arange(run.rows)
    assert (run.are_visible(every, seq) == seen).all()
    some = np.array([rng.randrange(run.rows) for _ in range(5)], np.int64)
    assert (run.are_visible(some, seq) == seen[some]).all()
    assert run.are_visible(every[:0], seq).shape == (0,)
    assert run.visible_rows(seq) >= np.count_nonzero(seen)
    assert not run.is_all_visible(seq) or seen.all()
    taken = run.take(some)
    assert taken.dtype == np.float32 and taken.flags.c_contiguous
    assert (taken == run.matrix[some]).all() and not np.shares_memory(taken, run.matrix)
    assert run.take(every[:0]).shape == (0, run.dimension)


@pytest.mark.parametrize("seed", range(6))
def test_rows_answer_as_the_whole_run_does(seed: int) -> None:
    rng = random.Random(seed)
    with open_engine(
        MemoryEnvironment(), bulk_bytes_min=1, memtable_bytes_max=rng.choice([4000, 10**7])
    ) as engine:
        for round_ in range(120):
            if round_ % 40 == 17:
                engine.commit_columns(columns(range(20)))
            put(engine, rng.randrange(30), b"x", vec(round_, 1, 2, 3))
            if rng.random() < 0.05:
                engine.flush()
        for seq in [rng.randrange(1, engine.last_seq) for _ in range(20)] + [engine.last_seq]:
            runs = engine.at(seq).vector_runs()
            numbers = np.array([rng.randrange(200) for _ in range(9)], np.uint64)
            keys = from_list([key(rng.randrange(30)) for _ in range(9)])
            for run in (*runs, *without(runs, numbers), *owned(runs, keys, by_these=True)):
                assert_agrees(run, seq, rng)
            for run in runs:
                hidden = run.hidden(seq)
                shown = run.rows - (0 if hidden is None else len(hidden))
                assert run.visible_rows(seq) == shown, "exact"


def test_a_dense_copy_of_an_arena_answers_too() -> None:
    rng = random.Random(1)
    with open_engine(MemoryEnvironment()) as engine:
        for i in range(6000):
            put(engine, i % 50, b"x", vec(i, 1))
            if i % 500 == 0 or i > 5990:
                for run in engine.latest().vector_runs():
                    assert_agrees(run, engine.last_seq, rng)
        assert sum(run.rows for run in engine.latest().vector_runs()) < 5000, "there was a copy"


def test_what_a_transaction_wrote_is_all_visible() -> None:
    run = UnsavedVectors([key(1), key(2)], [vec(1, 2), vec(3, 4)])
    assert_agrees(run, 7, random.Random(1))
    assert run.is_all_visible(0)


def test_nothing_hidden_is_told_cheaply() -> None:
    with open_engine(MemoryEnvironment()) as engine:
        for i in range(10):
            put(engine, i, b"x", vec(i, 1))
        (arena,) = engine.latest().vector_runs()
        assert arena.is_all_visible(10)
        engine.flush()
        (file,) = engine.latest().vector_runs()
        assert file.is_all_visible(10) and not file.is_all_visible(9)
        assert Without(file, np.empty(0, np.int64)).is_all_visible(10)
        assert not Without(file, np.array([3])).is_all_visible(10)
        assert Without(file, np.array([3, 3])).visible_rows(10) == 9
        put(engine, 3, b"y", vec(0, 1))
        assert not file.is_all_visible(11) and file.is_all_visible(10)
        assert file.visible_rows(11) == 9 and file.visible_rows(10) == 10
        assert file.visible_rows(4) == 4


# What is checked


@pytest.fixture
def stored() -> Iterator[tuple[SimulatedDisk, StorageEngine, VectorFile]]:
    """A file of 3,000 x 100 float32: five chunks."""
    disk = SimulatedDisk()
    with open_engine(disk, bulk_bytes_min=1) as engine:
        engine.commit_columns(columns(range(3000), dimension=100))
        engine.close()
        with open_engine(disk) as again:
            (file,) = core_of(again).state.version.vectors
            yield disk, again, file


def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which chunks are checked from now on."""
    seen: list[int] = []
    real = ContainerReader.check_chunk

    def check(
        reader: ContainerReader, name: str, data: memoryview, chunk: int, expected: int
    ) -> None:
        seen.append(chunk)
        real(reader, name, data, chunk, expected)

    monkeypatch.setattr(ContainerReader, "check_chunk", check)
    return seen


def test_only_the_chunks_of_the_rows_are_checked_and_once(
    stored: tuple[SimulatedDisk, StorageEngine, VectorFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, file = stored
    seen = checked(monkeypatch)
    file.take(np.array([2999, 0, 1, 2998]))
    assert sorted(seen) == [0, 4]
    across = CHUNK_BYTES // 400  # begins in chunk 0, ends in chunk 1
    file.take(np.array([across]))
    assert sorted(seen) == [0, 1, 4]
    file.take(np.array([across, 5, 2999]))
    assert len(seen) == 3
    assert len(file.matrix) == 3000 and sorted(seen) == [0, 1, 2, 3, 4]
    file.take(np.arange(3000))
    assert len(seen) == 5


def test_damage_elsewhere_does_not_matter_and_damage_here_is_noticed(
    stored: tuple[SimulatedDisk, StorageEngine, VectorFile],
) -> None:
    disk, _, file = stored
    at = file.reader.section("matrix").offset + 2 * CHUNK_BYTES + 5
    disk.rot(f"{PATH}/vec/{file.number:06d}.vec", 8 * at)
    assert file.take(np.array([0, 2999])).shape == (2, 100)
    for _ in range(2):
        with pytest.raises(CorruptionError):
            file.take(np.array([0, 2 * CHUNK_BYTES // 400 + 3]))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4 * CHUNK_BYTES), st.data())
def test_all_chunks_of_a_row_are_checked(row_bytes: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, max(1, 8 * CHUNK_BYTES // row_bytes)))
    seen: set[int] = set()

    class Reader:
        def chunked(self, name: str, whole: memoryview | None) -> memoryview:
            return memoryview(bytes(0))

        def chunk_sums(self, name: str) -> list[int]:
            return [0] * -(-count * row_bytes // CHUNK_BYTES)

        def check_chunk(self, name: str, data: memoryview, chunk: int, expected: int) -> None:
            seen.add(chunk)

    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    expected = {
        chunk
        for row in rows
        for chunk in range(
            row * row_bytes // CHUNK_BYTES, ((row + 1) * row_bytes - 1) // CHUNK_BYTES + 1
        )
    }
    Chunks(Reader(), "m", row_bytes).check_rows(np.array(rows))  # type: ignore[arg-type]
    assert seen == expected
    seen.clear()
    chunks = Chunks(Reader(), "m", row_bytes)  # type: ignore[arg-type]
    chunks.check(min(rows), max(rows) + 1)
    assert expected <= seen and chunks.unchecked.isdisjoint(seen)
    seen.clear()
    chunks.check(rows[0], rows[0])
    assert not seen


# Marks


@given(
    st.lists(st.integers(0, 3), max_size=40), st.integers(0, 60), st.randoms(use_true_random=False)
)
@settings(max_examples=150, deadline=None)
def test_marks_are_found_by_row(steps: list[int], extra: int, rng: random.Random) -> None:
    marks, dead = Marks(), {}
    unmarked = list(range(100))
    rng.shuffle(unmarked)
    for seq, count in enumerate(steps, 1):
        for _ in range(count):
            if unmarked:
                row = unmarked.pop()
                marks.add(row, seq)
                dead[row] = seq
        asked = rng.randrange(1, seq + 1)
        rows = np.array([rng.randrange(100 + extra) for _ in range(7)])
        expected = [dead.get(row, NEVER) <= asked for row in rows.tolist()]
        assert marks.are_marked(rows, asked).tolist() == expected
