"""Ctrl-C at every place where the interpreter looks for it: nobody hangs, nothing is lost.

CPython raises KeyboardInterrupt in the main thread at the beginning of a Python function, when a C
function has returned, and at the end of a loop's body. A profile function is called at the first
two of these places, and raises at the nth of them; all loops of the engine call something.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from engramdb import Database, MemoryNode
from engramdb.errors import EngramError, StoragePoisonedError
from engramdb.lsm import Batch, Commit, StorageEngine
from engramdb.lsm.committer import Committer
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    assert_consistent,
    columns,
    contents,
    core_of,
    key,
    open_engine,
    put,
    value,
    vec,
)

WAIT_S = 30.0
PLACES_MAX = 120  # of one action; evenly spread if it has more
COMMITS_MAX = 500  # of a thread that is not interrupted
FIRST = 100  # the other thread saves the memories from this number on


class Interruption:
    """Raises at the nth place in the engine. Only the thread that starts it is interrupted."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return") and "/engramdb/lsm/" in frame.f_code.co_filename:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def during(self, act: Callable[[], object]) -> bool:
        """Whether `act` was interrupted; a poisoned engine may say that in its own way."""
        sys.setprofile(self)
        try:
            act()
        except KeyboardInterrupt:
            pass
        except EngramError:
            assert self.left <= 0
        finally:
            sys.setprofile(None)
        return self.left <= 0


ACTIONS: dict[str, Callable[[StorageEngine], object]] = {
    "commit": lambda engine: put(engine, 1, b"new", vec(1, 2, 3, 4)),
    "columns": lambda engine: engine.commit_columns(columns(range(4))),
    "flush": lambda engine: engine.flush(),
    "compact": lambda engine: engine.compact(),
    "purge": lambda engine: engine.purge([key(1)]),
    "pin": lambda engine: engine.pin("now"),
}


def prepared() -> tuple[SimulatedDisk, StorageEngine]:
    disk = SimulatedDisk()
    engine = open_engine(disk, bulk_bytes_min=1)
    for i in range(3):
        put(engine, i, b"old", vec(i, 1, 1, 1))
    engine.flush()
    put(engine, 1, b"newer", vec(5, 1, 1, 1))
    return disk, engine


def places_of(act: Callable[[StorageEngine], object]) -> int:
    """How many there are; the action is done once, uninterrupted."""
    _, engine = prepared()
    counting = Interruption(1 << 60)
    assert not counting.during(lambda: act(engine))
    engine.close()
    return (1 << 60) - counting.left


