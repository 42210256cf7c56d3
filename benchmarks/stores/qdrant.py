"""Qdrant's local mode (qdrant-client with a path): SQLite for the points, numpy for the search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import DIMENSION, Rows
from benchmarks.stores.base import Hits, Store, module


class Qdrant(Store):
    """All points are read into memory when it opens; the search is exact."""

    name = "Qdrant local"
    modules = ("qdrant_client",)
    distribution = "qdrant-client"
    guarantee = (
        "every point is a SQLite transaction of its own (no atomic batch), rollback journal, "
        "synced; but the journal's removal, which is the commit, is not: a power cut can take the "
        "last ones back"
    )
    synced = True
    bulk_path = "upload_collection in batches of 1,000"
    slow_bulk = True
    slow_inserts = True

    def __init__(self, path: str) -> None:
        # It warns above 20,000 points that local mode is meant for fewer; the reader sees that.
        warnings.filterwarnings("ignore", message=".*[Ll]ocal mode.*")
        client = module("qdrant_client")
        self._models = client.models
        self._client = client.QdrantClient(path=path)
        if not self._client.collection_exists("memories"):
            self._client.create_collection(
                "memories",
                vectors_config=self._models.VectorParams(
                    size=DIMENSION, distance=self._models.Distance.COSINE
                ),
            )

    def prepare(self, rows: Rows) -> Sequence[Any]:
        return [
            self._models.PointStruct(
                id=row_id, vector=rows.vectors[row].tolist(), payload=rows.attributes(row)
            )
            for row, row_id in enumerate(rows.ids)
        ]

    def insert(self, prepared: Any) -> None:
        self._client.upsert("memories", [prepared])

    def insert_many(self, prepared: Sequence[Any]) -> None:
        self._client.upsert("memories", prepared)

    def bulk(self, rows: Rows) -> list[str]:
        self._client.upload_collection(
            "memories",
            vectors=rows.vectors,
            payload=[rows.attributes(row) for row in range(len(rows))],
            ids=rows.ids,
            batch_size=1_000,
        )
        return rows.ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        found = self._client.query_points("memories", query=vector, limit=limit, with_payload=False)
        return [str(point.id) for point in found.points]

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        match = self._models.MatchValue(value=value)
        wanted = self._models.Filter(must=[self._models.FieldCondition(key=field, match=match)])
        found = self._client.query_points(
            "memories", query=vector, query_filter=wanted, limit=limit, with_payload=False
        )
        return [str(point.id) for point in found.points]

    def load(self, row_id: str) -> Any:
        return self._client.retrieve("memories", [row_id], with_payload=True, with_vectors=True)

    def close(self) -> None:
        self._client.close()
