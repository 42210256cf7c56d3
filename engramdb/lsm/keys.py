"""Keys as arrays: 16 bytes in a record, two big-endian-ordered uint64 columns (high, low) in a run.

All conversions live here, because the traps do too: numpy's 'S16' drops trailing NULs, and a Python
int compared with a uint64 array is slow and, above 2**53, wrong. So keys are 'V16' or (n, 16)
uint8, and every scalar is wrapped in numpy.uint64.
"""

from __future__ import annotations

import itertools
from typing import Final

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


_HALVES_MAX: Final = 16  # so many different first halves of keys are looked up one by one


def spans(high: U64, low: U64, wanted_high: U64, wanted_low: U64) -> tuple[Rows, Rows]:
    """For each wanted key, the rows [first, last) of the sorted columns that hold it.

    The wanted keys are sorted, too. Ids that were made in one batch share their first half: then
    the second halves are searched at once. In all other cases most first halves stand for one key.
    """
    groups = np.flatnonzero(wanted_high[1:] != wanted_high[:-1]) + 1
    if len(groups) < _HALVES_MAX:
        first, last = np.empty(len(wanted_low), np.int64), np.empty(len(wanted_low), np.int64)
        edges = [0, *groups.tolist(), len(wanted_low)]
        for begin, end in itertools.pairwise(edges):
            if begin == end:
                continue
            start = int(np.searchsorted(high, wanted_high[begin], "left"))
            stop = int(np.searchsorted(high, wanted_high[begin], "right"))
            first[begin:end] = np.searchsorted(low[start:stop], wanted_low[begin:end], "left")
            last[begin:end] = np.searchsorted(low[start:stop], wanted_low[begin:end], "right")
            first[begin:end] += start
            last[begin:end] += start
        return first, last
    first = np.searchsorted(high, wanted_high, "left")
    last = np.searchsorted(high, wanted_high, "right")
    here = np.flatnonzero(first < last)
    mixed = (low[first[here]] != wanted_low[here]) | (low[last[here] - 1] != wanted_low[here])
    odd = here[mixed]
    if len(odd):
        odd_high, odd_low = wanted_high[odd], wanted_low[odd]
        first[odd] = first_at_least(high, low, odd_high, odd_low)
        above = odd_low + np.uint64(1)  # of the last possible second half: 0, and not used
        last[odd] = np.where(above, first_at_least(high, low, odd_high, above), last[odd])
    return first, last


def order_of(high: U64, low: U64) -> Rows:
    """The permutation that sorts keys; equal ones in any order."""
    order: Rows = np.argsort(high)
    sorted_high, sorted_low = high[order], low[order]
    same = sorted_high[1:] == sorted_high[:-1]
    if not bool((same & (sorted_low[1:] < sorted_low[:-1])).any()):
        return order
    return np.argsort(low) if bool(same.all()) else np.lexsort((low, high))


def distinct(high: U64, low: U64) -> tuple[U64, U64]:
    """The keys, sorted, each once."""
    order = order_of(high, low)
    high, low = high[order], low[order]
    new = np.ones(len(high), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return high[new], low[new]


def positions(high: U64, low: U64, wanted_high: U64, wanted_low: U64) -> Rows:
    """For each wanted key its row in the sorted columns, each of whose keys occurs once; or -1."""
    if not len(high):
        return np.full(len(wanted_high), -1, np.int64)
    if high[0] == high[-1]:
        rows = np.searchsorted(low, wanted_low)
    else:
        rows = first_at_least(high, low, wanted_high, wanted_low)
    inside = np.minimum(rows, len(high) - 1)
    found = (high[inside] == wanted_high) & (low[inside] == wanted_low)
    return np.where(found, inside, -1)


def ranges(first: Rows, last: Rows) -> tuple[Rows, Rows]:
    """All numbers of the ranges [first, last), one range after another, and whose they are."""
    counts = last - first
    whose = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.arange(len(whose)) + (first - before)[whose], whose
