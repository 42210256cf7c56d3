"""Durability bugs on purpose: the enumerator, with a small budget, must catch each of them.

A suite that passes is worth what it would have noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engramdb.errors import EngramError
from engramdb.lsm import flush, log_reader, manifest, recovery, retention, rewrite
from engramdb.lsm.core import DIRECTORIES, Core, number_of
from engramdb.lsm.environment.simulated import SimulatedDisk, SimulatedFile
from engramdb.lsm.log_writer import LogWriter
from engramdb.lsm.records import NEVER
from tests.crash.checks import Check
from tests.crash.enumerator import CrashFailure, enumerate_crashes
from tests.crash.workloads import WORKLOADS

STATES_MAX = 1200
Patch = pytest.MonkeyPatch


class _EqualToAll:
    """What a checksum is that nobody looks at."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def no_sync_of(part: str) -> Callable[[Patch], None]:
    """Files whose path has this in it are not synced."""

    def patch(monkeypatch: Patch) -> None:
        for name in ("sync", "sync_data"):
            real = getattr(SimulatedFile, name)

            def sync(file: SimulatedFile, real: Callable[[Any], None] = real) -> None:
                if part not in file.path:
                    real(file)

            monkeypatch.setattr(SimulatedFile, name, sync)

    return patch


def no_sync_of_directory(path: str) -> Callable[[Patch], None]:
    """The names in this directory are not synced."""

    def patch(monkeypatch: Patch) -> None:
        real = SimulatedDisk.sync_directory

        def sync(disk: SimulatedDisk, directory: str) -> None:
            if directory != path:
                real(disk, directory)

        monkeypatch.setattr(SimulatedDisk, "sync_directory", sync)

    return patch


def records_are_not_synced(monkeypatch: Patch) -> None:
    def sync(log: LogWriter) -> None:
        log.synced = log.size

    monkeypatch.setattr(LogWriter, "sync", sync)


def log_unlinked_before_the_manifest(monkeypatch: Patch) -> None:
    real = Core.publish

    def publish(core: Core, *files: Any, log_floor: int, **changes: Any) -> None:
        for name in core.environment.list(f"{core.directory}/wal"):
            if number_of(name) < log_floor:
                core.environment.unlink(f"{core.directory}/wal/{name}")
        real(core, *files, log_floor=log_floor, **changes)

    monkeypatch.setattr(Core, "publish", publish)


def files_unlinked_before_the_manifest(monkeypatch: Patch) -> None:
    real = manifest.publish

    def publish(environment: Any, directory: str, new: manifest.Manifest) -> None:
        names = {f"{entry.number:06d}.seg" for entry in new.segments}
        if directory == "/db" and environment.exists(f"{directory}/seg"):
            for name in environment.list(f"{directory}/seg"):
                if name.endswith(".seg") and name not in names:
                    environment.unlink(f"{directory}/seg/{name}")
        real(environment, directory, new)

    monkeypatch.setattr(manifest, "publish", publish)


def checksum_not_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(log_reader, "body_sum", lambda body, seed: _EqualToAll())


def log_not_synced_before_the_next(monkeypatch: Patch) -> None:
    real = Core.freeze

    def freeze(core: Core) -> None:
        log = core.log
        if log is not None:
            log.synced = log.size
        real(core)

    monkeypatch.setattr(Core, "freeze", freeze)


def marks_beyond_the_flushed_seq(monkeypatch: Patch) -> None:
    real = Core.save_marks

    def save_marks(core: Core, files: Any, kind: str, seq: int) -> Any:
        return real(core, files, kind, NEVER)

    monkeypatch.setattr(Core, "save_marks", save_marks)


def marks_forgotten(monkeypatch: Patch) -> None:
    monkeypatch.setattr(
        Core, "save_marks", lambda core, files, kind, seq: [file.entry for file in files]
    )


def tombstone_dropped_above_older_runs(monkeypatch: Patch) -> None:
    def retain(core: Core, rows: Any, *, durable_seq: int, has_oldest: bool) -> Any:
        return rewrite.retain(core, rows, durable_seq=durable_seq, has_oldest=True)

    monkeypatch.setattr(flush, "retain", retain)


