"""The only place that touches the operating system, the clock and randomness.

Everything else in `engramdb.lsm` gets one of these environments and knows nothing about files but
what `base` says. `simulated` (a disk for crash tests) is imported by whoever wants it, by name.
"""

from __future__ import annotations

from engramdb.lsm.environment.base import Data, Environment, File, Lock, LockHeld
from engramdb.lsm.environment.memory import MemoryEnvironment
from engramdb.lsm.environment.posix import PosixEnvironment

__all__ = [
    "Data",
    "Environment",
    "File",
    "Lock",
    "LockHeld",
    "MemoryEnvironment",
    "PosixEnvironment",
]
