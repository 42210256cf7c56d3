"""A file system in memory, with the clock and the randomness of the machine.

It has inodes: a file that was renamed or unlinked stays readable through what has it open. A file's
bytes are never resized in place: growth moves them to a larger buffer, and a map keeps the buffer
that it was made from. Each instance is a separate disk, gone with the process.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from engramdb.lsm.environment.base import Data, Environment, File, Lock, LockHeld, Mode
from engramdb.lsm.environment.namespace import Namespace, failure


class _Inode:
    """The bytes of one file: `buffer[:length]`; the rest of the buffer is zeros."""

    __slots__ = ("buffer", "guard", "holder", "length")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.length = 0
        self.guard = threading.Lock()
        self.holder: bytes | None = None  # content of the lock on this file, if it is held

    def write(self, offset: int, data: Data) -> None:
        end = offset + len(data)
        with self.guard:
            if not self.buffer and offset == 0:
                self.buffer = bytearray(data)  # written in one go: no spare room
            else:
                if end > len(self.buffer):
                    self._move(max(end, len(self.buffer) * 3 // 2))
                self.buffer[offset:end] = data
            self.length = max(self.length, end)

    def truncate(self, length: int) -> None:
        with self.guard:
            if length < self.length:
                self.length = length
                self._move(length)  # maps keep what was cut off
            elif length > len(self.buffer):
                self._move(length)
            self.length = length

    def _move(self, capacity: int) -> None:
        buffer = bytearray(capacity)
        with memoryview(self.buffer) as view:
            buffer[: self.length] = view[: self.length]
        self.buffer = buffer


class MemoryFile(File):
    """A handle on an inode."""

    __slots__ = ("_inode", "_writable", "path")

    def __init__(self, path: str, inode: _Inode, writable: bool) -> None:
        self.path = path
        self._inode: _Inode | None = inode
        self._writable = writable

    def _open_inode(self) -> _Inode:
        if self._inode is None:
            raise failure(errno.EBADF, self.path)
        return self._inode

    def _writable_inode(self) -> _Inode:
        if self._inode is None or not self._writable:
            raise failure(errno.EBADF, self.path)
        return self._inode

    def read_at(self, offset: int, length: int) -> bytes:
        inode = self._open_inode()
        if offset < 0 or length < 0:
            raise failure(errno.EINVAL, self.path)
        with inode.guard, memoryview(inode.buffer) as view:
            return bytes(view[offset : min(offset + length, inode.length)])

    def write_at(self, offset: int, data: Data) -> None:
        inode = self._writable_inode()
        if offset < 0:
            raise failure(errno.EINVAL, self.path)
        if isinstance(data, memoryview) and data.itemsize != 1:
            raise TypeError("write_at takes bytes, or a memoryview with items of one byte")
        if len(data):
            inode.write(offset, data)

    def size(self) -> int:
        return self._open_inode().length

    def truncate(self, length: int) -> None:
        inode = self._writable_inode()
        if length < 0:
            raise failure(errno.EINVAL, self.path)
        inode.truncate(length)

    def sync(self) -> None:
        self._open_inode()

    def sync_data(self) -> None:
        self._open_inode()

    def map(self) -> memoryview:
        inode = self._open_inode()
        with inode.guard:
            return memoryview(inode.buffer)[: inode.length].toreadonly()

    def close(self) -> None:
        self._inode = None


class MemoryLock(Lock):
    """A lock among the threads of this process."""

    __slots__ = ("_inode",)

    def __init__(self, inode: _Inode) -> None:
        self._inode: _Inode | None = inode

    def release(self) -> None:
        inode, self._inode = self._inode, None
        if inode is not None:
            inode.holder = None

    def after_fork_in_child(self) -> None:
        self._inode = None  # the child's disk is a copy, which nobody uses


class MemoryEnvironment(Environment):
    """A disk of its own, empty at first."""

    is_persistent = False

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._names = Namespace()
        self._inodes: dict[int, _Inode] = {}
        self._links: dict[int, int] = {}  # names per inode: without one its bytes are let go
        self._last_number = 0
        self._last_now = 0

    def open(self, path: str, mode: Mode) -> File:
        with self._guard:
            if mode == "x":
                return MemoryFile(path, self._create(path), True)
            return MemoryFile(path, self._inodes[self._names.file(path)], mode == "w")

    def _create(self, path: str) -> _Inode:
        number = self._last_number + 1
        self._names.apply(self._names.plan_create(path, number))
        self._last_number = number
        self._links[number] = 1
        inode = self._inodes[number] = _Inode()
        return inode

    def _drop_name(self, number: int | None) -> None:
        if number in self._inodes:
            self._links[number] -= 1
            if not self._links[number]:
                del self._links[number], self._inodes[number]

    def exists(self, path: str) -> bool:
        with self._guard:
            return self._names.find(path) is not None

    def size(self, path: str) -> int:
        with self._guard:
            return self._inodes[self._names.file(path)].length

    def list(self, path: str) -> list[str]:
        with self._guard:
            return sorted(self._names.directories[self._names.directory(path)])

    def make_directory(self, path: str) -> None:
        with self._guard:
            node = self._names.find(path)
            if node is not None:
                if node not in self._names.directories:
                    raise failure(errno.EEXIST, path)
                return
            parent = path.rstrip("/").rpartition("/")[0] or "/"
            self.make_directory(parent)
            self._last_number += 1
            self._names.apply(self._names.plan_create(path, self._last_number))
            self._names.directories[self._last_number] = {}

    def rename(self, source: str, destination: str) -> None:
        with self._guard:
            change = self._names.plan_rename(source, destination)
            if change:
                replaced = self._names.find(destination)
                self._names.apply(change)
                self._drop_name(replaced)

    def link(self, source: str, destination: str) -> None:
        with self._guard:
            change = self._names.plan_link(source, destination)
            self._names.apply(change)
            self._links[self._names.file(source)] += 1

    def unlink(self, path: str) -> None:
        with self._guard:
            number = self._names.file(path)
            self._names.apply(self._names.plan_unlink(path))
            self._drop_name(number)

    def sync_directory(self, path: str) -> None:
        with self._guard:
            self._names.directory(path)

    def lock(self, path: str, content: bytes) -> Lock:
        with self._guard:
            if self._names.find(path) is None:
                inode = self._create(path)
            else:
                inode = self._inodes[self._names.file(path)]
            if inode.holder is not None:
                raise LockHeld(inode.holder)
            inode.holder = bytes(content)
            inode.truncate(0)
            inode.write(0, content)
            return MemoryLock(inode)

    def lock_is_held(self, path: str) -> bool:
        with self._guard:
            number = self._names.find(path)
            return number in self._inodes and self._inodes[number].holder is not None

    def now(self) -> int:
        with self._guard:
            self._last_now = max(self._last_now, time.time_ns() // 1000)
            return self._last_now

    def monotonic(self) -> float:
        return time.monotonic()

    def random_bytes(self, length: int) -> bytes:
        return os.urandom(length)