def file_number_reused(monkeypatch: Patch) -> None:
    def new_number(core: Core) -> int:
        return 1 + max(
            number_of(name)
            for kind in DIRECTORIES
            for name in ["0", *core.environment.list(f"{core.directory}/{kind}")]
        )

    monkeypatch.setattr(Core, "new_number", new_number)


def what_recovery_shows_is_not_synced(monkeypatch: Patch) -> None:
    monkeypatch.setattr(recovery, "_settle", lambda *ignored: None)


def recovery_cuts_and_does_not_write_again(monkeypatch: Patch) -> None:
    def settle(environment: Any, path: str, length: int, synced: int) -> None:
        file = environment.open(path, "w")
        file.truncate(length)
        file.close()

    monkeypatch.setattr(recovery, "_settle", settle)


def pin_durable_before_its_commit(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Core, "sync_log", lambda core: None)


def pins_not_looked_at(monkeypatch: Patch) -> None:
    real = retention.droppable

    def droppable(rows: Any, policy: Any, pins: Any, durable_seq: int, window_seq: int) -> Any:
        return real(rows, policy, pins[:0], durable_seq, window_seq)

    monkeypatch.setattr(rewrite, "droppable", droppable)


def history_floor_not_raised(monkeypatch: Patch) -> None:
    real = rewrite.retain

    def retain(*inputs: Any, **options: Any) -> rewrite.Kept:
        kept = real(*inputs, **options)
        return rewrite.Kept(kept.rows, kept.order, 0)

    for module in ("flush", "compaction", "purge"):
        monkeypatch.setattr(f"engramdb.lsm.{module}.retain", retain)


def manifest_published_by_renaming_over(monkeypatch: Patch) -> None:
    """The name is durable before the content is: no sync of the temporary file."""
    no_sync_of("MANIFEST")(monkeypatch)


MUTANTS: list[tuple[Callable[[Patch], None], str, tuple[str, ...]]] = [
    (records_are_not_synced, "", ("single_puts",)),
    (no_sync_of(".wal"), "log", ("single_puts",)),
    (no_sync_of(".seg"), "segment", ("flushes",)),
    (no_sync_of(".vec"), "vectors", ("flushes",)),
    (no_sync_of(".mark"), "marks", ("flushes", "deletes")),
    (manifest_published_by_renaming_over, "", ("flushes",)),
    (no_sync_of_directory("/db"), "directory of manifests", ("flushes",)),
    (no_sync_of_directory("/db/wal"), "directory of logs", ("single_puts",)),
    (no_sync_of_directory("/db/seg"), "directory of segments", ("flushes",)),
    (no_sync_of_directory("/db/vec"), "directory of vectors", ("flushes",)),
    (log_unlinked_before_the_manifest, "", ("flushes",)),
    (files_unlinked_before_the_manifest, "", ("compactions",)),
    (log_not_synced_before_the_next, "", ("rotation_left_to_the_system",)),
    (checksum_not_checked, "", ("large_records",)),
    (marks_beyond_the_flushed_seq, "", ("pins", "pins_and_retention", "mixed_flushes")),
    (marks_forgotten, "", ("flushes",)),
    (tombstone_dropped_above_older_runs, "", ("deletes",)),
    (file_number_reused, "", ("rotation", "flushes", "compactions")),
    (what_recovery_shows_is_not_synced, "", ("kills",)),
    (recovery_cuts_and_does_not_write_again, "", ("kills",)),
    (pin_durable_before_its_commit, "", ("pins",)),
    (pins_not_looked_at, "", ("pins_and_retention",)),
    (history_floor_not_raised, "", ("keep_last",)),
]


@pytest.mark.parametrize(
    ("patch", "workloads"),
    [
        pytest.param(patch, workloads, id=f"{patch.__name__}{what and '_' + what}")
        for patch, what, workloads in MUTANTS
    ],
)
def test_a_bug_is_caught(
    patch: Callable[[Patch], None], workloads: tuple[str, ...], monkeypatch: Patch
) -> None:
    patch(monkeypatch)
    for name in workloads:
        try:
            enumerate_crashes(
                WORKLOADS[name], Check(), states_max=STATES_MAX, seed=3, depth=2, name=name
            )
        except (CrashFailure, EngramError):
            return
    raise AssertionError("the bug was not caught")
