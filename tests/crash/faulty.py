"""An environment around another one, of which the nth call fails: for the real file system, and for
one of two processes on a disk that is sound.

It shows the directory `root` of the other one as "/", and keeps the markers of a driver, as a
simulated disk does. The call that fails is not made, but for what the fault says of it.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from engramdb.lsm.environment import Environment, File, Lock
from engramdb.lsm.environment.base import Data, Mode
from engramdb.lsm.environment.faults import Fault
from engramdb.lsm.environment.trace import Acknowledged, Issued, Trace


class FaultyFile(File):
    """A file whose calls are counted."""

    __slots__ = ("_around", "_file", "path")

    def __init__(self, around: FaultyEnvironment, path: str, file: File) -> None:
        self._around, self.path, self._file = around, path, file

    def read_at(self, offset: int, length: int) -> bytes:
        self._around.call("read_at", self.path)
        return self._file.read_at(offset, length)

    def write_at(self, offset: int, data: Data) -> None:
        fault = self._around.count("write_at")
        if fault is None:
            self._file.write_at(offset, data)
            return
        if fault.partial:
            self._file.write_at(offset, bytes(data)[: fault.partial])
        raise fault.exception(self.path)

    def size(self) -> int:
        self._around.call("size", self.path)
        return self._file.size()

    def truncate(self, length: int) -> None:
        self._around.act("truncate", lambda: self._file.truncate(length), self.path)

    def sync(self) -> None:
        self._around.act("sync", self._file.sync, self.path)

    def sync_data(self) -> None:
        self._around.act("sync_data", self._file.sync_data, self.path)

    def map(self) -> memoryview:
        self._around.call("map", self.path)
        return self._file.map()

    def close(self) -> None:
        self._file.close()  # as Linux does it: closed, whatever it reports
        self._around.call("close", self.path)


class FaultyEnvironment(Environment):
    """Everything that `base` has below `root`, with faults."""

    def __init__(self, base: Environment, root: str = "") -> None:
        self.base, self.root = base, root
        self.is_persistent = base.is_persistent
        self.calls: Counter[str] = Counter()
        self.trace = Trace()
        self._fault: Fault | None = None
        self._guard = threading.Lock()

    # As a simulated disk has it

    def fail(self, kind: str, nth: int = 1, **how: Any) -> Fault:
        """Let the nth call of `kind` from now on fail."""
        self._fault = fault = Fault(kind, nth, **how)
        return fault

    def heal(self) -> None:
        """No more faults."""
        self._fault = None

    def issue(self, what: object) -> None:
        """Mark that the caller is about to ask for it."""
        self.trace.events.append(Issued(what))

    def acknowledge(self, what: object) -> None:
        """Mark that the caller was told that it is durable."""
        self.trace.events.append(Acknowledged(what))

    def count(self, kind: str) -> Fault | None:
        """Count a call; the fault that it is to fail with."""
        with self._guard:
            self.calls[kind] += 1
            fault = self._fault
            return fault if fault is not None and fault.is_due(kind) else None

    def call(self, kind: str, *paths: str) -> None:
        """Count a call that does nothing if it fails, and fail it if it is its turn."""
        fault = self.count(kind)
        if fault is not None:
            raise fault.exception(*paths)

    def act(self, kind: str, do: Any, *paths: str) -> None:
        """Do it, fail instead, or both."""
        fault = self.count(kind)
        if fault is None or fault.happens:
            do()
        if fault is not None:
            raise fault.exception(*paths)

    # The environment

    def open(self, path: str, mode: Mode) -> File:
        self.call("open", path)
        return FaultyFile(self, path, self.base.open(self.root + path, mode))

    def exists(self, path: str) -> bool:
        self.call("exists", path)
        return self.base.exists(self.root + path)

    def size(self, path: str) -> int:
        self.call("size", path)
        return self.base.size(self.root + path)

    def list(self, path: str) -> list[str]:
        self.call("list", path)
        return self.base.list(self.root + path)

    def make_directory(self, path: str) -> None:
        self.act("make_directory", lambda: self.base.make_directory(self.root + path), path)

    def rename(self, source: str, destination: str) -> None:
        root = self.root
        self.act("rename", lambda: self.base.rename(root + source, root + destination), source)

    def link(self, source: str, destination: str) -> None:
        root = self.root
        self.act("link", lambda: self.base.link(root + source, root + destination), source)

    def unlink(self, path: str) -> None:
        self.act("unlink", lambda: self.base.unlink(self.root + path), path)

    def sync_directory(self, path: str) -> None:
        self.act("sync_directory", lambda: self.base.sync_directory(self.root + path), path)

    def lock(self, path: str, content: bytes) -> Lock:
        self.call("lock", path)
        return self.base.lock(self.root + path, content)

    def lock_is_held(self, path: str) -> bool:
        self.call("lock_is_held", path)
        return self.base.lock_is_held(self.root + path)

    def now(self) -> int:
        return self.base.now()

    def monotonic(self) -> float:
        return self.base.monotonic()

    def random_bytes(self, length: int) -> bytes:
        return self.base.random_bytes(length)
