"""The list of workloads by name, and the options that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.crash.driver import SMALL

Run = Callable[[SimulatedDisk, Callable[[object], None]], None]
WORKLOADS: dict[str, Run] = {}

ALLOCATED = replace(SMALL, log_allocate_bytes=512)
TINY = replace(SMALL, memtable_bytes_max=1024)
BULK = replace(SMALL, bulk_bytes_min=1)


def as_run(function: Callable[[SimulatedDisk], object], name: str) -> Run:
    """A workload as the enumerator calls it."""

    def run(disk: SimulatedDisk, acknowledge: object) -> None:
        function(disk)

    run.__name__ = name
    return run


def workload(function: Callable[[SimulatedDisk], None]) -> Callable[[SimulatedDisk], None]:
    """List it under its name."""
    WORKLOADS[function.__name__] = as_run(function, function.__name__)
    return function
