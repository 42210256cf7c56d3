"""One call fails, the process is ended and another one goes on: with power cuts at every point.

The tests of faults look at the end only; what was promised wrongly may have reached a file by then.
"""

from __future__ import annotations

import errno
from typing import Any

from engramdb.errors import EngramError
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.driver import SMALL, Driver, delete, put
from tests.crash.named import ALLOCATED, WORKLOADS, as_run

FAILURES: dict[str, tuple[str, dict[str, Any]]] = {
    "a_sync_drops_pages": ("sync_data", {}),
    "a_sync_leaves_pages": ("sync_data", {"drop": False}),
    "a_write_is_short": ("write_at", {"error": errno.ENOSPC, "partial": 100}),
    "a_log_cannot_grow": ("sync", {}),
    "a_name_cannot_be_synced": ("sync_directory", {}),
    "a_manifest_is_linked_nevertheless": ("link", {"happens": True}),
    "a_file_cannot_be_renamed": ("rename", {}),
}


def failing(disk: SimulatedDisk, call: str, how: dict[str, Any]) -> None:
    """The next call of this kind fails; whoever is told of an error was promised nothing."""
    driver = Driver(disk, ALLOCATED if call == "sync" else SMALL)  # which syncs when it grows
    driver.commit(put(1, b"one", 1), put(2, b"two", 2))
    driver.flush()
    driver.commit(put(1, b"one again", 3))
    fault = disk.fail(call, **how)
    for act in (
        lambda: driver.commit(put(3, b"three" * 30, 3), delete(2)),
        lambda: driver.commit(put(4, b"four" * 150, 4)),
        driver.flush,
        lambda: driver.commit(put(5, b"five", 5)),
    ):
        try:
            act()
        except EngramError:
            assert fault.fired, f"an error, and {call} has not failed yet"
    assert fault.fired, f"{call} was never called"
    disk.heal()
    driver.kill()
    driver.commit(put(1, b"afterwards", 6))


for _name, (_call, _how) in FAILURES.items():
    WORKLOADS[_name] = as_run(lambda disk, c=_call, h=_how: failing(disk, c, h), _name)  # type: ignore[misc]
