"""sqlite-vec: a virtual table for the vectors beside an ordinary table, write-ahead log, FULL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import DIMENSION, LABELS, Rows
from benchmarks.stores.base import Hits, Store, module

_COLUMNS = "id text unique, text text, speaker text, session integer, importance real, created text"

_SEARCH = (
    "select memories.id from vectors join memories on memories.row = vectors.rowid "
    "where embedding match ? and k = ?"
)


class SqliteVec(Store):
    """The layout its documentation shows: rowid joins the two tables."""

    name = "sqlite-vec"
    modules = ("sqlite_vec",)
    distribution = "sqlite-vec"
    guarantee = "journal_mode=WAL, synchronous=FULL: every transaction is synced before it returns"
    synced = True
    bulk_path = "executemany into both tables in one transaction"

    def __init__(self, path: str) -> None:
        self._path = os.path.join(path, "memories.db")
        self._connection = _sqlite().connect(self._path)
        self._connection.enable_load_extension(True)
        module("sqlite_vec").load(self._connection)
        self._connection.enable_load_extension(False)
        self._execute = self._connection.execute
        self._execute("pragma journal_mode=wal")
        self._execute("pragma synchronous=full")
        self._execute(f"create table if not exists memories(row integer primary key, {_COLUMNS})")
        self._insert_vector = ""
        self._next = self._execute("select coalesce(max(row), 0) + 1 from memories").fetchone()[0]

    def _declare(self, labels: list[str]) -> None:
        """Make the table of vectors, with a metadata column for each label."""
        columns = [f"embedding float[{DIMENSION}] distance_metric=cosine"]
        columns += [f"{name} text" for name in labels]
        self._execute(
            f"create virtual table if not exists vectors using vec0({', '.join(columns)})"
        )
        names, marks = ", ".join(["rowid", "embedding", *labels]), ", ?" * len(labels)
        self._insert_vector = f"insert into vectors({names}) values (?, ?{marks})"

    @classmethod
    def missing(cls) -> str | None:
        reason = super().missing()
        if reason is None and _sqlite() is None:
            return "this Python's sqlite3 cannot load extensions, and pysqlite3 is not installed"
        return reason

    @classmethod
    def version(cls) -> str:
        return f"{super().version()} on SQLite {_sqlite().sqlite_version}"

    def prepare(self, rows: Rows) -> Sequence[Any]:
        labels = [name for name in rows.columns if name in LABELS]
        self._declare(labels)
        fields = [column for name, column in rows.columns.items() if name not in LABELS]
        beside = [rows.vectors, *(rows.columns[name] for name in labels)]
        return list(
            zip(rows.ids, zip(*fields, strict=True), zip(*beside, strict=True), strict=True)
        )

    def _insert(self, prepared: Iterable[Any]) -> None:
        first = self._next
        prepared = list(prepared)
        self._connection.executemany(
            "insert into memories values (?, ?, ?, ?, ?, ?, ?)",
            [(row, i, *columns) for row, (i, columns, _) in enumerate(prepared, first)],
        )
        self._connection.executemany(
            self._insert_vector,
            [(row, *beside) for row, (_, _, beside) in enumerate(prepared, first)],
        )
        self._connection.commit()
        self._next = first + len(prepared)

    def insert(self, prepared: Any) -> None:
        row_id, columns, beside = prepared
        row = self._next
        self._execute("insert into memories values (?, ?, ?, ?, ?, ?, ?)", (row, row_id, *columns))
        self._execute(self._insert_vector, (row, *beside))
        self._connection.commit()
        self._next = row + 1

    def insert_many(self, prepared: Sequence[Any]) -> None:
        self._insert(prepared)

    def bulk(self, rows: Rows) -> list[str]:
        self._insert(self.prepare(rows))
        return rows.ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        found = self._execute(f"{_SEARCH} order by distance", (vector, limit))
        return [row_id for (row_id,) in found.fetchall()]

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        query = f"{_SEARCH} and vectors.{field} = ? order by distance"
        return [row_id for (row_id,) in self._execute(query, (vector, limit, value)).fetchall()]

    def load(self, row_id: str) -> Any:
        return self._execute(
            "select memories.*, embedding from memories join vectors on row = rowid where id = ?",
            (row_id,),
        ).fetchone()

    def settle(self) -> None:
        self._execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        self._connection.close()


def _sqlite() -> Any:
    """The sqlite3 module if it can load extensions, else pysqlite3, else None."""
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    try:
        return module("pysqlite3")
    except ImportError:
        return None
