"""Other processes read while one writes: always a whole commit, never the future, never torn."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engramdb.errors import InvalidInputError, ReadOnlyError
from engramdb.lsm import Batch, KeepLast, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.purge import reader_processes
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    contents,
    core_of,
    key,
    open_engine,
    put,
    start_python,
    value,
    vec,
)

# Opens read-only, then for each line on its input: refresh, look at everything, report.
READER = """
import json, sys
from engramdb.lsm import StorageEngine
from tests.unit.lsm_support import assert_consistent, contents
engine = StorageEngine.open(sys.argv[1], read_only=True)
print(json.dumps("open"), flush=True)
held = engine.latest()
before = contents(held)
for line in sys.stdin:
    if line.strip() == "verify":
        assert_consistent(engine)
        print(json.dumps("ok"), flush=True)
        continue
    seq = engine.refresh()
    found = contents(engine.latest())
    assert contents(held) == before, "an old snapshot moved"
    held, before = engine.latest(), found
    print(json.dumps([seq, sorted(p.decode() for p, _, _ in found.values())]), flush=True)
engine.close()
"""

# Commits pairs that belong together, with all the maintenance there is, until it is told to stop.
WRITER = """
import sys, threading
from engramdb.lsm import Batch, KeepLast, Options, StorageEngine
from tests.unit.lsm_support import columns, key, vec
engine = StorageEngine.open(sys.argv[1], Options(
    memtable_bytes_max=4096, log_allocate_bytes=4096, bulk_bytes_min=1, history=KeepLast(2)))
print("open", flush=True)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
i = 0
while not stop.is_set():
    i += 1
    batch = Batch()
    for j in range(4):
        batch.put(key(j), b"%d" % i, vec(i, j, 0, 0))
    engine.commit(batch, sync=i % 3 == 0)
    if i % 50 == 0:
        engine.commit_columns(columns(range(100, 104), b"%d-" % i))
    if i % 40 == 0:
        engine.compact()
