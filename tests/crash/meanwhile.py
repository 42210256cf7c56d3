"""Commits that come while files are being written, always at the same place.

With inline maintenance nothing else happens during a flush or a merge. Here the thread that is to
write a file waits until another thread has done something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engramdb.lsm.container import ContainerWriter
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.maintenance import Maintenance
from engramdb.lsm.retention import KeepLast
from tests.crash.driver import SMALL, Driver, columns_of, connect, delete, disconnect, put
from tests.crash.named import BULK, workload
from tests.crash.oracle import Commit

PATIENCE_S = 30.0


def meanwhile(act: Callable[[], object], *others: Callable[[], object], skip: int = 0) -> None:
    """Act; before each file that it writes do one of the others, but not before the first `skip`
    files. Each must have had its turn in the end."""
    real, real_maintenance = ContainerWriter.write, Maintenance.run_inline
    waiting = list(others)
    files = 0

    def write(writer: ContainerWriter, *arguments: Any) -> tuple[int, bytes]:
        nonlocal files
        files += 1
        if waiting and files > skip:
            _in_a_thread(waiting.pop(0))
        return real(writer, *arguments)

    def run_inline(maintenance: Maintenance) -> None:
        if threading.current_thread() is me:  # the other would wait for the one that waits for it
            real_maintenance(maintenance)

    me = threading.current_thread()
    ContainerWriter.write = write  # type: ignore[method-assign]
    Maintenance.run_inline = run_inline  # type: ignore[method-assign]
    try:
        act()
    finally:
        ContainerWriter.write = real  # type: ignore[method-assign]
        Maintenance.run_inline = real_maintenance  # type: ignore[method-assign]
    assert not waiting, f"{len(waiting)} had no turn"


def _in_a_thread(work: Callable[[], object]) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again in the thread that waits
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "what was done meanwhile hangs"
    if problems:
        raise problems[0]


@workload
def commits_during_a_flush(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1), put(2, b"two", 2), put(3, b"three", 3), connect(1, 2))
    meanwhile(
        driver.engine.flush,
        lambda: driver.commit(put(1, b"one again", 4), delete(2)),
        lambda: driver.commit(disconnect(1, 2), put(3, b"shares", 3), sync=False),
    )
    driver.pin("here")
    driver.commit(put(2, b"back"))


@workload
def commits_during_a_merge(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    for i in range(2):
        driver.commit(put(1, b"one %d" % i, i + 1), put(2 + i, b"other", i), connect(1, 2 + i))
        driver.flush()
    meanwhile(
        driver.engine.compact,
        lambda: driver.commit(put(1, b"one again", 7), delete(2), disconnect(1, 2), sync=False),
    )
    driver.commit(put(3, b"replaced", 8))
    driver.flush()  # what was superseded meanwhile is in a file from now on
    driver.kill()
    driver.compact()


@workload
def commits_between_a_flush_and_a_merge(disk: SimulatedDisk) -> None:
    """The merge finds versions that only the log has superseded: they must stay."""
    driver = Driver(disk, replace(SMALL, memtable_bytes_max=1024, fan_in=2))
    driver.set_history(KeepLast(1))
    driver.commit(put(1, b"one" * 300, 1), put(2, b"two", 2))
    driver.flush()
    driver.commit(put(3, b"three" * 200, 3), put(4, b"four", 1))
    meanwhile(
        lambda: driver.commit(put(4, b"rotates", 2)),
        lambda: driver.commit(put(1, b"later", 4), delete(2), put(4, b"too", 3), sync=False),
        lambda: driver.commit(put(1, b"later again"), sync=False),
    )
    driver.commit(put(5, b"last", 1), sync=False)


@workload
def commits_during_a_bulk_load(disk: SimulatedDisk) -> None:
    """The load gets its number last, so it is issued last."""
    driver = Driver(disk, BULK)
    driver.commit(put(1, b"before", 1), put(2, b"before", 2))
    loaded = (put(1, b"bulk", 5), put(4, b"bulk", 6))

    def issue() -> None:
        driver.commit(put(3, b"during, too", 4), delete(2), sync=False)
        disk.issue(Commit(loaded))
        driver.commits += 1

    meanwhile(
        lambda: driver.engine.commit_columns(columns_of(loaded)),
        lambda: driver.commit(put(1, b"during", 3), sync=False),
        issue,
    )
    driver.promise()
    driver.commit(put(3, b"after", 7))
