"""verify() finds contradictions between files that are each sound in themselves, as a bug in flush,
merge or purge would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from engramdb.lsm import StorageEngine
from engramdb.lsm.columns import CONSTANT, Column
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from engramdb.lsm.version import Version
from tests.unit.lsm_support import connect, core_of, delete, key, open_engine, patch, put, vec


@pytest.fixture
def engine() -> Iterator[StorageEngine]:
    """Two segments and two vector files, with marks, and a log."""
    opened = open_engine(SimulatedDisk())
    for i in range(9):
        put(opened, i, b"first %d" % i, vec(i, 1, 2, 3))
        connect(opened, i, i + 1)
    opened.flush()
    patch(opened, 1, b"patched")
    put(opened, 3, b"another vector", vec(3, 3, 3, 3))
    delete(opened, 2)
    opened.flush()
    put(opened, 5, b"in the log", vec(5, 5, 5, 5))
    patch(opened, 6, b"shared, in the log")
    yield opened
    opened.close()


def problems_with(engine: StorageEngine, change: Callable[[Version], Version]) -> tuple[str, ...]:
    """What verify() says of a version that was changed; it is sound before and after."""
    core = core_of(engine)
    assert engine.verify().ok
    sound = core.state
    core.state = sound._replace(version=change(sound.version))
    try:
        return engine.verify().problems
    finally:
        core.state = sound


def test_a_version_that_is_in_two_segments(engine: StorageEngine) -> None:
    problems = problems_with(
        engine, lambda version: version._replace(segments=(version.segments[0], *version.segments))
    )
    assert any("is there twice" in problem for problem in problems)


def test_a_vector_that_is_in_two_files(engine: StorageEngine) -> None:
    problems = problems_with(
        engine, lambda version: version._replace(vectors=(version.vectors[0], *version.vectors))
    )
    assert any("in two vector files" in problem for problem in problems)


def test_no_vectors_at_all(engine: StorageEngine) -> None:
    core_of(engine).freeze()
    engine.flush()
    problems = problems_with(engine, lambda version: version._replace(vectors=()))
    assert any("has no vector" in problem for problem in problems)


def test_a_version_that_ends_too_early(engine: StorageEngine) -> None:
    segment = core_of(engine).state.version.segments[0]
    row, _ = segment.find(MEMORY, key(7))
    assert engine.verify().ok
    segment.marks.add(row, engine.last_seq)
    problems = engine.verify().problems
    assert any(key(7).hex() in problem and "does not end where" in problem for problem in problems)


def test_a_mark_that_was_lost(engine: StorageEngine) -> None:
    core = core_of(engine)
    marks = core.state.version.segments[0].marks
    assert engine.verify().ok and len(marks)
    marks.rows, marks.seqs = marks.rows[:-1], marks.seqs[:-1]
    problems = engine.verify().problems
    assert any("does not end where its successor begins" in problem for problem in problems)


def test_a_vector_that_outlives_its_memory(engine: StorageEngine) -> None:
    marks = core_of(engine).state.version.vectors[0].marks
    assert engine.verify().ok and len(marks)
    marks.rows, marks.seqs = marks.rows[:-1], marks.seqs[:-1]
    problems = engine.verify().problems
    assert any("does not end when its vector does" in problem for problem in problems)


def test_a_vector_of_another_memory(engine: StorageEngine) -> None:
    file = core_of(engine).state.version.vectors[0]
    assert engine.verify().ok
    high = file.high.array().copy()
    high[[0, 1]] = high[[1, 0]]
    file.__dict__["high"] = Column(5, 0, len(high), high.tobytes())
    problems = engine.verify().problems
    assert any("has the vector of another memory" in problem for problem in problems)


def test_a_vector_that_was_born_too_late(engine: StorageEngine) -> None:
    file = core_of(engine).state.version.vectors[0]
    assert engine.verify().ok
    file.__dict__["born"] = Column(CONSTANT, engine.last_seq, file.rows, b"")
    problems = engine.verify().problems
    assert any("is older than its vector" in problem for problem in problems)


def test_edges_in_the_wrong_order(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = core_of(engine).state.version.segments[0].reader
    assert engine.verify().ok
    real = type(reader).column

    def column(self: object, name: str, rows: int | None = None) -> Column:
        found = real(self, name, rows)  # type: ignore[arg-type]
        if self is reader and name == "by.target":
            turned = np.ascontiguousarray(found.array()[::-1])
            return Column(5, 0, len(turned), turned.tobytes())
        return found

    monkeypatch.setattr(type(reader), "column", column)
    assert any("by.target does not sort" in problem for problem in engine.verify().problems)