@pytest.mark.parametrize("name", ACTIONS)
def test_whatever_is_interrupted_what_was_acknowledged_is_there(name: str) -> None:
    """Before, Ctrl-C while save_columns() published its manifest gave its number away twice."""
    act = ACTIONS[name]
    disk, engine = prepared()
    before = contents(engine.latest())
    act(engine)
    after = contents(engine.latest())
    engine.close()
    places = places_of(act)
    interrupted = 0
    for nth in range(1, places + 1, 1 + places // PLACES_MAX):
        disk, engine = prepared()
        interrupted += Interruption(nth).during(lambda engine=engine: act(engine))  # type: ignore[misc]
        seen = contents(engine.latest())
        assert seen in (before, after), f"{name}, interrupted at {nth}: half of it is seen"
        poisoned = False
        try:
            for i in range(10, 13):
                put(engine, i, b"later", vec(i, 0, 0, 0))
            engine.flush()
        except StoragePoisonedError:
            poisoned = True
        for survivor in (disk.crash(()), disk):
            if survivor is disk:
                engine.close()
            with open_engine(survivor) as again:
                found = contents(again.latest())
                later = {key(i) for i in range(10, 13)} & found.keys()
                rest = {k: v for k, v in found.items() if k not in later}
                assert rest in (before, after), f"{name}, interrupted at {nth}"
                assert seen == before or rest == after, f"{name}, interrupted at {nth}: undone"
                assert poisoned or len(later) == 3, f"{name}, interrupted at {nth}: lost {later}"
                assert_consistent(again)
    assert interrupted > min(places, PLACES_MAX) // 2


def meanwhile(
    engine: StorageEngine, count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[threading.Thread], dict[int, object]]:
    """Threads that queue up behind the first commit that is made from now on, and what they got."""
    committer = engine._committer
    outcomes: dict[int, object] = {}
    threads: list[threading.Thread] = []
    real = committer._commit_group

    def save(number: int) -> None:
        try:
            outcomes[number] = put(engine, number, b"meanwhile")
        except BaseException as error:
            outcomes[number] = error

    def commit_group(group: list[Any]) -> None:
        monkeypatch.setattr(committer, "_commit_group", real)
        for number in range(FIRST, FIRST + count):
            threads.append(threading.Thread(target=save, args=[number], daemon=True))
            threads[-1].start()
            deadline = time.monotonic() + WAIT_S
            while len(committer._queue) <= number - FIRST:
                assert time.monotonic() < deadline
                time.sleep(0)
        real(group)

    monkeypatch.setattr(committer, "_commit_group", commit_group)
    return threads, outcomes


def check_others(
    disk: SimulatedDisk,
    engine: StorageEngine,
    threads: list[threading.Thread],
    outcomes: dict[int, object],
    where: str,
) -> None:
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), f"{where}: another thread waits for ever"
    for outcome in outcomes.values():
        assert isinstance(outcome, Commit | EngramError), f"{where}: {outcome!r}"
    late: list[object] = []
    last = threading.Thread(target=lambda: late.append(_outcome(engine, 99)), daemon=True)
    last.start()
    last.join(WAIT_S)
    assert late, f"{where}: the lead is lost"
    outcomes[99] = late[0]
    for thread in threads:  # they were started by the last one, if the first came to nothing
        thread.join(WAIT_S)
        assert not thread.is_alive(), f"{where}: another thread waits for ever"
    with open_engine(disk.crash(())) as again:
        for number, outcome in outcomes.items():
            if isinstance(outcome, Commit):
                record = again.latest().get(MEMORY, key(number))
                assert record is not None and record.seq == outcome.seq, f"{where}: {number} lost"
    engine.close()


def _outcome(engine: StorageEngine, number: int) -> object:
    try:
        return put(engine, number, b"late")
    except EngramError as error:
        return error


def test_a_leader_interrupted_anywhere_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, an interruption between taking the lead and writing lost it: all others hung."""
    act = ACTIONS["commit"]
    for nth in range(1, places_of(act) + 1):
        disk, engine = prepared()
        threads, outcomes = meanwhile(engine, 2, monkeypatch)
        assert Interruption(nth).during(lambda engine=engine: act(engine))  # type: ignore[misc]
        check_others(disk, engine, threads, outcomes, f"interrupted at {nth}")


@pytest.mark.parametrize("name", ["_hand_on", "_leave"])
def test_a_leader_interrupted_twice_stops_nobody(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time, while it hands on the lead or goes on after the first time."""
    act, rng = ACTIONS["commit"], random.Random(5)
    places = places_of(act)
    real = getattr(Committer, name)
    for case in range(200):
        first, second = rng.randrange(1, places + 1), rng.randrange(1, 25)
        disk, engine = prepared()
        again = iter([Interruption(second)])

        def interrupted_again(
            committer: Committer, mine: Any, again: Iterator[Interruption] = again
        ) -> None:
            if threading.current_thread() is threading.main_thread():
                sys.setprofile(next(again, None))
            real(committer, mine)

        with monkeypatch.context() as patch:
            threads, outcomes = meanwhile(engine, 2, patch)
            patch.setattr(Committer, name, interrupted_again)
            Interruption(first).during(lambda engine=engine: act(engine))  # type: ignore[misc]
            check_others(disk, engine, threads, outcomes, f"case {case}: {first}, then {second}")


