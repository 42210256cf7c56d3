"""A moment, once taken, does not move: not for flushes, merges, purges, policies, nor for writers.

The writers are those that are killed in tests/processes; here nobody is.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engramdb import Database, HistoryUnavailableError
from engramdb.past import Past
from tests.processes.contents import ACCOUNTS, SUM, Violation, id_of, state_of
from tests.processes.pipes import Board
from tests.processes.writer import Settings, Writer

WRITERS, READERS = 3, 2
OPERATIONS = 50  # of each writer
HELD_MAX = 6  # moments that a reader keeps


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("switch_interval_s", "durability", "memtable_bytes"),
    [(1e-6, "os", 1024), (0.005, "sync", 1024), (1e-6, "sync", 1 << 16)],
)
def test_a_moment_does_not_move(
    tmp_path: Path, switch_interval_s: float, durability: str, memtable_bytes: int
) -> None:
    sys.setswitchinterval(switch_interval_s)
    settings = Settings(
        seed=memtable_bytes,
        first_operation=1,
        threads=WRITERS,
        operations=OPERATIONS,
        durability=durability,
        memtable_bytes=memtable_bytes,
        background=True,
        log_allocate_bytes=4096,
        bulk_bytes_min=1,
        fan_in=2,
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    place = tmp_path / "db"
    with Database.file_based(place, durability=durability, memtable_bytes=memtable_bytes) as db:
        writer = Writer(db, settings, Board(), nowhere)
        writer.begin()
        at_work = set(range(WRITERS))
        looks = [0] * READERS

        def write(thread: int) -> None:
            try:
                writer.work(thread)
            finally:
                at_work.remove(thread)

        works: list[Callable[[], None]] = [
            lambda thread=thread: write(thread)  # type: ignore[misc]
            for thread in range(WRITERS)
        ]
        works += [
            lambda reader=reader: _read(db, reader, looks, lambda: not at_work)  # type: ignore[misc]
            for reader in range(READERS)
        ]
        _together(works)
        assert min(looks) > 5
        last = state_of(db)
        assert db.verify().ok
    os.close(nowhere)
    with Database.file_based(place) as db:
        assert state_of(db).difference(last) == ""


def _read(db: Database, reader: int, looks: list[int], is_over: Callable[[], bool]) -> None:
    rng = random.Random(reader)
    held: list[tuple[Past, int]] = []
    while not is_over():
        past = db.as_of(db.last_seq)
        try:
            held.append((past, state_of(past).digest()))
        except HistoryUnavailableError:  # it was the last one a moment ago, and a policy is strict
            past.close()
        if not held:
            continue
        again, digest = rng.choice(held)
        if state_of(again).digest() != digest:
            raise Violation(f"commit {again.seq} has moved")
        if len(held) > HELD_MAX:
            held.pop(rng.randrange(len(held)))[0].close()
        with db.transaction() as tx:
            amounts = [tx.load(id_of(number)).get_attribute("n") for number in ACCOUNTS]
        if sum(amounts) != SUM:
            raise Violation(f"a transaction sees {amounts}")
        looks[reader] += 1
    for past, _ in held:
        past.close()


def _together(works: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
