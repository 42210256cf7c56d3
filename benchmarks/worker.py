"""One store in a process of its own, told what to do line by line.

The threads that one store leaves behind would otherwise disturb the next: with all peers in one
process, numpy's product of 3,000 rows was seen to take 8 ms instead of 0.03. So each contestant has
a process, only one of which is busy at any time, and all of which take turns.

    parent                             child: python -m benchmarks.worker NAME DIRECTORY
    {"do": "open", "path": ...}   ->
                                  <-   {"answer": ...} or {"error": ...}
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from benchmarks import child, clock
from benchmarks.corpus import Corpus, Rows, label
from benchmarks.stores import STORES, Engram, Store

AT_ONCE_ROWS: Final = 200_000  # of a bulk load; more are loaded in parts
PART_ROWS: Final = 50_000


class Worker:
    """The parent's side. Each method runs in the child and returns what was measured there."""

    def __init__(self, name: str, corpus_directory: str | None, path: str | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, corpus_directory or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child.environment(),
            text=True,
        )
        if path is not None:
            self.open(path)

    def _ask(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended with {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply["answer"]

    def open(self, path: str) -> None:
        """Open or create the store there; one that is open is closed before."""
        self._ask("open", path=path)

    def leave(self) -> None:
        """Close the store; another can be opened."""
        self._ask("close")

    def prepare(self, count: int) -> None:
        """Turn the first `count` rows into what the store's inserts take."""
        self._ask("prepare", count=count)

    def insert(self, start: int, count: int) -> clock.Seconds:
        """Insert prepared rows one by one; the seconds of each."""
        return np.array(self._ask("insert", start=start, count=count))

    def insert_batches(self, size: int) -> clock.Seconds:
        """Insert all prepared rows in batches; the seconds of each batch."""
        return np.array(self._ask("insert_batches", size=size))

    def bulk(
        self, count: int, *, labelled: bool = False, shape: str = "mixture"
    ) -> tuple[float, list[str]]:
        """Load the first `count` rows, with or without labels; the seconds, and the ids by row."""
        seconds, ids = self._ask("bulk", count=count, labelled=labelled, shape=shape)
        return seconds, ids

    def settle(self) -> None:
        """Wait for what runs in the background."""
        self._ask("settle")

    def tune(self, effort: int) -> None:
        """Search as hard as this says from now on."""
        self._ask("tune", effort=effort)

    def search(self, queries: str, picks: list[int], limit: int) -> clock.Seconds:
        """Search for the picked rows of a file of queries; the seconds of each."""
        return np.array(self._ask("search", queries=queries, picks=picks, limit=limit))

    def find(self, queries: str, picks: list[int], limit: int) -> list[list[str]]:
        """The same, for what is found."""
        found: list[list[str]] = self._ask("find", queries=queries, picks=picks, limit=limit)
        return found

    def scored(self, queries: str, picks: list[int], limit: int) -> list[list[tuple[str, float]]]:
        """The same with the scores; EngramDB only."""
        found = self._ask("scored", queries=queries, picks=picks, limit=limit)
        return [[(row_id, score) for row_id, score in hits] for hits in found]

    def index(self) -> dict[str, Any]:
        """What EngramDB says of its index; empty if there is none."""
        said: dict[str, Any] = self._ask("index")
        return said

    def search_where(self, queries: str, picks: list[int], limit: int, field: str) -> clock.Seconds:
        """Search as above, the query of number n among the rows with the label of number n."""
        asked = {"queries": queries, "picks": picks, "limit": limit, "field": field}
        return np.array(self._ask("search_where", **asked))

    def find_where(self, queries: str, picks: list[int], limit: int, field: str) -> list[list[str]]:
        """The same, for what is found."""
        asked = {"queries": queries, "picks": picks, "limit": limit, "field": field}
        found: list[list[str]] = self._ask("find_where", **asked)
        return found

    def load(self, ids: list[str]) -> clock.Seconds:
        """Load by id; the seconds of each."""
        return np.array(self._ask("load", ids=ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store and end the process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(timeout=child.TIMEOUT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Session:
    """The child's side."""

    def __init__(self, name: str, corpus_directory: str | None) -> None:
        self._class = STORES[name]
        self._directory = corpus_directory
        self._corpus = Corpus(directory=corpus_directory)
        self._store: Store | None = None
        self._rows: Rows | None = None
        self._drawn = (0, False, "")  # how many, with labels, of which shape
        self._prepared: list[Any] = []
        self._queries: tuple[str, Any] = ("", None)

    @property
    def _opened(self) -> Store:
        assert self._store is not None, "opened first"
        return self._store

    def open(self, path: str) -> None:
        self.close()
        self._store = self._class(path)

    def close(self) -> None:
        if self._store is not None:
            self._store.settle()
            self._store.close()
            self._store = None

    def prepare(self, count: int) -> None:
        self._prepared = list(self._opened.prepare(self._corpus.rows(count)))

    def insert(self, start: int, count: int) -> Any:
        rows = self._prepared[start : start + count]
        return clock.seconds_each(self._opened.insert, rows).tolist()

    def insert_batches(self, size: int) -> Any:
        rows = self._prepared
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return clock.seconds_each(self._opened.insert_many, parts).tolist()

    def settle(self) -> None:
        self._opened.settle()

    def tune(self, effort: int) -> None:
        self._opened.tune(effort)

    def bulk(self, count: int, labelled: bool, shape: str) -> tuple[float, list[str]]:
        if shape != self._corpus.shape:
            self._corpus = Corpus(directory=self._directory, shape=shape)
        if count > AT_ONCE_ROWS and not labelled:
            return self._bulk_in_parts(count)
        if self._drawn != (count, labelled, shape):
            self._rows = (self._corpus.labelled if labelled else self._corpus.rows)(count)
            self._drawn = (count, labelled, shape)
        rows, ids = self._rows, []
        assert rows is not None
        store = self._opened

        def load() -> None:
            ids.extend(store.bulk(rows))

        return clock.stopwatch(load), ids

    def _bulk_in_parts(self, count: int) -> tuple[float, list[str]]:
        """More rows than this process should hold; drawing them is not part of the time."""
        seconds, ids = 0.0, []
        for start in range(0, count, PART_ROWS):
            rows = self._corpus.rows(min(PART_ROWS, count - start), start=start)
            started = time.perf_counter()
            ids += self._opened.bulk(rows)
            seconds += time.perf_counter() - started
        return seconds, ids

    def _vectors(self, path: str) -> Any:
        if self._queries[0] != path:
            self._queries = (path, np.load(path))
        return self._queries[1]

    def search(self, queries: str, picks: list[int], limit: int) -> Any:
        store, vectors = self._opened, self._vectors(queries)
        return clock.seconds_each(lambda pick: store.search(vectors[pick], limit), picks).tolist()

    def find(self, queries: str, picks: list[int], limit: int) -> list[list[str]]:
        store, vectors = self._opened, self._vectors(queries)
        return [store.search(vectors[pick], limit) for pick in picks]

    def scored(self, queries: str, picks: list[int], limit: int) -> list[list[tuple[str, float]]]:
        store, vectors = self._opened, self._vectors(queries)
        assert isinstance(store, Engram), "only EngramDB says its scores"
        return [store.scored(vectors[pick], limit) for pick in picks]

    def index(self) -> Any:
        said = (
            self._opened.database.stats().get("index", {})
            if isinstance(self._opened, Engram)
            else {}
        )
        return json.loads(json.dumps(said, default=str))

    def search_where(self, queries: str, picks: list[int], limit: int, field: str) -> Any:
        store, vectors = self._opened, self._vectors(queries)

        def search(pick: int) -> object:
            return store.search_where(vectors[pick], limit, field, label(field, pick))

        return clock.seconds_each(search, picks).tolist()

    def find_where(self, queries: str, picks: list[int], limit: int, field: str) -> Any:
        store, vectors = self._opened, self._vectors(queries)
        return [store.search_where(vectors[p], limit, field, label(field, p)) for p in picks]

    def load(self, ids: list[str]) -> Any:
        return clock.seconds_each(self._opened.load, ids).tolist()


def main(name: str, corpus_directory: str) -> None:
    """Answer requests until the parent closes the pipe."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a peer prints must not come between
    session = Session(name, corpus_directory or None)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"answer": getattr(session, request.pop("do"))(**request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    session.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
