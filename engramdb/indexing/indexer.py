"""The codes of all vector files of an open database: made in the background, one file at a time.

A thread of its own wakes when the files have changed. It loads what is stored and builds what is
missing, rests while others search, and looks from time to time whether the queries that were really
asked find what they should. Searches never wait for it: a file without codes is scanned.
"""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from time import monotonic, perf_counter, sleep
from typing import Any, Final, Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from engramdb.errors import ClosedError, CorruptionError, EngramError
from engramdb.index.codes.file_codes import FileCodes
from engramdb.index.codes.recall import Recall
from engramdb.index.codes.turbo import available, bytes_of
from engramdb.index.lists import Kept
from engramdb.indexing.asked import Asked
from engramdb.indexing.keeper import ASKED_MIN, Keeper
from engramdb.lsm import StorageEngine, VectorFile

Floats32 = npt.NDArray[np.float32]
Codes = dict[int, FileCodes]

CELLS_MIN: Final = 3_000_000
"""Files with fewer numbers are scanned: that takes less than half a millisecond."""
_ROWS_MIN: Final = 1_000
_INTERVAL_S: Final = 30.0
_REST: Final = 50  # a look that takes long is followed by so many times as long without one
_REST_S_MAX: Final = 0.05
_LIMIT: Final = 10  # of the searches whose recall is watched
_NAME: Final = "codes-"
_POLL_S: Final = 0.05
_EXIT_S: Final = 5.0
_DAMAGES_MAX: Final = 3  # of one file's codes: then something damages all there are


class Lock(Protocol):
    """One of Python's."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See threading.Lock."""

    def release(self) -> None:
        """See threading.Lock."""


class _Stopped(Exception):
    """The database is being closed."""


