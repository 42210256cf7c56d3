"""Repairs a directory: reads what is intact, writes it anew, keeps what is damaged under lost/.

Nothing is changed before everything is written. Damaged files get a second name under lost/ first;
then one manifest makes the new files the database; then the old names go. So a crash leaves the
directory as it was, or repaired, and repairing again ends the same: a note under lost/ tells which
files a repair that was cut short has made. Files whose every version was brought back go as they
would after a merge; no damaged byte is ever thrown away.
"""

from __future__ import annotations

import msgspec
import numpy as np

from engramdb.errors import DatabaseLockedError, EngramError, InvalidInputError
from engramdb.lsm import manifest as manifests
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.copies import link_or_copy
from engramdb.lsm.core import DIRECTORIES, Core
from engramdb.lsm.derived import remove_all
from engramdb.lsm.environment import Environment, Lock
from engramdb.lsm.keys import U64, Rows
from engramdb.lsm.log_writer import read_visible
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.opening import REPAIR_NOTE, highest_number, lock_directory
from engramdb.lsm.options import Options
from engramdb.lsm.repair.commits import Commits
from engramdb.lsm.repair.merge import Merge
from engramdb.lsm.repair.report import Findings, RepairReport
from engramdb.lsm.repair.sources import Reader, Sources
from engramdb.lsm.rewrite import open_segment, open_vectors, write_rows, write_vectors
from engramdb.lsm.vector_file import Matrix
from engramdb.lsm.version import State, Version


def repair(environment: Environment, directory: str, *, dry_run: bool = False) -> RepairReport:
    """Bring back what is intact. With `dry_run` only look: nothing is changed.

    Raises DatabaseLockedError (somebody has it open for writing), InvalidInputError (there is no
    database), EngramError (it cannot be read or written at all; nothing was changed).
    """
    try:
        if not _is_database(environment, directory):
            raise InvalidInputError("path", f"there is no database at {directory}")
        if dry_run:
            if environment.lock_is_held(f"{directory}/LOCK"):
                raise DatabaseLockedError(directory, None)
            return _Repair(environment, directory).report(())
        lock = lock_directory(environment, directory)
        try:
            return _Repair(environment, directory).carry_out(lock)
        finally:
            lock.release()
    except OSError as error:
        raise EngramError(
            f"{directory} could not be repaired: {error}; nothing that was readable is gone: mend "
            "the cause and repair it again"
        ) from error


def _is_database(environment: Environment, directory: str) -> bool:
    """Whether anything of one is there."""
    if not environment.exists(directory):
        return False
    names = environment.list(directory)
    return bool(manifests.numbers_in(names) or {"wal", "seg", "vec"} & set(names))


