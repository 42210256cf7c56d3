"""Flush, compaction and interval syncs, in threads of their own or, without them, inline."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engramdb.errors import EngramError
from engramdb.lsm.compaction import compact_once
from engramdb.lsm.core import Core
from engramdb.lsm.flush import flush_oldest
from engramdb.lsm.options import INTERVAL


class Maintenance:
    """The background work of one engine. Its threads start with the first need of them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._flush_needed = threading.Event()
        self._merge_needed = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start_lock = threading.Lock()

    def wake(self) -> None:
        """There may be something to flush or merge. Cheap, and never blocks on the work itself."""
        if not self._core.options.background:
            self._core.merge_due = True
        else:
            self._flush_needed.set()
            self._merge_needed.set()
            if not self._threads:
                self._start()

    def run_inline(self) -> None:
        """Without threads: do what there is to do, now. Not under any lock."""
        if not self._core.options.background:
            self._core.merge_due = False
            while flush_oldest(self._core):
                pass
            while compact_once(self._core):
                pass

    def start_syncing(self) -> None:
        """With the durability level INTERVAL: sync every so often from now on."""
        if self._core.options.durability == INTERVAL and not self._core.read_only:
            self._start()

    def _start(self) -> None:
        with self._start_lock:
            if self._threads or self._stopping.is_set():
                return
            works: list[Callable[[], None]] = []
            if self._core.options.background:
                works += [self._flush_loop, self._merge_loop]
            if self._core.options.durability == INTERVAL:
                works.append(self._sync_loop)
            for work in works:
                thread = threading.Thread(target=work, name=f"engramdb{work.__name__}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def is_mine(self) -> bool:
        """Whether this is one of the threads."""
        return threading.current_thread() in self._threads

    def stop(self) -> None:
        """Let the threads end what they are doing, and wait for them."""
        with self._start_lock:
            self._stopping.set()
        self._flush_needed.set()
        self._merge_needed.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, needed: threading.Event, work: Callable[[Core], bool]) -> None:
        core = self._core
        while True:
            needed.wait()
            needed.clear()
            try:
                while not self._stopping.is_set() and core.poison is None and work(core):
                    self._merge_needed.set()
                    core.tell_files()
            except EngramError as error:
                if not core.closing and not core.closed:  # every later write raises the cause
                    core.fail(error)
            except BaseException as error:
                core.fail(error)
                raise
            with core.room:
                core.room.notify_all()
            if self._stopping.is_set() or core.poison is not None:
                return

    def _flush_loop(self) -> None:
        self._loop(self._flush_needed, flush_oldest)

    def _merge_loop(self) -> None:
        self._loop(self._merge_needed, compact_once)

    def _sync_loop(self) -> None:
        core = self._core
        while not self._stopping.wait(core.options.sync_interval):
            try:
                core.sync_log()
            except (OSError, EngramError) as error:
                core.fail(error)
                return
