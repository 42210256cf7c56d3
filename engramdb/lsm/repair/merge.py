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
            self._end_older_rows(merged)
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
        """The newest version that is left of a memory or connection becomes the current one; of a
        memory's vector only if it fits, or else it has ended."""
        rows = merged.rows
        which = np.flatnonzero(
            rows.key_starts() & (rows.superseded != np.uint64(NEVER)) & (rows.kind != TOMBSTONE)
        )
        if not len(which):
            return
        seq, time = self._commits.own()
        fit = self._fit_their_memory(rows)[which]
        copies = rows.take(which)
        copies.seq = np.full(len(which), seq, np.uint64)
        copies.time = np.full(len(which), time, np.uint64)
        copies.vector = np.where(fit, copies.vector, np.uint64(NO_VECTOR))
        kind = np.where(copies.vector != np.uint64(NO_VECTOR), PATCH, PUT)
        copies.kind = np.where(fit, kind, TOMBSTONE).astype(np.uint8)
        copies.superseded = np.full(len(which), NEVER, np.uint64)
        merged.rows = RowColumns.concatenate([rows, copies])
        origin = np.where(fit, merged.origin[which], _EMPTY)
        merged.origin = np.concatenate((merged.origin, origin))
        merged.restored = int(np.count_nonzero(fit))
        self._order(merged)

    def _fit_their_memory(self, rows: RowColumns) -> Mask:
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
        return fit & ~self._are_older(rows)

    def _are_older(self, rows: RowColumns) -> Mask:
        """The newest versions of edges that carry a row of a memory's vectors in a space which a
        later commit wrote anew: it has written all rows that there were or are."""
        older = np.zeros(len(rows), np.bool_)
        spaces = rows.spaces()
        carries = np.array([name is not None for name in spaces], np.bool_)
        carries &= rows.key_starts() & (rows.record_class == EDGE)
        carries &= rows.seq != np.uint64(self._commits.own()[0])
        at = np.flatnonzero(carries)
        if not len(at):
            return older
        names = {name: number for number, name in enumerate(dict.fromkeys(spaces[at].tolist()))}
        space = np.array([names[name] for name in spaces[at].tolist()])
        high, low = (column[at] for column in rows.owners())
        order = np.lexsort((space, low, high))
        at, space, high, low = at[order], space[order], high[order], low[order]
        starts = np.ones(len(at), np.bool_)
        starts[1:] = (space[1:] != space[:-1]) | (low[1:] != low[:-1]) | (high[1:] != high[:-1])
        first = np.flatnonzero(starts)
        newest = np.maximum.reduceat(rows.seq[at], first)
        older[at] = rows.seq[at] < np.repeat(newest, np.diff(first, append=len(at)))
        return older

    def _end_older_rows(self, merged: Merged) -> None:
        """Rows of a multi-vector of which a later version is there in part."""
        rows = merged.rows
        current = (rows.superseded == np.uint64(NEVER)) & (rows.kind != TOMBSTONE)
        ended = np.flatnonzero(self._are_older(rows) & current)
        if len(ended):
            self._end(merged, ended)

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
        if len(ended):
            merged.disconnected = sum(name is None for name in rows.spaces()[ended])
            self._end(merged, ended)

    def _end(self, merged: Merged, ended: Rows) -> None:
        """End current versions by the repair's own commit."""
        rows = merged.rows
        seq, time = self._commits.own()
        tombstones = rows.take(ended)
        tombstones.seq = np.full(len(ended), seq, np.uint64)
        tombstones.time = np.full(len(ended), time, np.uint64)
        tombstones.kind = np.full(len(ended), TOMBSTONE, np.uint8)
        tombstones.vector = np.full(len(ended), NO_VECTOR, np.uint64)
        # One that was restored by this very commit was not there before it; but it had ended, and
        # nothing else says that it is gone.
        fresh = rows.seq[ended] == np.uint64(seq)
        keep = np.ones(len(rows), np.bool_)
        keep[ended[fresh]] = False
        rows.superseded[ended] = seq
        merged.restored -= int(np.count_nonzero(fresh))
        merged.rows = RowColumns.concatenate([rows.take(np.flatnonzero(keep)), tombstones])
        merged.origin = np.concatenate((merged.origin[keep], np.full(len(ended), _EMPTY, np.int64)))
        self._order(merged)

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
