"""The floor: the matrix in one file, the text in another, numpy for the search. No features."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Rows
from benchmarks.stores.base import Hits, Store


class Bare(Store):
    """Two files, written once and synced, then mapped. No update, no recovery."""

    name = "bare files"
    guarantee = "two files, each written sequentially and synced once; no update, no recovery"
    synced = True
    bulk_path = "one write of the matrix, one of the text, fsync of each"

    def __init__(self, path: str) -> None:
        self._path = path
        self._matrix: npt.NDArray[np.float32] | None = None
        self._columns: dict[str, npt.NDArray[np.str_]] = {}  # those that were asked for
        if os.path.exists(self._file("matrix.npy")):
            self._matrix = np.load(self._file("matrix.npy"), mmap_mode="r")

    @classmethod
    def version(cls) -> str:
        return f"numpy {np.__version__}"

    def _file(self, name: str) -> str:
        return os.path.join(self._path, name)

    def prepare(self, rows: Rows) -> Sequence[Any]:
        raise NotImplementedError("bare files take whole matrices only")

    def insert(self, prepared: Any) -> None:
        raise NotImplementedError("bare files take whole matrices only")

    def insert_many(self, prepared: Sequence[Any]) -> None:
        raise NotImplementedError("bare files take whole matrices only")

    def bulk(self, rows: Rows) -> list[str]:
        with open(self._file("matrix.npy"), "wb") as file:
            np.save(file, rows.vectors)
            file.flush()
            os.fsync(file.fileno())
        with open(self._file("attributes.json"), "wb") as file:
            file.write(json.dumps(rows.columns, separators=(",", ":")).encode())
            file.flush()
            os.fsync(file.fileno())
        self._matrix = np.load(self._file("matrix.npy"), mmap_mode="r")
        self._columns.clear()
        return [str(row) for row in range(len(rows))]

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        assert self._matrix is not None, "loaded first"
        return [str(row) for row in top(self._matrix @ vector, limit)]

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        assert self._matrix is not None, "loaded first"
        mask = self._column(field) == value
        rows = np.flatnonzero(mask)
        return [str(rows[at]) for at in top(np.asarray(self._matrix)[mask] @ vector, limit)]

    def _column(self, field: str) -> npt.NDArray[np.str_]:
        """Read from the file once, then kept."""
        if field not in self._columns:
            with open(self._file("attributes.json"), "rb") as file:
                self._columns[field] = np.array(json.load(file)[field])
        return self._columns[field]

    def load(self, row_id: str) -> Any:
        assert self._matrix is not None, "loaded first"
        return self._matrix[int(row_id)]

    def close(self) -> None:
        self._matrix = None


def top(scores: npt.NDArray[np.float32], limit: int) -> list[int]:
    """The rows with the highest scores, best first."""
    if limit < len(scores):
        rows = np.argpartition(scores, -limit)[-limit:]
    else:
        rows = np.arange(len(scores))
    ordered: list[int] = rows[np.argsort(scores[rows])[::-1]].tolist()
    return ordered
