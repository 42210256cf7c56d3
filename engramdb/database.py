"""Database: the one facade. It opens and closes, and looks after the files.

Database -> Timeline (as_of, diff, undo, ...) -> Saving (save, connect, ...) -> Reading (load, ...)
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, Unpack

from engramdb.access.log import AccessLog
from engramdb.config import DatabaseConfig, Settings, check_path
from engramdb.errors import EngramError, InvalidInputError
from engramdb.indexing.hook import Hook
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import (
    Options,
    PurgeReport,
    RepairReport,
    StorageEngine,
    VerifyReport,
    repair,
)
from engramdb.lsm.environment import Environment, MemoryEnvironment, PosixEnvironment
from engramdb.lsm.records import MEMORY
from engramdb.model.identifiers import parse_id
from engramdb.model.moments import now_us
from engramdb.model.shredding import shred
from engramdb.prefetch.prefetcher import CACHE_BLOCKS_MIN, Prefetcher
from engramdb.prefetch.prefetcher import NONE as NO_PREFETCHER
from engramdb.query.source import Source
from engramdb.timeline import Timeline
from engramdb.transaction import Transaction

_MEMORY_PATH: Final = "/engramdb"  # where a database in memory lies, in an environment of its own


class Database(Timeline):
    """A database of memories. Every method may be called from any thread.

    Every write is one atomic commit and has a number, `seq`, above that of all commits before.
    Every method raises ClosedError after close() and in a process forked from the one that opened
    it; every write may raise ReadOnlyError, StoragePoisonedError and WriteStallError.
    """

    def __init__(self, config: DatabaseConfig, environment: Environment | None = None) -> None:
        """Open what `config` says, created if it is not there.

        `environment` stands in for the operating system, in tests. Raises DatabaseLockedError
        if another process or another Database has it open for writing, CorruptionError,
        IncompatibleFormatError.
        """
        if not isinstance(config, DatabaseConfig):
            raise InvalidInputError(
                "config", f"expected a DatabaseConfig, got {type(config).__name__}"
            )
        self._start(config, environment, create=not config.read_only)

    def _start(
        self,
        config: DatabaseConfig,
        environment: Environment | None,
        *,
        create: bool,
        path: str | None = None,
    ) -> None:
        if path is None:
            path = _MEMORY_PATH
            if not config.use_memory_storage:
                path = check_path("storage_dir", config.storage_dir)
        if environment is None and config.use_memory_storage:
            environment = MemoryEnvironment()
        self._config = config
        self._environment = environment
        hook = Hook()
        self._engine = StorageEngine.open(
            path,
            Options(
                durability=config.durability,
                sync_interval=config.sync_interval,
                memtable_bytes_max=config.memtable_bytes,
                cache_blocks=config.cache_size,
                history=config.history,
                dimension=config.dimension,
                background=config.background,
                columns_of=shred,
                on_files=hook,
            ),
            environment=environment,
            create=create,
            read_only=config.read_only,
        )
        self._access = AccessLog(self._engine) if config.track_access else None
        self._record_access = None if self._access is None else self._access.record
        self._indexer = _indexer(config, self._engine)
        if self._indexer is not None:
            hook.call = self._indexer.wake
            self._indexer.wake()
        self._prefetcher = _prefetcher(config, self._engine, self._access)
        self._finalizer = weakref.finalize(
            self, _close_quietly, self._engine, self._access, self._indexer, self._prefetcher
        )
        self._finalizer.atexit = not config.use_memory_storage  # nobody would read it again

    # Opening and closing

    @classmethod
    def in_memory(cls, **settings: Unpack[Settings]) -> Self:
        """A database in memory, gone when it is closed. Keywords: see DatabaseConfig."""
        return cls(DatabaseConfig(use_memory_storage=True, **settings))

    @classmethod
    def file_based(cls, path: str | os.PathLike[str], **settings: Unpack[Settings]) -> Self:
        """The database in a directory, created or recovered. Keywords: see DatabaseConfig."""
        return cls(DatabaseConfig(storage_dir=check_path("path", path), **settings))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        environment: Environment | None = None,
        **settings: Unpack[Settings],
    ) -> Self:
        """A database that must be there already. Keywords: see DatabaseConfig.

        With `read_only=True` any number of processes may read while one writes; see refresh().
        """
        config = DatabaseConfig(
            storage_dir=check_path("path", path), read_only=read_only, **settings
        )
        database = cls.__new__(cls)
        database._start(config, environment, create=False)
        return database

    def initialize(self) -> None:
        """Nothing: a database is ready when it is opened. Kept for programs that call it."""
        self._engine.check_open()

    def close(self) -> None:
        """Write what is still in memory and let go of the files. Harmless when repeated.

        It waits for the calls of other threads. Do not call it from a signal handler: if the
        signal interrupted a write of the same thread, it raises EngramError, as it would wait for
        itself. Raise there instead, for example SystemExit, and let a `with` block close.
        """
        try:
            if self._indexer is not None:
                self._indexer.stop()
            if self._prefetcher is not None:
                self._prefetcher.stop()
                self._prefetcher.store()
            if self._access is not None:
                self._access.store()
        finally:
            self._engine.close()
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        place = "in memory" if self._config.use_memory_storage else repr(self._engine.path)
        return f"<Database {place}>"

    @property
    def config(self) -> DatabaseConfig:
        """What it was opened with."""
        return self._config

    @property
    def last_seq(self) -> int:
        """The number of the last commit; 0 if there is none."""
        self._engine.check_open()
        return self._engine.last_seq

    @property
    def dimension(self) -> int | None:
        """The length of every vector; None until the first is saved."""
        self._engine.check_open()
        return self._engine.dimension

    @property
    def spaces(self) -> dict[str, int]:
        """The length of the vectors in each space, by its name; "" is that of `embeddings`."""
        self._engine.check_open()
        return self._engine.spaces

    def transaction(self) -> Transaction:
        """`with db.transaction() as tx:` reads one snapshot and writes all or nothing.

        Raises ConflictError at the end of the block if something that it loaded or wrote has been
        changed by others meanwhile.
        """
        self._engine.check_open()
        return Transaction(self._engine, self._layers, self._access, self._indexer)

    # Looking after the files

    def flush(self) -> None:
        """Write what is in memory to files of its own, and sync them."""
        self._engine.flush()
        for kept in (self._access, self._prefetcher):
            if kept is not None:
                kept.store()

    def compact(self) -> None:
        """Merge all files, and drop the versions that the retention policy lets go."""
        self._engine.compact()

    def build_index(self) -> None:
        """Build and calibrate now what would be built in the background: the codes of all vector
        files that are large enough for them."""
        self._engine.check_open()
        if self._indexer is not None:
            self._indexer.build()

    def purge(self, memory_id: str) -> PurgeReport:
        """Erase a memory: every version, its connections, and every trace in every file.

        Unlike delete() there is no way back. The report names the forks and checkpoints that still
        hold it. Raises InvalidInputError if the id is not a UUID.
        """
        key = parse_id(memory_id)
        asked = (self._access, self._indexer, self._prefetcher)
        kept = [each for each in asked if each is not None]
        for each in kept:
            each.prepare_erasure()
        report = self._engine.purge([key])
        for each in kept:
            each.forget([key])
        return report

    def verify(self) -> VerifyReport:
        """Read every byte of every file and compare it with its checksums."""
        return self._engine.verify()

    @staticmethod
    def repair(
        path: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        environment: Environment | None = None,
    ) -> RepairReport:
        """Bring back everything that is intact in a damaged directory; nobody may have it open.

        What is damaged is moved to lost/ in that directory, byte for byte, and never deleted. With
        `dry_run` nothing is changed: the report says what is wrong and what would be lost. A
        database without faults is left as it is. If there is a recent checkpoint, compare first.
        Raises DatabaseLockedError, InvalidInputError (there is no database), EngramError.
        """
        environment = PosixEnvironment() if environment is None else environment
        return repair(environment, check_path("path", path), dry_run=dry_run)

    def stats(self) -> dict[str, Any]:
        """Figures: memories, connections, and what the engine counts (files, bytes, runs, ...)."""
        latest = self._engine.latest()
        counts = {"memories": latest.count(MEMORY), "connections": latest.count_connections()}
        index = {} if self._indexer is None else {"index": self._indexer.statistics()}
        ahead = NO_PREFETCHER if self._prefetcher is None else self._prefetcher.statistics()
        return counts | self._engine.stats() | index | ahead

    def refresh(self) -> int:
        """With read_only=True: see what the writer has committed since. Returns the last seq."""
        seq = self._engine.refresh()
        if self._indexer is not None and self._engine.read_only:
            self._indexer.refresh()
        return seq

    def checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Copy the database, as it is now, to a directory that is not there yet.

        Files are shared by hard links where the file system can.
        """
        self._engine.checkpoint(check_path("path", path))

    def fork(self, path: str | os.PathLike[str]) -> Self:
        """A database in a new directory that begins as this one and then lives its own life.

        It is open when this returns, with the same settings. Immutable files are shared.
        """
        place = check_path("path", path)
        self._engine.fork(place)
        config = self._config
        if not config.use_memory_storage:
            config = replace(config, storage_dir=place, read_only=False)
        fork = type(self).__new__(type(self))
        fork._start(config, self._environment, create=False, path=place)
        return fork

    # What the reads of this database see

    def _source(self) -> Source:
        return self._engine.latest()

    def _now_us(self) -> int:
        return now_us()


