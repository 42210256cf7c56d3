"""Which commits there were, which are lost in part or as a whole, and what follows from that.

After a loss the states since the first lost commit cannot be told any more, so the history floor
rises to the last commit, and tags of such states are taken away; single versions stay readable.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from engramdb.lsm.keys import U64
from engramdb.lsm.log_format import FILE_HEADER
from engramdb.lsm.manifest import SegmentEntry
from engramdb.lsm.records import NEVER
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.repair.sources import Sources
from engramdb.lsm.retention import KeepAll


class Commits:
    """Counts the commits of what can be read. `now` is the time in microseconds."""

    def __init__(self, sources: Sources, findings: Findings, now: int) -> None:
        self._sources, self._findings, self._now = sources, findings, now
        manifest = sources.manifest
        self._keeps_all = (
            sources.knows_policy
            and isinstance(manifest.policy(), KeepAll)
            and not manifest.history_floor
        )
        self.floor = manifest.history_floor if sources.knows_policy else NEVER
        self._date_bulk_loads()
        self.last_seq, self.last_time = manifest.last_seq, manifest.last_time
        for seqs, times in self._columns():
            self.last_seq = max(self.last_seq, int(seqs.max()))
            self.last_time = max(self.last_time, int(times.max()))
        self._found_until = self.last_seq
        if sources.visible is not None:  # a commit's number is never used again
            self.last_seq = max(self.last_seq, sources.visible.seq)
            self.last_time = max(self.last_time, sources.visible.time)
        self._own: tuple[int, int] | None = None

    def _columns(self) -> list[tuple[U64, U64]]:
        columns = [
            (segment.seq.array(), segment.time.array())
            for segment in self._sources.segments
            if segment.rows and not segment.is_undated()
        ]
        rows = [log.columns() for log in self._sources.logs]
        return columns + [(one.seq, one.time) for one in rows if len(one)]

    def _date_bulk_loads(self) -> None:
        """A bulk load is sequenced by the manifest that publishes it. If that is the lost one, the
        number that nothing else has is its own."""
        undated = [segment for segment in self._sources.segments if segment.is_undated()]
        if not undated:
            return
        known = self._columns()
        present = set(self._sources.seqs().tolist())
        seq = self._sources.manifest.last_seq
        for segment in undated:  # in the order of their numbers
            seq += 1
            while seq in present:
                seq += 1
            before = [int(times[seqs < seq].max(initial=0)) for seqs, times in known]
            time = max([self._sources.manifest.last_time, *before]) + 1
            segment.date(seq, time)
            present.add(seq)
            known.append((segment.seq.array(), segment.time.array()))

    # What the merge asks and tells

    def pinned(self) -> list[int]:
        """The seqs of all pins."""
        return [seq for seq, _ in self._sources.manifest.pins.values()]

    def saw_ends(self, seqs: U64) -> None:
        """Some versions were ended by these commits."""
        if len(seqs):
            self.last_seq = max(self.last_seq, int(seqs.max()))

    def misses_successors(self, seqs: U64) -> None:
        """Versions of these commits were there once, and are not found."""
        if not self._findings.must_rebuild:
            self._findings.note(f"versions of {len(np.unique(seqs))} commits are in no file")
        for seq in np.unique(seqs).tolist():
            self._findings.lose_commits(seq, seq)

    def conclude(self) -> None:
        """Everything is read: what is missing?"""
        sources, findings = self._sources, self._findings
        for entry in self._gone_for_good():
            findings.versions_lost += entry.rows
            findings.lose_commits(entry.seq_min, entry.seq_max)
        gaps = [gap for gap in sources.gaps_above(sources.manifest.last_seq) if self._is_loss(gap)]
        for first_lost, last_lost in gaps:
            if not findings.must_rebuild:
                findings.note(f"commits {first_lost} to {last_lost} are in no file")
            findings.lose_commits(first_lost, last_lost)
        misses_end = (sources.misses_commits and not gaps) or self._misses_the_last_log()
        if misses_end or any(log.is_cut for log in sources.logs):
            visible = sources.visible.seq if sources.visible is not None else 0
            findings.lose_commits(self._found_until + 1, visible)
            self.last_seq = max(self.last_seq, self._found_until + 1)

    def _gone_for_good(self) -> list[SegmentEntry]:
        """The missing segments that were not merged by a manifest that is lost: what they were
        merged into has commits of them, or at least of the neighbours that went with them, if the
        policy may have dropped all of theirs."""
        listed = self._sources.manifest.segments
        numbers = {entry.number for entry in listed}
        made = [
            segment.seq.extremes
            for segment in self._sources.segments
            if segment.number not in numbers and segment.rows
        ]
        gone = {entry.number for entry in self._sources.gone}
        lost: list[SegmentEntry] = []
        for is_gone, group in groupby(listed, lambda entry: entry.number in gone):
            some = list(group) if is_gone else []
            for part in [[entry] for entry in some] if self._keeps_all else [some]:
                first = min((entry.seq_min for entry in part), default=0)
                last = max((entry.seq_max for entry in part), default=0)
                if not any(low <= last and first <= high for low, high in made):
                    lost += part
        return lost

    def _is_loss(self, gap: tuple[int, int]) -> bool:
        """A segment is whole: what is missing between its own commits was dropped, or purged."""
        return not any(
            segment.seq.extremes[0] < gap[0] and gap[1] < segment.seq.extremes[1]
            for segment in self._sources.segments
        )

    def _misses_the_last_log(self) -> bool:
        """Whether VISIBLE names a log with later commits that is not there."""
        visible = self._sources.visible
        return (
            visible is not None
            and visible.seq > self._found_until
            and visible.log >= max(1, self._sources.manifest.log_floor)
            and visible.synced > FILE_HEADER.size
            and all(log.number != visible.log for log in self._sources.logs)
        )

    @property
    def lost_nothing(self) -> bool:
        """Whether every version and vector is there. After conclude()."""
        findings = self._findings
        return not (findings.stretches or findings.versions_lost or findings.vectors_lost)

    def own(self) -> tuple[int, int]:
        """Seq and time of the repair's own commit."""
        if self._own is None:
            self.last_seq += 1
            self.last_time = max(self._now, self.last_time + 1)
            self._own = self.last_seq, self.last_time
        return self._own

    # What follows

    @property
    def history_floor(self) -> int:
        """The first commit from which on states are complete."""
        if self.lost_nothing and (not self._sources.stale or self._keeps_all):
            return self._sources.manifest.history_floor
        return self.last_seq

    def pins(self) -> dict[str, tuple[int, int]]:
        """The pins of moments before the first loss."""
        until = self._findings.lost_from()
        pins = self._sources.manifest.pins.items()
        return {name: pin for name, pin in pins if pin[0] < until}

    def tags_lost(self) -> tuple[str, ...]:
        """The names of the others."""
        kept = self.pins()
        return tuple(sorted(name for name in self._sources.manifest.pins if name not in kept))
