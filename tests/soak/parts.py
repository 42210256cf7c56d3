"""What the parts of a soak share: sizes on the disk, what a process takes, and a broken promise."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import engramdb
from engramdb import database as database_module
from engramdb.lsm import Options

Figures = dict[str, int | float | str]
Part = Callable[[Path, int, int], Figures]
"""part(directory, size, seed) works in an empty directory. Raises Broken, or what the database
raises."""


class Broken(Exception):
    """The database did not do what it promises."""


def check(holds: object, problem: str) -> None:
    """Raises Broken if it does not hold."""
    if not holds:
        raise Broken(problem)


def check_sound(db: engramdb.Database) -> None:
    """Raises Broken if verify() finds anything."""
    report = db.verify()
    check(report.ok, f"verify(): {report.problems[:3]}")


def spread_id(i: int) -> str:
    """The id of a number: spread, so that neighbours differ in their first bytes."""
    return str(uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def bytes_in(directory: Path) -> int:
    """The length of all files below a directory."""
    total = 0
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except FileNotFoundError:
            continue  # merged away meanwhile
    return total


@contextmanager
def options(**settings: Any) -> Iterator[None]:
    """Databases that are opened here have settings that only the engine knows."""

    def make(**given: Any) -> Options:
        return Options(**given, **settings)

    with mock.patch.object(database_module, "Options", make):
        yield


def resident_bytes() -> int:
    """What the process has in memory; where the system does not tell, the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Meter:
    """What the process takes, sampled; flat if the last quarter is as the second one was (the first
    is a warm-up)."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, int, int]] = []  # descriptors, threads, resident bytes

    def sample(self) -> None:
        gc.collect()
        descriptors = len(os.listdir("/dev/fd"))
        self.samples.append((descriptors, threading.active_count(), resident_bytes()))

    def figures(self, name: str, steps: int) -> Figures:
        """Raises Broken if anything grows."""
        quarter = len(self.samples) // 4
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        for column, what in ((0, "descriptors"), (1, "threads")):
            most = max(sample[column] for sample in early)  # it goes up and down with merges
            check(
                statistics.median(sample[column] for sample in late) <= most + 2,
                f"{name}: {what} grow: {[sample[column] for sample in self.samples]}",
            )
        resident = [[sample[2] for sample in part] for part in (early, late)]
        growth = statistics.median(resident[1]) - statistics.median(resident[0])
        check(
            growth <= 0.05 * statistics.median(resident[0]) + 8 * 2**20,
            f"{name}: memory grows by {growth:,.0f} bytes in {steps:,} steps",
        )
        half = np.array([sample[2] for sample in self.samples[quarter:]], np.float64)
        at = np.linspace(steps * quarter / len(self.samples), steps, len(half))
        slope = float(np.polyfit(at, half, 1)[0])
        return {
            f"{name}: steps": steps,
            f"{name}: descriptors": f"{early[0][0]} then {late[-1][0]}",
            f"{name}: threads": f"{early[0][1]} then {late[-1][1]}",
            f"{name}: resident MiB": f"{resident[0][0] / 2**20:.1f} then "
            f"{resident[1][-1] / 2**20:.1f}",
            f"{name}: slope, bytes a step": round(slope, 2),
        }
