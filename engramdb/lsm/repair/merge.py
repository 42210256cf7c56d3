"""Makes one sorted set of versions out of everything that is intact.

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
from engramdb.lsm.repair.spaces import SalvagedSpaces
from engramdb.lsm.retention import Mask
from engramdb.lsm.rewrite import inverse_order, pieces
from engramdb.lsm.rows import RowColumns

_EMPTY = -1  # a row without a payload of its own: a tombstone of the repair


@dataclass(slots=True)
class Merged:
    """`origin` tells where the payload of each row stands among all rows of all sources."""

    rows: RowColumns
    origin: Rows
    restored: int = 0
    disconnected: int = 0


class Merge:
    """Merges the versions of `sources`."""

    def __init__(self, sources: Sources, commits: Commits, findings: Findings) -> None:
        self._sources, self._commits, self._findings = sources, commits, findings
        self._inputs: Sequence[SalvagedSegment | SalvagedLog] = [*sources.segments, *sources.logs]
        parts = [source.columns() for source in self._inputs]
        self._bases = np.cumsum([0, *map(len, parts)])
        self.vectors = SalvagedSpaces(sources)
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
        """A version without its vector: a memory goes on without one, and an edge that was there to
        carry it ends, so that no older one takes its place beside newer ones."""
        self.vectors.settle(rows)
        missing = (rows.vector != np.uint64(NO_VECTOR)) & ~self.vectors.have(rows)
        if not bool(missing.any()):
            return
        which = np.flatnonzero(missing)
        high, low = rows.owners()
        keys = to_list(join(high[which], low[which]))
        self._findings.lose_vectors(list(zip(keys, rows.seq[which].tolist(), strict=True)))
        if not self._findings.must_rebuild:
            self._findings.note(f"{len(which)} versions refer to vectors that are in no file")
        rows.vector[which] = NO_VECTOR
        rows.kind[which] = np.where(rows.record_class[which] == EDGE, TOMBSTONE, PUT)

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
        fit = self._fit_their_memory(rows)[which]
        copies = self._again(rows, which)
        shares = copies.vector != np.uint64(NO_VECTOR)
        copies.kind = np.where(shares, PATCH, PUT).astype(np.uint8)
        _end(copies, ~fit)
        merged.rows = RowColumns.concatenate([rows, copies])
        merged.origin = np.concatenate((merged.origin, np.where(fit, merged.origin[which], _EMPTY)))
        merged.restored = int(np.count_nonzero(fit))
        self._order(merged)

    def _again(self, rows: RowColumns, which: Rows) -> RowColumns:
        """These versions as new ones, in the commit of the repair's own."""
        seq, time = self._commits.own()
        copies = rows.take(which)
        copies.seq = np.full(len(which), seq, np.uint64)
        copies.time = np.full(len(which), time, np.uint64)
        copies.superseded = np.full(len(which), NEVER, np.uint64)
        return copies

    @staticmethod
    def _fit_their_memory(rows: RowColumns) -> Mask:
        """False for edges that carry a vector which the newest version that is left of their memory
        has not: it would stand beside vectors of another time."""
        fit = np.ones(len(rows), np.bool_)
        at = np.flatnonzero(rows.record_class == EDGE)
        at = at[[name is not None for name in rows.spaces()[at]]]
        newest = np.flatnonzero(rows.key_starts() & (rows.record_class == MEMORY))
        if not len(at) or not len(newest):
            return fit
        high, low = (column[at] for column in rows.owners())
        place = first_at_least(rows.high[newest], rows.low[newest], high, low)
        memory = newest[np.minimum(place, len(newest) - 1)]
        seq = rows.seq[memory]
        fit[at] = (
            (rows.high[memory] == high)
            & (rows.low[memory] == low)
            & (rows.seq[at] <= seq)
            & (seq < rows.superseded[at])
        )
        return fit

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
        tombstones = self._again(rows, ended)
        _end(tombstones, np.ones(len(ended), np.bool_))
        # one that was restored by this very commit was not there before it
        fresh = rows.seq[ended] == tombstones.seq
        keep = np.ones(len(rows), np.bool_)
        keep[ended[fresh]] = False
        rows.superseded[ended] = tombstones.seq
        merged.restored -= int(np.count_nonzero(fresh))
        merged.rows = RowColumns.concatenate([rows.take(np.flatnonzero(keep)), tombstones])
        merged.origin = np.concatenate((merged.origin[keep], np.full(len(ended), _EMPTY, np.int64)))
        merged.disconnected = sum(name is None for name in rows.spaces()[ended])

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


def _end(rows: RowColumns, which: Mask) -> None:
    """Make tombstones of these. What ended before needs one even if it does not come back: nothing
    else says that it is gone."""
    rows.kind = np.where(which, TOMBSTONE, rows.kind).astype(np.uint8)
    rows.vector = np.where(which, np.uint64(NO_VECTOR), rows.vector)
