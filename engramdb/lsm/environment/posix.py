"""The real operating system: Linux and macOS.

A write is one pwrite and a sync is one fdatasync, with no buffer of our own between: a durable save
is dominated by the device (fdatasync of a preallocated log: about 100 us on an SSD), the call
itself costs about 1 us. An interrupted call (EINTR) is repeated by Python (PEP 475).

On macOS fsync only reaches the drive's cache, so every sync is F_FULLFSYNC there. On Windows there
is no flock, no directory sync, and a mapped file cannot be unlinked: refused rather than hoped for.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import threading
import time
from typing import Final

from engramdb.errors import EngramError
from engramdb.lsm.environment.base import Data, Environment, File, Lock, LockHeld, Mode

if sys.platform != "win32":
    import fcntl

_FLAGS: Final[dict[str, int]] = {
    "r": os.O_RDONLY,
    "w": os.O_RDWR,
    "x": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_CLOSED: Final = 2**31 - 1  # no descriptor: EBADF everywhere, where fsync(-1) is a ValueError
_PERMISSIONS: Final = 0o644  # less the umask

# lock_is_held() may have a lock for a microsecond, which must not refuse a rightful owner
_LOCK_TRIES: Final = 4
_LOCK_WAIT_S: Final = 0.002

if sys.platform == "darwin":
    _NO_FULL_SYNC: Final = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)

    def _flush(fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:  # some network file systems only know fsync
                raise
            os.fsync(fd)

    _flush_data = _flush
elif sys.platform != "win32":
    _flush = os.fsync
    _flush_data = os.fdatasync


class PosixFile(File):
    """A file descriptor."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]  # a signal or a limit of the system (2 GiB on Linux) cut it short
        have = len(data)
        while have < length and (data := os.pread(self._fd, length - have, offset + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def write_at(self, offset: int, data: Data) -> None:
        written = os.pwrite(self._fd, data, offset)
        if written != len(data):
            self._write_rest(offset, data, written)

    def _write_rest(self, offset: int, data: Data, written: int) -> None:
        with memoryview(data).cast("B") as view:
            while written < len(view):
                count = os.pwrite(self._fd, view[written:], offset + written)
                if count == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and named no error")
                written += count

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, length: int) -> None:
        os.ftruncate(self._fd, length)

    def sync(self) -> None:
        _flush(self._fd)

    def sync_data(self) -> None:
        _flush_data(self._fd)

    def map(self) -> memoryview:
        if self.size() == 0:  # cannot be mapped
            return memoryview(b"")
        if sys.version_info >= (3, 13):  # earlier, each map keeps a duplicate of the descriptor
            mapped = mmap.mmap(self._fd, 0, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
        else:
            mapped = mmap.mmap(self._fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        return memoryview(mapped)  # keeps the map; nobody closes it under exported views

    def close(self) -> None:
        fd, self._fd = self._fd, _CLOSED  # first: the number may be given out again at once
        if fd != _CLOSED:
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


class PosixLock(Lock):
    """A flock. A POSIX record lock would be lost as soon as any descriptor of the file closes."""

    __slots__ = ("_fd", "_key", "_pid")

    def __init__(self, fd: int, key: tuple[int, int]) -> None:
        self._fd = fd
        self._key = key
        self._pid = os.getpid()

    def release(self) -> None:
        fd, self._fd = self._fd, _CLOSED
        if fd == _CLOSED:
            return
        if os.getpid() != self._pid:  # in a forked child: unlocking would take it from the parent
            os.close(fd)
            return
        with _held_guard:
            try:
                # closing does not unlock while a forked child still has the descriptor
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)
                _held.pop(self._key, None)

    def after_fork_in_child(self) -> None:
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)


# The locks of this process by (st_dev, st_ino), with their content. The system would refuse the
# second one too, except where it builds flock from record locks (NFS).
_held: dict[tuple[int, int], bytes] = {}
_held_guard = threading.RLock()  # reentrant: the collector may close a dropped database anywhere


def _forget_locks_of_parent() -> None:
    global _held_guard
    _held_guard = threading.RLock()  # another thread may have had it when the process forked
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks_of_parent)


def _identity(fd_or_path: int | str) -> tuple[int, int] | None:
    try:
        status = os.stat(fd_or_path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class PosixEnvironment(Environment):
    """The machine this process runs on. Has no state: instances are interchangeable."""

    is_persistent = True

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise EngramError(
                "storage in files is not proven on Windows, so it is refused there; "
                "use Database.in_memory(), or run under Linux (WSL) or macOS"
            )

    def open(self, path: str, mode: Mode) -> File:
        return PosixFile(path, os.open(path, _FLAGS[mode] | _CLOEXEC, _PERMISSIONS))

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return False
            raise  # os.path.exists would answer "no" to a failing disk
        return True

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        path = path.rstrip("/") or "/"
        parent = os.path.dirname(path)
        if os.path.isdir(path):
            # whoever made it may have died before syncing its name
            with contextlib.suppress(PermissionError):
                self.sync_directory(parent)
            return
        if not os.path.isdir(parent):
            self.make_directory(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        if not os.path.isdir(path):
            raise FileExistsError(errno.EEXIST, "a file is in the way of the directory", path)
        self.sync_directory(parent)

    def rename(self, source: str, destination: str) -> None:
        os.rename(source, destination)

    def link(self, source: str, destination: str) -> None:
        os.link(source, destination)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
        try:
            _flush(fd)
        finally:
            os.close(fd)

    def lock(self, path: str, content: bytes) -> Lock:
        with _held_guard:
            # asked before opening: where flock is a record lock, closing would lose ours
            key = _identity(path)
            if key in _held:
                raise LockHeld(_held.get(key, b""))
            while True:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, _PERMISSIONS)
                try:
                    _take_flock(fd)
                    key = _identity(fd)
                    if key is not None and key == _identity(path):
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, content, 0)  # a few bytes, only to name the holder
                        _held[key] = content
                        return PosixLock(fd, key)
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)  # it was unlinked or replaced before we had it: lock the new one

    def lock_is_held(self, path: str) -> bool:
        with _held_guard:
            if _identity(path) in _held:
                return True
            try:
                fd = os.open(path, os.O_RDONLY | _CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(fd)
            return False

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def random_bytes(self, length: int) -> bytes:
        return os.urandom(length)


def _take_flock(fd: int) -> None:
    for attempt in range(1, _LOCK_TRIES + 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == _LOCK_TRIES:
                raise LockHeld(os.pread(fd, 4096, 0)) from None
            time.sleep(_LOCK_WAIT_S)
