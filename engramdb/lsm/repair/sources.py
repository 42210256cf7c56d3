"""Finds everything in a directory that can be part of the database, and reads what is intact.

If the manifest with the highest number is sound, it tells which files count. If not, every file
counts: flush, merge and bulk load write files before they publish them, and what a merge read and
what it wrote are the same versions. A bulk load of which a part was never written was not finished.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from engramdb.errors import CorruptionError, IncompatibleFormatError, InvalidInputError
from engramdb.lsm import log_format
from engramdb.lsm import manifest as manifests
from engramdb.lsm.container import HEADER, MAGIC, MARKS
from engramdb.lsm.core import file_path, live_names, number_of
from engramdb.lsm.environment import Environment
from engramdb.lsm.keys import U64
from engramdb.lsm.log_format import FILE_HEADER
from engramdb.lsm.log_writer import Visible, log_path, read_visible
from engramdb.lsm.manifest import Manifest, SegmentEntry, VectorEntry
from engramdb.lsm.marks import Marks
from engramdb.lsm.recovery import read_whole
from engramdb.lsm.repair.healing import HealingReader, heal
from engramdb.lsm.repair.logs import SalvagedLog
from engramdb.lsm.repair.report import Findings
from engramdb.lsm.repair.segments import SalvagedSegment
from engramdb.lsm.repair.vectors import SalvagedVectors

_UNREADABLE: Final = (CorruptionError, IncompatibleFormatError)


@dataclass(slots=True)
class Sources:
    """What can be read. `manifest` is the newest sound one, or what can be said without any;
    `stale` how many with higher numbers cannot be read."""

    manifest: Manifest
    stale: int
    highest: int  # number of a manifest
    visible: Visible | None
    segments: list[SalvagedSegment] = field(default_factory=list)
    vectors: list[SalvagedVectors] = field(default_factory=list)
    logs: list[SalvagedLog] = field(default_factory=list)
    gone: list[SegmentEntry] = field(default_factory=list)
    misses_commits: bool = False  # nobody knows how many
    is_listed: bool = True  # False: no manifest can be read, so pins and policy are unknown

    @property
    def knows_policy(self) -> bool:
        """Whether the retention policy under which all these files were written is known: a lost
        manifest has changed the policy or the files, not both."""
        return self.is_listed and self.stale <= 1

    def seqs(self) -> U64:
        """Every commit of which there is a version, ascending."""
        columns = [segment.seq.array() for segment in self.segments if not segment.is_undated()]
        columns += [log.seqs for log in self.logs]
        return np.unique(np.concatenate([*columns, np.empty(0, np.uint64)]))

    def gaps_above(self, seq: int) -> list[tuple[int, int]]:
        """(first, last) of each stretch of commits above `seq` that is missing before others."""
        present = self.seqs()
        above = present[present > np.uint64(seq)].tolist()
        return [(a + 1, b - 1) for a, b in pairwise([seq, *above]) if b > a + 1]


class Reader:
    """Reads a directory. Raises InvalidInputError if there is nothing of a database in it."""

    def __init__(
        self, environment: Environment, directory: str, findings: Findings, made_from: int
    ) -> None:
        """Files with numbers from `made_from` on, if it is not 0, are ignored: a repair that was
        cut short has made them."""
        self._environment, self._directory, self._findings = environment, directory, findings
        self._names = {
            kind: environment.list(f"{directory}/{kind}")
            if environment.exists(f"{directory}/{kind}")
            else []
            for kind in ("wal", "seg", "vec")
        }
        if made_from:
            for kind in ("seg", "vec"):
                names = self._names[kind]
                self._names[kind] = [name for name in names if number_of(name) < made_from]

    def read(self) -> Sources:
        """Everything that is intact."""
        newest, stale, highest = self._newest_manifest()
        visible = read_visible(self._environment, self._directory)  # torn, it says nothing
        manifest = newest or self._manifest_of_files(highest)
        if visible is not None and visible.manifest > highest:
            stale += visible.manifest - highest
            path = f"{self._directory}/{manifests.name_of(visible.manifest)}"
            self._findings.note(CorruptionError(path, 0, "a manifest, as VISIBLE says", "no file"))
        known = copy.deepcopy(self._findings)
        sources = Sources(manifest, stale, highest, visible, is_listed=newest is not None)
        self._read_files(sources)
        does_not_fit = self._findings.must_rebuild or sources.gaps_above(manifest.last_seq)
        is_known_last = visible is not None and visible.manifest == manifest.number
        is_unsure = sources.is_listed and not stale and not is_known_last
        if does_not_fit and is_unsure and self._other_files(manifest):
            # what does not fit may be of a later manifest, which is gone without a trace
            self._findings.reset(known)
            sources = Sources(manifest, 1, highest, visible)
            path = f"{self._directory}/{manifests.name_of(highest + 1)}"
            self._findings.note(CorruptionError(path, 0, "a manifest of newer files", "no file"))
            self._read_files(sources)
        return sources

    def _read_files(self, sources: Sources) -> None:
        self._read_segments(sources)
        self._read_vectors(sources)
        self._forget_unfinished_loads(sources)
        self._read_logs(sources)

    def _other_files(self, manifest: Manifest) -> bool:
        live = live_names(manifest)
        return any(
            number_of(name) and f"{kind}/{name}" not in live
            for kind in ("seg", "vec")
            for name in self._names[kind]
        )

    # Manifests and VISIBLE

    @staticmethod
    def _decode(data: bytes, path: str, number: int) -> Manifest:
        manifest = manifests.decode(data, path)
        if manifest.number != number:
            raise CorruptionError(path, HEADER.size, f"number {number}", manifest.number)
        return manifest

    def _newest_manifest(self) -> tuple[Manifest | None, int, int]:
        numbers = manifests.numbers_in(self._environment.list(self._directory))
        read: dict[int, Manifest] = {}
        wrong: dict[int, Exception] = {}
        for number in numbers:
            path = f"{self._directory}/{manifests.name_of(number)}"
            data = read_whole(self._environment, path)
            try:
                read[number] = self._decode(data, path, number)
            except _UNREADABLE as error:
                wrong[number] = error
                healed = heal(data, manifests.is_sound)
                if healed is not None:
                    read[number] = self._decode(healed, path, number)
        owner = self._owner(list(read.values()))
        for number, manifest in list(read.items()):
            if manifest.database != owner:
                path = f"{self._directory}/{manifests.name_of(number)}"
                wrong[number] = IncompatibleFormatError(f"{path} is of database {owner}: not ours")
                del read[number]
        newest = max(read, default=0)
        for number, problem in sorted(wrong.items()):
            path = f"{self._directory}/{manifests.name_of(number)}"
            if number < newest:
                self._findings.mishap(path, problem)
            else:
                self._findings.damage(path, problem)
        stale = sum(1 for number in numbers if number > newest)
        return read.get(newest), stale, max(numbers, default=0)

    def _owner(self, read: list[Manifest]) -> str:
        """Whose directory this is: one manifest may have been copied in from elsewhere."""
        owners = Counter(manifest.database for manifest in read)
        if len(owners) > 1:
            owners[self._owner_of_files().hex()] += 1
        return owners.most_common(1)[0][0] if owners else ""

    def _manifest_of_files(self, highest: int) -> Manifest:
        """What can be said of a database whose manifests are all gone."""
        owner = self._owner_of_files()
        if not owner:
            raise InvalidInputError("path", f"there is no database at {self._directory}")
        path = f"{self._directory}/{manifests.name_of(highest)}"
        self._findings.note(CorruptionError(path, 0, "a manifest that can be read", "none"))
        return Manifest(
            database=owner.hex(),
            number=highest,
            epoch=0,
            next_file=1,
            next_vector=1,
            last_seq=0,
            last_time=0,
            log_floor=1,
        )

    def _owner_of_files(self) -> bytes:
        """The database that the files belong to: the logs, which a fork does not inherit, or else
        the last file that was written; b"" if there are none."""
        logs: Counter[bytes] = Counter()
        for name in self._names["wal"]:
            head = self._head("wal", name)
            if head.startswith(log_format.MAGIC):
                logs[head[16:32]] += 1
        if logs:
            return logs.most_common(1)[0][0]
        files = [(number_of(n), self._head(k, n)) for k in ("seg", "vec") for n in self._names[k]]
        return max((n, head[16:32]) for n, head in [(0, b""), *files] if head[:8] in (MAGIC, b""))[
            1
        ]

    def _head(self, kind: str, name: str) -> bytes:
        """The first bytes of one of our files; b"" if it is none."""
        if not number_of(name):
            return b""
        file = self._environment.open(f"{self._directory}/{kind}/{name}", "r")
        try:
            return file.read_at(0, HEADER.size)
        finally:
            file.close()

    # Files

    def _unlisted(self, sources: Sources, kind: str) -> dict[int, bytes]:
        """The files that the manifest does not name, if it may be an old one: numbers, and the
        database that each belongs to. A fork has files of its parent; only manifests tell which."""
        if not sources.stale and sources.is_listed:
            return {}
        live = live_names(sources.manifest)
        names = [name for name in self._names[kind] if name.endswith(f".{kind}")]
        owner = bytes.fromhex(sources.manifest.database)
        return {
            number_of(name): owner if sources.is_listed else self._head(kind, name)[16:32]
            for name in sorted(names)
            if number_of(name) and f"{kind}/{name}" not in live
        }

    def _forget_unfinished_loads(self, sources: Sources) -> None:
        """A bulk load writes its vectors beside its versions. If they are not there, and not
        damaged either, it was cut short."""
        if any("/vec/" in path for path in self._findings.damaged):
            return
        there = [np.empty(0, np.uint64), *(file.numbers for file in sources.vectors)]
        numbers = np.unique(np.concatenate([*there, np.zeros(1, np.uint64)]))
        sources.segments = [
            segment
            for segment in sources.segments
            if not segment.is_undated() or bool(np.isin(segment.vector.array(), numbers).all())
        ]

    def _read_segments(self, sources: Sources) -> None:
        unlisted = self._unlisted(sources, "seg")
        entries: list[SegmentEntry | int] = [*sources.manifest.segments, *unlisted]
        for item in entries:
            entry, number = (None, item) if isinstance(item, int) else (item, item.number)
            path = file_path(self._directory, "seg", number)
            if entry is not None and sources.stale and not self._environment.exists(path):
                sources.gone.append(entry)  # merged by one whose manifest is lost, or lost itself
                continue
            marks = None if entry is None or sources.stale else self._marks(entry)
            origin = unlisted[number] if entry is None else bytes.fromhex(entry.origin)
            try:
                sources.segments.append(
                    SalvagedSegment(
                        self._environment,
                        path,
                        number,
                        origin,
                        entry,
                        marks,
                        self._findings,
                    )
                )
            except _UNREADABLE as error:
                self._findings.damage(path, error)
                if entry is not None:
                    self._findings.versions_lost += entry.rows
                    self._findings.lose_commits(entry.seq_min, entry.seq_max)
                else:
                    sources.misses_commits = True

    def _marks(self, entry: SegmentEntry | VectorEntry) -> Marks | None:
        marks = Marks()
        if not entry.marks:
            return marks
        path = file_path(self._directory, "mark", entry.marks)
        try:
            reader = HealingReader(
                self._environment,
                path,
                self._findings,
                kind=MARKS,
                database=bytes.fromhex(entry.marks_origin),
                number=entry.marks,
                size=entry.marks_size,
                fingerprint=bytes.fromhex(entry.marks_fingerprint),
            )
            try:
                marks.read(reader, entry.marks, entry.rows)
            finally:
                reader.close()
        except _UNREADABLE as error:
            self._findings.damage(path, error)
            return None
        return marks

    def _read_vectors(self, sources: Sources) -> None:
        unlisted = self._unlisted(sources, "vec")
        entries: list[VectorEntry | int] = [*sources.manifest.vectors, *unlisted]
        for item in entries:
            entry, number = (None, item) if isinstance(item, int) else (item, item.number)
            path = file_path(self._directory, "vec", number)
            if entry is not None and sources.stale:
                if not self._environment.exists(path):
                    continue
            elif entry is not None:
                self._marks(entry)  # what they say is made anew; whether they are sound is said
            origin = unlisted[number] if entry is None else bytes.fromhex(entry.origin)
            try:
                sources.vectors.append(
                    SalvagedVectors(
                        self._environment,
                        path,
                        number,
                        origin,
                        entry,
                        self._findings,
                    )
                )
            except _UNREADABLE as error:
                self._findings.damage(path, error)

    # Logs

    def _read_logs(self, sources: Sources) -> None:
        names = self._names["wal"]
        numbers = sorted(number_of(name) for name in names if name.endswith(".wal"))
        floor = sources.manifest.log_floor
        synced: dict[int, int] = {}
        if sources.visible is not None:
            synced[sources.visible.log] = sources.visible.synced
        found: list[SalvagedLog] = []
        for number in reversed([number for number in numbers if number and number >= floor]):
            path = log_path(self._directory, number)
            try:
                log = SalvagedLog(
                    self._environment,
                    path,
                    number,
                    bytes.fromhex(sources.manifest.database),
                    synced.get(number, 0),
                    self._findings,
                    is_last=number == numbers[-1],
                )
            except IncompatibleFormatError as error:
                self._findings.damage(path, error)
                continue
            if log.predecessor is not None:
                before, length = log.predecessor
                synced[before] = max(synced.get(before, 0), length)
            found.append(log)
        sources.logs = self._of_one_history(found[::-1])
        have = {log.number for log in found}
        for number, length in sorted(synced.items()):
            if number < max(floor, 1) or number in have or length <= FILE_HEADER.size:
                continue  # not needed, found, or never used
            if not sources.stale:
                path = log_path(self._directory, number)
                sources.misses_commits = True
                self._findings.note(
                    CorruptionError(path, 0, f"a log of {length} synced bytes", "no such log")
                )

    def _of_one_history(self, logs: list[SalvagedLog]) -> list[SalvagedLog]:
        """Without those that a copy of this database has written after it went another way: they
        tell commits again that another log tells, or of another length of the log before."""
        kept: dict[int, SalvagedLog] = {}
        last = 0
        for log in logs:
            number, length = log.predecessor or (0, 0)
            before = kept.get(number)
            repeats = bool(len(log.seqs)) and int(log.seqs[0]) <= last
            if repeats or (before is not None and before.end > length):
                self._findings.damage(
                    log.path,
                    CorruptionError(
                        log.path, 40, f"commits after {last}", "a log that continues another one"
                    ),
                )
                continue
            kept[log.number] = log
            last = int(log.seqs[-1]) if len(log.seqs) else last
        return list(kept.values())
