"""What the workloads share: the scale of the run, the data, who takes part, loaded databases."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmarks import clock, host
from benchmarks.corpus import Corpus, Matrix, Rows
from benchmarks.stores import STORES, Bare, Engram, Store
from benchmarks.worker import Worker


@dataclass(frozen=True)
class Scale:
    """How much of everything. `quick` is for a smoke test: its figures mean nothing."""

    rows: int = 100_000
    few_rows: int = 5_900
    rounds: int = 5
    saves: int = 400  # single durable saves per round and contestant
    slow_saves: int = 20  # the same for stores that do some hundreds a second
    sustained_rows: int = 100_000
    unsynced_saves: int = 20_000
    queries: int = 200
    asked: int = 500  # the same where an index is to show its recall
    skewed: int = 4_000  # searches of each pattern that an index may adapt to
    topics: int = 20  # that most of these are about
    openings: int = 5
    log_records: int = 560_000  # about 1 GB of log
    compaction_rows: int = 400_000
    million: int = 1_000_000
    thousand: int = 1_000
    threads: int = 16
    with_million: bool = False  # whether searches are measured with a million rows, too

    def quick(self) -> Scale:
        """Everything small enough for a test."""
        return replace(
            self,
            rows=3_000,
            few_rows=1_000,
            rounds=2,
            saves=20,
            slow_saves=3,
            sustained_rows=2_000,
            unsynced_saves=200,
            queries=10,
            asked=10,
            skewed=40,
            topics=4,
            openings=1,
            log_records=1_000,
            compaction_rows=2_000,
            million=5_000,
            thousand=500,
            threads=4,
        )


@dataclass(frozen=True)
class Loaded:
    """A closed database that holds the first rows of the corpus."""

    path: str
    ids: list[str]  # row by row
    seconds: list[float]  # of each bulk load
    settled_s: float  # seconds until its index was there, too


class Bench:
    """One run. Everything it writes lies in a directory that is removed at the end."""

    def __init__(
        self, scale: Scale, corpus: Corpus, peers: list[str], directory: str | None = None
    ) -> None:
        self.scale = scale
        self.corpus = corpus
        self.directory = tempfile.mkdtemp(prefix="engramdb-bench-", dir=directory)
        self.absent: dict[str, str] = {}  # name -> why
        self.troubles: dict[str, str] = {}  # the same for one workload
        for name in [Engram.name, *peers]:
            reason = STORES[name].missing()
            if reason is not None:
                self.absent[name] = reason
        self.peers = [name for name in peers if name not in self.absent]
        self._loaded: dict[tuple[str, int, bool, str], Loaded] = {}
        self._corpora = {corpus.shape: corpus}
        self._number = 0

    def worker(self, name: str, path: str | None = None) -> Worker:
        """A process for one store."""
        return Worker(name, self.corpus.directory, path)

    @property
    def contestants(self) -> list[type[Store]]:
        """EngramDB, then the peers that are installed."""
        names = [Engram.name, *self.peers]
        return [STORES[name] for name in names if name not in self.absent]

    @property
    def with_floor(self) -> list[type[Store]]:
        """The bare files, then the contestants."""
        return [Bare, *self.contestants]

    @cached_property
    def rows(self) -> Rows:
        """The memories of the main workloads."""
        return self.corpus.rows(self.scale.rows)

    @cached_property
    def queries(self) -> Matrix:
        """Query vectors, as many as the scale says."""
        return self.corpus.queries(self.scale.queries)

    @cached_property
    def queries_file(self) -> str:
        """The same in a file, for other processes."""
        return self.kept(self.queries)

    def kept(self, queries: Matrix) -> str:
        """A file with these queries, for other processes."""
        self._number += 1
        path = os.path.join(self.directory, f"queries-{self._number:03}.npy")
        np.save(path, queries)
        return path

    @property
    def sizes(self) -> list[int]:
        """Rows of the collections in which searches are measured."""
        many = [self.scale.million] if self.scale.with_million else []
        return [self.scale.few_rows, self.scale.rows, *many]

    def shaped(self, shape: str) -> Corpus:
        """The same corpus, or another of this shape."""
        if shape not in self._corpora:
            self._corpora[shape] = Corpus(directory=self.corpus.directory, shape=shape)
        return self._corpora[shape]

    def new_directory(self) -> str:
        """An empty directory."""
        self._number += 1
        path = os.path.join(self.directory, f"{self._number:03}")
        os.mkdir(path)
        return path

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """An empty directory that is removed afterwards."""
        path = self.new_directory()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def loaded(
        self,
        store_class: type[Store],
        count: int,
        *,
        labelled: bool = False,
        shape: str = "mixture",
    ) -> Loaded:
        """A database with the first `count` rows, loaded in bulk; made once, then kept.

        `labelled`: with a label of each kind for filtered searches; loaded without repetition.
        """
        key = (store_class.name, count, labelled, shape)
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    def unload(self, store_class: type[Store], count: int, *, shape: str = "mixture") -> None:
        """Remove such a database, if there is one: a million rows fill a small disk."""
        gone = self._loaded.pop((store_class.name, count, False, shape), None)
        if gone is not None:
            shutil.rmtree(gone.path)

    def _load(self, name: str, count: int, labelled: bool, shape: str) -> Loaded:
        seconds: list[float] = []
        path = ""
        ids: list[str] = []
        slow = STORES[name].slow_bulk or not STORES[name].exact or count > self.scale.rows
        once = slow or labelled or shape != self.corpus.shape
        with self.worker(name) as worker:
            for _ in range(1 if once else min(3, self.scale.rounds)):
                if path:
                    worker.leave()
                    shutil.rmtree(path)
                path = self.new_directory()
                worker.open(path)
                taken, ids = worker.bulk(count, labelled=labelled, shape=shape)
                seconds.append(taken)
            settled_s = clock.stopwatch(worker.settle)
        host.sync_below(path)  # or the next contestant's first sync would pay for this one
        return Loaded(path, ids, seconds, settled_s)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """One contestant's part of a workload: if it fails, the others still go on."""
        try:
            yield
        except Exception as error:
            self.trouble(name, error)

    def trouble(self, name: str, error: Exception) -> None:
        """Note that a contestant failed; where this run writes is nobody's business."""
        text = f"{type(error).__name__}: {error}".replace(self.directory, "...")
        self.troubles[name] = text.splitlines()[-1][:200]

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self.directory, ignore_errors=True)
