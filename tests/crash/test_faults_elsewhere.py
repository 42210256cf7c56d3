"""Calls that fail where it is not determined which: beside threads that flush and merge, and on the
real file system."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.environment import PosixEnvironment
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.records import MEMORY
from tests.crash.checks import check_database, match
from tests.crash.driver import PATH, Driver, key
from tests.crash.fault_runs import (
    FAULT_OPTIONS,
    FAULTS,
    LOCK,
    NONE,
    POISONED,
    THREADED,
    ArmedFault,
    Interrupted,
    calls_of_the_workload,
    fail_and_close,
    run_with_fault,
    world_of,
)
from tests.crash.faulty import FaultyEnvironment
from tests.crash.watchdog import bounded

THREADED_STEP = 45
FILES_STEP = 120


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_beside_threads(sticky: bool) -> None:
    """Signals apart: their handlers run in the main thread only."""
    outcomes: Counter[str] = Counter()
    for name in ("EIO", "ENOSPC", "short", "happens", "kept"):
        faults = FAULTS[name].faults(sticky=sticky)
        chosen = faults[1 + len(name) :: THREADED_STEP]
        outcomes.update(run_with_fault(fault, THREADED) for fault in chosen)
    assert outcomes[POISONED] > 20


def some(call: str, how: dict[str, Any], step: int) -> list[ArmedFault]:
    """Every so many-th call of a kind, once and from then on."""
    calls = calls_of_the_workload()
    count = calls.total() if call == ANY_CALL else calls["sync" if call == "close" else call]
    return [
        ArmedFault(call, nth, {**how, "sticky": sticky})
        for sticky in (False, True)
        for nth in range(step // 2, count, step)
    ]


ON_FILES: dict[str, list[ArmedFault]] = {
    "EIO": some(ANY_CALL, {"error": errno.EIO}, FILES_STEP),
    "EMFILE": some("open", {"error": errno.EMFILE}, 16),
    "ENOSPC": some("write_at", {"error": errno.ENOSPC, "partial": 100}, FILES_STEP),
    "happens": some("sync", {"error": errno.EIO, "happens": True}, 20)
    + some("link", {"error": errno.EIO, "happens": True}, 12),
    "close": some("close", {"error": errno.EIO}, 13),
    "thrown": some(ANY_CALL, {"raises": Interrupted}, 2 * FILES_STEP),
}


@pytest.mark.parametrize("name", ON_FILES)
def test_on_the_real_file_system(name: str, tmp_path: Path) -> None:
    outcomes = Counter(
        run_on_files(fault, tmp_path / str(i)) for i, fault in enumerate(ON_FILES[name])
    )
    assert outcomes.total() == len(ON_FILES[name]) > 5
    assert not outcomes[NONE], "a fault that was never reached"


def run_on_files(fault: ArmedFault, root: Path) -> str:
    """The workload in a directory, as `run_with_fault` has it; descriptors are counted."""
    line = f"run_on_files({fault!r}, Path({str(root.name)!r}))"
    root.mkdir(parents=True)
    try:
        return bounded(lambda: _run_on_files(fault, root), line)
    except Exception as error:
        raise AssertionError(f"{line}  # {type(error).__name__}: {error}") from error


def _run_on_files(fault: ArmedFault, root: Path) -> str:
    before, others = descriptors(), set(threading.enumerate())
    disk: Any = FaultyEnvironment(PosixEnvironment(), str(root))  # a disk, but for power cuts
    driver = Driver(disk, FAULT_OPTIONS)
    disk.fail(fault.call, fault.nth, **fault.how)
    outcome = fail_and_close(driver, others, is_sticky=fault.how["sticky"])
    assert descriptors() == before, "descriptors are open after close()"
    assert not disk.lock_is_held(LOCK), "the lock is held after close()"
    engine = StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk)
    check_database(engine, match(engine, world_of(disk))[0])
    batch = Batch()
    batch.put(key(60), b"after the failure", None)
    engine.commit(batch)
    engine.close()
    with StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk) as again:
        assert again.verify().ok
        assert again.latest().get(MEMORY, key(60)) is not None
    return outcome


def descriptors() -> set[int]:
    """The numbers of the descriptors that this process has open, and one that lists them."""
    gc.collect()
    return set(map(int, os.listdir("/dev/fd")))
