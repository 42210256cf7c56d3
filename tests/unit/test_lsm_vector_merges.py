"""Merges of vector files: few files of now, in little memory, and given up when it is closed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from engramdb.errors import ClosedError
from engramdb.lsm import rewrite
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.keys import Rows
from engramdb.lsm.vector_file import Matrix, VectorFile
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    contents,
    core_of,
    open_engine,
    put,
    vec,
)


def test_compact_merges_vector_files_that_are_few(tmp_path: Path) -> None:
    with open_engine(None, str(tmp_path / "db"), dimension=4) as engine:
        for i in range(3):
            put(engine, i, b"x", vec(i, 1, 2, 3))
            engine.flush()
        put(engine, 0, b"y", vec(9, 9, 9, 9))
        assert engine.stats()["vector_files"] == 3
        engine.compact()
        assert engine.stats()["vector_files"] == 2, "one of them of the past"
        assert sum(run.rows for run in engine.latest().vector_runs()) == 3
        assert_consistent(engine)
        assert_consistent(engine, engine.at(3))
        number = core_of(engine).manifest.number
        engine.compact()
        assert core_of(engine).manifest.number == number, "there was nothing left to do"


# Part by part

WIDE = 16_384  # a chunk has four rows of this dimension, and a part must fill whole chunks


class Paused:
    """Holds a merge of vectors before a part of it."""

    def __init__(self, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.parts = 0
        real = VectorFile.take

        def take(file: VectorFile, rows: Rows) -> Matrix:
            self.parts += 1
            if self.parts == part:
                self.reached.set()
                assert self.go_on.wait(20)
            return real(file, rows)

        monkeypatch.setattr(VectorFile, "take", take)


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("asked", [True, False], ids=["compact", "background"])
def test_a_merge_of_vectors_gives_up_when_the_database_is_closed(
    part: int, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "rows_per_part", lambda dimension: 4)
    disk = SimulatedDisk()
    with open_engine(disk, bulk_bytes_min=1, fan_in=9) as engine:
        for start in (0, 10, 20):
            engine.commit_columns(columns(range(start, start + 10), dimension=WIDE))
        for i in range(12):  # the past goes into a file of its own, written second
            put(engine, i, b"new", np.full(WIDE, i + 0.5, np.float32))
        engine.flush()
        held = contents(engine.latest())
    paused = Paused(part, monkeypatch)
    engine = open_engine(disk, background=not asked, fan_in=3)
    raised: list[BaseException] = []

    def compact() -> None:
        try:
            engine.compact()
        except BaseException as error:
            raised.append(error)

    compacting = threading.Thread(target=compact)
    if asked:
        compacting.start()
    else:
        core_of(engine).wake()
    assert paused.reached.wait(20)
    assert [name for name in disk.list(f"{PATH}/tmp") if name.endswith(".vec")]
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not core_of(engine).closing:
        pass
    parts = paused.parts
    paused.go_on.set()
    closing.join(20)
    assert not closing.is_alive()
    assert paused.parts < parts + 4, "no further part was begun: each takes from four files at most"
    assert core_of(engine).poison is None and disk.list(f"{PATH}/tmp") == []
    if asked:
        compacting.join(20)
        assert [type(each) for each in raised] == [ClosedError]
    with open_engine(disk) as again:
        assert contents(again.latest()) == held and again.verify().ok
        again.compact()
        assert contents(again.latest()) == held
        assert_consistent(again)


def test_a_merge_takes_its_vectors_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "rows_per_part", lambda dimension: 8)
    with open_engine(MemoryEnvironment(), bulk_bytes_min=1) as engine:
        for start in (0, 30):
            engine.commit_columns(columns(range(start, start + 30), dimension=WIDE))
        taken: list[int] = []
        real = VectorFile.take
        monkeypatch.setattr(
            VectorFile, "take", lambda file, rows: (taken.append(len(rows)), real(file, rows))[1]
        )
        monkeypatch.setattr(VectorFile, "matrix", property(lambda file: pytest.fail("all of it")))
        engine.compact()
        assert sum(taken) == 60 and max(taken) == 8
