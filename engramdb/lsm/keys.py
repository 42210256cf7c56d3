"""Keys as arrays: 16 bytes in a record, two big-endian-ordered uint64 columns (high, low) in a run.

All conversions live here, because the traps do too: numpy's 'S16' drops trailing NULs, and a Python
int compared with a uint64 array is slow and, above 2**53, wrong. So keys are 'V16' or (n, 16)
uint8, and every scalar is wrapped in numpy.uint64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
KeyMatrix = npt.NDArray[np.uint8]


def split(keys: KeyMatrix) -> tuple[U64, U64]:
    """The (high, low) columns of an (n, 16) uint8 key matrix."""
    pair = np.ascontiguousarray(keys).view(">u8").astype("<u8")
    return np.ascontiguousarray(pair[:, 0]), np.ascontiguousarray(pair[:, 1])


def join(high: U64, low: U64) -> KeyMatrix:
    """The (n, 16) uint8 key matrix of two columns."""
    pair = np.empty((len(high), 2), ">u8")
    pair[:, 0] = high
    pair[:, 1] = low
    return pair.view(np.uint8)


def to_list(keys: KeyMatrix) -> list[bytes]:
    """An (n, 16) uint8 key matrix as a list of 16-byte keys."""
    if not len(keys):
        return []
    listed: list[bytes] = np.ascontiguousarray(keys).view("V16").ravel().tolist()
    return listed


def from_list(keys: list[bytes]) -> KeyMatrix:
    """A list of 16-byte keys as an (n, 16) uint8 key matrix."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)


def first_at_least(high: U64, low: U64, wanted_high: U64, wanted_low: U64) -> Rows:
    """For each wanted key, the first row of the sorted columns that is not below it.

    numpy.searchsorted knows one column; the second is bisected by hand, all keys at once, inside
    the stretch of rows that share the first.
    """
    start = np.searchsorted(high, wanted_high, "left")
    stop = np.searchsorted(high, wanted_high, "right")
    while True:
        open_ = np.flatnonzero(start < stop)
        if not len(open_):
            return start
        middle = (start[open_] + stop[open_]) >> 1
        below = low[middle] < wanted_low[open_]
        start[open_[below]] = middle[below] + 1
        stop[open_[~below]] = middle[~below]
