"""The database as it was at one moment: what as_of() returns."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Self

from engramdb.access.log import AccessLog
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import StorageEngine
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.moments import from_microseconds
from engramdb.query.source import Source
from engramdb.reading import Reading


class Past(Reading):
    """Every read of the database, as of one moment: load, search_similar, query, history, ...

    It keeps the files that it reads until it is closed or collected. Below what the retention
    policy has kept, a single memory can still be loaded if its version of then is there; anything
    that needs all memories raises HistoryUnavailableError.
    """

    def __init__(
        self,
        engine: StorageEngine,
        snapshot: Snapshot,
        moment_us: int,
        access: AccessLog | None = None,
        indexer: Indexer | None = None,
    ) -> None:
        self._engine = engine
        self._indexer = indexer
        self._access = access  # to be asked: what is loaded here does not count
        self._snapshot = snapshot
        self._moment_us = moment_us

    @property
    def seq(self) -> int:
        """The number of the last commit that is seen."""
        return self._snapshot.seq

    @property
    def timestamp(self) -> datetime:
        """The moment that was asked for, in UTC; for a commit or a tag, the time of the commit."""
        return from_microseconds(self._moment_us)

    def close(self) -> None:
        """Let go of the files; a read after it raises ClosedError. Harmless when repeated."""
        self._snapshot.close()

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
        return f"Past(seq={self.seq}, timestamp={self.timestamp.isoformat()})"

    def _source(self) -> Source:
        self._engine.check_open()
        return self._snapshot

    def _now_us(self) -> int:
        return self._moment_us
