"""Which runs to merge next: size-tiered over neighbours.

Runs stand in the order of their seqs and only neighbours are merged, so the seqs of two runs never
overlap and the newest run that knows a key is right. A run's tier grows with the logarithm of its
rows; `fan_in` neighbours of one tier or below are merged. So each record is rewritten a logarithmic
number of times and the number of runs stays logarithmic too. (Size-tiered compaction: Bigtable,
2006.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from engramdb.lsm.retention import History, KeepAll
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import VectorFile

_TIER_ROWS: Final = 4096
_TIER_BYTES: Final = 2**20
_VECTOR_BYTES_MAX: Final = 256 * 2**20  # larger vector files are not merged for being many
_GARBAGE: Final = 0.5


def _tier(amount: int, unit: int, fan_in: int) -> int:
    tier = 0
    while amount > unit:
        amount //= fan_in
        tier += 1
    return tier


def _stretch(tiers: Sequence[int], fan_in: int) -> tuple[int, int] | None:
    """The longest stretch [start, stop) of at least fan_in neighbours of the lowest tier that has
    one; smaller neighbours count as of that tier."""
    for tier in sorted(set(tiers)):
        best: tuple[int, int] | None = None
        position = 0
        for small, group in groupby(tiers, lambda t, limit=tier: t <= limit):  # type: ignore[misc]
            length = len(list(group))
            if small and length >= fan_in and (best is None or length > best[1] - best[0]):
                best = (position, position + length)
            position += length
        if best is not None:
            return best
    return None


def backlog(segments: Sequence[Segment]) -> int:
    """How many small neighbours wait to be merged: what writes are stalled for."""
    tiers = [_tier(segment.rows, _TIER_ROWS, 4) for segment in segments]
    stretch = _stretch(tiers, 4)
    return 0 if stretch is None else stretch[1] - stretch[0]


def plan_segments(
    segments: Sequence[Segment], fan_in: int, policy: History
) -> tuple[int, int] | None:
    """The stretch [start, stop) of segments to merge next, or None."""
    stretch = _stretch([_tier(segment.rows, _TIER_ROWS, fan_in) for segment in segments], fan_in)
    if stretch is not None or isinstance(policy, KeepAll):
        return stretch
    for position, segment in enumerate(segments):
        # what was superseded since it was written; what a pin has kept then, it keeps now
        if len(segment.marks) > _GARBAGE * segment.rows:
            return position, position + 1
    return None


def plan_vectors(
    files: Sequence[VectorFile], fan_in: int, flushed_seq: int
) -> tuple[int, int] | None:
    """The stretch [start, stop) of vector files to rewrite next, or None."""
    for position, file in enumerate(files):
        if file.entry.unreferenced > _GARBAGE * file.rows:
            return position, position + 1
        dead = file.dead.count_until(flushed_seq)
        if _GARBAGE * file.rows < dead < file.rows:
            return position, position + 1
    tiers: list[int] = []
    for file in files:
        size = 4 * file.rows * file.dimension
        small = size < _VECTOR_BYTES_MAX // fan_in
        tiers.append(_tier(size, _TIER_BYTES, fan_in) if small else 1000 + len(tiers))
    stretch = _stretch(tiers, fan_in)
    if stretch is None or any(tier >= 1000 for tier in tiers[stretch[0] : stretch[1]]):
        return None
    return stretch
