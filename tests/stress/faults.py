"""Each call of the workload of forty operations fails in each way, once and from then on; beside
threads too, and on the real file system.

A part of the same runs in `make test` (tests/crash/test_engine_faults.py).
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.crash.fault_runs import FAULTS, THREADED, ArmedFault, run_with_fault
from tests.crash.test_faults_elsewhere import ON_FILES, run_on_files
from tests.stress.outcome import Outcome

FAILURES_MAX = 20
NOT_IN_THREADS = {"thrown", "thrown after"}  # a signal's handler runs in the main thread
ONLY_SIMULATED = {"kept"}  # nobody can tell a file system to keep pages whose sync failed

Try = tuple[str, Callable[[], str]]


def campaign(seconds: float, seed: int) -> Outcome:
    """First each call on the simulated disk (some ten minutes), in a random order; then random ones
    beside threads and on the real file system, until the time is over."""
    deadline = time.monotonic() + seconds
    rng = random.Random(seed)
    outcome = Outcome()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        todo = simulated()
        elsewhere = [*threaded(), *on_files(Path(directory))]
        rng.shuffle(todo)
        rng.shuffle(elsewhere)
        ends = [time.monotonic() + 0.7 * seconds, deadline]
        for some, end in zip((todo, elsewhere), ends, strict=True):
            for name, act in some:
                if time.monotonic() > end or len(outcome.failures) >= FAILURES_MAX:
                    break
                counts["faults"] += 1
                counts[f"fault: {name}"] += 1
                try:
                    counts[f"outcome: {act()}"] += 1
                except AssertionError as error:
                    outcome.failures.append(str(error).splitlines()[0])
    outcome.figures["faults"] = counts.pop("faults", 0)
    outcome.figures["faults there are"] = len(todo) + len(elsewhere)
    outcome.figures.update(sorted(counts.items()))
    return outcome


def simulated() -> list[Try]:
    """All faults on the simulated disk."""
    return [
        (f"{name}, {_how_long(fault)}", lambda fault=fault: run_with_fault(fault))  # type: ignore[misc]
        for name, kind in FAULTS.items()
        for sticky in (False, True)
        for fault in kind.faults(sticky=sticky)
    ]


def threaded() -> list[Try]:
    """The same with flush and merge in threads, where the nth call is another one each time."""
    return [
        (f"{name}, threads", lambda fault=fault: run_with_fault(fault, THREADED))  # type: ignore[misc]
        for name, kind in FAULTS.items()
        if name not in NOT_IN_THREADS
        for sticky in (False, True)
        for fault in kind.faults(sticky=sticky)
    ]


def on_files(directory: Path) -> list[Try]:
    """The same on the real file system, and what only that has."""
    faults = [
        (name, fault)
        for name, kind in FAULTS.items()
        if name not in ONLY_SIMULATED
        for sticky in (False, True)
        for fault in kind.faults(sticky=sticky)
    ]
    faults += [(name, fault) for name in ("EMFILE", "close") for fault in ON_FILES[name]]
    return [
        (
            f"{name}, real files",
            lambda fault=fault, i=i: run_on_files(fault, directory / str(i)),  # type: ignore[misc]
        )
        for i, (name, fault) in enumerate(faults)
    ]


def _how_long(fault: ArmedFault) -> str:
    return "from then on" if fault.how["sticky"] else "once"
