"""Which runs to merge next: size-tiered over neighbours.

Runs stand in the order of their seqs and only neighbours are merged, so the seqs of two runs never
overlap and the newest run that knows a key is right. A run's tier grows with the logarithm of its
rows; `fan_in` neighbours of one tier are merged, with the smaller ones among them, when that makes
a run of a higher tier. So each record is rewritten a logarithmic number of times and the number of
runs stays logarithmic too. (Size-tiered compaction: Bigtable, 2006.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Final

from engramdb.lsm.retention import History, KeepAll
from engramdb.lsm.segment import Segment
from engramdb.lsm.vector_file import VectorFile

_TIER_ROWS: Final = 4096
_TIER_BYTES: Final = 2**20
VECTOR_BYTES_MAX: Final = 4 * 2**30
"""Of the matrix of a vector file that a merge of several makes."""
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
        _small_files(some, fan_in) for some in by_space(files)
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


def plan_vectors(files: Sequence[VectorFile], fan_in: int, flushed_seq: int) -> list[VectorFile]:
    """The vector files, of these of one space, to rewrite next; none if there is nothing to do."""
    for file in files:
        if file.entry.unreferenced > _GARBAGE * file.rows:
            return [file]
        dead = file.dead.count_until(flushed_seq)
        if _GARBAGE * file.rows < dead < file.rows:
            return [file]
    present, past = _by_time(files, flushed_seq)
    return _small_files(present, fan_in) or _small_files(past, fan_in)


def plan_all_vectors(files: Sequence[VectorFile], flushed_seq: int) -> list[list[VectorFile]]:
    """Which vector files, of these of one space, to rewrite so that there is one file of the
    present, or as few as may be; and those of which some vectors are nobody's."""
    present, past = _by_time(files, flushed_seq)
    groups: list[list[VectorFile]] = []
    together = 0
    for file in present:
        together += _matrix_bytes(file)
        if not groups or together > VECTOR_BYTES_MAX:
            groups.append([])
            together = _matrix_bytes(file)
        groups[-1].append(file)
    groups += [[file] for file in past]
    return [group for group in groups if len(group) > 1 or group[0].entry.unreferenced]


def _by_time(
    files: Sequence[VectorFile], flushed_seq: int
) -> tuple[list[VectorFile], list[VectorFile]]:
    """Those that a search of now may touch, and those in which all is dead. If both were merged
    with one another they would be split again, and then be as many as before."""
    present: list[VectorFile] = []
    past: list[VectorFile] = []
    for file in files:
        is_past = file.dead.count_until(flushed_seq) == file.rows
        (past if is_past else present).append(file)
    return present, past


def _matrix_bytes(file: VectorFile) -> int:
    return 4 * file.rows * file.dimension


def _small_files(files: Sequence[VectorFile], fan_in: int) -> list[VectorFile]:
    least = max(fan_in, 3)  # a merge may give two files, of the present and of the past
    sizes = [_matrix_bytes(file) for file in files]
    small = [size if size < VECTOR_BYTES_MAX // least else -1 for size in sizes]
    stretch = _stretch(small, _TIER_BYTES, least)
    if stretch is None:
        return []
    start, stop = stretch
    # at least so many always fit, and what they make is too large to be merged again
    fitting = sum(size <= VECTOR_BYTES_MAX for size in accumulate(sizes[start:stop]))
    return list(files[start : start + fitting])