def _indexer(config: DatabaseConfig, engine: StorageEngine) -> Indexer | None:
    """What keeps the indexes, if there are to be any."""
    if config.recall_target >= 1.0 or config.index == "exact":
        return None
    return Indexer(
        engine,
        target=config.recall_target,
        turbo=config.index == "auto",
        memory_bytes=config.index_memory,
        adaptive=config.adaptive,
        background=config.background,
    )


def _prefetcher(
    config: DatabaseConfig, engine: StorageEngine, access: AccessLog | None
) -> Prefetcher | None:
    """What reads ahead, if it may and there is anything to read from."""
    if access is None or not config.prefetch or not config.background or config.use_memory_storage:
        return None
    if config.cache_size < CACHE_BLOCKS_MIN:
        return None
    prefetcher = Prefetcher(engine, access)
    prefetcher.await_load()
    return prefetcher


def _close_quietly(
    engine: StorageEngine,
    access: AccessLog | None,
    indexer: Indexer | None,
    prefetcher: Prefetcher | None,
) -> None:
    """For a Database that was dropped without close()."""
    if any(each is not None and each.is_mine() for each in (indexer, prefetcher)):
        # the collector has run in a thread of ours, perhaps in the middle of a write
        given = (engine, access, indexer, prefetcher)
        threading.Thread(target=_close_dropped, args=given, name="engramdb_close").start()
    else:
        _close_dropped(engine, access, indexer, prefetcher)


def _close_dropped(
    engine: StorageEngine,
    access: AccessLog | None,
    indexer: Indexer | None,
    prefetcher: Prefetcher | None,
) -> None:
    with suppress(EngramError):
        try:
            if indexer is not None:
                indexer.stop(wait=False)  # this may run in any thread, in the middle of anything
            if prefetcher is not None:
                prefetcher.stop(wait=False)
                prefetcher.store(wait=False)
            if access is not None:
                access.store()
        finally:
            engine.close()
