"""What an environment is: files, directories, locks, a clock and random bytes.

Paths are absolute strings joined with "/". Every failure is an OSError with its errno set (so
FileNotFoundError, FileExistsError and so on, where Python has a name for it); the engine translates
them. A lock that somebody else holds is not a failure of the system: it is `LockHeld`.

Durability, in the words of the simulated disk, which takes them literally:
- what was written to a file survives a power cut after `sync` or `sync_data` of that file;
- a name (created, linked, renamed, unlinked) survives after `sync_directory` of its directory, and
  syncing the file does not help; a rename is atomic, and between two directories it is durable when
  the destination was synced;
- without those, any part of it may survive, in any order, torn at 512-byte boundaries.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from typing import Final, Literal

Data = bytes | bytearray | memoryview
"""What can be written. A memoryview must have items of one byte."""

Mode = Literal["r", "w", "x"]

COPY_CHUNK_BYTES: Final = 1 << 20


class LockHeld(Exception):
    """Somebody else holds the lock; `content` is what the holder wrote into the lock's file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        super().__init__(f"the lock is held by {content!r}")


class File(ABC):
    """An open file. Positions are explicit, so threads may share it."""

    __slots__ = ()

    path: str
    """Where it was opened; a later rename does not change this."""

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends."""

    @abstractmethod
    def write_at(self, offset: int, data: Data) -> None:
        """Write all of `data` at `offset`, or raise; after an error any part may be there."""

    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @abstractmethod
    def truncate(self, length: int) -> None:
        """Cut to `length` bytes, or extend to it with zeros."""

    @abstractmethod
    def sync(self) -> None:
        """Make data and metadata durable. After an error, do not try again: the pages may be gone
        while the second try reports success."""

    @abstractmethod
    def sync_data(self) -> None:
        """Make the data durable, and as much metadata as reading it back needs (the size)."""

    @abstractmethod
    def map(self) -> memoryview:
        """The whole file as it is now, read-only, without copying it.

        Meant for files that no longer change. The view stays valid after close, rename and unlink;
        whether it shows later writes is undefined, and it never grows. The memory goes back when
        the last view of it is collected.
        """

    @abstractmethod
    def close(self) -> None:
        """Close it. A second time does nothing; any other use afterwards is EBADF."""


class Lock(ABC):
    """An exclusive lock that the death of its process releases."""

    __slots__ = ()

    @abstractmethod
    def release(self) -> None:
        """Give it up. A second time does nothing. The lock's file stays."""

    @abstractmethod
    def after_fork_in_child(self) -> None:
        """Called in a forked child: let go of the descriptor; the parent keeps the lock."""


class Environment(ABC):
    """Files, directories, locks, time and randomness of one machine (or of a simulated one)."""

    is_persistent: bool
    """False if everything is gone with the process."""

    @abstractmethod
    def open(self, path: str, mode: Mode) -> File:
        """Open `path`: "r" existing, to read; "w" existing, to read and write; "x" create it
        (FileExistsError if it is there), to read and write."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of this name; OSError if that cannot be told."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Length of a file in bytes."""

    @abstractmethod
    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    @abstractmethod
    def make_directory(self, path: str) -> None:
        """Make a directory, its parents too; fine if it exists. Its name is durable on return."""

    @abstractmethod
    def rename(self, source: str, destination: str) -> None:
        """Rename atomically; a file called `destination` is replaced."""

    @abstractmethod
    def link(self, source: str, destination: str) -> None:
        """Give a file a second name; FileExistsError if `destination` is there."""

    @abstractmethod
    def unlink(self, path: str) -> None:
        """Remove a file's name. Open files and maps of it stay readable."""

    @abstractmethod
    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""

    def copy(self, source: str, destination: str) -> None:
        """Copy a file, and sync the copy (not its name). FileExistsError if `destination` is there;
        after any other error there is no `destination`."""
        reader = self.open(source, "r")
        try:
            writer = self.open(destination, "x")
            try:
                offset = 0
                while chunk := reader.read_at(offset, COPY_CHUNK_BYTES):
                    writer.write_at(offset, chunk)
                    offset += len(chunk)
                writer.sync()
            except BaseException:
                with contextlib.suppress(OSError):
                    self.unlink(destination)
                raise
            finally:
                writer.close()
        finally:
            reader.close()

    @abstractmethod
    def lock(self, path: str, content: bytes) -> Lock:
        """Take the lock that the file `path` stands for (made if absent) and write `content` into
        it; LockHeld if anybody has it, this process included."""

    @abstractmethod
    def lock_is_held(self, path: str) -> bool:
        """Whether anybody holds the lock on `path`; False if there is no such file."""

    @abstractmethod
    def now(self) -> int:
        """Microseconds since the epoch. May step back: never decide safety by it."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since some moment; never steps back."""

    def process_id(self) -> int:
        """The number of this process."""
        return os.getpid()

    @abstractmethod
    def random_bytes(self, length: int) -> bytes:
        """`length` random bytes, fit for a UUID."""
