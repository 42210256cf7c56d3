"""What the parts of an open engine share: where it is, what it consists of, who may touch it when.

Locks, in the order in which they are taken:
    bulk_lock         one bulk load at a time, from its first file on
    compaction_lock   one merge (or purge) at a time
    flush_lock        one flush at a time
    manifest_lock     one publisher of a manifest at a time
    write_lock        sequencing, the log, the active memtable, and the swap of `state`
Readers take none: they read `state` once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Final

import msgspec

from engramdb.errors import ClosedError, EngramError, ReadOnlyError, StoragePoisonedError
from engramdb.lsm import manifest as manifests
from engramdb.lsm import spaces
from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.environment import Environment, File, Lock, forking
from engramdb.lsm.environment.base import Mode
from engramdb.lsm.limits import CLOCK_MAX
from engramdb.lsm.log_format import FileHeader
from engramdb.lsm.log_writer import LogWriter, Shown, encode_visible
from engramdb.lsm.manifest import FileEntry, Manifest, SegmentEntry, VectorEntry
from engramdb.lsm.memtable import Memtable
from engramdb.lsm.options import OS, Options
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.lsm.segment import Segment
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.vector_file import VectorFile
from engramdb.lsm.version import State, Version

DIRECTORIES = ("wal", "seg", "vec", "tmp")
_KINDS: Final = ("wal", "seg", "mark", "vec", "drv")


class Core:
    """The shared state of one open engine."""

    def __init__(
        self,
        environment: Environment,
        directory: str,
        options: Options,
        manifest: Manifest,
        state: State,
        *,
        next_file: int,
        next_vector: int,
        read_only: bool,
        cache: BlockCache,
        lock: Lock | None = None,
        predecessor: tuple[int, int] = (0, 0),
    ) -> None:
        self.environment = environment
        self.directory = directory
        self.options = options
        self.manifest = manifest
        self.database = bytes.fromhex(manifest.database)
        self.state = state
        self.read_only = read_only
        self.cache = cache
        self.file_lock = lock
        self.epoch = manifest.epoch + 1
        self.next_vector = next_vector
        self.last_seq = state.seq
        self.last_time = state.time
        self.log: LogWriter | None = None
        self.poison: BaseException | None = None
        self.merge_due = False  # without threads: the next commit sees what there is to merge
        self.closing = False  # no long work on files is begun any more
        self.closed = ""  # why, if it is
        self.writing: set[int] = set()  # the threads that are in a call that takes locks
        self.stalled_seconds = 0.0
        self.reader_name = ""  # of our file in readers/
        self.truncated_bytes = 0  # of a torn log tail, when this was opened
        self.wake: Callable[[], None] = _nothing  # tells maintenance that there may be work
        self.bulk_lock = threading.Lock()
        self.compaction_lock = threading.Lock()
        self.flush_lock = threading.Lock()
        self.manifest_lock = threading.Lock()
        self.write_lock = threading.Lock()
        self.room = threading.Condition(self.write_lock)  # told when a flush or merge is done
        self.spaces = spaces.table_of(manifest.spaces, options.dimension)
        self._next_file = next_file
        self._number_lock = threading.Lock()
        self._predecessor = predecessor
        self._told_files: tuple[int, ...] | None = None  # what on_files was last called for
        self._visible: File | None = None
        self._visible_lock = threading.Lock()
        number, length = predecessor
        self._shown: Shown = (number, length, length, state.seq, state.time, manifest.number)
        self._is_persistent = environment.is_persistent
        forking.register(self)

    # Whether it may be used

    def after_fork_in_child(self) -> None:
        """The child must not write to the parent's files, nor hold its lock."""
        self.closed = "it was opened before this process was forked"
        if self.file_lock is not None:
            self.file_lock.after_fork_in_child()

    def check_open(self) -> None:
        """Raises ClosedError."""
        if self.closed:
            raise ClosedError(f"this database cannot be used: {self.closed}; open it again")

    def check_may_begin(self) -> None:
        """Before long work on files, for which close() would have to wait. Raises as
        check_writable() does."""
        self.check_writable()
        if self.closing:
            raise ClosedError("this database cannot be used: it is being closed; open it again")

    def check_writable(self) -> None:
        """Raises ClosedError, ReadOnlyError or StoragePoisonedError."""
        if self.closed:
            self.check_open()
        if self.read_only:
            raise ReadOnlyError(
                "this database was opened read-only; open it without read_only=True"
            )
        if self.poison is not None:
            raise StoragePoisonedError(self.poison)

    def fail(self, error: BaseException) -> StoragePoisonedError:
        """No further write is acknowledged. Returns what to raise."""
        if isinstance(error, StoragePoisonedError):
            return error
        if self.poison is None:
            self.poison = error
        return StoragePoisonedError(error)

    def close(self, reason: str) -> None:
        """Close all files and let go of the lock; `reason` is what later users are told."""
        if self.closed:
            return
        self.closed = reason
        try:
            with self.write_lock, ExitStack() as each:  # whichever of them fails; last one first
                each.callback(self._forget)
                each.callback(self._sign_out)
                if self.file_lock is not None:
                    each.callback(self.file_lock.release)
                if self._visible is not None:
                    each.callback(self._visible.close)
                if self.log is not None:
                    each.callback(self.log.close)
        except OSError as error:
            raise self.fail(error) from error

    def _sign_out(self) -> None:
        if self.reader_name:
            with suppress(OSError):  # whoever looks for readers next removes the name
                self.environment.unlink(f"{self.directory}/readers/{self.reader_name}")

    def _forget(self) -> None:
        """Let go of all files and memtables, and of the frames of errors, which hold them too."""
        version = self.state.version
        empty = version._replace(
            active=Memtable(0, self.options.memtable_bytes_max),
            frozen=(),
            segments=(),
            vectors=(),
        )
        self.state = self.state._replace(version=empty)
        error = self.poison
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    @property
    def space(self) -> int | None:
        """The dimension of the default space; None until its first vector."""
        return self.spaces[DEFAULT_SPACE] or None

    @space.setter
    def space(self, dimension: int | None) -> None:
        self.spaces = {**self.spaces, DEFAULT_SPACE: dimension or 0}

    def has_work(self) -> bool:
        """Whether inline maintenance has something to do."""
        return self.merge_due or bool(self.state.version.frozen)

    def tell_files(self) -> None:
        """Call on_files if the vector files are others than when it was last called. Under no
        lock; never raises."""
        on_files = self.options.on_files
        if on_files is None or self.closing or self.closed:
            return
        files = tuple(file.number for file in self.state.version.vectors)
        if files != self._told_files:
            self._told_files = files  # first: whoever changes them meanwhile tells of it again
            try:
                on_files()
            except Exception as error:
                thread = threading.current_thread()
                given = (type(error), error, error.__traceback__, thread)
                threading.excepthook(threading.ExceptHookArgs(given))

    # Names

    def new_number(self) -> int:
        """The next file number: one counter for all kinds, never used again."""
        with self._number_lock:
            number = self._next_file
            self._next_file += 1
            return number

    def next_time(self) -> int:
        """Of the next commit: above that of the last one, and one that can be read back. Under the
        write lock."""
        return max(min(self.environment.now(), CLOCK_MAX), self.last_time + 1)

    def path(self, kind: str, number: int) -> str:
        """The path of a segment ("seg"), its marks ("mark"), or a vector file ("vec")."""
        return file_path(self.directory, kind, number)

    def temporary(self, kind: str, number: int) -> str:
        """Where that file is written before it is renamed into place."""
        return f"{self.directory}/tmp/{number:06d}.{kind}"

    def place(self, kind: str, number: int) -> None:
        """Rename a written and synced file into place. Under the manifest lock, so that it is not
        taken for an obsolete file; publish() syncs the directory."""
        self.environment.rename(self.temporary(kind, number), self.path(kind, number))

    # The log

    def open_log(self) -> LogWriter:
        """The active log, made when the first commit comes. Under the write lock."""
        if self.log is None:
            active = self.state.version.active
            options = self.options
            allocate = 0  # a log need not be longer than what its memtable takes
            if options.durability != OS:
                allocate = min(options.log_allocate_bytes, options.memtable_bytes_max)
            number = self.new_number()
            active.log = number
            self.log = LogWriter(
                self.environment,
                self.directory,
                self.database,
                number,
                fields=FileHeader(self.epoch, *self._predecessor),
                allocate_bytes=allocate,
            )
        return self.log

    def freeze(self) -> None:
        """Make the active memtable immutable and start another. Under the write lock.

        The log is synced first: a later log proves that this one is complete. Raises
        StoragePoisonedError: a sync that failed must not be tried again.
        """
        self.check_writable()  # what failed to reach the log must not reach a file by this way
        state = self.state
        if not len(state.version.active):
            return
        try:
            log = self.open_log()
            log.sync()
            log.close()
        except OSError as error:
            raise self.fail(error) from error
        version = state.version
        active = Memtable(0, self.options.memtable_bytes_max, self.options.columns_of)
        state = state._replace(
            version=version._replace(active=active, frozen=(*version.frozen, version.active))
        )
        # without a call in between, which Ctrl-C could end: a table belongs to its log
        self._predecessor, self.log, self.state = (log.number, log.size), None, state

    def show(self) -> None:
        """Tell readers in other processes what is visible and synced. Under the write lock."""
        log, state = self.log, self.state
        if log is None or not self._is_persistent:
            return
        with self._visible_lock:
            shown = self._shown = (
                log.number,
                log.synced,
                log.size,
                state.seq,
                state.time,
                self._shown[5],
            )
            (self._visible or self._open_visible()).write_at(0, encode_visible(shown))

    def _show_manifest(self) -> None:
        """Tell recovery that this manifest was durable."""
        if not self._is_persistent:
            return
        with self._visible_lock:  # of the log, what was last shown: a commit may be half written
            shown = self._shown = (*self._shown[:5], self.manifest.number)
            (self._visible or self._open_visible()).write_at(0, encode_visible(shown))

    def _open_visible(self) -> File:
        path = f"{self.directory}/VISIBLE"
        mode: Mode = "w" if self.environment.exists(path) else "x"
        self._visible = self.environment.open(path, mode)
        return self._visible

    @property
    def shows(self) -> bool:
        """Whether this engine has written VISIBLE."""
        return self._visible is not None

    def sync_log(self) -> None:
        """Make everything committed so far durable. Raises StoragePoisonedError, ClosedError."""
        with self.write_lock:
            self.check_writable()
            try:
                if self.log is not None and self.log.synced < self.log.size:
                    self.log.sync()
                    self.show()
            except OSError as error:
                raise self.fail(error) from error

    # The manifest

    def log_floor(self, version: Version) -> int:
        """The first log that is still needed by this version. Under the write lock, or a log that
        is made at this moment would be missed."""
        tables = [table.log for table in (*version.frozen, version.active) if table.log]
        return min(tables, default=self._next_file)

    def snapshot(self) -> Snapshot:
        """Now."""
        state = self.state
        return Snapshot(state.version, state.seq, state.time)

    def sequenced(self) -> Snapshot:
        """Everything that has a seq, durable or not. Under the write lock."""
        return Snapshot(self.state.version, self.last_seq, self.last_time)

    def save_marks(
        self, files: tuple[Segment, ...] | tuple[VectorFile, ...], kind: str, seq: int
    ) -> list[Any]:
        """The entries of these files, after writing the marks up to `seq` that are not in one yet.
        Under the manifest lock."""
        entries = []
        for file in files:
            entry: FileEntry = file.entry
            count = file.marks.count_until(seq)
            if count > file.marks.persisted:
                number = self.new_number()
                path = self.temporary("mark", number)
                size, fingerprint = file.marks.write(
                    self.environment, path, self.database, number, count
                )
                self.place("mark", number)
                entry = msgspec.structs.replace(
                    entry,
                    marks=number,
                    marks_origin=self.database.hex(),
                    marks_size=size,
                    marks_fingerprint=fingerprint.hex(),
                )
                file.entry = entry  # type: ignore[assignment]
                file.marks.number, file.marks.persisted = number, count
            entries.append(entry)
        return entries

    def publish(
        self,
        segments: tuple[Segment, ...],
        vectors: tuple[VectorFile, ...],
        *,
        seq: int,
        time: int,
        log_floor: int,
        **changes: Any,
    ) -> None:
        """Make these files the database, durably. Under the manifest lock. Poisons on failure."""
        self.check_writable()
        try:
            segment_entries: list[SegmentEntry] = self.save_marks(segments, "seg", seq)
            vector_entries: list[VectorEntry] = self.save_marks(vectors, "vec", seq)
            for name in ("seg", "vec"):
                self.environment.sync_directory(f"{self.directory}/{name}")
            with self._number_lock:
                next_file = self._next_file
            listed = spaces.listed(self.manifest.spaces, self.spaces, vector_entries)
            if len(listed) > 1:
                changes["features"] = sorted({*self.manifest.features, manifests.SPACES})
            manifest = msgspec.structs.replace(
                self.manifest,
                number=self.manifest.number + 1,
                epoch=self.epoch,
                next_file=next_file,
                next_vector=self.next_vector,
                last_seq=seq,
                last_time=time,
                log_floor=log_floor,
                segments=segment_entries,
                vectors=vector_entries,
                spaces=listed,
                **changes,
            )
            manifests.publish(self.environment, self.directory, manifest)
            self.manifest = manifest
            self._show_manifest()
        except (OSError, EngramError) as error:
            raise self.fail(error) from error
        except BaseException as error:  # Ctrl-C: whether it was published is not known
            self.poison = self.poison or error
            raise

    def republish(self, **changes: Any) -> None:
        """The same files with other settings, durably. Under the manifest lock."""
        version = self.state.version
        manifest = self.manifest
        self.publish(
            version.segments,
            version.vectors,
            seq=manifest.last_seq,
            time=manifest.last_time,
            log_floor=manifest.log_floor,
            **changes,
        )

    def remove_obsolete(self) -> None:
        """Unlink every file that the manifest does not need. Under the manifest lock.

        Open readers keep what they have mapped; a crash before this leaves it to the next opening.
        """
        live = live_names(self.manifest)
        environment, directory = self.environment, self.directory
        try:
            for name in ("seg", "vec"):
                for entry in environment.list(f"{directory}/{name}"):
                    if f"{name}/{entry}" not in live and number_of(entry):
                        environment.unlink(f"{directory}/{name}/{entry}")
                        self.cache.drop(number_of(entry))
            for entry in environment.list(f"{directory}/wal"):
                if 0 < number_of(entry) < self.manifest.log_floor:
                    environment.unlink(f"{directory}/wal/{entry}")
        except OSError as error:
            raise self.fail(error) from error


def _nothing() -> None:
    """What wakes nobody."""


def file_path(directory: str, kind: str, number: int) -> str:
    """The path of a segment, of marks (they stand beside the segments) or of a vector file."""
    return f"{directory}/{'vec' if kind == 'vec' else 'seg'}/{number:06d}.{kind}"


def number_of(name: str) -> int:
    """The file number in a file name; 0 if it is none of ours, but an editor's or a drive's."""
    stem, _, kind = name.partition(".")
    if kind not in _KINDS or not (stem.isascii() and stem.isdigit()):
        return 0
    number = int(stem)
    return number if stem == f"{number:06d}" else 0


def live_names(manifest: Manifest) -> set[str]:
    """The names, relative to the directory, of all files that a manifest names."""
    names = {f"seg/{entry.number:06d}.seg" for entry in manifest.segments}
    names |= {f"vec/{entry.number:06d}.vec" for entry in manifest.vectors}
    entries: list[FileEntry] = [*manifest.segments, *manifest.vectors]
    return names | {f"seg/{entry.marks:06d}.mark" for entry in entries if entry.marks}
