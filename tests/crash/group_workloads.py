"""Concurrent commits: what a power cut may leave of a group, and of those who wait for it."""

from __future__ import annotations

from dataclasses import replace

from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.options import INTERVAL
from engramdb.lsm.records import MEMORY
from tests.crash.driver import SMALL, Driver, connect, delete, key, put
from tests.crash.group import (
    CONFLICT,
    FAILED,
    HELD_IN_APPEND,
    REPEATED,
    Asked,
    group,
)
from tests.crash.named import ALLOCATED, TINY, WORKLOADS, workload


@workload
def groups(disk: SimulatedDisk) -> None:
    driver = Driver(disk, ALLOCATED)
    group(
        driver,
        Asked((put(1, b"one", 1),)),
        Asked((put(2, b"two" * 200, 2),)),
        Asked((put(1, b"one again", 3), connect(1, 2))),
        Asked((put(3, b"three"),)),
    )
    group(driver, Asked((delete(2),)), Asked((put(2, b"back", 2),)), Asked((delete(1),)))
    driver.close()


@workload
def groups_of_mixed_syncs(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    group(
        driver,
        Asked((put(1, b"a", 1),)),
        Asked((put(2, b"b" * 600, 2),), sync=False),
        Asked((put(1, b"c", 3),)),
        Asked((put(3, b"d"),), sync=False),
    )
    group(
        driver,
        Asked((put(4, b"e", 1),), sync=False),
        Asked((put(1, b"f" * 300, 1),), sync=False),
        Asked((delete(2),), sync=False),
        held_in=HELD_IN_APPEND,
    )
    driver.commit(put(5, b"g"))


@workload
def groups_at_an_interval(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(SMALL, durability=INTERVAL, sync_interval=3600.0))
    group(
        driver,
        Asked((put(1, b"a", 1),), sync=True),
        Asked((put(2, b"b", 2),)),
        Asked((put(3, b"c" * 500, 2),), sync=True),
        Asked((put(1, b"d", 2),)),
    )
    driver.commit(put(2, b"e"))


@workload
def groups_with_conflicts(disk: SimulatedDisk) -> None:
    """The second of two that expect the same version is told so, and leaves no trace."""
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    expect = {(MEMORY, key(1)): 1}
    group(
        driver,
        Asked((put(2, b"leads"),)),
        Asked((put(1, b"first", 2),), expect=expect),
        Asked((put(1, b"second", 3), put(4, b"with it")), expect=expect, outcome=CONFLICT),
        Asked((put(3, b"third"),)),
        Asked((put(1, b"fourth", 1),), expect={(MEMORY, key(1)): 3}),
    )
    driver.flush()


@workload
def groups_with_idempotency_keys(disk: SimulatedDisk) -> None:
    """A repeated one is promised what the first one wrote, although that did not wait for it."""
    driver = Driver(disk)
    group(
        driver,
        Asked((put(2, b"leads", 1),)),
        Asked((put(1, b"one", 1),), sync=False, idempotency="a"),
        Asked((put(1, b"not again", 2),), sync=True, idempotency="a", outcome=REPEATED),
        Asked((put(3, b"three", 1),), sync=False, idempotency="b"),
    )
    group(
        driver,
        Asked((put(4, b"four"),)),
        Asked((put(3, b"not again"),), sync=False, idempotency="b", outcome=REPEATED),
        Asked((put(5, b"five"),), sync=False, idempotency="c"),
    )


@workload
def groups_that_share_vectors(disk: SimulatedDisk) -> None:
    """What shares a vector finds, when its turn comes, that another has replaced it."""
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1, 2), put(2, b"two", 3))
    group(
        driver,
        Asked((put(1, b"shares", 1, 2),)),
        Asked((put(1, b"replaces", 5),)),
        Asked((put(1, b"would share", 1, 2), put(2, b"shares too", 3))),
        Asked((delete(2),)),
        Asked((put(2, b"nothing left to share", 3),)),
    )
    driver.flush()
    driver.commit(put(1, b"once more", 1, 2))


@workload
def groups_and_rotation(disk: SimulatedDisk) -> None:
    """A memtable is full when the group comes, and the next one after it."""
    driver = Driver(disk, TINY)
    for i in range(2):
        group(
            driver,
            Asked((put(1, b"%d" % i * 900, i),), sync=i == 0),
            Asked((put(2, bytes([97 + i]) * 700, 1),), sync=False),
            Asked((put(3, b"last %d" % i, 2),), sync=i == 1),
            held_in=HELD_IN_APPEND,
        )
    driver.commit(delete(1))


@workload
def groups_whose_sync_fails(disk: SimulatedDisk) -> None:
    """The leader's own: nobody behind it is written."""
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    disk.fail("sync_data")
    group(
        driver,
        Asked((put(1, b"lost", 2),), outcome=FAILED),
        Asked((put(2, b"never written"),), outcome=FAILED),
        Asked((put(3, b"neither"),), sync=False, outcome=FAILED),
    )
    driver.kill()
    driver.commit(put(3, b"three", 3))


@workload
def groups_behind_which_a_sync_fails(disk: SimulatedDisk) -> None:
    """That of the second group, whose pages stay in the page cache."""
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    disk.fail("sync_data", 2, drop=False)
    group(
        driver,
        Asked((put(1, b"durable", 2),)),
        Asked((put(2, b"maybe" * 150),), outcome=FAILED),
        Asked((put(3, b"maybe too", 1),), sync=False, outcome=FAILED),
    )
    driver.kill()
    driver.commit(put(3, b"three", 3))


__all__ = ["WORKLOADS"]
