"""Who wants to know of changed vector files is told, after the fact and under no lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engramdb.lsm import StorageEngine
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.lsm_support import columns, core_of, key, open_engine, put, value, vec


class Told:
    """What was visible at each call."""

    def __init__(self) -> None:
        self.engine: StorageEngine | None = None
        self.calls: list[list[int]] = []
        self.threads: list[str] = []

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        files: list[int] = []
        if self.engine is not None:
            core = core_of(self.engine)
            for lock in (
                *(core.bulk_lock, core.compaction_lock, core.flush_lock),
                *(core.manifest_lock, core.write_lock, self.engine.derived.lock),
            ):
                if not core.options.background:
                    assert not lock.locked()
            files = [file.number for file in core.state.version.vectors]
        self.calls.append(files)


def opened(
    environment: MemoryEnvironment | SimulatedDisk, **options: object
) -> tuple[StorageEngine, Told]:
    told = Told()
    engine = open_engine(environment, on_files=told, **options)
    assert told.calls == [[]], "once when it is open"
    told.engine = engine
    told.calls.clear()
    return engine, told


def test_each_change_is_told_once_when_it_is_visible() -> None:
    engine, told = opened(MemoryEnvironment(), bulk_bytes_min=1, fan_in=3)

    def told_of(action: Callable[[], object]) -> int:
        told.calls.clear()
        action()
        files = [file.number for file in core_of(engine).state.version.vectors]
        assert told.calls in ([], [files])
        return len(told.calls)

    assert told_of(lambda: put(engine, 1, b"x", vec(1, 2, 3, 4))) == 0
    assert told_of(engine.flush) == 1
    assert told_of(engine.flush) == 0
    assert told_of(lambda: engine.commit_columns(columns(range(10, 15)))) == 1
    put(engine, 2, b"x", vec(1, 2, 3, 4))
    assert told_of(lambda: engine.checkpoint("/copy")) == 1
    assert told_of(lambda: put(engine, 3, b"without a vector")) == 1, "a merge was due"
    assert engine.stats()["vector_files"] < 3
    assert told_of(engine.flush) == 0
    engine.compact()
    assert told_of(engine.compact) == 0
    assert told_of(lambda: engine.purge([key(1)])) == 1
    assert told_of(lambda: engine.pin("name")) == 0
    put(engine, 4, b"x", vec(1, 2, 3, 4))
    told.calls.clear()
    engine.close()
    assert told.calls == [], "whoever closes it knows"


def test_a_commit_that_flushes_inline_tells() -> None:
    engine, told = opened(MemoryEnvironment(), memtable_bytes_max=2000)
    for i in range(40):
        put(engine, i, b"x" * 100, vec(i, 1))
    assert len(told.calls) > 2 and told.calls[-1] != told.calls[0]
    engine.close()


def test_what_is_stored_when_told_is_stored() -> None:
    stored: list[bool] = []
    engines: list[StorageEngine] = []

    def on_files() -> None:
        stored.extend(each.derived.store("x", {}, erasures=0) for each in engines)

    engine = open_engine(MemoryEnvironment(), memtable_bytes_max=2000, on_files=on_files)
    engines.append(engine)
    for i in range(40):
        put(engine, i, b"x" * 100, vec(i, 1))
    engine.flush()
    assert stored and all(stored)
    engine.close()


def test_threads_of_the_engine_tell_too(tmp_path: Path) -> None:
    told = Told()
    with open_engine(
        None, str(tmp_path / "db"), background=True, memtable_bytes_max=4000, on_files=told
    ) as engine:
        told.engine = engine
        for i in range(200):
            put(engine, i, b"x" * 100, vec(i, 1))
        deadline = time.monotonic() + 20
        while "engramdb_flush_loop" not in told.threads:
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.002)


def test_a_reader_is_told_when_it_follows(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with open_engine(None, path) as writer:
        put(writer, 1, b"x", vec(1, 2))
        told = Told()
        with open_engine(None, path, read_only=True, on_files=told) as reader:
            told.engine = reader
            assert told.calls == [[]]
            reader.refresh()
            assert len(told.calls) == 1
            writer.flush()
            assert len(told.calls) == 1
            reader.refresh()
            assert len(told.calls) == 2 and len(told.calls[1]) == 1
            reader.refresh()
            assert len(told.calls) == 2


@pytest.mark.parametrize("background", [False, True])
def test_what_it_raises_harms_nothing(background: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda given: raised.append(given.exc_value))

    def on_files() -> None:
        raise RuntimeError("a fault of another")

    disk = SimulatedDisk()
    with open_engine(
        disk, background=background, on_files=on_files, memtable_bytes_max=2000
    ) as engine:
        assert len(raised) == 1
        for i in range(60):
            put(engine, i, b"x" * 100, vec(i, 1))
        engine.flush()
        engine.compact()
        assert len(raised) > 1 and {str(each) for each in raised} == {"a fault of another"}
        assert engine.verify().ok and core_of(engine).poison is None
    with open_engine(disk) as again:
        assert all(value(again.latest(), i) == b"x" * 100 for i in range(60))
