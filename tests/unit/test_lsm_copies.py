"""Forks and checkpoints: a life of their own, on the same blocks of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engramdb.errors import EngramError, InvalidInputError
from engramdb.lsm import KeepLast, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    connect,
    contents,
    core_of,
    delete,
    edge_set,
    open_engine,
    patch,
    put,
    value,
    vec,
)


def filled(environment: SimulatedDisk | None, path: str = PATH) -> StorageEngine:
    engine = open_engine(environment, path, bulk_bytes_min=1)
    for i in range(10):
        put(engine, i, b"origin", vec(i, 1, 2, 3))
    connect(engine, 1, 2)
    engine.flush()
    put(engine, 1, b"newer", vec(1, 1, 1, 1))
    patch(engine, 2, b"patched")
    delete(engine, 3)
    engine.commit_columns(columns(range(20, 30)))
    put(engine, 4, b"in the log")
    engine.pin("moment", 5)
    return engine


@pytest.mark.parametrize("kind", ["fork", "checkpoint"])
def test_it_is_the_database_of_that_moment(kind: str) -> None:
    disk = SimulatedDisk()
    engine = filled(disk)
    getattr(engine, kind)("/copy")
    after = disk.crash(())  # what it returned from is durable
    with open_engine(after, "/copy") as copy:
        assert contents(copy.latest()) == contents(engine.latest())
        assert edge_set(copy.latest()) == edge_set(engine.latest())
        assert copy.last_seq == engine.last_seq and copy.pins() == engine.pins()
        assert copy.changes(0) == engine.changes(0)
        assert contents(copy.at(7)) == contents(engine.at(7))
        assert copy.dimension == 4
        same = core_of(copy).manifest.database == core_of(engine).manifest.database
        assert same == (kind == "checkpoint")
        assert_consistent(copy)
    engine.close()


def test_both_go_their_own_ways() -> None:
    disk = SimulatedDisk()
    origin = filled(disk)
    origin.fork("/fork")
    fork = open_engine(disk, "/fork", bulk_bytes_min=1)
    for engine, payload in ((origin, b"of origin"), (fork, b"of fork")):
        put(engine, 1, payload, vec(9, 9, 9, 9))
        put(engine, 50, payload, vec(5, 5, 5, 5))
        engine.commit_columns(columns(range(25, 35), payload))
        engine.flush()
        put(engine, 2, payload)

    def check() -> None:
        for engine, payload in ((origin, b"of origin"), (fork, b"of fork")):
            assert [value(engine.latest(), i) for i in (1, 2, 50)] == [payload] * 3
            assert value(engine.latest(), 26) == payload + b"26"
            assert value(engine.latest(), 20) == b"bulk20"
            assert_consistent(engine)

    check()
    origin.set_history(KeepLast(1))
    origin.compact()
    check()
    assert value(fork.at(13), 1) == b"newer", "the origin's retention is not the fork's"
    fork.set_history(KeepLast(1))
    fork.compact()
    check()
    origin.close()
    fork.close()
    for path in (PATH, "/fork"):
        with open_engine(disk, path) as engine:
            assert_consistent(engine)


def test_a_fork_of_a_fork() -> None:
    disk = SimulatedDisk()
    with filled(disk) as origin:
        origin.fork("/fork")
        with open_engine(disk, "/fork") as fork:
            put(fork, 1, b"fork")
            fork.fork("/fork2")
            with open_engine(disk, "/fork2") as second:
                assert value(second.latest(), 1) == b"fork"
                second.compact()
                assert_consistent(second)
            assert fork.stats()["copies"] == ["/fork2"]
        assert origin.stats()["copies"] == ["/fork"]


def test_files_are_shared_by_hard_links(tmp_path: Path) -> None:
    path, fork = tmp_path / "db", tmp_path / "fork"
    with filled(None, str(path)) as engine:
        engine.fork(str(fork))
        shared = 0
        for kind in ("seg", "vec"):
            for name in os.listdir(fork / kind):
                mine, theirs = (path / kind / name).stat(), (fork / kind / name).stat()
                assert mine.st_ino == theirs.st_ino
                shared += 1
        assert shared >= 4
        for name in os.listdir(path / "seg"):
            assert (fork / "seg" / name).exists(), "everything live was linked"
    with open_engine(None, str(fork)) as copy:
        copy.compact()
        assert_consistent(copy)
    with open_engine(None, str(path)) as engine:
        assert_consistent(engine)


def test_where_links_do_not_reach_files_are_copied() -> None:
    disk = SimulatedDisk()
    with filled(disk) as engine:
        held = contents(engine.latest())
        real = disk.link

        def link(source: str, destination: str) -> None:
            if destination.startswith("/fork") and not source.startswith("/fork"):
                raise OSError(errno.EXDEV, "another device", destination)
            real(source, destination)

        disk.link = link  # type: ignore[method-assign]
        engine.fork("/fork")
    disk.link = real  # type: ignore[method-assign]
    with open_engine(disk.crash(()), "/fork") as fork:
        assert contents(fork.latest()) == held
        assert_consistent(fork)


def test_a_copy_is_recorded_before_there_is_anything_in_it() -> None:
    # so that an erasure names it, whatever happens while it is made
    disk = SimulatedDisk()
    engine = filled(disk)
    engine.flush()
    disk.fail("link", 3)  # the first publishes the record, the others are of the copy
    with pytest.raises(EngramError, match="unharmed"):
        engine.fork("/fork")
    disk.heal()
    put(engine, 1, b"still writable")
    after = disk.crash(())
    with open_engine(after) as again:
        assert after.exists("/fork") and again.stats()["copies"] == ["/fork"]
        assert_consistent(again)


def test_a_directory_in_use_is_not_touched() -> None:
    disk = SimulatedDisk()
    with filled(disk) as engine:
        disk.make_directory("/full")
        disk.open("/full/file", "x").write_at(0, b"precious")
        for path in ("/full", PATH, "/full/file"):
            with pytest.raises(InvalidInputError, match="path"):
                engine.fork(path)
        assert disk.list("/full") == ["file"]
        disk.make_directory("/empty")
        engine.checkpoint("/empty")
        assert engine.stats()["copies"] == ["/empty"]
        put(engine, 1, b"still writable")
    with open_engine(disk, "/empty") as copy:
        assert_consistent(copy)


def test_an_empty_database_can_be_forked() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        engine.fork("/fork")
        with open_engine(disk, "/fork") as fork:
            assert put(fork, 1, b"x").seq == 1
        assert engine.last_seq == 0
