"""Prefetcher: guesses, after each load, what the same thread loads next, and reads that ahead.

A thread of its own looks at what was loaded, so that a load knows nothing of it; every millisecond
while loads come, ever more rarely after that, and when they stay away for a second it sleeps until
the next one. While one load follows another without a pause it only learns: whatever else it did
would take the interpreter from those who load. It judges by what the cache of blocks counts whether
it pays: see docs/decisions/0021-prefetching.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from engramdb.errors import ClosedError, EngramError
from engramdb.lsm import StorageEngine
from engramdb.lsm.records import MEMORY
from engramdb.prefetch.connections import strongest
from engramdb.prefetch.guesses import Guesses
from engramdb.prefetch.transitions import Transitions
from engramdb.prefetch.trial import Trial

NAME: Final = "prefetch"
"""In the store for derived data."""
CACHE_BLOCKS_MIN: Final = 32
"""With a smaller cache, what is read ahead would drive out what is in use."""
AHEAD: Final = 8
"""Memories that are read ahead of one thread at a time."""
PROBABILITY_MIN: Final = 0.2
THREADS: Final = 4
"""Threads that are read ahead for at a time: those that loaded last."""
_THREADS_KNOWN: Final = 256
_CONNECTIONS: Final = 2
_LEARNED_AT_ONCE: Final = 256
_QUIET_S: Final = 0.1
"""After so long without a load it is learned what came until then."""
_POLL_S: Final = 0.001
_POLL_S_MAX: Final = 0.02
BUSY_S: Final = 0.0005
"""Who loads more often than that in the mean is not read ahead for until that is over."""
_IDLE_S: Final = 1.0
"""After so long without a load it sleeps until one comes."""
STORE_S: Final = 60.0
"""Between two times that the model is stored while loads come."""
_REST: Final = 100
"""A store that takes long is followed by so many times as long without one."""


class Feed(Protocol):
    """Where the loads are written down."""

    def follow(self, since: int) -> tuple[int, list[bytes], list[int]]:
        """See AccessLog.follow()."""

    def call_next(self, call: Callable[[], None], *, after: int = 0) -> None:
        """See AccessLog.call_next()."""


NONE: Final = {
    "prefetch_on": False,
    "prefetch_reads": 0,
    "prefetch_hits": 0,
    "prefetch_wasted": 0,
    "prefetch_errors": 0,
    "prefetch_memories": 0,
}
"""The statistics of none."""


class Prefetcher:
    """Of one open database. Thread-safe. Its thread starts with the first load, as soon as there
    are files to read."""

    def __init__(
        self,
        engine: StorageEngine,
        feed: Feed,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads nothing and starts nothing yet. `clock_s`: seconds; never steps back."""
        self._engine = engine
        self._feed = feed
        self._clock_s = clock_s
        self._trial = Trial()
        self._lock = threading.RLock()
        self._inside = 0  # the thread that holds the lock
        self._model: Transitions | None = None  # None: not read yet
        self._sources: list[bytes] = []  # what is not learned yet
        self._targets: list[bytes] = []
        self._last: dict[int, bytes] = {}  # what each thread loaded last, the latest one last
        self._number = 0  # of the next access
        self._starts: list[bytes] = []  # what to read ahead of
        self._is_busy = False
        self._guesses = Guesses()  # along connections
        self._is_stored = True
        self._stepped_s = self._loaded_s = clock_s()
        self._due_s = self._stepped_s + STORE_S
        self.errors = 0
        """How often reading ahead has failed."""
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # The thread

    def await_load(self) -> None:
        """Start with the next load, and no sooner."""
        self._feed.call_next(self._start)

    def _start(self) -> None:
        """Within a load."""
        try:
            if not self._engine.latest().version.segments:  # there is nothing to read ahead yet
                self._feed.call_next(self._start, after=_LEARNED_AT_ONCE)
                return
        except ClosedError:  # by another thread
            return
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._run, name="engramdb_prefetch", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads: no reason for a load to fail
                self._thread = None
                self.errors += 1

    def _run(self) -> None:
        last_s = self._clock_s()
        while not self._stopping and self._engine.is_open:
            try:
                moved = self.step()
            except ClosedError:
                return
            except Exception:  # whatever it is, the load that needs it will tell
                self.errors += 1
                self._trial.rest(self._clock_s())
                moved = False
            now_s = self._clock_s()
            if moved:
                last_s = now_s
            self._pause(now_s, now_s - last_s)

    def _pause(self, now_s: float, idle_s: float) -> None:
        trial = self._trial
        if not trial.is_on:  # no load is to wake it
            self._wait(max(0.0, trial.until_s - now_s))
        elif idle_s < _IDLE_S:
            pause_s = min(max(idle_s / 10, _POLL_S), _POLL_S_MAX)
            self._wait(_POLL_S_MAX if self._is_busy else pause_s)
        else:
            self._feed.call_next(self._wake.set)
            if self._feed.follow(self._number)[0] == self._number:
                self._wait(None)

    def _wait(self, seconds: float | None) -> None:
        """So long; or until it is to stop, or a load has come that it was to be told of."""
        if not self._stopping:
            self._wake.wait(seconds)
            self._wake.clear()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread, and wait for it: as long as reading one memory takes at most."""
        self._stopping = True
        thread = self._thread
        if thread is None or not thread.is_alive():  # as in a forked child
            return
        self._wake.set()
        if wait and thread is not threading.current_thread():
            thread.join()

    def is_mine(self) -> bool:
        """Whether this is its thread."""
        return threading.current_thread() is self._thread

    # A step of it

    def step(self) -> bool:
        """Learn from what was loaded since the last step, and read ahead. False if nothing was.

        Raises ClosedError, EngramError (a damaged file).
        """
        now_s, trial, engine = self._clock_s(), self._trial, self._engine
        if not trial.is_on:
            if now_s < trial.until_s:
                return False
            trial.resume(engine.warm(()))
            self._guesses = Guesses()
        elapsed_s, self._stepped_s = now_s - self._stepped_s, now_s
        with self._entered():
            loads, each = self._look(now_s)
            if not loads and now_s - self._loaded_s > _QUIET_S:
                self._learn()
            if now_s >= self._due_s:
                self._store()
        self._is_busy = loads * BUSY_S > elapsed_s * max(1, each)
        while self._starts and not self._is_busy:
            self._read_ahead(self._starts.pop(0))
        if loads:
            trial.judge(engine.warm(()), loads, now_s)
        return bool(loads)

    def _look(self, now_s: float) -> tuple[int, int]:
        """How many loads there were since the last look, and by how many threads."""
        self._number, keys, threads = self._feed.follow(self._number)
        if not keys:
            return 0, 0
        self._loaded_s = now_s
        self._guesses.check(keys)
        several = dict.fromkeys(reversed(threads))
        for thread in several:
            mine = keys
            if len(several) > 1:
                mine = [key for key, by in zip(keys, threads, strict=True) if by == thread]
            before = self._last.pop(thread, None)
            if before is not None:
                mine = [before, *mine]
            self._sources += mine[:-1]
            self._targets += mine[1:]
            self._last[thread] = mine[-1]
        while len(self._last) > _THREADS_KNOWN:
            del self._last[next(iter(self._last))]
        if len(self._sources) >= _LEARNED_AT_ONCE:
            self._learn()
        self._starts = [self._last[thread] for thread in list(several)[:THREADS]]
        return len(keys), len(several)

    def _learn(self) -> Transitions:
        """The model, with all that was seen until now."""
        model = self._model
        if model is None:
            values = self._engine.derived.load(NAME)
            model = Transitions() if values is None else Transitions.of_values(values)
            if model is None:
                self._engine.derived.refuse()
                model = Transitions()
            self._model = model
        if self._sources:
            self._is_stored = False
            model.learn(self._sources, self._targets)
            self._sources, self._targets = [], []
        return model

    def _read_ahead(self, key: bytes) -> None:
        engine = self._engine
        with self._entered():
            model = self._model or self._learn()
            likely = model.ahead(key, AHEAD, PROBABILITY_MIN)
        if not likely and self._guesses.are_trusted():
            likely = strongest(engine.latest(), key, _CONNECTIONS)
            self._guesses.add(likely)
        reads = engine.warm(()).reads
        for each in likely:
            if engine.warm([each]).reads != reads:  # which takes its time
                if self._stopping or self._feed.follow(self._number)[0] != self._number:
                    return
                reads += 1

    @contextmanager
    def _entered(self) -> Iterator[None]:
        me = threading.get_ident()
        if self._inside == me:
            raise EngramError(
                "the model of what is loaded next is in use by an interrupted call of this thread"
            )
        with self._lock:
            self._inside = me
            try:
                yield
            finally:
                self._inside = 0

    # Keeping

    def prepare_erasure(self) -> None:
        """Read what is stored: an erasure removes it. Raises ClosedError."""
        self._engine.check_open()
        with self._entered():
            self._learn()

    def forget(self, keys: list[bytes]) -> None:
        """Forget these memories, and store the others again: they have been erased."""
        with self._entered():
            model = self._learn()
            model.forget(keys)
            self._guesses = Guesses()
            self._last = {by: key for by, key in self._last.items() if key not in keys}
            self._starts = []
            self._is_stored = not len(model)
            self._store()

    def store(self, *, wait: bool = True) -> bool:
        """Store what has changed, without the memories that were deleted. False if there was
        nothing to store or it could not be, or, unless it is to `wait`, the model is in use."""
        if not self._engine.is_open or self._inside == threading.get_ident():
            return False
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            with self._entered():
                if self._model is None and not self._sources:
                    return False
                with suppress(ClosedError):  # by another thread, meanwhile
                    self._learn()
                    return self._store()
                return False
        finally:
            self._lock.release()

    def _store(self) -> bool:
        model, started_s = self._model, self._clock_s()
        stored = False
        if not self._is_stored and model is not None and not self._engine.read_only:
            stored = self._is_stored = self._try_to_store(model)
        ended_s = self._clock_s()
        self._due_s = ended_s + max(STORE_S, _REST * (ended_s - started_s))
        return stored

    def _try_to_store(self, model: Transitions) -> bool:
        derived = self._engine.derived
        erasures = derived.erasures  # before anybody looks what is there
        try:
            is_there = self._engine.latest().exist(MEMORY, model.keys())
            if not bool(is_there.all()):
                model.where(is_there)
            return derived.store(NAME, model.values(), erasures=erasures)
        except EngramError:
            self.errors += 1  # closed meanwhile, or a damaged segment
            return False

    # About itself

    def statistics(self) -> dict[str, int | bool]:
        """What it has been good for, in blocks of payloads since the opening."""
        warmth, model = self._engine.warm(()), self._model
        return NONE | {
            "prefetch_on": self._trial.is_on and self._thread is not None and not self._stopping,
            "prefetch_reads": warmth.reads,
            "prefetch_hits": warmth.hits,
            "prefetch_wasted": warmth.wasted,
            "prefetch_errors": self.errors,
            "prefetch_memories": 0 if model is None else len(model),
        }
