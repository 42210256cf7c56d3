"""Which runs to merge next: size-tiered over neighbours.

Runs stand in the order of their seqs and only neighbours are merged, so the seqs of two runs never
overlap and the newest run that knows a key is right. A run's tier grows with the logarithm of its
rows; `fan_in` neighbours of one tier are merged, with the smaller ones among them, when that makes
a run of a higher tier. So each record is rewritten a logarithmic number of times and the number of
runs stays logarithmic too. (Size-tiered compaction: Bigtable, 2006.)
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


def _stretch(amounts: Sequence[int], unit: int, fan_in: int) -> tuple[int, int] | None:
    """The longest stretch [start, stop) of at least fan_in neighbours of the lowest tier that has
    one; smaller neighbours go along. What is below 0 is left alone.

    The merged run must be of a higher tier (above tier 0), or a large run would be rewritten again
    and again for the sake of a few small neighbours.
    """
    tiers = [_tier(amount, unit, fan_in) if amount >= 0 else -1 for amount in amounts]
    for tier in sorted(set(tiers) - {-1}):
        best: tuple[int, int] | None = None
        position = 0
        for small, group in groupby([0 <= other <= tier for other in tiers]):
            length = len(list(group))
            stop = position + length
            if small and length >= fan_in and (best is None or length > best[1] - best[0]):
                together = sum(amounts[position:stop])
                if tier == 0 or _tier(together, unit, fan_in) > tier:
                    best = (position, stop)
            position = stop
        if best is not None:
            return best
    return None


def backlog(segments: Sequence[Segment], fan_in: int) -> int:
    """How many small neighbours wait to be merged: what writes are stalled for."""
    stretch = _stretch([segment.rows for segment in segments], _TIER_ROWS, fan_in)
    return 0 if stretch is None else stretch[1] - stretch[0]


def is_behind(segments: Sequence[Segment], files: Sequence[VectorFile], fan_in: int) -> bool:
    """Whether there are small neighbours to merge. Looks at no column, so that it can be asked when
    a database is opened."""
    return backlog(segments, fan_in) > 0 or any(
        _small_files(some, fan_in) is not None for some in by_space(files)
    )


def by_space(files: Sequence[VectorFile]) -> list[list[VectorFile]]:
    """The vector files of each space: only those are neighbours, and merged."""
    groups: dict[str, list[VectorFile]] = {}
    for file in files:
        groups.setdefault(file.space, []).append(file)
    return list(groups.values())


def plan_segments(
    segments: Sequence[Segment], fan_in: int, policy: History, flushed_seq: int
) -> tuple[int, int] | None:
    """The stretch [start, stop) of segments to merge next, or None."""
    stretch = _stretch([segment.rows for segment in segments], _TIER_ROWS, fan_in)
    if stretch is not None or isinstance(policy, KeepAll):
        return stretch
    for position, segment in enumerate(segments):
        # what was superseded since it was written; what a pin has kept then, it keeps now. What
        # only the log supersedes stays a mark, so counting it would plan the same merge for ever
        if segment.marks.count_until(flushed_seq) > _GARBAGE * segment.rows:
            return position, position + 1
    return None


def plan_vectors(
    files: Sequence[VectorFile], fan_in: int, flushed_seq: int
) -> tuple[int, int] | None:
    """The stretch [start, stop) of vector files, all of one space, to rewrite next, or None."""
    for position, file in enumerate(files):
        if file.entry.unreferenced > _GARBAGE * file.rows:
            return position, position + 1
        dead = file.dead.count_until(flushed_seq)
        if _GARBAGE * file.rows < dead < file.rows:
            return position, position + 1
    return _small_files(files, fan_in)


def _small_files(files: Sequence[VectorFile], fan_in: int) -> tuple[int, int] | None:
    sizes = [4 * file.rows * file.dimension for file in files]
    small = [size if size < _VECTOR_BYTES_MAX // fan_in else -1 for size in sizes]
    # a merge may give two files, of the present and of the past: it must take more than two
    return _stretch(small, _TIER_BYTES, max(fan_in, 3))
