"""The errors of EngramDB: few, and each one tells the caller what to do.

EngramError
 +-- MemoryNotFoundError (KeyError)       no such memory: check the id, or use get()
 +-- InvalidInputError (ValueError)       the named argument is wrong; nothing was written
 +-- ConflictError                        somebody wrote in between: load again, then retry
 +-- CorruptionError                      a file is damaged: restore a checkpoint, or repair()
 +-- DatabaseLockedError                  another writer holds the directory: its pid is named
 +-- ReadOnlyError                        opened read-only: open it for writing
 +-- StoragePoisonedError                 a write failed: close, mend the cause, reopen
 +-- HistoryUnavailableError              that moment was dropped by the retention policy
 +-- IncompatibleFormatError              not our file, or of a newer version: upgrade
 +-- WriteStallError                      compaction cannot keep up: write again later
 +-- ClosedError                          used after close() or in a forked child: open again
"""

from __future__ import annotations

_ADVICE = "restore it from a checkpoint, or see what Database.repair() brings back"


class EngramError(Exception):
    """Base of every error that EngramDB raises on purpose."""


class MemoryNotFoundError(EngramError, KeyError):
    """No memory has this id at the moment that was asked for."""

    def __init__(self, memory_id: str, moment: str = "") -> None:
        self.memory_id = memory_id
        super().__init__(f"no memory has the id {memory_id!r}{moment}; get() returns None instead")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class InvalidInputError(EngramError, ValueError):
    """An argument is not acceptable. Nothing was written, the rest of its batch included."""

    def __init__(self, argument: str, problem: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {problem}")


class ConflictError(EngramError):
    """Something that the caller relied on has changed meanwhile. Load it again and retry."""


class CorruptionError(EngramError):
    """A file does not hold what its checksums say. Nothing wrong was returned."""

    def __init__(
        self, file: str, offset: int, expected: object, got: object, advice: str = ""
    ) -> None:
        self.file, self.offset, self.expected, self.got = file, offset, expected, got
        super().__init__(
            f"{file} is damaged at offset {offset}: expected {expected}, got {got}; "
            f"{advice or _ADVICE}"
        )


class DatabaseLockedError(EngramError):
    """Another writer has this directory open."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.path, self.pid = path, pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path} is open for writing in {holder}; close it there, or open with read_only=True"
        )


class ReadOnlyError(EngramError):
    """A write was asked of a database that was opened read-only."""


class StoragePoisonedError(EngramError):
    """A write or a sync failed, so nothing more is acknowledged. Close, mend the cause, reopen.

    Everything acknowledged before is safe. The commit that got this error may or may not be there
    after reopening.
    """

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(
            f"the storage engine stopped writing after: {cause!r}; close the database, mend the "
            "cause (disk space, disk health) and open it again: everything acknowledged is safe"
        )


class HistoryUnavailableError(EngramError):
    """The moment asked for lies before what the retention policy has kept."""


class IncompatibleFormatError(EngramError):
    """The file is not EngramDB's, belongs to another database, or needs a newer version."""


class WriteStallError(EngramError):
    """Too much is waiting for flush or compaction; the write was not done. Retry later."""


class ClosedError(EngramError):
    """The database was closed, or is being used in a process forked from its owner."""
