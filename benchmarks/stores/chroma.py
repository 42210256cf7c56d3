"""Chroma, embedded (PersistentClient): SQLite for the records, an HNSW graph for the vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Rows
from benchmarks.stores.base import Hits, Store, module


class Chroma(Store):
    """Telemetry off, embeddings given, cosine space, otherwise its defaults."""

    name = "Chroma"
    modules = ("chromadb",)
    distribution = "chromadb"
    guarantee = (
        "every call is a SQLite transaction, rollback journal, synced; but the journal's removal, "
        "which is the commit, is not: a power cut can take the last ones back. The graph follows "
        "in memory and is written every 1,000 records"
    )
    synced = True
    bulk_path = "add in the largest batches it takes"
    slow_bulk = True
    slow_inserts = True
    exact = False

    def __init__(self, path: str) -> None:
        os.environ["ANONYMIZED_TELEMETRY"] = "False"
        chromadb = module("chromadb")
        settings = module("chromadb.config").Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(path, settings=settings)
        self._collection = self._client.get_or_create_collection(
            "memories", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def _add(self, rows: Rows) -> None:
        texts = rows.columns["text"]
        fields = [name for name in rows.columns if name != "text"]
        values = zip(*(rows.columns[name] for name in fields), strict=True)
        self._collection.add(
            ids=rows.ids,
            embeddings=rows.vectors,
            documents=texts,
            metadatas=[dict(zip(fields, row, strict=True)) for row in values],
        )

    def prepare(self, rows: Rows) -> Sequence[Any]:
        return [rows.part(row, row + 1) for row in range(len(rows))]

    def insert(self, prepared: Any) -> None:
        self._add(prepared)

    def insert_many(self, prepared: Sequence[Any]) -> None:
        columns = prepared[0].columns
        self._add(
            Rows(
                [rows.ids[0] for rows in prepared],
                np.concatenate([rows.vectors for rows in prepared]),
                {name: [rows.columns[name][0] for rows in prepared] for name in columns},
            )
        )

    def bulk(self, rows: Rows) -> list[str]:
        size = int(self._client.get_max_batch_size())
        for start in range(0, len(rows), size):
            self._add(rows.part(start, start + size))
        return rows.ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        found = self._collection.query(query_embeddings=[vector], n_results=limit, include=[])
        hits: Hits = found["ids"][0]
        return hits

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        found = self._collection.query(
            query_embeddings=[vector], n_results=limit, where={field: value}, include=[]
        )
        hits: Hits = found["ids"][0]
        return hits

    def load(self, row_id: str) -> Any:
        return self._collection.get(row_id, include=["documents", "metadatas", "embeddings"])

    def close(self) -> None:
        self._collection = None
        self._client.close()