class Indexer:
    """Of one open database. Thread-safe."""

    def __init__(
        self,
        engine: StorageEngine,
        *,
        target: float,
        turbo: bool,
        memory_bytes: int,
        adaptive: bool,
        background: bool,
        cells_min: int = CELLS_MIN,
    ) -> None:
        """target        the recall that is promised
        turbo         whether turbovec may be used, if it is there
        memory_bytes  how much its codes may take
        adaptive      whether queries that were asked are kept and taken into account
        background    whether to work in a thread; without, only build() does anything
        """
        self._engine, self._target = engine, target
        self._turbo, self._memory_bytes = turbo, memory_bytes
        self._adaptive = adaptive
        self._background = background
        self._cells_min = cells_min
        self._codes: Codes = {}  # replaced, never changed
        self._missing: frozenset[int] = frozenset()  # files nobody has looked for codes of
        self._scanned: set[int] = set()  # files for which codes do not pay, or cannot be made
        self._refused: dict[int, int] = {}  # files whose codes were damaged, and how often
        self._asked: dict[str, Asked] = {}
        self._turbo_tried: set[int] = set()
        self._recalls: dict[int, Recall] = {}  # of queries that were asked
        self._searches = 0
        self._looked_at = 0
        self._due_s = 0.0
        self._erasures = engine.derived.erasures
        self._working = threading.RLock()  # held for a step of work
        # held while stored codes are loaded: not for long. A signal handler may search meanwhile
        self._loading = threading.RLock()
        self._is_tidy = False  # whether codes of files that are gone were looked for
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._paused_s, self._paused_at = 0.0, 0
        self.interaction = Kept()
        """For searches among memories with several vectors."""
        self.built = 0
        """Files that codes were built for."""
        self.damaged = 0
        """Files whose codes were damaged."""
        self.failure = ""
        """Why the last file got no codes."""

    # For searches

    def codes(self) -> Codes:
        """What there is, by the number of the file."""
        self._searches += 1
        if self._missing:
            self._load()
        return self._codes

    def asked(self, space: str, query: Floats32) -> None:
        """A query was asked in a space."""
        if self._adaptive:
            asked = self._asked.get(space)
            if asked is None:
                asked = self._asked.setdefault(space, Asked())
            asked.record(query)

    def forget_damaged(self, error: CorruptionError) -> bool:
        """Whether that was damage of codes. These are thrown away, and made anew."""
        _, found, name = error.file.rpartition(f"/derived/{_NAME}")
        number = name.partition(".")[0]
        if not found or not number.isdigit():
            return False
        with self._changing():
            if int(number) not in self._codes:  # who met it at the same time has done all of this
                return True
            self.damaged += 1
            # what is stored is not loaded again: where it cannot be removed, that would never end
            self._refused[int(number)] = self._refused.get(int(number), 0) + 1
            self._codes = {key: kept for key, kept in self._codes.items() if key != int(number)}
            self._engine.derived.remove(f"{_NAME}{number}")
        self.wake()
        # last, for a filter may make an exception of it
        warnings.warn(
            f"{error}: these are codes, not memories; they are built again", RuntimeWarning, 3
        )
        return True

    # For the engine and the database

    def wake(self) -> None:
        """The files may have changed. Quick, and never raises."""
        if self._stopping:
            return
        try:
            files = self._files()
            self._is_tidy = self._is_tidy or not self._engine.derived.names(_NAME)
        except EngramError as error:  # closed meanwhile, or a directory that cannot be read
            self.failure = str(error)
            return
        known = self._codes.keys() | self._scanned
        self._missing = frozenset(file.number for file in files if file.number not in known)
        # a build may have given up for an erasure
        is_erased = self._erasures != self._engine.derived.erasures
        is_due = bool(self._missing or self._codes or not self._is_tidy or is_erased)
        if self._background and is_due:
            if self._thread is None:
                self._start()
            self._wake.set()

    def refresh(self) -> None:
        """Of a reader: its writer may have made codes meanwhile."""
        self._refused.clear()
        self.wake()

    def build(self) -> None:
        """Do all that there is to do, now. Raises what the engine raises; ClosedError, too, if the
        database is being closed meanwhile."""
        self._scanned.clear()
        self._refused.clear()
        self._turbo_tried.clear()
        self._looked_at, self._due_s = 0, 0.0
        self.wake()
        try:
            with self._working:
                while self._step():
                    pass
        except _Stopped:
            raise ClosedError(
                "this database cannot be used: it is being closed; open it again"
            ) from None

    def prepare_erasure(self) -> None:
        """What was asked may be what is erased: none of it is to be stored."""
        self._asked, self._looked_at = {}, 0

    def forget(self, keys: list[bytes]) -> None:
        """These memories have been erased, and with them everything that was stored here."""
        self._asked, self._looked_at = {}, 0
        self.wake()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread; without `wait`, soon."""
        self._stopping = True
        self._wake.set()
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def is_mine(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    def statistics(self) -> dict[str, Any]:
        """What Database.stats() says of it."""
        files = []
        for file in self._files():
            codes = self._codes.get(file.number)
            plan = None if codes is None else codes.plan(_LIMIT)
            one: dict[str, Any] = {
                "file": file.number,
                "space": file.space,
                "rows": file.rows,
                "searched": "scan" if plan is None else plan.kind,
                "milliseconds": None if plan is None else 1e3 * plan.seconds,
                "recall": None if plan is None else _recall(plan.recall),
                "asked_recall": _recall(self._recalls.get(file.number)),
                "resident_bytes": 0 if codes is None else codes.resident_bytes,
                "mapped_bytes": 0 if codes is None else codes.codes.codes.nbytes,
            }
            files.append(one)
        return {
            "recall_target": self._target,
            "files": files,
            "waiting": len(self._missing),
            "built": self.built,
            "damaged": self.damaged,
            "queries_kept": sum(len(each.queries()) for each in list(self._asked.values())),
            "failure": self.failure,
        }

    # The work

    def _files(self) -> list[VectorFile]:
        """Those that are large enough, the largest last."""
        files = [
            file
            for file in self._engine.latest().version.vectors
            if file.rows * file.dimension >= self._cells_min and file.rows >= _ROWS_MIN
        ]
        return sorted(files, key=lambda file: file.rows)

    def _start(self) -> None:
        with self._changing():
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._run, name="engramdb-index", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # there can be no more threads: the next call tries
                    self.failure = str(error)
                    return
                self._thread = thread
                _at_work.add(self)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_INTERVAL_S if self._adaptive and self._codes else None)
            self._wake.clear()
            try:
                with self._held(self._working):
                    while not self._stopping and self._step():
                        pass
            except _Stopped:
                return
            except Exception as error:  # whatever it is, searches scan; the next change tries again
                if not self._engine.is_open:
                    return
                self.failure = f"{type(error).__name__}: {error}"

    def _step(self) -> bool:
        """Do the next thing; False if there is none."""
        # before the files: what is erased from here on is in these, and nothing of it is stored
        erasures = self._engine.derived.erasures
        files = self._files()
        try:
            return self._next(files, erasures)
        except CorruptionError as error:
            if not self.forget_damaged(error):
                raise
            return True

    def _next(self, files: list[VectorFile], erasures: int) -> bool:
        engine = self._engine
        if self._erasures != erasures:
            # what was stored is gone; what is in memory goes on serving until it is made again
            self._erasures = erasures
            self._asked, self._looked_at = {}, 0
            self._recalls = {}
            for file in files:
                if engine.derived.erasures != erasures:  # once more: some may be of the past
                    return True
                self._make(file)
        self._drop({file.number for file in files})
        self._load()
        if engine.read_only:
            return self._next_check(files)
        return self._next_make(files) or self._next_check(files) or self._look(files)

    def _next_make(self, files: list[VectorFile]) -> bool:
        """Codes that are missing, or were made for another target."""
        for file in files:
            codes = self._codes.get(file.number)
            if codes is None and file.number not in self._scanned:
                self._make(file)
                return True
            if codes is not None and codes.target != self._target:
                queries = self._queries(file)
                self._publish(file, self._keeper(file).recalibrate(codes, queries, self._target))
                return True
        return False

    def _next_check(self, files: list[VectorFile]) -> bool:
        """What is still to be done about codes that are there."""
        for file in files:
            codes = self._codes.get(file.number)
            if codes is None:
                continue
            if not codes.codes.is_checked:
                codes.codes.check(self._pause)  # all of it, as nobody else will
                return True
            if self._may_turbo(file, codes):
                self._turbo_tried.add(file.number)
                try:
                    self._publish(file, self._keeper(file).with_turbo(codes, self._queries(file)))
                except (EngramError, MemoryError, RuntimeError, ValueError) as error:
                    self.failure = f"{type(error).__name__}: {error}"
                return True
        return False

    def _may_turbo(self, file: VectorFile, codes: FileCodes) -> bool:
        """Whether turbovec's codes are wanted, and fit in."""
        if not self._turbo or codes.turbo is not None or file.number in self._turbo_tried:
            return False
        taken = sum(
            each.turbo.resident_bytes for each in self._codes.values() if each.turbo is not None
        )
        wanted = bytes_of(file.rows, file.dimension)
        return taken + wanted <= self._memory_bytes and available()

    def _make(self, file: VectorFile) -> None:
        """Build the codes of a file."""
        self._turbo_tried.discard(file.number)
        if self._refused.get(file.number, 0) >= _DAMAGES_MAX:
            self._publish(file, None)
            return
        try:
            codes = self._keeper(file).make(self._queries(file), self._target)
            self._publish(file, codes)
            self.built += codes is not None
        except _Stopped:
            raise
        except Exception as error:  # numpy has many; without codes a search is a scan
            self._publish(file, None)
            self.failure = f"{type(error).__name__}: {error}"

    def _load(self) -> None:
        """Load what is stored and is not here yet."""
        with self._changing():
            missing = self._missing
            self._missing = frozenset()
            found: Codes = {}
            try:
                for file in self._files():
                    number = file.number
                    if number in missing - self._codes.keys() - self._refused.keys():
                        codes = self._keeper(file).load()
                        if codes is not None and codes.target < self._target:
                            codes = replace(codes, calibrated=())  # scan, until they are calibrated
                        if codes is not None:
                            found[number] = codes
            except BaseException:  # Ctrl-C: the next search looks for them again
                self._missing |= missing
                raise
            finally:
                if found:
                    self._codes = {**self._codes, **found}

    def _publish(self, file: VectorFile, codes: FileCodes | None) -> None:
        with self._changing():
            if codes is None:
                self._scanned.add(file.number)
            else:
                self._scanned.discard(file.number)
                self._codes = {**self._codes, file.number: codes}
            self._missing -= {file.number}

    def _drop(self, present: set[int]) -> None:
        """Forget the codes of files that are gone."""
        with self._changing():
            if not self._codes.keys() <= present:
                self._codes = {
                    number: codes for number, codes in self._codes.items() if number in present
                }
            self._scanned &= present
            self._turbo_tried &= present
            self._recalls = {n: recall for n, recall in self._recalls.items() if n in present}
            self._refused = {n: often for n, often in self._refused.items() if n in present}
        derived = self._engine.derived
        for name in derived.names(_NAME):
            number = name.removeprefix(_NAME).partition("-")[0]
            if number.isdigit() and int(number) not in present:
                derived.remove(name)
        self._is_tidy = True

    def _look(self, files: list[VectorFile]) -> bool:
        """See whether the queries that were asked find what they should, if it is time."""
        count = sum(asked.count for asked in list(self._asked.values()))
        if not self._adaptive or count < self._looked_at + ASKED_MIN or monotonic() < self._due_s:
            return False
        self._looked_at = count
        started = monotonic()
        for file in files:
            codes, queries = self._codes.get(file.number), self._queries(file)
            if codes is None or len(queries) < ASKED_MIN:
                continue
            keeper = self._keeper(file)
            recall = keeper.recall(codes, queries, _LIMIT)
            is_new = codes.asked < ASKED_MIN <= len(queries) // 2
            if is_new or (recall is not None and recall.mean < self._target):
                self._publish(file, keeper.recalibrate(codes, queries, self._target))
                recall = keeper.recall(self._codes[file.number], queries, _LIMIT)
            if recall is not None:
                self._recalls[file.number] = recall
        self._due_s = monotonic() + max(_INTERVAL_S, _REST * (monotonic() - started))
        return False

    def _keeper(self, file: VectorFile) -> Keeper:
        return Keeper(self._engine, file, self._pause, self._erasures)

    def _queries(self, file: VectorFile) -> Floats32:
        asked = self._asked.get(file.space)
        queries = None if asked is None else asked.queries()
        if queries is None or not len(queries):
            return np.empty((0, file.dimension), np.float32)
        return queries

    @contextmanager
    def _held(self, lock: Lock) -> Iterator[None]:
        """Under a lock. The thread does not wait for it when it is to stop: who stops it, from a
        signal handler, may be in the middle of what holds the lock, and waits for the thread."""
        while not lock.acquire(timeout=_POLL_S):
            if self._stopping and self.is_mine():
                raise _Stopped
        try:
            yield
        finally:
            lock.release()

    def _changing(self) -> AbstractContextManager[None]:
        """Around changes of what is known of the files."""
        return self._held(self._loading)

    def _pause(self) -> None:
        """Between two pieces of work: rest as long as the last one took, if others search."""
        if self._stopping:
            raise _Stopped
        if self._searches != self._paused_at:
            sleep(min(perf_counter() - self._paused_s, _REST_S_MAX))
        self._paused_s, self._paused_at = perf_counter(), self._searches


_at_work: WeakSet[Indexer] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before the interpreter ends: a product that a thread is in the middle of then sometimes keeps
    the process from ending, as the threads of the BLAS are taken down beneath it."""
    indexers = list(_at_work)
    for indexer in indexers:
        indexer.stop(wait=False)
    for indexer in indexers:
        if indexer._thread is not None:
            indexer._thread.join(_EXIT_S)


def _recall(recall: Recall | None) -> dict[str, float] | None:
    if recall is None:
        return None
    return {"mean": recall.mean, "lower_95": recall.lower, "queries": recall.queries}


__all__ = ["Indexer"]
