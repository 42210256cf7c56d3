"""Workloads made of a seed: mixed operations, and for the long campaign mixed options too."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from engramdb.lsm import Options
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.options import INTERVAL, OS, SYNC
from engramdb.lsm.retention import KeepAll, KeepFor, KeepLast
from tests.crash.driver import SMALL, Driver, connect, delete, disconnect, put
from tests.crash.group import Asked, group
from tests.crash.named import ALLOCATED, BULK, TINY, Run, as_run
from tests.crash.oracle import Write

OPERATIONS = 14


def seeded(seed: int) -> Run:
    """One engine, flushed, merged, reopened and killed now and then."""

    def run(disk: SimulatedDisk) -> None:
        rng = random.Random(seed)
        options = replace(rng.choice([SMALL, TINY, ALLOCATED, BULK]), fan_in=rng.choice([2, 3, 4]))
        driver = Driver(disk, options)
        acts = [
            driver.flush,
            driver.compact,
            driver.wait_durable,
            driver.reopen,
            driver.kill,
            lambda: driver.pin(rng.choice("ab")),
            lambda: driver.unpin(rng.choice("ab")),
            lambda: driver.set_history(rng.choice([KeepAll(), KeepLast(1), KeepLast(2)])),
            lambda: driver.purge(rng.randrange(4)),
            lambda: bulk(driver, rng),
        ]
        for _ in range(OPERATIONS):
            if rng.random() < 0.35:
                rng.choice(acts)()
            else:
                driver.commit(*some_writes(rng), sync=rng.random() < 0.6)

    return as_run(run, f"random_{seed}")


def random_options(rng: random.Random) -> Options:
    """Everything that changes what the disk is asked."""
    return replace(
        SMALL,
        durability=rng.choice([SYNC, SYNC, SYNC, INTERVAL, OS]),
        sync_interval=3600.0,
        memtable_bytes_max=rng.choice([1024, 1024, 2000, 5000, 1 << 20]),
        bulk_bytes_min=rng.choice([1, 1 << 30]),
        cache_blocks=rng.choice([1, 256]),
        log_allocate_bytes=rng.choice([0, 0, 512, 4096]),
        fan_in=rng.choice([2, 2, 3, 4]),
    )


def varied(seed: int) -> Run:
    """As `seeded`, with options of its own, everything else that a driver can do, and concurrent
    commits."""

    def run(disk: SimulatedDisk) -> None:
        rng = random.Random(f"varied/{seed}")
        driver = Driver(disk, random_options(rng))
        acts = _acts(driver, rng)
        for _ in range(rng.randrange(4, OPERATIONS)):
            if rng.random() < 0.4:
                rng.choice(acts)()
            else:
                driver.commit(*some_writes(rng), sync=rng.choice([None, True, False]))

    return as_run(run, f"varied_{seed}")


def _acts(driver: Driver, rng: random.Random) -> list[Callable[[], None]]:
    policies = [KeepAll(), KeepLast(1), KeepLast(2), KeepFor(timedelta(0)), KeepFor(timedelta(1))]
    fresh = iter(range(99))

    def other_options() -> dict[str, object]:
        made = random_options(rng)
        names = ("durability", "memtable_bytes_max", "log_allocate_bytes", "fan_in")
        return {name: getattr(made, name) for name in names}

    def together() -> None:
        asked = [Asked(tuple(some_writes(rng)), sync=rng.random() < 0.7) for _ in range(3)]
        group(driver, Asked(tuple(some_writes(rng)), sync=True), *asked)

    return [
        driver.flush,
        driver.compact,
        driver.wait_durable,
        lambda: driver.reopen(**other_options()),
        lambda: driver.kill(**other_options()),
        lambda: driver.pin(rng.choice("ab"), _some_seq(driver, rng)),
        lambda: driver.unpin(rng.choice("ab")),
        lambda: driver.set_history(rng.choice(policies)),
        lambda: driver.purge(*rng.sample(range(5), rng.choice([1, 2]))),
        lambda: bulk(driver, rng),
        lambda: driver.fork(f"/fork{next(fresh)}"),
        lambda: driver.checkpoint(f"/checkpoint{next(fresh)}"),
        lambda: driver.commit(*some_writes(rng), idempotency=f"key {next(fresh)}"),
        together,
    ]


def _some_seq(driver: Driver, rng: random.Random) -> int | None:
    """Now, mostly; else a moment that is certainly complete."""
    last, floor = driver.engine.last_seq, driver.engine.stats()["history_floor"]
    return None if rng.random() < 0.7 else rng.randrange(floor, last + 1)


def bulk(driver: Driver, rng: random.Random) -> None:
    """Three memories as columns."""
    driver.bulk(*(put(i, b"bulk", rng.randrange(3)) for i in rng.sample(range(6), 3)))


def some_writes(rng: random.Random) -> list[Write]:
    """One to four writes of different keys."""
    made = {}
    for _ in range(rng.choice([1, 1, 2, 4])):
        number = rng.randrange(6)
        write = rng.choice(
            [
                put(number, b"%d" % rng.randrange(99) * rng.choice([1, 40, 200]), rng.randrange(3)),
                put(number, b"plain %d" % rng.randrange(99)),
                delete(number),
                connect(number, rng.randrange(6), rng.choice("xy"), rng.random()),
                disconnect(number, rng.randrange(6), rng.choice("xy")),
            ]
        )
        made[write.record_class, write.key] = write
    return list(made.values())
