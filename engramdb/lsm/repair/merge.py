"""Makes one sorted set of versions, and one of vectors, out of everything that is intact.

What ended a version is known from the file that held it, or follows from its successor. Where a
newer version of a memory or connection is known to be lost, the older one comes back: as a new
version, in a commit of the repair's own, so that nothing is claimed about the time in between. The
same commit ends connections to memories that are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engramdb.lsm.keys import U64, Rows, first_at_least, join, to_list
from engramdb.lsm.payloads import Payloads
from engramdb.lsm.records import EDGE, MEMORY, META, NEVER, NO_VECTOR, PATCH, PUT, TOMBSTONE
from engramdb.lsm.repair.commits import Commits
from engramdb.lsm.repair.logs import SalvagedLog
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.repair.segments import SalvagedSegment
from engramdb.lsm.repair.sources import Sources
from engramdb.lsm.repair.vectors import SalvagedVectors
from engramdb.lsm.retention import Mask
from engramdb.lsm.rewrite import inverse_order, pieces
from engramdb.lsm.rows import RowColumns
from engramdb.lsm.vector_file import Matrix, VectorColumns, norms_of

_EMPTY = -1  # a row without a payload of its own: a tombstone of the repair


@dataclass(slots=True)
class Merged:
    """`origin` tells where the payload of each row stands among all rows of all sources."""

    rows: RowColumns
    origin: Rows
    restored: int = 0
    disconnected: int = 0


class Merge:
    """Merges the versions and vectors of `sources`."""

    def __init__(self, sources: Sources, commits: Commits, findings: Findings) -> None:
        self._sources, self._commits, self._findings = sources, commits, findings
        self._inputs: Sequence[SalvagedSegment | SalvagedLog] = [*sources.segments, *sources.logs]
        parts = [source.columns() for source in self._inputs]
        self._bases = np.cumsum([0, *map(len, parts)])
        self._vectors = _Vectors(sources)
        self.merged = self._merge(parts)

    # Versions

    def _merge(self, parts: list[RowColumns]) -> Merged:
        if not parts:
            self._commits.conclude()
            if not self._commits.lost_nothing:
                self._commits.own()
            return Merged(RowColumns.empty(), np.empty(0, np.int64))
        rows = RowColumns.concatenate(parts)
        lost = np.concatenate([source.lost for source in self._inputs])
        known = np.repeat(
            [source.knows_supersession for source in self._inputs], np.diff(self._bases)
        )
        # the same version may be in several files: one intact copy is enough
        order = np.lexsort((lost, ~rows.seq, rows.low, rows.high, rows.record_class))
        sorted_ = rows.take(order)
        starts = sorted_.key_starts()
        starts[1:] |= sorted_.seq[1:] != sorted_.seq[:-1]
        first = order[starts]
        self._findings.lose_versions(self._versions(rows, first[lost[first]]))
        first = first[~lost[first]]
        merged = Merged(rows.take(first), first)
        self._resolve_vectors(merged.rows)
        self._supersede(merged.rows, known[first])
        self._commits.conclude()
        if not self._commits.lost_nothing:
            self._commits.own()  # no state from before is shown under the number of one that is
            self._restore(merged)
            self._disconnect(merged)
        self._order(merged)
        return merged

    def _versions(self, rows: RowColumns, which: Rows) -> list[tuple[int, bytes, int]]:
        return list(
            zip(
                rows.record_class[which].tolist(),
                to_list(join(rows.high[which], rows.low[which])),
                rows.seq[which].tolist(),
                strict=True,
            )
        )

    def _resolve_vectors(self, rows: RowColumns) -> None:
        missing = (rows.vector != np.uint64(NO_VECTOR)) & ~self._vectors.have(rows.vector)
        if not bool(missing.any()):
            return
        which = np.flatnonzero(missing)
        versions = self._versions(rows, which)
        self._findings.lose_vectors([(key, seq) for _, key, seq in versions])
        if not self._findings.must_rebuild:
            self._findings.note(f"{len(which)} versions refer to vectors that are in no file")
        rows.vector[which] = NO_VECTOR
        rows.kind[which] = PUT

    def _supersede(self, rows: RowColumns, known: Mask) -> None:
        """Where each version ended: as its file says, if it does, or where its successor begins."""
        original = rows.superseded
        followed = ~rows.key_starts()
        following = np.full(len(rows), NEVER, np.uint64)
        following[1:][followed[1:]] = rows.seq[:-1][followed[1:]]
        ends = np.minimum(following, np.where(known, original, np.uint64(NEVER)))
        # the policy may have dropped versions in between, but none that a pin holds
        floor = np.uint64(self._commits.floor)
        unsure = np.flatnonzero(followed & ~known & (following <= floor))
        for row in unsure.tolist():
            seq, until = int(rows.seq[row]), int(following[row])
            held = [pin for pin in self._commits.pinned() if seq < pin < until]
            ends[row] = min(until, max([seq, *held]) + 1)
        lonely = ~followed & (rows.kind == TOMBSTONE)
        ends[lonely | (rows.record_class == META) & ~followed] = NEVER
        rows.superseded = ends
        self._commits.saw_ends(ends[ends != np.uint64(NEVER)])
        if bool((~followed & (ends != np.uint64(NEVER))).any()):
            self._commits.misses_successors(ends[~followed & (ends != np.uint64(NEVER))])

    def _restore(self, merged: Merged) -> None:
        """The newest version that is left of a memory or connection becomes the current one."""
        rows = merged.rows
        which = np.flatnonzero(
            rows.key_starts() & (rows.superseded != np.uint64(NEVER)) & (rows.kind != TOMBSTONE)
        )
        if not len(which):
            return
        seq, time = self._commits.own()
        copies = rows.take(which)
        copies.seq = np.full(len(which), seq, np.uint64)
        copies.time = np.full(len(which), time, np.uint64)
        copies.kind = np.where(copies.vector == np.uint64(NO_VECTOR), PUT, PATCH).astype(np.uint8)
        copies.superseded = np.full(len(which), NEVER, np.uint64)
        merged.rows = RowColumns.concatenate([rows, copies])
        merged.origin = np.concatenate((merged.origin, merged.origin[which]))
        merged.restored = len(which)
        self._order(merged)

    def _disconnect(self, merged: Merged) -> None:
        """A connection needs a memory at both ends."""
        rows = merged.rows
        current = (rows.superseded == np.uint64(NEVER)) & (rows.kind != TOMBSTONE)
        memories = np.flatnonzero(current & (rows.record_class == MEMORY))
        high, low = rows.high[memories], rows.low[memories]

        def are_there(wanted_high: U64, wanted_low: U64) -> Mask:
            if not len(memories):
                return np.zeros(len(wanted_high), np.bool_)
            at = np.minimum(first_at_least(high, low, wanted_high, wanted_low), len(memories) - 1)
            found: Mask = (high[at] == wanted_high) & (low[at] == wanted_low)
            return found

        edges = rows.edges
        at = np.flatnonzero(rows.record_class == EDGE)
        ended = at[
            current[at]
            & ~(
                are_there(edges.source_high, edges.source_low)
                & are_there(edges.target_high, edges.target_low)
            )
        ]
        if not len(ended):
            return
        seq, time = self._commits.own()
        tombstones = rows.take(ended)
        tombstones.seq = np.full(len(ended), seq, np.uint64)
        tombstones.time = np.full(len(ended), time, np.uint64)
        tombstones.kind = np.full(len(ended), TOMBSTONE, np.uint8)
        # one that was restored by this very commit was not there before it
        fresh = rows.seq[ended] == np.uint64(seq)
        keep = np.ones(len(rows), np.bool_)
        keep[ended[fresh]] = False
        rows.superseded[ended] = seq
        merged.restored -= int(np.count_nonzero(fresh))
        merged.rows = RowColumns.concatenate(
            [rows.take(np.flatnonzero(keep)), tombstones.take(np.flatnonzero(~fresh))]
        )
        merged.origin = np.concatenate(
            (merged.origin[keep], np.full(int(np.count_nonzero(~fresh)), _EMPTY, np.int64))
        )
        merged.disconnected = len(ended)

    @staticmethod
    def _order(merged: Merged) -> None:
        order = merged.rows.order()
        merged.rows, merged.origin = merged.rows.take(order), merged.origin[order]

    def payloads(self) -> Iterator[Payloads]:
        """The payloads of the merged rows, piece by piece."""
        payload_bytes = sum(source.payload_bytes for source in self._inputs)
        for start, stop in pieces(len(self.merged.rows), payload_bytes):
            wanted = self.merged.origin[start:stop]
            source = np.where(
                wanted == _EMPTY, _EMPTY, np.searchsorted(self._bases, wanted, "right") - 1
            )
            nothing = np.flatnonzero(wanted == _EMPTY)
            places = [nothing]
            parts = [Payloads(np.empty(0, np.uint64), np.zeros(len(nothing), np.uint32))]
            for i, one in enumerate(self._inputs):
                mine = np.flatnonzero(source == i)
                if len(mine):
                    rows = wanted[mine] - self._bases[i]
                    first = int(rows[0])
                    parts.append(one.payloads(first, int(rows[-1]) + 1).take(rows - first))
                    places.append(mine)
            yield Payloads.concatenate(parts).take(
                inverse_order(np.concatenate(places), stop - start)
            )

    # Vectors

    @property
    def dimension(self) -> int:
        """Of all vectors; 0 if there are none."""
        return self._vectors.dimension

    def vector_columns(self) -> VectorColumns:
        """The vectors that versions refer to, by number; norms apart, for which see take()."""
        rows = self.merged.rows
        used = np.flatnonzero(rows.vector != np.uint64(NO_VECTOR))
        used = used[np.lexsort((rows.seq[used], rows.vector[used]))]
        numbers, first, count = np.unique(rows.vector[used], return_index=True, return_counts=True)
        last = first + count - 1
        born, final = used[first], used[last]
        return VectorColumns(
            numbers,
            rows.high[born],
            rows.low[born],
            rows.seq[born],
            rows.superseded[final],
            self._vectors.norms(numbers),
        )

    def take(self, numbers: U64) -> Matrix:
        """The vectors of these numbers."""
        return self._vectors.take(numbers)


class _Vectors:
    """All vectors that are intact, by number."""

    def __init__(self, sources: Sources) -> None:
        spaces = sources.manifest.spaces
        inputs: list[SalvagedVectors | SalvagedLog] = [*sources.vectors, *sources.logs]
        inputs = [source for source in inputs if len(source.numbers)]
        self.dimension = spaces[0].dimension if spaces else _most_common(inputs)
        self._inputs = [source for source in inputs if source.dimension == self.dimension]
        numbers = np.concatenate(
            [np.empty(0, np.uint64), *(source.numbers for source in self._inputs)]
        )
        lost = np.concatenate(
            [np.empty(0, np.bool_), *(source.lost_vectors for source in self._inputs)]
        )
        source = np.repeat(
            np.arange(len(self._inputs)), [len(source.numbers) for source in self._inputs]
        )
        row = np.concatenate(
            [np.empty(0, np.int64), *(np.arange(len(one.numbers)) for one in self._inputs)]
        )
        intact = np.flatnonzero(~lost)
        self._numbers, first = np.unique(numbers[intact], return_index=True)
        self._source, self._row = source[intact[first]], row[intact[first]]

    def have(self, numbers: U64) -> Mask:
        """Which of these are intact."""
        if not len(self._numbers):
            return np.zeros(len(numbers), np.bool_)
        at = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
        found: Mask = self._numbers[at] == numbers
        return found

    def take(self, numbers: U64) -> Matrix:
        """(n, dimension) float32."""
        at = np.searchsorted(self._numbers, numbers)
        made = np.empty((len(numbers), self.dimension), np.float32)
        for i, source in enumerate(self._inputs):
            mine = np.flatnonzero(self._source[at] == i)
            if len(mine):
                made[mine] = source.take(self._row[at[mine]])
        return made

    def norms(self, numbers: U64) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The Euclidean norms, worked out anew, some thousand rows at a time."""
        norms = np.empty(len(numbers), np.float32)
        step = max(1, 2**22 // max(1, self.dimension))
        for start in range(0, len(numbers), step):
            norms[start : start + step] = norms_of(self.take(numbers[start : start + step]))
        return norms


def _most_common(inputs: Sequence[SalvagedVectors | SalvagedLog]) -> int:
    counts: dict[int, int] = {}
    for source in inputs:
        counts[source.dimension] = counts.get(source.dimension, 0) + len(source.numbers)
    return max(counts, key=lambda dimension: counts[dimension], default=0)
