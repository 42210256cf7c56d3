"""A process is killed at any of its calls, another one recovers what it left, and then the power
goes.

The page cache outlives a process: the second one sees names and bytes that are not durable, and
must not rely on them. The power cuts begin where the second process does.
"""

from __future__ import annotations

from engramdb.errors import EngramError
from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.environment.trace import Acknowledged, Issued
from engramdb.lsm.records import MEMORY
from tests.crash.checks import match
from tests.crash.driver import PATH, SMALL, key
from tests.crash.enumerator import FROM_HERE
from tests.crash.named import Run, as_run
from tests.crash.oracle import Commit, Promise, Recovered, World, Write


def killed(workload: Run, nth: int) -> Run:
    """The workload, ended before its nth call, and what the next process does."""

    def run(disk: SimulatedDisk) -> None:
        fault = disk.fail(ANY_CALL, nth, sticky=True)
        try:
            workload(disk, disk.acknowledge)
        except (EngramError, OSError, AssertionError):
            if not fault.fired:
                raise
        disk.heal()
        if disk.lock_is_held(f"{PATH}/LOCK"):
            disk._nodes[disk._names.file(f"{PATH}/LOCK")].holder = None
        disk.issue(FROM_HERE)
        _go_on(disk)

    return as_run(run, f"killed_{getattr(workload, '__name__', 'workload')}")


def _go_on(disk: SimulatedDisk) -> None:
    events = disk.trace.events
    world = World.of(
        [event.what for event in events if isinstance(event, Issued)],
        [event.what for event in events if isinstance(event, Acknowledged)],
    )
    engine = StorageEngine.open(PATH, SMALL, environment=disk)
    oracle, settings = match(engine, world)
    disk.issue(Recovered(oracle.last_seq, settings))
    disk.acknowledge(Promise(oracle.last_seq, settings))  # what it has shown must stay
    new = Write(MEMORY, key(500), b"after the kill")
    disk.issue(Commit((new,)))
    batch = Batch()
    batch.put(new.key, new.payload or b"", None)
    engine.commit(batch, sync=True)
    disk.acknowledge(Promise(oracle.last_seq + 1, settings))
    engine.close()


def calls_of(workload: Run, seed: int) -> int:
    """How many calls it makes."""
    disk = SimulatedDisk(seed)
    workload(disk, disk.acknowledge)
    return disk.calls.total()
