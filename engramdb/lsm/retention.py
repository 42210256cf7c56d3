"""Which versions compaction may drop, as whole-array masks.

A current version is never dropped, a pinned one neither. A merge sees a part of the database, so
the rank of a version among the newer ones of its key can only be underestimated: a partial merge
keeps too much, never too little.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from engramdb.errors import InvalidInputError
from engramdb.lsm.keys import U64
from engramdb.lsm.records import META, NEVER, TOMBSTONE
from engramdb.lsm.rows import RowColumns

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Every version stays for ever. The default."""


@dataclass(frozen=True, slots=True)
class KeepLast:
    """The last `versions` versions of each memory and connection stay."""

    versions: int

    def __post_init__(self) -> None:
        if type(self.versions) is not int or not 1 <= self.versions < 2**32:
            raise InvalidInputError("versions", f"a whole number from 1 on, not {self.versions!r}")


@dataclass(frozen=True, slots=True)
class KeepFor:
    """What was current at some moment of the last `duration` stays."""

    duration: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.duration, timedelta) or self.duration < timedelta(0):
            raise InvalidInputError("duration", f"a timedelta not below 0, not {self.duration!r}")


History = KeepAll | KeepLast | KeepFor


def check_history(policy: object) -> History:
    """The policy itself. Raises InvalidInputError if it is none."""
    if isinstance(policy, KeepAll | KeepLast | KeepFor):
        return policy
    raise InvalidInputError(
        "history", f"KeepAll(), KeepLast(n) or KeepFor(timedelta), not {policy!r}"
    )


def droppable(
    rows: RowColumns, policy: History, pins: U64, durable_seq: int, window_seq: int
) -> Mask:
    """Which sorted rows the policy lets go, tombstones that are current apart.

    `pins` are sorted seqs, each keeping what was visible at it. Only versions superseded at or
    before `durable_seq` may go: what superseded them must not be lost itself. `window_seq` is the
    last commit before KeepFor's window.
    """
    superseded = rows.superseded
    old: Mask = superseded <= np.uint64(durable_seq)
    meta: Mask = rows.record_class == META
    dropped: Mask = old & meta
    if isinstance(policy, KeepAll):
        return dropped
    if isinstance(policy, KeepLast):
        starts = np.flatnonzero(rows.key_starts())
        rank = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
        # a first row that is itself superseded has at least one newer version elsewhere
        ahead = (superseded[starts] != np.uint64(NEVER)).astype(np.int64)
        rank += np.repeat(ahead, np.diff(starts, append=len(rows)))
        gone = rank >= policy.versions
    else:
        gone = superseded <= np.uint64(window_seq)
    pinned = np.searchsorted(pins, rows.seq, "left") < np.searchsorted(pins, superseded, "left")
    dropped |= old & gone & ~pinned
    return dropped


def current_tombstones(rows: RowColumns, durable_seq: int) -> Mask:
    """The tombstones that nothing has superseded."""
    mask: Mask = (
        (rows.kind == TOMBSTONE)
        & (rows.superseded == np.uint64(NEVER))
        & (rows.seq <= np.uint64(durable_seq))
    )
    return mask
