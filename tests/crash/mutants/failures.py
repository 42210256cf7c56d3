"""An error of the disk is not taken seriously."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from engramdb.errors import ClosedError, ReadOnlyError
from engramdb.lsm.core import Core
from engramdb.lsm.environment.simulated import SimulatedDisk, SimulatedFile
from engramdb.lsm.log_writer import LogWriter
from tests.crash.mutants.mutant import Patch, crashes, faults, mutant


def failed_sync_tried_again(monkeypatch: Patch) -> None:
    """The second one succeeds over pages that are gone."""
    real = SimulatedFile.sync_data

    def sync_data(file: SimulatedFile) -> None:
        try:
            real(file)
        except OSError:
            real(file)

    monkeypatch.setattr(SimulatedFile, "sync_data", sync_data)


def failed_sync_swallowed(monkeypatch: Patch) -> None:
    real = LogWriter.sync

    def sync(log: LogWriter) -> None:
        with suppress(OSError):
            real(log)
        log.synced = log.size

    monkeypatch.setattr(LogWriter, "sync", sync)


def failed_write_swallowed(monkeypatch: Patch) -> None:
    real = LogWriter.append

    def append(log: LogWriter, data: bytes) -> None:
        end = log.size + len(data)
        with suppress(OSError):
            real(log, data)
        log.size = end

    monkeypatch.setattr(LogWriter, "append", append)


def failed_sync_of_a_directory_swallowed(monkeypatch: Patch) -> None:
    real = SimulatedDisk.sync_directory

    def sync_directory(disk: SimulatedDisk, path: str) -> None:
        with suppress(OSError):
            real(disk, path)

    monkeypatch.setattr(SimulatedDisk, "sync_directory", sync_directory)


def failed_sync_of_a_file_swallowed(monkeypatch: Patch) -> None:
    real = SimulatedFile.sync

    def sync(file: SimulatedFile) -> None:
        with suppress(OSError):
            real(file)

    monkeypatch.setattr(SimulatedFile, "sync", sync)


def failed_publication_swallowed(monkeypatch: Patch) -> None:
    real = Core.publish

    def publish(core: Core, *files: Any, **changes: Any) -> None:
        before = core.poison
        try:
            real(core, *files, **changes)
        except Exception:
            core.poison = before

    monkeypatch.setattr(Core, "publish", publish)


def poison_ignored(monkeypatch: Patch) -> None:
    def check_writable(core: Core) -> None:
        if core.closed:
            raise ClosedError(core.closed)
        if core.read_only:
            raise ReadOnlyError("read-only")

    monkeypatch.setattr(Core, "check_writable", check_writable)


def poison_forgotten_by_the_next_commit(monkeypatch: Patch) -> None:
    real = Core.fail

    def fail(core: Core, error: BaseException) -> Any:
        failure = real(core, error)
        core.poison = None
        return failure

    monkeypatch.setattr(Core, "fail", fail)


FAILURES = [
    mutant(failed_sync_tried_again, crashes("a_sync_drops_pages")),
    mutant(failed_sync_swallowed, crashes("a_sync_leaves_pages")),
    mutant(failed_write_swallowed, crashes("a_write_is_short")),
    mutant(failed_sync_of_a_directory_swallowed, faults("EIO", "sync_directory")),
    mutant(failed_sync_of_a_file_swallowed, faults("EIO", "sync")),
    mutant(failed_publication_swallowed, faults("EIO", "link")),
    mutant(poison_ignored, crashes("groups_whose_sync_fails")),
    mutant(poison_forgotten_by_the_next_commit, faults("EIO", "sync_data")),
]
