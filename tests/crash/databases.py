"""Small databases on a simulated disk, to be damaged: between them they have every kind of file.

A maker gives the disk as a killed process leaves it, with the trace of everything before. The same
maker gives the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.environment.crash import CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, reboot
from engramdb.lsm.environment.trace import Image
from engramdb.lsm.retention import KeepLast
from tests.crash.driver import (
    PATH,
    SMALL,
    Driver,
    connect,
    delete,
    disconnect,
    key,
    put,
    vector,
)

DATABASE_OPTIONS = replace(SMALL, log_allocate_bytes=512)
BULK = {"bulk_bytes_min": 1}
FORK, CHECKPOINT = "/fork", "/checkpoint"
ROOTS = (PATH, FORK, CHECKPOINT)


def closed_database() -> SimulatedDisk:
    """Two runs, their vectors, marks on both, edges, a pin; nothing in a log."""
    return _closed(SimulatedDisk(5))


def crashed_database() -> SimulatedDisk:
    """The same with synced commits in a log, and one at its end that never was."""
    disk = closed_database()
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.commit(put(8, b"in the log" * 20, 3), connect(8, 1))
    driver.commit(put(1, b"shared", 1, 2))
    driver.commit(delete(3))
    driver.commit(put(9, b"never synced", 4), sync=False)
    return disk


def other_database() -> SimulatedDisk:
    """Another one, with files of the same kinds and numbers, and a log of the same number."""
    disk = _closed(SimulatedDisk(6))
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.commit(put(8, b"in another log" * 20, 3), connect(8, 1))
    driver.commit(put(1, b"shared?", 1, 2))
    return disk


def _closed(disk: SimulatedDisk) -> SimulatedDisk:
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.commit(*(put(i, b"payload of %d " % i * 9, i, 2) for i in range(5)), connect(1, 2))
    driver.commit(connect(2, 3, "likes", 0.5), put(7, b"no vector"))
    driver.flush()
    driver.commit(put(1, b"again", 1, 2), delete(2), disconnect(1, 2))
    driver.commit(put(3, b"another vector", 8))
    driver.pin("here")
    driver.close()
    return disk


def full_database() -> SimulatedDisk:
    """Merged and bulk-loaded segments, marks, edges, tombstones, pins, retention, idempotency keys;
    a fork and a checkpoint that both went another way; two logs, the second with unsynced commits
    at its end. Killed."""
    disk = SimulatedDisk(7)
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.commit(*(put(i, b"first %d " % i * 5, i, 2) for i in range(4)), idempotency="a")
    driver.commit(connect(1, 2), connect(2, 3, "likes", 0.5), put(7, b"no vector"))
    driver.pin("early")
    driver.set_history(KeepLast(2))
    driver.flush()
    for i in range(3):
        driver.commit(put(1, b"again %d" % i, i, 2), put(2, b"same vector, %d" % i, 2, 2))
    driver.compact()
    driver.reopen(**BULK)
    driver.bulk(*(put(i, b"bulk %d" % i, i, 7) for i in (3, 11, 12)))
    driver.reopen(bulk_bytes_min=SMALL.bulk_bytes_min)
    driver.commit(delete(3), disconnect(1, 2), put(2, b"same vector", 2, 2))
    driver.flush()
    driver.pin("here")
    driver.commit(put(1, b"before the copies", 5), idempotency="b")
    driver.fork(FORK)
    driver.checkpoint(CHECKPOINT)
    for root in (FORK, CHECKPOINT):
        _go_another_way(disk, root)
    driver.commit(put(1, b"after the copies", 6), delete(11), connect(12, 1))
    driver.flush()
    driver.commit(put(8, b"in the first log" * 9, 3), connect(8, 1))
    driver.commit(put(1, b"shared", 6))
    driver.kill()
    # as if the power went before the first log was flushed: there are two of them
    driver.engine._maintenance.run_inline = lambda: None  # type: ignore[method-assign]
    driver.commit(put(2, b"in the second log", 9), idempotency="c")
    driver.commit(delete(7))
    driver.commit(put(9, b"never synced", 4), sync=False)
    return disk


def sibling_database() -> SimulatedDisk:
    """A database and a checkpoint of it that went on from the same moment: logs and files of the
    same numbers and the same uuid, with other commits in them."""
    disk = _closed(SimulatedDisk(5))
    driver = Driver(disk, DATABASE_OPTIONS)
    driver.checkpoint(CHECKPOINT)
    _go_another_way(disk, CHECKPOINT)
    driver.commit(put(1, b"here", 1))
    driver.flush()
    driver.commit(put(21, b"of the original", 3))
    return disk


def published_database() -> SimulatedDisk:
    """Its last manifests let no log go: they are of a bulk load, a pin and a policy."""
    disk = closed_database()
    driver = Driver(disk, replace(DATABASE_OPTIONS, **BULK))  # type: ignore[arg-type]
    driver.bulk(put(3, b"bulk", 7), put(11, b"bulk", 8))
    driver.pin("there")
    driver.set_history(KeepLast(5))
    return disk


def power_cut_database() -> SimulatedDisk:
    """What a power cut leaves of the crashed one: all that was synced, and no VISIBLE."""
    return crashed_database().crash([])


def _go_another_way(disk: SimulatedDisk, root: str) -> None:
    """Write to a copy, and leave it without closing it."""
    engine = StorageEngine.open(root, DATABASE_OPTIONS, environment=disk)
    for number, payload in ((1, b"elsewhere"), (21, b"of " + root.encode())):
        batch = Batch()
        batch.put(key(number), payload, vector(number))
        engine.commit(batch, sync=True)
        if number == 1:
            engine.flush()
    assert engine._core.file_lock is not None
    engine._core.file_lock.release()


MAKERS: dict[str, Callable[[], SimulatedDisk]] = {
    make.__name__: make
    for make in (
        closed_database,
        crashed_database,
        power_cut_database,
        other_database,
        sibling_database,
        published_database,
        full_database,
    )
}


@cache
def database(name: str) -> tuple[SimulatedDisk, Image]:
    """What a maker has made, and what a kill leaves of it. Shared: nobody writes to it."""
    disk = MAKERS[name]()
    return disk, image_of(disk)


def image_of(disk: SimulatedDisk) -> Image:
    """What a killed process leaves."""
    state = CrashState(disk.trace, len(disk.trace.events))
    return state.image((-1,) * len(state.pending))


def disk_of(name: str) -> SimulatedDisk:
    """A disk of its own with what this maker has made."""
    disk, image = database(name)
    return reboot(disk.trace, image)


def paths_of(image: Image) -> dict[str, int]:
    """Every file of an image: path and node number, in the order of the paths."""
    found = {}
    stack = [("", 0)]
    while stack:
        path, number = stack.pop()
        for name, node in image.directories[number].items():
            if node in image.directories:
                stack.append((f"{path}/{name}", node))
            else:
                found[f"{path}/{name}"] = node
    return dict(sorted(found.items()))


def contents_of(image: Image) -> dict[str, bytes]:
    """Every file of an image and what is in it."""
    return {path: image.files[node].data for path, node in paths_of(image).items()}


def kind_of(path: str) -> str:
    """MANIFEST, wal, seg, mark, vec, VISIBLE or LOCK."""
    name = path.rpartition("/")[2]
    return "MANIFEST" if name.startswith("MANIFEST-") else name.rpartition(".")[2]