class _Repair:
    def __init__(self, environment: Environment, directory: str) -> None:
        self._environment, self._directory = environment, directory
        self._findings = Findings()
        visible = read_visible(environment, directory)
        known = [0 if visible is None else visible.manifest]
        known += manifests.numbers_in(environment.list(directory))
        self._number = max(known) + 1  # of the manifest that it publishes
        self._sources: Sources = Reader(
            environment, directory, self._findings, self._made_from()
        ).read()
        self._commits = Commits(self._sources, self._findings, environment.now())
        self._merge = Merge(self._sources, self._commits, self._findings)

    def _made_from(self) -> int:
        """The number from which on files are of a repair that was cut short; 0 if there was
        none."""
        if not self._environment.exists(f"{self._directory}/lost"):
            return 0
        start = self._note_of("")
        names = self._environment.list(f"{self._directory}/lost")
        numbers = [name.removeprefix(start) for name in names if name.startswith(start)]
        return max((int(each) for each in numbers if each.isascii() and each.isdigit()), default=0)

    def _note_of(self, first_file: int | str) -> str:
        return f"{self._number:06d}{REPAIR_NOTE}{first_file}"

    def report(self, moved: tuple[str, ...]) -> RepairReport:
        """What was found."""
        findings, merged = self._findings, self._merge.merged
        return RepairReport(
            problems=tuple(findings.problems),
            is_complete=self._commits.lost_nothing and not self._sources.stale,
            settings_of=self._sources.manifest.number,
            versions=len(merged.rows),
            vectors=sum(len(columns) for _, columns in self._merge.vectors.columns(merged.rows)),
            versions_lost=findings.versions_lost,
            vectors_lost=findings.vectors_lost,
            commits_lost=findings.commits_lost(),
            memories=tuple(sorted(findings.memories)),
            restored=merged.restored,
            disconnected=merged.disconnected,
            tags_lost=self._commits.tags_lost(),
            moved=moved,
            lost_directory=f"{self._directory}/lost",
            seq=self._commits.last_seq,
        )

    def carry_out(self, lock: Lock) -> RepairReport:
        """Write it, if there is anything to mend."""
        if not self._findings.problems:
            return self.report(())
        for name in (*DIRECTORIES, "lost"):
            self._environment.make_directory(f"{self._directory}/{name}")
        moves = self._keep_damaged()
        remove_all(self._environment, self._directory)  # it was derived from what was there
        if self._findings.must_rebuild:
            first_file = self._made_from() or self._next_file()
            note = f"{self._directory}/lost/{self._note_of(first_file)}"
            if not self._environment.exists(note):
                self._environment.open(note, "x").close()
                self._environment.sync_directory(f"{self._directory}/lost")
            self._rebuild(lock)
            self._environment.unlink(note)
        for source in moves:
            if self._environment.exists(source):
                self._environment.unlink(source)
        for name in ("", "/wal", "/seg", "/vec"):
            self._environment.sync_directory(f"{self._directory}{name}")
        return self.report(tuple(moves.values()))

    def _keep_damaged(self) -> dict[str, str]:
        """Give the damaged files a name under lost/, durably: {old path: new path}."""
        moves = {}
        for source in sorted(self._findings.damaged):
            if self._environment.exists(source):
                name = source.rpartition("/")[2]
                kept = f"{self._directory}/lost/{self._number:06d}-{name}"
                if not self._environment.exists(kept):  # a crashed repair has begun with this
                    part = f"{kept}.part"  # where it is copied, that may be cut short
                    if self._environment.exists(part):
                        self._environment.unlink(part)
                    link_or_copy(self._environment, source, part)
                    self._environment.rename(part, kept)
                moves[source] = kept
        self._environment.sync_directory(f"{self._directory}/lost")
        return moves

    def _next_file(self) -> int:
        highest = highest_number(self._environment, self._directory)
        return max(self._sources.manifest.next_file, highest + 1)

    def _rebuild(self, lock: Lock) -> None:
        """Write all versions and vectors into new files, and publish them."""
        manifest = msgspec.structs.replace(self._sources.manifest, number=self._number - 1)
        commits = self._commits
        version = Version(Memtable(0, 1), (), (), ())
        vectors = self._merge.vectors
        spaces = vectors.columns(self._merge.merged.rows)
        highest = max((int(columns.number.max()) for _, columns in spaces), default=0)
        core = Core(
            self._environment,
            self._directory,
            Options(background=False),
            manifest,
            State(version, commits.last_seq, commits.last_time, commits.history_floor),
            next_file=self._next_file(),
            next_vector=max(manifest.next_vector, highest + 1),
            read_only=False,
            cache=BlockCache(1),
            lock=lock,
        )
        core.spaces = vectors.table
        try:
            entry = write_rows(core, self._merge.merged.rows, self._merge.payloads())
            written = []
            for number, columns in spaces:

                def take(rows: Rows, numbers: U64 = columns.number) -> Matrix:
                    return vectors.take(numbers[rows])

                keep = np.ones(len(columns), np.bool_)
                dimension = vectors.dimension_of(number)
                written += write_vectors(core, columns, dimension, take, keep, number)
            with core.manifest_lock:
                core.publish(
                    (open_segment(core, entry),) if entry is not None else (),
                    tuple(open_vectors(core, part.entry) for part in written),
                    seq=commits.last_seq,
                    time=commits.last_time,
                    log_floor=core.new_number(),
                    history_floor=commits.history_floor,
                    pins=commits.pins(),
                )
                core.remove_obsolete()
        finally:
            core.close("the repair is over")
