"""What every contestant can do, so that each workload treats all of them alike."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Rows

Hits = list[str]


class Store(ABC):
    """One way to keep memories, opened (or created) in a directory of its own.

    `prepare` turns rows into what the store's own insert takes, outside the measured time: nobody
    is charged for the benchmark's data format.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()  # what must be importable
    distribution: ClassVar[str] = ""  # what pip calls it
    guarantee: ClassVar[str]  # what it has synced when an insert returns, in one sentence
    synced: ClassVar[bool]
    bulk_path: ClassVar[str]  # how the bulk load is done, for the reader to judge
    slow_bulk: ClassVar[bool] = False  # some 1,000 rows/s: loaded once only
    slow_inserts: ClassVar[bool] = False  # some 100 a second: fewer repetitions
    exact: ClassVar[bool] = True
    efforts: ClassVar[tuple[int, ...]] = ()  # what `tune` takes, least first: who trades recall
    effort_name: ClassVar[str] = ""  # what the store itself calls it

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot take part, or None if it can. Imports nothing but parent packages."""
        for name in cls.modules:
            try:
                if importlib.util.find_spec(name) is None:
                    return f"not installed ({name})"
            except ImportError as error:
                return f"not installed ({error})"
        return None

    @classmethod
    def load_modules(cls) -> None:
        """Import what it needs, so that the import is not part of what follows."""
        for name in cls.modules:
            importlib.import_module(name)

    @classmethod
    def version(cls) -> str:
        """The version that is installed."""
        try:
            return metadata.version(cls.distribution)
        except metadata.PackageNotFoundError:
            return "(not installed, from a checkout)"

    @abstractmethod
    def __init__(self, path: str) -> None:
        """Open the store in directory `path`, or create it there."""

    @abstractmethod
    def prepare(self, rows: Rows) -> Sequence[Any]:
        """One object per row, each good for one `insert`."""

    @abstractmethod
    def insert(self, prepared: Any) -> None:
        """Store one row, as durably as the store does it (see `guarantee`)."""

    @abstractmethod
    def insert_many(self, prepared: Sequence[Any]) -> None:
        """Store some rows in one call (one commit where there is such a thing)."""

    @abstractmethod
    def bulk(self, rows: Rows) -> list[str]:
        """Load all rows the fastest way there is; returns the ids, row by row."""

    @abstractmethod
    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        """The ids of the `limit` most similar rows by cosine, best first."""

    @abstractmethod
    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        """The same among the rows whose label (see corpus.LABELS) has this value only."""

    @abstractmethod
    def load(self, row_id: str) -> Any:
        """One row by id, with its text, its fields and its vector."""

    def tune(self, effort: int) -> None:
        """Search as hard as one of `efforts` says."""
        raise NotImplementedError(f"{self.name} has nothing to tune")

    def settle(self) -> None:  # noqa: B027 - most stores have nothing to do here
        """Finish what runs in the background or was put off, before disk space is counted."""

    @abstractmethod
    def close(self) -> None:
        """Close it; the directory can be opened again afterwards."""


def module(name: str) -> Any:
    """An optional import, untyped on purpose: a peer need not be there for the type checker."""
    return importlib.import_module(name)
