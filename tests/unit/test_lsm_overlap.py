"""Commits, and flushes, that fall into the middle of a flush or a merge are carried over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engramdb.lsm import KeepAll, KeepLast, StorageEngine, compaction, flush
from engramdb.lsm.compaction import merge_segments, merge_vectors
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.flush import flush_oldest
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    assert_consistent,
    columns,
    connect,
    contents,
    core_of,
    delete,
    disconnect,
    edge_set,
    key,
    open_engine,
    patch,
    put,
    searchable,
    vec,
)

Moment = tuple[Any, ...]


class Watched:
    """An engine, and what it looked like after each commit."""

    def __init__(self, **options: Any) -> None:
        self.disk = SimulatedDisk()
        self.engine = open_engine(self.disk, fan_in=50, bulk_bytes_min=1, **options)
        # nothing is flushed or merged but by the test
        core_of(self.engine).has_work = lambda: False  # type: ignore[method-assign]
        self.engine._maintenance.run_inline = lambda: None  # type: ignore[method-assign]
        self.seen: dict[int, Moment] = {}

    def look(self) -> None:
        self.seen[self.engine.last_seq] = moment(self.engine, self.engine.last_seq)

    def do(self, act: Callable[..., object], *arguments: Any) -> None:
        act(self.engine, *arguments)
        self.look()

    def first(self) -> None:
        """Rows for the rewrite to work on."""
        for i in range(8):
            self.do(put, i, b"first", vec(i, 1, 0, 0))
            self.do(connect, i, i + 1)
        self.do(put, 0, b"second", vec(0, 2, 0, 0))

    def meanwhile(self, round_: int) -> None:
        """One of each: a later version, a shared vector, a death, another edge, one edge less."""
        self.do(put, 1 + round_, b"meanwhile", vec(1, 3, 0, round_))
        self.do(patch, 5, b"patched %d" % round_)
        self.do(delete, 3 + round_)
        self.do(disconnect, 6, 7)
        self.do(connect, 6, 7, "Association", round_)
        self.do(put, 20 + round_, b"new", vec(9, 9, 9, round_))

    def check(self, floor: int = 0) -> None:
        engines = [self.engine, open_engine(self.disk.crash(()))]
        for engine in engines:
            for seq, expected in self.seen.items():
                if seq >= floor:
                    assert moment(engine, seq) == expected, f"at commit {seq}"
            assert_consistent(engine)
        engines[1].compact()
        for seq, expected in self.seen.items():
            if seq >= max(floor, engines[1].stats()["history_floor"]):
                assert moment(engines[1], seq) == expected, f"at commit {seq}, merged"
        assert_consistent(engines[1])
        for engine in engines:
            engine.close()


def moment(engine: StorageEngine, seq: int) -> Moment:
    snapshot = engine.at(seq)
    return contents(snapshot), edge_set(snapshot), searchable(snapshot)


def once(
    patch_: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object], *, after: bool
) -> None:
    """Let something happen just before, or after, the next call of a function."""
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        patch_.setattr(owner, name, real)
        if not after:
            act()
        result = real(*arguments, **named)
        if after:
            act()
        return result

    patch_.setattr(owner, name, wrapped)


POINTS = ["before the rows", "after the rows", "after the vectors", "before the manifest", "after"]


def interrupt(
    watched: Watched, patch_: pytest.MonkeyPatch, module: Any, point: str, act: Callable[[], object]
) -> None:
    core = core_of(watched.engine)
    owner, name = {
        "before the rows": (module, "write_rows"),
        "after the rows": (module, "write_rows"),
        "after the vectors": (module, "write_vectors"),
        "before the manifest": (core, "publish"),
        "after": (core, "publish"),
    }[point]
    once(patch_, owner, name, lambda: elsewhere(act), after=point.startswith("after"))


def elsewhere(act: Callable[[], object]) -> None:
    """In another thread, as it happens: none may write within a call of its own."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


@pytest.mark.parametrize("point", POINTS)
def test_commits_while_a_memtable_is_flushed(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    watched.first()
    core = core_of(watched.engine)
    interrupt(watched, monkeypatch, flush, point, lambda: watched.meanwhile(0))
    with core.write_lock:
        core.freeze()
    assert flush_oldest(core)
    assert len(watched.seen) == 23, "it did happen"
    watched.check()


@pytest.mark.parametrize("point", POINTS)
def test_commits_while_one_of_two_memtables_is_flushed(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    core = core_of(watched.engine)
    watched.first()
    with core.write_lock:
        core.freeze()
    watched.meanwhile(0)
    with core.write_lock:
        core.freeze()
    interrupt(watched, monkeypatch, flush, point, lambda: watched.meanwhile(1))
    assert flush_oldest(core)
    assert len(core.state.version.frozen) == 1
    watched.check()


@pytest.mark.parametrize("flushes", [False, True], ids=["commits", "commits and a flush"])
@pytest.mark.parametrize("point", ["before the rows", "after the rows", "before the manifest"])
@pytest.mark.parametrize("policy", [KeepAll(), KeepLast(1)], ids=["all", "last"])
def test_while_segments_are_merged(
    point: str, flushes: bool, policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(history=policy)
    core = core_of(watched.engine)
    watched.first()
    watched.engine.flush()
    watched.meanwhile(0)
    watched.engine.flush()
    watched.meanwhile(1)  # marks that only the log knows

    def act() -> None:
        if flushes and point != "before the manifest":  # where the merge holds the lock
            watched.engine.flush()
            watched.meanwhile(2)
            watched.do(StorageEngine.commit_columns, columns(range(3, 12)))
        watched.meanwhile(3)

    interrupt(watched, monkeypatch, compaction, point, act)
    merge_segments(core, core.state.version.segments[:2])
    watched.check(watched.engine.stats()["history_floor"])


@pytest.mark.parametrize("flushes", [False, True], ids=["commits", "commits and a flush"])
@pytest.mark.parametrize("point", ["after the vectors", "before the manifest", "after"])
def test_while_vector_files_are_merged(
    point: str, flushes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    core = core_of(watched.engine)
    watched.first()
    watched.engine.flush()
    watched.meanwhile(0)
    watched.engine.flush()
    watched.meanwhile(1)

    def act() -> None:
        if flushes and point == "after the vectors":
            watched.engine.flush()
            watched.meanwhile(2)
            watched.do(StorageEngine.commit_columns, columns(range(3, 12)))
        watched.meanwhile(3)

    interrupt(watched, monkeypatch, compaction, point, act)
    merge_vectors(core, core.state.version.vectors[:2])
    watched.check()


def test_a_snapshot_held_over_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    watched.first()
    watched.engine.flush()
    watched.engine.set_history(KeepLast(1))
    snapshot = watched.engine.snapshot()
    before = contents(snapshot), edge_set(snapshot), searchable(snapshot)
    interrupt(watched, monkeypatch, compaction, "after the rows", lambda: watched.meanwhile(0))
    watched.engine.compact()
    watched.meanwhile(1)
    watched.engine.compact()
    assert (contents(snapshot), edge_set(snapshot), searchable(snapshot)) == before
    assert len(snapshot.history(MEMORY, key(0))) == 2
    watched.check(watched.engine.stats()["history_floor"])