engine.close()
print(i, flush=True)
"""


class Reader:
    """A process that reads."""

    def __init__(self, path: str) -> None:
        self.process: subprocess.Popen[str] = start_python(READER, path)
        assert self.answer() == "open"

    def answer(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the reader has died"
        return json.loads(line)

    def ask(self, what: str = "") -> object:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


def payloads(engine: StorageEngine) -> list[str]:
    return sorted(p.decode() for p, _, _ in contents(engine.latest()).values())


def test_it_follows_through_flush_bulk_compaction_and_purge(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    engine = open_engine(None, path, bulk_bytes_min=1)
    put(engine, 1, b"one", vec(1, 0, 0, 0))
    reader = Reader(path)
    steps: list[Callable[[], object]] = [
        lambda: put(engine, 2, b"two", vec(2, 0, 0, 0)),
        lambda: put(engine, 1, b"one again", vec(1, 1, 0, 0)),
        engine.flush,
        lambda: put(engine, 3, b"three"),
        lambda: engine.commit_columns(columns(range(10, 20))),
        lambda: engine.set_history(KeepLast(1)),
        engine.compact,
        lambda: engine.purge([key(2), key(12)]),
        lambda: put(engine, 4, b"four", vec(0, 0, 0, 4)),
    ]
    for step in steps:
        step()
        assert reader.ask() == [engine.last_seq, payloads(engine)]
    assert reader.ask("verify") == "ok"
    assert reader_processes(core_of(engine)) == (reader.process.pid,)
    reader.close()
    assert reader_processes(core_of(engine)) == ()
    assert os.listdir(tmp_path / "db" / "readers") == []
    engine.close()


def test_it_never_sees_half_a_commit_nor_goes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with start_python(WRITER, path) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "open\n"
        last, looks = 0, 0
        engine = None
        deadline = time.monotonic() + 20
        while looks < 50:
            assert time.monotonic() < deadline, "the reader does not follow"
            if engine is None:
                engine = open_engine(None, path, read_only=True)
                seq = engine.last_seq
            else:
                seq = engine.refresh()
            assert seq >= last
            last, looks = seq, looks + (seq > 0)
            found = [value(engine.latest(), j) for j in range(4)]
            assert len(set(found)) == 1, f"half of commit {seq}: {found}"
            bulk = [value(engine.latest(), j) for j in range(100, 104)]
            assert len({b and b.split(b"-")[0] for b in bulk}) == 1
            if looks % 10 == 9:
                assert_consistent(engine)
                engine.close()
                engine = None
        if engine is not None:
            engine.close()
        out, _ = writer.communicate("\n", timeout=30)
        commits = int(out)
        assert last <= commits + commits // 50
    with open_engine(None, path) as after:
        assert value(after.latest(), 0) == b"%d" % commits
        assert_consistent(after)


def test_it_does_not_run_ahead_of_the_writer(tmp_path: Path) -> None:
    # a record that stands in the log but was not yet published is not there
    path = str(tmp_path / "db")
    engine = open_engine(None, path)
    put(engine, 1, b"seen")
    core, shown = core_of(engine), []
    show = core.show

    def show_late() -> None:
        with open_engine(None, path, read_only=True) as reader:
            shown.append((reader.last_seq, value(reader.latest(), 2)))
        show()

    core.show = show_late  # type: ignore[method-assign]
    put(engine, 2, b"written")
    assert shown == [(1, None)]
    core.show = show  # type: ignore[method-assign]
    with open_engine(None, path, read_only=True) as reader:
        assert value(reader.latest(), 2) == b"written"
    engine.close()


def test_it_cannot_write() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        put(engine, 1, b"x")
        reader = open_engine(disk, read_only=True)
        batch = Batch()
        batch.put(key(2), b"never")
        writes = [
            lambda: reader.commit(batch),
            lambda: reader.commit_columns(columns(range(3))),
            lambda: reader.pin("p"),
            lambda: reader.unpin("p"),
            lambda: reader.set_history(KeepLast(1)),
            lambda: reader.wait_durable(1),
            lambda: reader.purge([key(1)]),
            reader.flush,
            reader.compact,
        ]
        for write in writes:
            with pytest.raises(ReadOnlyError):
                write()
        assert reader.read_only and value(reader.latest(), 1) == b"x"
        reader.close()
        assert engine.verify().ok


def test_without_a_writer_it_changes_nothing() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"x")
    disk = disk.crash(())
    writes = disk.calls["write_at"]
    with open_engine(disk, read_only=True) as reader:
        assert value(reader.latest(), 1) == b"x"
        assert reader.refresh() == 1 and reader.verify().ok
    assert disk.calls["write_at"] == writes
    assert disk.list(f"{PATH}/readers") == []


def test_where_there_is_no_database_there_is_nothing_to_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidInputError, match="no database"):
            open_engine(None, str(path), read_only=True)
    assert not (tmp_path / "none").exists() and list(tmp_path.iterdir()) == []


def test_a_killed_reader_is_forgotten(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with open_engine(None, path) as engine:
        put(engine, 1, b"x")
        reader = Reader(path)
        assert engine.purge([key(5)]).readers == (reader.process.pid,)
        reader.process.kill()
        reader.process.wait(timeout=20)
        assert engine.purge([key(5)]).readers == ()
        for stream in (reader.process.stdin, reader.process.stdout):
            assert stream is not None
            stream.close()


def test_a_reader_that_closes_during_a_purge_stops_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # its file is gone when the purge wants to remove it: that poisoned the writer
    path = str(tmp_path / "db")
    with open_engine(None, path) as engine:
        put(engine, 1, b"x")
        reader = open_engine(None, path, read_only=True)
        environment = core_of(engine).environment
        is_held = environment.lock_is_held

        def closed_meanwhile(name: str) -> bool:
            reader.close()
            return is_held(name)

        monkeypatch.setattr(environment, "lock_is_held", closed_meanwhile)
        assert engine.purge([key(5)]).readers == ()
        monkeypatch.undo()
        put(engine, 2, b"goes on")


def test_a_purge_while_a_reader_closes_stops_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the purge finds a file that nobody locks and removes it before the reader does
    path = str(tmp_path / "db")
    with open_engine(None, path) as engine:
        put(engine, 1, b"x")
        reader = open_engine(None, path, read_only=True)
        lock = core_of(reader).file_lock
        assert lock is not None

        class Lock:
            def release(self) -> None:
                assert lock is not None
                lock.release()
                assert engine.purge([key(5)]).readers == ()

        core_of(reader).file_lock = Lock()  # type: ignore[assignment]
        reader.close()
        assert os.listdir(tmp_path / "db" / "readers") == []


def test_a_bulk_load_that_a_reader_saw_survives_a_power_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the name of its manifest was visible to others before the directory was synced
    disk = SimulatedDisk()
    engine = open_engine(disk, bulk_bytes_min=1)
    put(engine, 1, b"before")
    reader = StorageEngine.open(PATH, environment=disk, read_only=True)
    seen: list[int] = []
    real = SimulatedDisk.sync_directory

    def sync_directory(on: SimulatedDisk, path: str) -> None:
        if path == PATH and not seen:
            seen.append(0)  # once: the reader syncs, too
            seen[0] = reader.refresh()
            seen.append(StorageEngine.open(PATH, environment=disk.crash([])).last_seq)
        real(on, path)

    engine.flush()
    monkeypatch.setattr(SimulatedDisk, "sync_directory", sync_directory)
    engine.commit_columns(columns(range(2, 5)))
    shown, survived = seen
    assert shown == survived == 2