def test_a_follower_interrupted_as_its_turn_comes_does_not_wait_for_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before, Ctrl-C right after the turn was taken waited for a turn that had been given."""
    for nth in range(1, 60):
        disk, engine = prepared()
        leading, done, outcomes = threading.Event(), threading.Event(), dict[int, object]()
        _wait_for_a_follower(engine, leading, done, monkeypatch)
        leader = threading.Thread(target=_save_into, args=(engine, 98, outcomes), daemon=True)
        leader.start()
        assert leading.wait(WAIT_S)
        Interruption(nth).during(lambda engine=engine: put(engine, 1, b"follows"))  # type: ignore[misc]
        done.set()
        check_others(disk, engine, [leader], outcomes, f"interrupted at {nth}")


def _save_into(engine: StorageEngine, number: int, outcomes: dict[int, object]) -> None:
    outcomes[number] = _outcome(engine, number)


def _wait_for_a_follower(
    engine: StorageEngine,
    leading: threading.Event,
    done: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next leader goes on when somebody has queued up behind it, or `done` is set."""
    committer = engine._committer
    real = committer._commit_group

    def commit_group(group: list[Any]) -> None:
        monkeypatch.setattr(committer, "_commit_group", real)
        leading.set()
        deadline = time.monotonic() + WAIT_S
        while not committer._queue and not done.is_set():
            assert time.monotonic() < deadline
            time.sleep(0)
        real(group)

    monkeypatch.setattr(committer, "_commit_group", commit_group)


# Python drops an exception of a handler that ran within a callback of the garbage collector, and
# pytest makes a warning of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_real_signals_at_random() -> None:
    """As an impatient user does it: the main thread is interrupted again and again while two others
    write."""
    rng = random.Random(11)
    for round_ in range(6):
        disk = SimulatedDisk()
        engine = open_engine(disk)
        acknowledged: dict[int, int] = {}  # thread to its last seq
        stop = threading.Event()
        others = [
            threading.Thread(target=_write_on, args=(engine, i, acknowledged, stop), daemon=True)
            for i in (1, 2)
        ]
        pauses = [rng.uniform(0.0001, 0.004) for _ in range(20)]
        with _interrupted_at(pauses) as interrupted:
            for thread in others:
                thread.start()
            while interrupted() < len(pauses) and engine._core.poison is None:
                try:
                    acknowledged[0] = _armed(put, engine, 0, b"x").seq
                except (KeyboardInterrupt, EngramError):
                    continue
        stop.set()
        for thread in others:
            thread.join(WAIT_S)
            assert not thread.is_alive(), f"round {round_}: a thread waits for ever"
        with open_engine(disk.crash(())) as again:
            assert again.last_seq >= max(acknowledged.values(), default=0)
            assert_consistent(again)
        engine.close()


def _write_on(
    engine: StorageEngine, thread: int, acknowledged: dict[int, int], stop: threading.Event
) -> None:
    for _ in range(COMMITS_MAX):
        if stop.is_set():
            return
        try:
            acknowledged[thread] = put(engine, thread, b"x").seq
        except StoragePoisonedError:
            return
        except EngramError:
            continue  # whoever led was interrupted


_may_raise = [False]


def _armed(call: Callable[..., Commit], *arguments: Any) -> Commit:
    """The call, in which alone the signal raises."""
    _may_raise[0] = True
    try:
        return call(*arguments)
    finally:
        _may_raise[0] = False


@contextmanager
def _interrupted_at(pauses: list[float]) -> Iterator[Callable[[], int]]:
    """A thread sends signals after these pauses. Gives the function that counts them."""
    count = [0]

    def handler(number: int, frame: FrameType | None) -> None:
        count[0] += 1
        if _may_raise[0]:
            raise KeyboardInterrupt

    def send() -> None:
        for pause in pauses:
            time.sleep(pause)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield lambda: count[0] if sender.is_alive() else len(pauses)
        sender.join(WAIT_S)
    finally:
        signal.signal(signal.SIGINT, before)


