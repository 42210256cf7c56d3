"""All short sequences of operations on a new database.

Most crash bugs need no more than three operations on a new file system, and follow one that makes
something durable (the CrashMonkey study): so every sequence of up to three is a workload.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.retention import KeepLast
from tests.crash.driver import SMALL, Driver, connect, delete, put
from tests.crash.group import Asked, group
from tests.crash.named import Run, as_run

Sequence = tuple[str, ...]

OPERATIONS: dict[str, Callable[[Driver], None]] = {
    "put": lambda d: d.commit(put(1, b"put at %d" % d.commits, d.commits)),
    "patch": lambda d: d.commit(put(1, b"patched at %d" % d.commits, 0), sync=True),
    "delete": lambda d: d.commit(delete(1)),
    "connect": lambda d: d.commit(connect(1, 2, "knows", float(d.commits))),
    "unsynced": lambda d: d.commit(put(1, b"x" * 600, d.commits), put(2, b"y", 1), sync=False),
    "bulk": lambda d: d.bulk(put(1, b"bulk", d.commits + 1), put(2, b"%d" % d.commits, 4)),
    "together": lambda d: group(
        d, Asked((put(1, b"leads", 1),)), Asked((put(1, b"follows"),)), Asked((put(2, b"too", 2),))
    ),
    "flush": lambda d: d.flush(),
    "compact": lambda d: d.compact(),
    "wait_durable": lambda d: d.wait_durable(),
    "set_history": lambda d: d.set_history(KeepLast(1)),
    "pin": lambda d: d.pin("here"),
    "unpin": lambda d: d.unpin("here"),
    "purge": lambda d: d.purge(1),
    "fork": lambda d: d.fork(f"/fork{len(d.disk.trace.events)}"),
    "checkpoint": lambda d: d.checkpoint(f"/checkpoint{len(d.disk.trace.events)}"),
    "reopen": lambda d: d.reopen(),
    "kill": lambda d: d.kill(),
}


def every_sequence(length_max: int = 3) -> list[Sequence]:
    """All of them, the shortest first."""
    lengths = range(1, length_max + 1)
    return [s for n in lengths for s in itertools.product(OPERATIONS, repeat=n)]


def sampled(count: int, length: int, seed: int) -> Iterator[Sequence]:
    """Some of those of one length."""
    yield from random.Random(seed).sample(list(itertools.product(OPERATIONS, repeat=length)), count)


def workload_of(sequence: Sequence) -> Run:
    """These operations, one after the other."""

    def run(disk: SimulatedDisk) -> None:
        driver = Driver(disk, SMALL)
        for name in sequence:
            OPERATIONS[name](driver)

    return as_run(run, "+".join(sequence))