# Signal handlers and guards that call the database


def within_a_commit(act: Callable[[Database], object]) -> list[BaseException]:
    """What `act` raised when it ran in a signal handler that interrupted a save of its thread."""
    raised: list[BaseException] = []
    with Database.in_memory() as db:
        core = core_of(db._engine)
        show = core.show

        def handler(number: int, frame: FrameType | None) -> None:
            try:
                act(db)
            except BaseException as error:
                raised.append(error)

        def show_and_signal() -> None:
            signal.raise_signal(signal.SIGUSR1)
            show()

        core.show = show_and_signal  # type: ignore[method-assign]
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            db.save(MemoryNode([1.0]))
        finally:
            signal.signal(signal.SIGUSR1, before)
        core.show = show  # type: ignore[method-assign]
        db.save(MemoryNode([1.0]))
        assert len(db) == 2
    return raised


@pytest.mark.parametrize("name", ["close", "flush", "compact", "save", "purge", "tag", "verify"])
def test_a_signal_handler_is_told_that_it_would_wait_for_itself(name: str) -> None:
    acts: dict[str, Callable[[Database], object]] = {
        "save": lambda db: db.save(MemoryNode([2.0])),
        "purge": lambda db: db.purge(MemoryNode().id),
        "tag": lambda db: db.tag("t"),
    }
    act = acts.get(name, lambda db: getattr(db, name)())
    (error,) = within_a_commit(act)
    assert isinstance(error, EngramError) and "signal handler" in str(error)


def test_a_signal_handler_may_read_and_leave() -> None:
    assert within_a_commit(lambda db: (db.list_all(), db.stats(), db.search_similar([1.0]))) == []


def test_a_handler_that_raises_lets_the_with_block_close() -> None:
    db = Database.in_memory()
    core = core_of(db._engine)
    show = core.show

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(3)

    def show_and_signal() -> None:
        signal.raise_signal(signal.SIGUSR1)
        show()

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(SystemExit), db:
            core.show = show_and_signal  # type: ignore[method-assign]
            db.save(MemoryNode([1.0]))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert core.closed


@pytest.mark.parametrize("part", ["guard", "rebuild"])
def test_what_a_guard_raises_concerns_its_own_commit_only(part: str) -> None:
    """It poisoned the engine, although nothing had been written."""
    disk = SimulatedDisk()
    engine = open_engine(disk)
    batch = Batch()
    batch.put(key(1), b"never", vec(1, 2))

    def fails(now: object) -> bool:
        raise LookupError("of the guard")

    batch.guards.append(fails if part == "guard" else lambda now: False)
    batch.rebuild = None if part == "guard" else fails
    with pytest.raises(LookupError, match="of the guard"):
        engine.commit(batch)
    assert put(engine, 2, b"x").seq == 1 and value(engine.latest(), 1) is None
    engine.close()
    with open_engine(disk) as again:
        assert again.last_seq == 1


def test_a_commit_that_is_refused_decides_on_no_dimension() -> None:
    with open_engine(SimulatedDisk()) as engine:
        batch = Batch()
        batch.put(key(1), b"x", vec(1, 2, 3))
        batch.guards.append(lambda now: 1 // 0 == 0)
        with pytest.raises(ZeroDivisionError):
            engine.commit(batch)
        put(engine, 2, b"x", vec(1, 2))
        assert engine.dimension == 2


def test_a_guard_that_commits_is_told() -> None:
    with open_engine(SimulatedDisk()) as engine:
        batch = Batch()
        batch.put(key(1), b"x")
        batch.guards.append(lambda now: bool(put(engine, 2, b"inner")))
        with pytest.raises(EngramError, match="guard"):
            engine.commit(batch)
        assert put(engine, 3, b"x").seq == 1
